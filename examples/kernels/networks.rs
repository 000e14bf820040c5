//! The kernels generated for gradients and curvature products of four networks: launch-bound, medium, autoencoder, wide.

use osculant::Result;
use osculant::graph::derivatives::{gauss_newton_product, gradient, hessian_product};
use osculant::graph::op::Op;
use osculant::graph::plan::{Plan, Request, Target};
use osculant::graph::{Binary, DType, Graph, NodeId};
use osculant::kernels::tuning::Products;
use osculant::nn::{Activation, DataShape, Loss, Model, Sequential, TargetShape, autoencoder};

use crate::listed::Listed;

/// Every kernel of every network, with this choice of kernels for matrix products; many occur more than once.
pub(crate) fn all(products: &Products) -> Result<Vec<Listed>> {
    let mut kernels = Vec::new();
    for (name, rows, model) in [
        ("64-32-10", 64, classifier(&[64, 32, 10], Activation::Tanh)),
        (
            "784-128-10",
            256,
            classifier(&[784, 128, 10], Activation::Relu),
        ),
        (
            "784-32-784",
            64,
            autoencoder(784, 32, Activation::Softplus, Activation::Sigmoid)
                .model(data(784, TargetShape::Inputs), Loss::MeanSquaredError),
        ),
        (
            "1024-1024-1024-10",
            256,
            classifier(&[1024, 1024, 1024, 10], Activation::Tanh),
        ),
    ] {
        for derivative in [
            Derivative::Gradient,
            Derivative::Hessian,
            Derivative::GaussNewton,
        ] {
            kernels.extend(program(name, &model, rows, derivative, products)?);
        }
    }
    Ok(kernels)
}

#[derive(Clone, Copy, PartialEq)]
enum Derivative {
    Gradient,
    Hessian,
    GaussNewton,
}

fn data(features: usize, targets: TargetShape) -> DataShape {
    DataShape { features, targets }
}

fn classifier(sizes: &[usize], activation: Activation) -> Model {
    let mut network = Sequential::new();
    for (layer, &outputs) in sizes[1..].iter().enumerate() {
        if layer > 0 {
            network = network.activation(activation);
        }
        network = network.dense(outputs);
    }
    let classes = TargetShape::Classes(sizes[sizes.len() - 1]);
    network.model(data(sizes[0], classes), Loss::SoftmaxCrossEntropy)
}

/// The program of a quadratic, as `GraphObjective` makes it.
fn program(
    network: &str,
    model: &Model,
    rows: usize,
    derivative: Derivative,
    products: &Products,
) -> Result<Vec<Listed>> {
    let traced = model.trace(rows)?;
    let mut graph = traced.graph;
    let weights = graph.input("weights", &[rows], DType::F32)?;
    let weighted = graph.binary(Binary::Mul, weights, traced.losses)?;
    let loss = graph.sum(weighted, &[0])?;
    let parameters: Vec<NodeId> = graph.parameters().iter().map(|p| p.node).collect();
    let gradients = gradient(&mut graph, loss, &parameters)?;
    let mut targets = vec![loss];
    targets.extend(&gradients);
    let mut directions = Vec::new();
    if derivative != Derivative::Gradient {
        for &parameter in &parameters {
            let shape = graph.shape(parameter).clone();
            directions.push(graph.direction(&shape));
        }
    }
    targets.extend(match derivative {
        Derivative::Gradient => Vec::new(),
        Derivative::Hessian => hessian_product(&mut graph, &gradients, &parameters, &directions)?,
        Derivative::GaussNewton => {
            gauss_newton_product(&mut graph, loss, traced.outputs, &parameters, &directions)?
        }
    });
    let moves = graph.depends_on(&directions);
    let target = Target {
        products: products.clone(),
        ..Target::default()
    };
    let plan = Plan::new(&target, graph.clone(), Request::of(&targets, &directions))?;
    Ok(plan
        .sources()
        .map(|(node, text)| {
            let phase = match derivative {
                _ if !moves[node.index()] => "gradient",
                Derivative::Hessian => "Hessian product",
                _ => "Gauss-Newton product",
            };
            Listed {
                family: family(&graph, node).into(),
                name: format!("{network} {phase}: {}", description(&graph, node)),
                text,
                constants: Vec::new(),
            }
        })
        .collect())
}

fn family(graph: &Graph, node: NodeId) -> &'static str {
    match graph.node(node).op {
        Op::Dot { .. } => "dot, as networks use it",
        Op::Sum(_) | Op::Max(_) => "reduce",
        Op::Gather | Op::ScatterAdd => "gather",
        _ => "pointwise",
    }
}

/// What the node is and its shape; for products with the transposes and the length of the sum.
fn description(graph: &Graph, node: NodeId) -> String {
    let text = graph.describe(node);
    let Op::Dot {
        transpose_lhs,
        transpose_rhs,
    } = graph.node(node).op
    else {
        return text;
    };
    let letter = |transposed| if transposed { 'T' } else { 'N' };
    let lhs = graph.shape(graph.node(node).operands[0]);
    format!(
        "{text} {}{} k {}",
        letter(transpose_lhs),
        letter(transpose_rhs),
        lhs[if transpose_lhs { 1 } else { 2 }]
    )
}
