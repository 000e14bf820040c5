//! What is checked when a graph or a model is built.
#![allow(clippy::unwrap_used)]

use osculant::Error;
use osculant::graph::batch::batched;
use osculant::graph::derivatives::{gauss_newton_product, gradient, hessian_product};
use osculant::graph::jvp::linearize;
use osculant::graph::per_example::square_sums;
use osculant::graph::plan::Request;
use osculant::graph::tensor::Builder;
use osculant::graph::transpose::transpose;
use osculant::graph::twin::{Leaves, evaluate};
use osculant::graph::{Binary, DType, Graph, NodeId, Plan, Target, Tensor, Unary};
use osculant::nn::{DataShape, Init, Model, Output, Scope, TargetShape};

fn message<T>(outcome: osculant::Result<T>) -> String {
    match outcome {
        Ok(_) => "no error".into(),
        Err(error) => error.to_string(),
    }
}

fn classes(classes: usize) -> DataShape {
    DataShape {
        features: 1,
        targets: TargetShape::Classes(classes),
    }
}

/// A model of a single tensor of one row per example.
fn model(f: impl for<'b> Fn(&Scope<'b>) -> Tensor<'b> + Send + Sync + 'static) -> Model {
    Model::new(classes(5), move |scope| {
        let outputs = f(scope);
        Output {
            losses: outputs.square().sum(&[1]).reshape(&[scope.rows()]),
            outputs,
            metric: None,
        }
    })
}

#[test]
fn tensors_given_by_value_must_be_finite() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mask = model(move |s| s.features() + s.data(vec![0.0, value], &[1, 2]));
        let found = message(mask.trace(2));
        for word in ["-1e30", "value 1", "[1, 2]"] {
            assert!(found.contains(word), "{word}: {found}");
        }
        let found = message(model(move |s| s.features() * value).trace(2));
        assert!(found.contains("-1e30"), "{found}");
        let initial = Init::Constant(value).values(&[2], 0, 0);
        assert!(matches!(initial, Err(Error::Option { .. })));
    }
    assert!(
        model(|s| s.features() + s.data(vec![0.0, -1e30], &[1, 2]))
            .trace(2)
            .is_ok()
    );
}

#[test]
fn tables_and_one_hot_rows_have_places_for_all_classes() {
    let table = |rows: usize| {
        model(move |s| {
            s.parameter("table", &[rows, 2], Init::Glorot)
                .gather(s.labels())
        })
    };
    let one_hot = |width: usize| model(move |s| s.features() * s.labels().one_hot(width));
    for (found, words) in [
        (message(table(3).trace(2)), ["5 classes", "3 rows"]),
        (message(one_hot(4).trace(2)), ["5 classes", "rows of 4"]),
    ] {
        for word in words {
            assert!(found.contains(word), "{word}: {found}");
        }
    }
    for rows in [5, 9] {
        assert!(table(rows).trace(2).is_ok() && one_hot(rows).trace(2).is_ok());
    }
    // Under another shape, spread to groups, and for the transpose.
    let mut graph = Graph::new();
    let labels = graph.index_input("labels", &[2, 3], 5).unwrap();
    let flat = graph.reshape(labels, &[6]).unwrap();
    let table = graph.parameter("table", &[4, 2]).unwrap();
    assert!(message(graph.gather(table, flat)).contains("4 rows"));
    let values = graph.parameter("values", &[6, 2]).unwrap();
    assert!(message(graph.scatter_add(values, flat, 4)).contains("4 rows"));
    let wide = graph.one_hot(labels, 5).unwrap();
    let (leaves, _) = batched(&mut graph, &[wide], &[labels], 2).unwrap();
    assert!(message(graph.one_hot(leaves[0], 4)).contains("5 classes"));
    // Inputs that promise nothing.
    let free = graph.input("free", &[3], DType::U32).unwrap();
    assert!(graph.gather(table, free).is_ok());
}

