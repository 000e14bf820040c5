//! Parameters without Kronecker structure in the f64 twin: their diagonals.

use osculant::graph::Graph;
use osculant::graph::NodeId;
use osculant::graph::kronecker::{
    Curvature, Form, LayerFactors, Sizes, Structure, factors, sampled_diagonals,
};
use osculant::graph::per_example::{Cotangents, known_rows, mixture_rows};
use osculant::graph::tensor::Builder;
use osculant::graph::twin::{Leaves, evaluate};
use osculant::random::Philox;
use rand::RngExt;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

const ROWS: usize = 4;
const SIZES: Sizes = Sizes::up_to(100, 0);

fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut draws = Philox::new(seed, 0);
    (0..count).map(|_| draws.random_range(-1.0..1.0)).collect()
}

/// What a weight `[3, 2]` of a dense layer is beside that.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Alone,
    /// All of it as a row that scales another layer of inputs.
    Scales,
    /// One of its elements scales all outputs.
    Sliced,
}

/// A model of outputs `z` `[ROWS, 2]` with the weight `w`, and leaves for cotangents `u` of the outputs and for shares `p`.
struct Case {
    graph: Graph,
    z: NodeId,
    u: NodeId,
    p: NodeId,
    w: NodeId,
    leaves: Leaves,
}

impl Case {
    fn new(kind: Use) -> osculant::Result<Self> {
        let builder = Builder::new();
        let x = builder.input("x", &[ROWS, 3]);
        let y = builder.input("y", &[ROWS, 6]);
        let w = builder.parameter("w", &[3, 2]);
        let z = x.dot(w).tanh();
        let z = match kind {
            Use::Alone => z,
            Use::Scales => {
                let scaled = y * w.reshape(&[6]);
                z + scaled.slice(&[0, 1], &[ROWS, 2]) + scaled.slice(&[0, 4], &[ROWS, 2])
            }
            Use::Sliced => z * w.slice(&[0, 0], &[1, 1]),
        };
        let (z, w) = (z.id(), w.id());
        let mut graph = builder.finish()?;
        let (u, p) = (graph.direction(&[ROWS, 2]), graph.direction(&[ROWS]));
        let shares = (1..=ROWS).map(|n| n as f64 / 10.0).collect();
        let leaves = Leaves {
            parameters: vec![random(6, 1)],
            inputs: vec![random(3 * ROWS, 2), random(6 * ROWS, 3)],
            directions: vec![(u, random(2 * ROWS, 4)), (p, shares)],
        };
        Ok(Self {
            graph,
            z,
            u,
            p,
            w,
            leaves,
        })
    }

    /// `sum_n scale_n(n) J_n^T u_n` by the tangents of the outputs, by central differences.
    fn pulled_back(&self, scale: impl Fn(usize) -> f64) -> osculant::Result<Vec<f64>> {
        let step = 1e-6;
        let outputs = |element: usize, by: f64| -> osculant::Result<Vec<f64>> {
            let mut leaves = self.leaves.clone();
            leaves.parameters[0][element] += by;
            Ok(evaluate(&self.graph, &leaves, &[self.z])?.remove(0))
        };
        let u = &self.leaves.directions[0].1;
        let mut moved = Vec::new();
        for element in 0..6 {
            let (plus, minus) = (outputs(element, step)?, outputs(element, -step)?);
            let slope = |at: usize| (plus[at] - minus[at]) / (2.0 * step);
            moved.push(
                (0..2 * ROWS)
                    .map(|at| scale(at / 2) * slope(at) * u[at])
                    .sum(),
            );
        }
        Ok(moved)
    }

    fn value(&self, node: NodeId) -> osculant::Result<Vec<f64>> {
        Ok(evaluate(&self.graph, &self.leaves, &[node])?.remove(0))
    }

    /// The only layer, which is a diagonal.
    fn diagonal(&mut self, curvature: Curvature) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
        let layers = factors(&mut self.graph, &[curvature], &[self.w], self.p, SIZES)?;
        let [LayerFactors { layer, tensors, .. }] = &layers[..] else {
            return Err(format!("{layers:?}").into());
        };
        assert_eq!(layer.structure, Structure::Diagonal);
        assert_eq!((layer.left, layer.right.size, layer.bias), (None, 6, None));
        assert_eq!(layer.right.form, Form::Diagonal);
        Ok(self.value(tensors[0][0])?)
    }
}

fn near(found: &[f64], expected: &[f64], tolerance: f64) -> Outcome {
    let scale = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let error = off.fold(0.0, f64::max) / scale;
    if found.len() == expected.len() && error <= tolerance {
        return Ok(());
    }
    Err(format!("off by {error:.1e}: {found:?}, {expected:?}").into())
}

/// What is squared is linear in the signs, so one draw of numbers shows all of it: differences of the outputs stand against it.
#[test]
fn a_sampled_diagonal_is_the_square_of_a_sum_over_examples() -> Outcome {
    for kind in [Use::Alone, Use::Scales, Use::Sliced] {
        let mut case = Case::new(kind)?;
        let (outputs, parameters) = ((case.z, case.u), [case.w]);
        let found = sampled_diagonals(&mut case.graph, outputs, &parameters, case.p)?;
        let shares = case.leaves.directions[1].1.clone();
        let moved = case.pulled_back(|n| shares[n].sqrt())?;
        let expected: Vec<f64> = moved.iter().map(|x| x * x).collect();
        near(&case.value(found[0])?, &expected, 1e-8)?;
    }
    Ok(())
}

/// A weight that is a matrix here and a row there has rows of examples, but no factors: the squares of its rows are summed.
#[test]
fn a_weight_in_two_roles_has_the_diagonal_of_its_rows() -> Outcome {
    let mut case = Case::new(Use::Scales)?;
    let rows = mixture_rows(&mut case.graph, (case.z, case.u), &[case.w])?;
    let found = case.diagonal(Curvature::Rows(rows[0].clone()))?;
    let shares = case.leaves.directions[1].1.clone();
    let mut expected = [0.0; 6];
    for (n, share) in shares.iter().enumerate() {
        let row = case.pulled_back(|m| f64::from(u8::from(m == n)))?;
        for (sum, x) in expected.iter_mut().zip(row) {
            *sum += share * x * x;
        }
    }
    near(&found, &expected, 1e-8)
}

/// A weight of which one element scales all outputs has no rows; what is given for it is what it has.
#[test]
fn a_weight_without_rows_takes_a_diagonal() -> Outcome {
    let mut case = Case::new(Use::Sliced)?;
    let (outputs, cotangent) = (case.z, case.u);
    let cotangents = Cotangents::One { outputs, cotangent };
    let rows = known_rows(&mut case.graph, cotangents, &[case.w])?;
    assert!(rows[0].is_none(), "{rows:?}");
    let refused = mixture_rows(&mut case.graph, (outputs, cotangent), &[case.w]);
    let message = refused.err().ok_or("rows of a slice")?.to_string();
    assert!(
        message.contains("'w'") && message.contains("another method"),
        "{message}"
    );
    let (graph, p) = (&mut case.graph, case.p);
    let diagonal = sampled_diagonals(graph, (outputs, cotangent), &[case.w], p)?[0];
    let expected = case.value(diagonal)?;
    let found = case.diagonal(Curvature::Diagonal(diagonal))?;
    near(&found, &expected, 0.0)
}
