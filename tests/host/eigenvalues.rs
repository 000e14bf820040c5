//! Corrected eigenvalues of Kronecker factors in the f64 twin: the diagonal of a layer's curvature in a basis.

use osculant::graph::kronecker::{Curvature, Sizes, corrected_eigenvalues, factors};
use osculant::graph::per_example::mixture_rows;
use osculant::graph::preconditioned::{function_leaves, preconditioned};
use osculant::graph::tensor::Builder;
use osculant::graph::twin::{Leaves, evaluate};
use osculant::graph::{Graph, NodeId};
use osculant::random::Philox;
use rand::RngExt;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

const ROWS: usize = 4;

fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut draws = Philox::new(seed, 0);
    (0..count).map(|_| draws.random_range(-1.0..1.0)).collect()
}

fn near(found: &[f64], expected: &[f64]) -> Outcome {
    let scale = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let error = off.fold(0.0, f64::max) / scale;
    if found.len() == expected.len() && error <= 1e-12 {
        return Ok(());
    }
    Err(format!("off by {error:.1e}: {found:?}, {expected:?}").into())
}

/// `tanh(x W + b)`, or that times `W^T`, with leaves for cotangents and for weights of the examples.
fn model(tied: bool) -> osculant::Result<(Graph, [NodeId; 3], Vec<NodeId>)> {
    let builder = Builder::new();
    let x = builder.input("x", &[ROWS, 3]);
    let w = builder.parameter("w", &[3, 2]);
    let z = if tied {
        x.dot(w).tanh().dot(w.permute(&[1, 0]))
    } else {
        (x.dot(w) + builder.parameter("b", &[2])).tanh()
    };
    let z = z.id();
    let mut graph = builder.finish()?;
    let shape = graph.shape(z).clone();
    let (u, p) = (graph.direction(&shape), graph.direction(&[ROWS]));
    let parameters = graph.parameters().iter().map(|p| p.node).collect();
    Ok((graph, [z, u, p], parameters))
}

/// `left^T V right` of matrices in rows, `V` of `rows` rows.
fn sandwiched(left: &[f64], v: &[f64], right: &[f64], rows: usize) -> Vec<f64> {
    let columns = v.len() / rows;
    let at = |i: usize, j: usize| {
        let term =
            |k: usize, l: usize| left[k * rows + i] * v[k * columns + l] * right[l * columns + j];
        (0..rows)
            .map(|k| (0..columns).map(|l| term(k, l)).sum::<f64>())
            .sum()
    };
    (0..rows * columns)
        .map(|e| at(e / columns, e % columns))
        .collect()
}

/// By rows that are formed, with the bias as a last row, in a basis of any vectors; used twice, these are sums of both uses.
#[test]
fn they_are_squares_of_rows_in_the_basis() -> Outcome {
    for tied in [false, true] {
        let (mut graph, [z, u, p], parameters) = model(tied)?;
        let rows = mixture_rows(&mut graph, (z, u), &parameters)?;
        let mut sizes = Sizes::up_to(10, 0);
        sizes.corrected = true;
        let layers = factors(
            &mut graph,
            &Curvature::of_rows(&rows),
            &parameters,
            p,
            sizes,
        )?;
        let [found] = &layers[..] else {
            return Err(format!("{layers:?}").into());
        };
        let layer = found.layer;
        let order = if tied { 3 } else { 4 };
        assert_eq!(layer.corrected.map(|side| side.size), Some(2 * order));
        let leaves = function_leaves(&mut graph, &[layer]);
        let [left, right, values] = [0, 1, 2].map(|side| leaves[0][side][0]);
        let basis = [left, right];
        let eigenvalues = corrected_eigenvalues(&mut graph, (found, &rows[0]), basis, p)?;
        let results = preconditioned(&mut graph, &[layer], &parameters, &leaves)?;
        let formed: Vec<NodeId> = rows
            .iter()
            .map(|rows| rows.formed(&mut graph))
            .collect::<osculant::Result<_>>()?;

        let shares: Vec<f64> = (1..=ROWS).map(|n| n as f64 / 10.0).collect();
        let elements = graph.shape(u).iter().product();
        let (q, r, s) = (random(order * order, 7), random(4, 8), random(2 * order, 9));
        let leaves = Leaves {
            parameters: vec![random(6, 1), random(2, 2)][..parameters.len()].to_vec(),
            inputs: vec![random(3 * ROWS, 3)],
            directions: vec![
                (u, random(elements, 4)),
                (p, shares.clone()),
                (left, q.clone()),
                (right, r.clone()),
                (values, s.clone()),
            ],
        };
        let found = evaluate(&graph, &leaves, &formed)?;
        let mut expected = vec![0.0; 2 * order];
        for (n, share) in shares.iter().enumerate() {
            let own = found.iter().map(|all| {
                let size = all.len() / ROWS;
                &all[n * size..(n + 1) * size]
            });
            let v = own.collect::<Vec<_>>().concat();
            for (sum, x) in expected.iter_mut().zip(sandwiched(&q, &v, &r, order)) {
                *sum += share * x * x;
            }
        }
        near(&evaluate(&graph, &leaves, &[eigenvalues])?[0], &expected)?;

        // A product with a function: into the basis, times its values, and back.
        let v = leaves.parameters.concat();
        let inside = sandwiched(&q, &v, &r, order);
        let scaled: Vec<f64> = inside.iter().zip(&s).map(|(x, s)| x * s).collect();
        let transposed = |m: &[f64], n: usize| -> Vec<f64> {
            (0..n * n).map(|e| m[e % n * n + e / n]).collect()
        };
        let (q, r) = (transposed(&q, order), transposed(&r, 2));
        let expected = sandwiched(&q, &scaled, &r, order);
        near(&evaluate(&graph, &leaves, &results)?.concat(), &expected)?;
    }
    Ok(())
}