#[test]
fn tensors_of_two_builders_do_not_mix() {
    type Mix = for<'b> fn(Tensor<'b>, Tensor<'b>) -> Tensor<'b>;
    let mixes: [(&str, Mix); 7] = [
        ("binary", |a, b| a + b),
        ("max", |a, b| a.max(b)),
        ("select", |a, b| a.select(a, b)),
        ("condition", |a, b| b.select(a, a)),
        ("concat", |a, b| a.concat(&[a, b], 0)),
        ("dot", |a, b| a.dot(b)),
        ("gather", |a, b| a.gather(b)),
    ];
    for (what, mix) in mixes {
        let (one, other) = (Builder::new(), Builder::new());
        {
            let a = one.parameter("a", &[2, 2]);
            // More nodes than the first has.
            let _ = other.parameter("x", &[1]) + other.parameter("y", &[1]);
            mix(a, other.parameter("b", &[2, 2]));
        }
        for builder in [one, other] {
            let found = message(builder.finish());
            assert!(found.contains("another builder"), "{what}: {found}");
        }
    }
    // A tensor that outlives the function, returned in place of the model's own.
    let model = Model::new(classes(5), |scope| {
        let foreign: &'static Builder = Box::leak(Box::new(Builder::new()));
        let losses = scope.features().reshape(&[scope.rows()]);
        Output {
            losses,
            outputs: foreign.parameter("w", &[1]),
            metric: None,
        }
    });
    assert!(message(model.trace(1)).contains("another builder"));
}

/// A graph with one scalar parameter, its square, and an id that it does not have.
fn small() -> (Graph, NodeId, NodeId, NodeId) {
    let mut large = Graph::new();
    let mut far = large.direction(&[1]);
    for _ in 0..20 {
        far = large.direction(&[1]);
    }
    let mut graph = Graph::new();
    let x = graph.parameter("x", &[1]).unwrap();
    let square = graph.binary(Binary::Mul, x, x).unwrap();
    (graph, x, square, far)
}

#[test]
fn ids_of_other_graphs_are_refused() {
    let (mut g, x, y, far) = small();
    let d = g.direction(&[1]);
    let planned = g.clone();
    let plan = |wanted: &[NodeId], directions: &[NodeId]| {
        let request = Request::of(wanted, directions);
        Plan::new(&Target::default(), planned.clone(), request)
    };
    let refused: Vec<(&str, osculant::Result<()>)> = vec![
        ("unary", g.unary(Unary::Exp, far).map(drop)),
        ("binary", g.binary(Binary::Add, x, far).map(drop)),
        ("select", g.select(x, far, x).map(drop)),
        ("stop_gradient", g.stop_gradient(far).map(drop)),
        ("broadcast", g.broadcast(far, &[2]).map(drop)),
        ("broadcast_pair", g.broadcast_pair(x, far).map(drop)),
        ("reshape", g.reshape(far, &[1, 1]).map(drop)),
        ("permute", g.permute(far, &[0]).map(drop)),
        ("slice", g.slice(far, &[0], &[1]).map(drop)),
        ("pad", g.pad(far, &[0], &[2]).map(drop)),
        ("concat", g.concat(&[x, far], 0).map(drop)),
        ("sum", g.sum(far, &[0]).map(drop)),
        ("max", g.max(far, &[0]).map(drop)),
        ("dot", g.dot(x, far, false, false).map(drop)),
        ("gather", g.gather(far, x).map(drop)),
        ("gather", g.gather(x, far).map(drop)),
        ("scatter_add", g.scatter_add(x, far, 1).map(drop)),
        ("one_hot", g.one_hot(far, 2).map(drop)),
        ("gradient", gradient(&mut g, far, &[x]).map(drop)),
        ("gradient", gradient(&mut g, y, &[far]).map(drop)),
        (
            "hessian",
            hessian_product(&mut g, &[y], &[x], &[far]).map(drop),
        ),
        (
            "hessian",
            hessian_product(&mut g, &[far], &[x], &[d]).map(drop),
        ),
        (
            "ggn",
            gauss_newton_product(&mut g, y, far, &[x], &[d]).map(drop),
        ),
        ("linearize", linearize(&mut g, &[far], &[(x, d)]).map(drop)),
        ("transpose", transpose(&mut g, &[(far, x)], &[x]).map(drop)),
        ("transpose", transpose(&mut g, &[(x, x)], &[far]).map(drop)),
        ("batched", batched(&mut g, &[far], &[x], 2).map(drop)),
        ("batched", batched(&mut g, &[y], &[far], 2).map(drop)),
        ("square_sums", square_sums(&mut g, &[y], far).map(drop)),
        ("plan", plan(&[far], &[]).map(drop)),
        ("plan", plan(&[y], &[far]).map(drop)),
        (
            "evaluate",
            evaluate(&g, &Leaves::default(), &[far]).map(drop),
        ),
    ];
    for (what, outcome) in refused {
        let found = message(outcome);
        assert!(found.contains("%20"), "{what}: {found}");
    }
    // What cannot fail says so or does nothing.
    g.set_name(far, "far");
    assert!(g.describe(far).contains("another graph"));
    assert!(!g.ancestors(&[far]).contains(&true) && !g.depends_on(&[far]).contains(&true));
}

