//! Tests of the search for the first number that is not finite.

use super::*;
use crate::graph::DType;

type Make = fn(&mut Graph, NodeId) -> Result<NodeId>;

/// A parameter `[1, 2, 3]` behind each primitive, with a number that is not finite in each of its elements in turn: where a result
/// shows it, that element is named.
#[test]
fn every_primitive_is_followed_back_to_the_element() -> Result<()> {
    let makes: [(&str, usize, Make); 17] = [
        ("neg", 6, |g, x| g.unary(Unary::Neg, x)),
        ("sin", 6, |g, x| g.unary(Unary::Sin, x)),
        ("add", 6, |g, x| {
            let one = g.constant(1.0, &[1, 2, 3]);
            let sine = g.unary(Unary::Sin, x)?;
            let sum = g.binary(Binary::Add, one, sine)?;
            g.binary(Binary::Mul, sum, one)
        }),
        ("select", 6, |g, x| {
            let one = g.constant(1.0, &[1, 2, 3]);
            g.select(one, x, one)
        }),
        ("the other branch", 0, |g, x| {
            let one = g.constant(1.0, &[1, 2, 3]);
            g.select(one, one, x)
        }),
        ("stop_gradient", 6, |g, x| g.stop_gradient(x)),
        ("reshape", 6, |g, x| g.reshape(x, &[3, 2])),
        ("broadcast", 6, |g, x| g.broadcast(x, &[4, 2, 3])),
        ("permute", 6, |g, x| g.permute(x, &[2, 0, 1])),
        ("slice", 2, |g, x| g.slice(x, &[0, 1, 1], &[1, 1, 2])),
        ("pad", 6, |g, x| g.pad(x, &[1, 0, 2], &[2, 3, 6])),
        ("sum", 6, |g, x| g.sum(x, &[0, 2])),
        ("max", 6, |g, x| g.max(x, &[1])),
        ("dot", 6, |g, x| {
            let ones = g.data_tensor(vec![1.0; 12], &[1, 3, 4])?;
            g.dot(x, ones, false, false)
        }),
        ("dot transposed", 6, |g, x| {
            let ones = g.data_tensor(vec![1.0; 8], &[1, 4, 2])?;
            g.dot(x, ones, true, true)
        }),
        ("gather", 3, |g, x| {
            let table = g.reshape(x, &[2, 3])?;
            let indices = g.input("i", &[3], DType::U32)?;
            g.gather(table, indices)
        }),
        ("scatter_add", 6, |g, x| {
            let values = g.reshape(x, &[3, 2])?;
            let indices = g.input("i", &[3], DType::U32)?;
            g.scatter_add(values, indices, 2)
        }),
    ];
    for (name, seen, make) in makes {
        let mut graph = Graph::new();
        let x = graph.parameter("x", &[1, 2, 3])?;
        let node = make(&mut graph, x)?;
        let mut named = 0;
        for at in 0..6 {
            let mut values = vec![0.5, -1.0, 2.0, 0.25, 3.0, -0.75];
            values[at] = f64::INFINITY;
            let leaves = Leaves {
                parameters: vec![values],
                inputs: vec![vec![1.0; 3]],
                directions: Vec::new(),
            };
            let found = Rounded::default().origin(&graph, &leaves, &[node], "it")?;
            if let Some(origin) = found {
                named += 1;
                let expected = vec![0, at / 3, at % 3];
                assert_eq!(
                    (&origin.element, origin.value),
                    (&expected, f64::INFINITY),
                    "{name}"
                );
                assert!(origin.node.contains("'x'"), "{name}: {origin}");
            }
        }
        assert_eq!(named, seen, "{name}");
    }
    Ok(())
}

/// What the first number that is not finite was computed from, for each way to get one.
#[test]
fn causes_are_those_of_the_operands() -> Result<()> {
    let makes: [(&str, f64, Make); 7] = [
        ("the logarithm of -2", -2.0, |g, x| g.unary(Unary::Log, x)),
        ("sqrt of -2", -2.0, |g, x| g.unary(Unary::Sqrt, x)),
        ("exp of 89 overflows f32", 89.0, |g, x| {
            g.unary(Unary::Exp, x)
        }),
        ("1 / 0", 0.0, |g, x| g.unary(Unary::Reciprocal, x)),
        ("1e20 * 1e20 overflows f32", 1e20, |g, x| {
            g.binary(Binary::Mul, x, x)
        }),
        ("3e38 + 3e38 overflows f32", 3e38, |g, x| {
            g.binary(Binary::Add, x, x)
        }),
        ("the sum of products overflows f32", 1e20, |g, x| {
            let matrix = g.reshape(x, &[1, 1, 1])?;
            g.dot(matrix, matrix, false, false)
        }),
    ];
    for (cause, value, make) in makes {
        let mut graph = Graph::new();
        let x = graph.parameter("x", &[1])?;
        let node = make(&mut graph, x)?;
        // Something finite of it, which is not at fault, and something that is not finite.
        let value = f64::from(value as f32);
        let leaves = Leaves {
            parameters: vec![vec![value]],
            ..Leaves::default()
        };
        let sine = graph.unary(Unary::Sin, node)?;
        let found = Rounded::default().origin(&graph, &leaves, &[x, node, sine], "it")?;
        let found = found.map(|origin| origin.cause).unwrap_or_default();
        assert!(found.starts_with(cause), "{cause}: {found}");
    }
    Ok(())
}