#[test]
fn lists_and_tangents_that_do_not_match_are_refused() {
    let (mut g, x, y, _) = small();
    let (d, wide) = (g.direction(&[1]), g.direction(&[2]));
    assert!(hessian_product(&mut g, &[y], &[x], &[]).is_err());
    assert!(hessian_product(&mut g, &[y], &[], &[]).is_err());
    assert!(gauss_newton_product(&mut g, y, x, &[x], &[d, d]).is_err());
    assert!(linearize(&mut g, &[y], &[(x, wide)]).is_err());
    assert!(batched(&mut g, &[y], &[d], 0).is_err());
}

#[test]
fn sizes_beyond_numbers_are_refused_and_axes_named_twice_count_once() -> osculant::Result<()> {
    let mut g = Graph::new();
    let x = g.parameter("x", &[3, 2])?;
    assert!(g.slice(x, &[usize::MAX, 0], &[2, 2]).is_err());
    assert!(g.pad(x, &[usize::MAX, 0], &[2, 2]).is_err());
    let large = g.constant(1.0, &[usize::MAX, 2]);
    assert!(g.reshape(large, &[usize::MAX, 3]).is_err());
    assert!(g.concat(&[large, large], 0).is_err() || g.concat(&[large, large], 1).is_ok());
    let empty = g.constant(1.0, &[0, 3]);
    let _ = g.sum(empty, &[1])?;
    let threes = g.constant(3.0, &[3, 2]);
    let nine = g.sum(threes, &[0, 0])?;
    assert_eq!(evaluate(&g, &Leaves::default(), &[nine])?[0], [9.0, 9.0]);
    let builder = Builder::new();
    let mean = {
        let x = builder.parameter("x", &[3, 2]);
        x.mean(&[0, 0]).id()
    };
    let graph = builder.finish()?;
    let leaves = Leaves {
        parameters: vec![vec![1.0, 10.0, 2.0, 20.0, 6.0, 60.0]],
        ..Leaves::default()
    };
    let found = &evaluate(&graph, &leaves, &[mean])?[0];
    assert!(
        (found[0] - 3.0).abs() < 1e-6 && (found[1] - 30.0).abs() < 1e-5,
        "{found:?}"
    );
    for axes in [&[2][..], &[0, 7]] {
        let builder = Builder::new();
        let _ = builder.parameter("x", &[3, 2]).mean(axes);
        assert!(message(builder.finish()).contains("no axis"));
    }
    Ok(())
}
