//! The derivative rules, in the f64 twin: against differences, and against identities of the
//! derivatives. Every primitive is covered by the cases that also run on the devices.

use crate::harness::cases::{self, Case, score};
use crate::harness::compare::{Input, Loss, Problem, relative_error, widen, with_values};
use crate::harness::random_graph::{random_graph, recipes, runner};
use osculant::graph::difference::{Move, difference as gains};
use osculant::graph::tensor::Builder;
use osculant::graph::twin::evaluate;
use osculant::graph::{Graph, NodeId, Tensor};
use osculant::nn::{Activation, DataShape, Loss as LossOfExamples, Sequential, TargetShape};
use osculant::{Error, Result};

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// The step of central differences: truncation 1e-12, rounding 1e-10 of the value, and small enough
/// that the drawn values do not cross a kink.
const STEP: f64 = 1e-6;
/// What the design asks of differences; an error in a rule is of order one.
const DIFFERENCES: f64 = 1e-6;
/// Of identities, which hold to rounding of f64.
const IDENTITIES: f64 = 1e-11;

/// All primitives, except where the derivative is not that of the value on purpose.
fn differentiable() -> impl Iterator<Item = &'static Case> {
    cases::ALL
        .iter()
        .filter(|case| case.name != "stop_gradient")
}

fn check(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Outcome {
    let error = relative_error(found, expected, 0.0);
    if error <= tolerance {
        return Ok(());
    }
    let message = format!("{what}: relative error {error:.2e} over {tolerance:.0e}");
    Err(with_values(message, found, expected).into())
}

fn dot(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    a.iter()
        .flatten()
        .zip(b.iter().flatten())
        .map(|(a, b)| a * b)
        .sum()
}

fn combine(a: f64, x: &[Vec<f64>], b: f64, y: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mixed =
        |(x, y): (&Vec<f64>, &Vec<f64>)| x.iter().zip(y).map(|(x, y)| a * x + b * y).collect();
    x.iter().zip(y).map(mixed).collect()
}

/// Central difference of nodes along a direction in parameter space.
fn difference(
    problem: &Problem,
    direction: &[Vec<f64>],
    nodes: &[NodeId],
) -> Result<Vec<Vec<f64>>> {
    let parameters = widen(&problem.parameters);
    let at = |step: f64| {
        problem.evaluate_at(
            &combine(1.0, &parameters, step, direction),
            direction,
            nodes,
        )
    };
    Ok(combine(0.5 / STEP, &at(STEP)?, -0.5 / STEP, &at(-STEP)?))
}

fn products(problem: &Problem, direction: &[Vec<f64>], nodes: &[NodeId]) -> Result<Vec<Vec<f64>>> {
    problem.evaluate_at(&widen(&problem.parameters), direction, nodes)
}

fn hessian_matches_differences(problem: &Problem) -> Outcome {
    let direction = widen(&problem.direction(1));
    let found = products(problem, &direction, &problem.hessian)?;
    let expected = difference(problem, &direction, &problem.gradient)?;
    for ((leaf, found), expected) in problem.graph.parameters().iter().zip(&found).zip(&expected) {
        check(
            &format!("Hessian product of '{}'", leaf.name),
            found,
            expected,
            DIFFERENCES,
        )?;
    }
    Ok(())
}

/// The sum of the losses of a network's examples.
fn of_network(loss: LossOfExamples) -> Result<Problem> {
    let targets = match loss {
        LossOfExamples::SoftmaxCrossEntropy => TargetShape::Classes(5),
        _ => TargetShape::Values(5),
    };
    let shape = DataShape {
        features: 6,
        targets,
    };
    let network = Sequential::new()
        .dense(7)
        .activation(Activation::Tanh)
        .dense(5);
    let mut traced = network.model(shape, loss).trace(20)?;
    let sum = traced.graph.sum(traced.losses, &[0])?;
    Problem::of_graph(traced.graph, sum, None)
}

/// What a loss gains is what it is at one point less what it is at the other, for moves of all sizes.
#[test]
fn differences_are_what_losses_gain() -> Outcome {
    let mut problems = Vec::new();
    for case in cases::ALL {
        problems.push((case.name.to_owned(), (case.problem)()?));
    }
    // With their anchors, which jump from class to class.
    for loss in LossOfExamples::ALL {
        problems.push((format!("{loss:?}"), of_network(loss)?));
    }
    for (name, problem) in problems {
        let mut graph = problem.graph.clone();
        let moves: Vec<Move> = graph
            .parameters()
            .iter()
            .zip(&problem.directions)
            .map(|(leaf, &to)| Move {
                node: leaf.node,
                to,
            })
            .collect();
        let gains = gains(&mut graph, &[problem.loss], &moves)?;
        let from = widen(&problem.parameters);
        let before = problem.evaluate_at(&from, &from, &[problem.loss])?[0][0];
        for (seed, size) in [(1, 3.0), (2, 0.5), (3, -1e-2), (4, 1e-6)] {
            let to = combine(1.0, &from, size, &widen(&problem.direction(seed)));
            let after = problem.evaluate_at(&to, &from, &[problem.loss])?[0][0];
            let found = match gains[0] {
                None => 0.0,
                Some(gain) => evaluate(&graph, &problem.leaves(&to), &[gain])?[0][0],
            };
            let expected = after - before;
            // Subtraction loses what the losses have; the series of erf is right to a millionth.
            let allowed = 1e-13 * (1.0 + before.abs() + after.abs()) + 1e-6 * expected.abs();
            if (found - expected).abs() > allowed || found.is_nan() != expected.is_nan() {
                return Err(format!("{name}, {size}: {found:e}, not {expected:e}").into());
            }
        }
    }
    Ok(())
}

#[test]
fn hessian_products_are_differences_of_the_gradient() -> Outcome {
    for case in differentiable() {
        hessian_matches_differences(&(case.problem)()?)
            .map_err(|error| format!("{}: {error}", case.name))?;
    }
    Ok(())
}

#[test]
fn gradients_are_differences_of_the_loss() -> Outcome {
    for case in differentiable() {
        let problem = (case.problem)()?;
        let direction = widen(&problem.direction(1));
        let gradient = products(&problem, &direction, &problem.gradient)?;
        let loss = products(&problem, &direction, &[problem.loss])?[0][0];
        for (i, leaf) in problem.graph.parameters().iter().enumerate() {
            // One parameter moves at a time, so that each is seen.
            let mut along: Vec<Vec<f64>> = direction.iter().map(|v| vec![0.0; v.len()]).collect();
            along[i].clone_from(&direction[i]);
            let expected = difference(&problem, &along, &[problem.loss])?[0][0];
            let slope = dot(&gradient, &along);
            // Terms of both signs: compared with the size that the slope could have. The terms of
            // the loss that do not move are rounded too.
            let size = (dot(&along, &along) * dot(&gradient[i..=i], &gradient[i..=i])).sqrt();
            let rounding = 4.0 * f64::EPSILON * loss.abs() / STEP;
            if (slope - expected).abs() > DIFFERENCES * size + rounding {
                let what = format!("{}: slope along '{}'", case.name, leaf.name);
                return Err(format!("{what} is {slope}, expected {expected}").into());
            }
        }
    }
    Ok(())
}

#[test]
fn products_are_symmetric_and_linear() -> Outcome {
    for case in cases::ALL {
        let problem = (case.problem)()?;
        let (u, v) = (widen(&problem.direction(1)), widen(&problem.direction(2)));
        for nodes in [&problem.hessian, &problem.gauss_newton] {
            if nodes.is_empty() {
                continue;
            }
            let (cu, cv) = (
                products(&problem, &u, nodes)?,
                products(&problem, &v, nodes)?,
            );
            // Terms of both signs: compared with the size that they could have.
            let scale = (dot(&u, &u) * dot(&cv, &cv)).sqrt();
            let asymmetry = (dot(&u, &cv) - dot(&v, &cu)).abs();
            // Symmetry would make the product with a stopped value the derivative of something.
            if asymmetry > IDENTITIES * scale && case.name != "stop_gradient" {
                return Err(
                    format!("{}: asymmetry {asymmetry:.2e} of {scale:.2e}", case.name).into(),
                );
            }
            let mixed = products(&problem, &combine(2.0, &u, -0.5, &v), nodes)?.concat();
            let expected = combine(2.0, &cu, -0.5, &cv).concat();
            check(
                &format!("{}: linearity", case.name),
                &mixed,
                &expected,
                IDENTITIES,
            )?;
        }
    }
    Ok(())
}

#[test]
fn gauss_newton_products_are_not_negative() -> Outcome {
    for case in cases::ALL {
        let problem = (case.problem)()?;
        for seed in 1..20 {
            let v = widen(&problem.direction(seed));
            let curvature = dot(&v, &products(&problem, &v, &problem.gauss_newton)?);
            if curvature < 0.0 {
                return Err(format!("{}: curvature {curvature} along {seed}", case.name).into());
            }
        }
    }
    Ok(())
}

/// For `|f - t|^2 / 2` the matrix is `J^T J`: the curvature is the squared difference of the outputs.
#[test]
fn gauss_newton_curvature_of_least_squares_is_the_squared_change_of_the_outputs() -> Outcome {
    let mut outputs = Vec::new();
    let problem = Problem::new(|b| {
        let x = b.input("x", &[6, 4]);
        let z = x
            .dot(b.parameter("w", &[4, 3]))
            .tanh()
            .dot(b.parameter("v", &[3, 2]));
        outputs = vec![z.id()];
        let residual = z - b.input("targets", &[6, 2]);
        (residual.square().sum(&[0, 1]).reshape(&[]) * 0.5, Some(z))
    })?;
    let v = widen(&problem.direction(3));
    let curvature = dot(&v, &products(&problem, &v, &problem.gauss_newton)?);
    let change = difference(&problem, &v, &outputs)?;
    check(
        "curvature",
        &[curvature],
        &[dot(&change, &change)],
        DIFFERENCES,
    )
}

/// Softmax cross-entropy, least squares and logistic loss of outputs that are linear in the parameters.
#[test]
fn gauss_newton_is_the_hessian_of_a_linear_model_with_convex_loss() -> Outcome {
    let losses: [for<'b> fn(&'b Builder, Tensor<'b>) -> Tensor<'b>; 3] = [
        |b, z| z.exp().sum(&[1]).log() - (z * b.indices("labels", &[8]).one_hot(3)).sum(&[1]),
        |b, z| (z - b.input("targets", &[8, 3])).square() * 0.5,
        |b, z| z.softplus() - z * b.input("targets", &[8, 3]),
    ];
    for loss in losses {
        let problem = Problem::new(|b| {
            let x = b.input("x", &[8, 5]);
            let z = x.dot(b.parameter("w", &[5, 3])) + b.parameter("bias", &[3]);
            (loss(b, z).mean(&[0]).sum(&[0, 1]).reshape(&[]), Some(z))
        })?;
        let v = widen(&problem.direction(1));
        let hessian = products(&problem, &v, &problem.hessian)?.concat();
        let gauss_newton = products(&problem, &v, &problem.gauss_newton)?.concat();
        check("Gauss-Newton product", &gauss_newton, &hessian, IDENTITIES)?;
    }
    Ok(())
}

/// `f(w, w)` has the gradient `d1 f + d2 f` and the Hessian product that is the sum of all four blocks.
#[test]
fn a_parameter_used_twice_is_two_equal_parameters() -> Outcome {
    fn loss<'b>(b: &'b Builder, first: Tensor<'b>, second: Tensor<'b>) -> Loss<'b> {
        let z = b
            .input("x", &[5, 4])
            .dot(first)
            .tanh()
            .dot(second.permute(&[1, 0]));
        (score(b, z), Some(z))
    }
    let tied = Problem::new(|b| {
        let w = b.parameter("w", &[4, 4]);
        loss(b, w, w)
    })?;
    let mut untied = Problem::new(|b| {
        loss(
            b,
            b.parameter("first", &[4, 4]),
            b.parameter("second", &[4, 4]),
        )
    })?;
    untied.parameters = vec![tied.parameters[0].clone(), tied.parameters[0].clone()];
    untied.inputs.clone_from(&tied.inputs);
    let v = widen(&tied.direction(1));
    let twice = [v[0].clone(), v[0].clone()];
    for (name, one, two) in [
        ("gradient", &tied.gradient, &untied.gradient),
        ("Hessian product", &tied.hessian, &untied.hessian),
        (
            "Gauss-Newton product",
            &tied.gauss_newton,
            &untied.gauss_newton,
        ),
    ] {
        let found = products(&tied, &v, one)?;
        let parts = products(&untied, &twice, two)?;
        let expected = combine(1.0, &parts[..1], 1.0, &parts[1..]);
        check(name, &found[0], &expected[0], IDENTITIES)?;
    }
    Ok(())
}

/// `f = sum of (x^2 + x) x^2`, where `x^2` and `x` reach the loss by several ways: `f'' = 12 x^2 + 6 x`.
#[test]
fn ways_that_part_and_meet_again_are_summed() -> Outcome {
    let problem = Problem::new(|b| {
        let x = b.parameter("x", &[6]);
        let square = x * x;
        (((square + x) * square).sum(&[0]).reshape(&[]), None)
    })?;
    let (x, v) = (widen(&problem.parameters), widen(&problem.direction(1)));
    let gradient: Vec<f64> = x[0].iter().map(|x| 4.0 * x.powi(3) + 3.0 * x * x).collect();
    let hessian: Vec<f64> = x[0]
        .iter()
        .zip(&v[0])
        .map(|(x, v)| (12.0 * x * x + 6.0 * x) * v)
        .collect();
    check(
        "gradient",
        &products(&problem, &v, &problem.gradient)?[0],
        &gradient,
        IDENTITIES,
    )?;
    check(
        "Hessian product",
        &products(&problem, &v, &problem.hessian)?[0],
        &hessian,
        IDENTITIES,
    )
}

/// A stopped value acts as an input that happens to have the same value.
#[test]
fn stopped_values_are_inputs_to_every_derivative() -> Outcome {
    fn loss<'b>(b: &'b Builder, x: Tensor<'b>, fixed: Tensor<'b>) -> Loss<'b> {
        let z = (x * fixed).tanh() + fixed;
        (score(b, z), Some(z))
    }
    let mut value = Vec::new();
    let stopped = Problem::new(|b| {
        let x = b.parameter("x", &[7]);
        let fixed = (x * x + 0.5).stop_gradient();
        value = vec![fixed.id()];
        loss(b, x, fixed)
    })?;
    let mut given = Problem::new(|b| loss(b, b.parameter("x", &[7]), b.input("fixed", &[7])))?;
    let v = widen(&stopped.direction(1));
    let fixed = products(&stopped, &v, &value)?;
    given.parameters.clone_from(&stopped.parameters);
    given.inputs = vec![Input::Floats(fixed[0].iter().map(|&x| x as f32).collect())];
    for (name, one, two) in [
        ("gradient", &stopped.gradient, &given.gradient),
        ("Hessian product", &stopped.hessian, &given.hessian),
        (
            "Gauss-Newton product",
            &stopped.gauss_newton,
            &given.gauss_newton,
        ),
    ] {
        // The input holds the value rounded to f32.
        check(
            name,
            &products(&stopped, &v, one)?[0],
            &products(&given, &v, two)?[0],
            1e-6,
        )?;
    }
    Ok(())
}

#[test]
fn parameters_that_the_loss_does_not_see_have_zero_derivatives() -> Outcome {
    let problem = Problem::new(|b| {
        let seen = b.parameter("seen", &[3]);
        let linear = b.parameter("linear", &[3]);
        b.parameter("unseen", &[2, 2]);
        (score(b, seen) + linear.sum(&[0]).reshape(&[]), Some(seen))
    })?;
    let v = widen(&problem.direction(1));
    let gradient = products(&problem, &v, &problem.gradient)?;
    assert_eq!(gradient[1..], [vec![1.0; 3], vec![0.0; 4]]);
    for nodes in [&problem.hessian, &problem.gauss_newton] {
        assert_eq!(
            products(&problem, &v, nodes)?[1..],
            [vec![0.0; 3], vec![0.0; 4]]
        );
    }
    Ok(())
}

#[test]
fn hessian_products_of_random_graphs_are_differences_of_the_gradient() -> Outcome {
    runner(150).run(&recipes(), |recipe| {
        let problem = random_graph(&recipe, false)?;
        let direction = widen(&problem.direction(1));
        let found = products(&problem, &direction, &problem.hessian)?.concat();
        let expected = difference(&problem, &direction, &problem.gradient)?.concat();
        proptest::prop_assert!(found.iter().all(|x| x.is_finite()));
        check("Hessian product", &found, &expected, DIFFERENCES)
            .map_err(|error| proptest::test_runner::TestCaseError::fail(error.to_string()))
    })?;
    Ok(())
}

/// The error of `define`, in words.
fn refusal(define: impl FnOnce(&Builder)) -> String {
    let builder = Builder::new();
    define(&builder);
    match builder.finish() {
        Err(error @ Error::Shape { .. }) => error.to_string(),
        Err(other) => format!("another kind of error: {other}"),
        Ok(_) => "no error".into(),
    }
}

#[test]
fn shape_errors_name_the_node_and_the_shapes() {
    type Mistake = fn(&Builder);
    let refused: [(&[&str], Mistake); 12] = [
        (&["'left' [2, 3]", "'right' [4, 3]", "broadcast"], |b| {
            let _ = b.parameter("left", &[2, 3]) + b.parameter("right", &[4, 3]);
        }),
        (
            &["dot", "'left' [1, 2, 3]", "'right' [1, 4, 3]", "3 and 4"],
            |b| {
                b.parameter("left", &[2, 3])
                    .dot(b.parameter("right", &[4, 3]));
            },
        ),
        (&["broadcast", "'cube' [2, 3, 4]", "[3, 3, 4]"], |b| {
            b.parameter("cube", &[2, 3, 4])
                .dot(b.parameter("pair", &[3, 4, 2]));
        }),
        (&["reshape", "'x' [6]", "[4]"], |b| {
            b.parameter("x", &[6]).reshape(&[4]);
        }),
        (&["permute", "'x' [2, 3]", "[0, 0]"], |b| {
            b.parameter("x", &[2, 3]).permute(&[0, 0]);
        }),
        (&["slice", "'x' [5]", "[3]"], |b| {
            b.parameter("x", &[5]).slice(&[3], &[3]);
        }),
        (&["pad", "'x' [5]", "[6]"], |b| {
            b.parameter("x", &[5]).pad(&[2], &[6]);
        }),
        (&["sum", "'x' [5]", "axis 1"], |b| {
            b.parameter("x", &[5]).sum(&[1]);
        }),
        (&["gather", "'table' [4]", "two axes"], |b| {
            b.parameter("table", &[4]).gather(b.indices("i", &[3]));
        }),
        (&["'labels' [3]", "holds indices", "one_hot"], |b| {
            let _ = b.indices("labels", &[3]) * 2.0;
        }),
        (&["concat", "[2, 3]", "[3, 2]", "axis 0"], |b| {
            b.parameter("x", &[2, 3])
                .concat(&[b.parameter("y", &[3, 2])], 0);
        }),
        (&["parameter 'x'", "already"], |b| {
            b.parameter("x", &[1]);
            b.parameter("x", &[1]);
        }),
    ];
    for (words, define) in refused {
        let message = refusal(define);
        for word in words {
            assert!(message.contains(word), "'{word}' is missing in: {message}");
        }
    }
}

#[test]
fn the_builder_returns_its_first_error() {
    let message = refusal(|b| {
        let x = b.parameter("x", &[2, 3]).named("first");
        let wrong = x.reshape(&[5]);
        let _ = wrong.dot(x.sum(&[7])) + b.parameter("y", &[9]);
    });
    assert!(message.contains("cannot become [5]"), "{message}");
}

#[test]
fn transposing_what_is_not_linear_is_an_error() -> Outcome {
    let mut graph = Graph::new();
    let x = graph.direction(&[3]);
    let square = graph.binary(osculant::graph::Binary::Mul, x, x)?;
    let one = graph.constant(1.0, &[3]);
    let refused = osculant::graph::transpose::transpose(&mut graph, &[(square, one)], &[x]);
    assert!(matches!(refused, Err(Error::Unsupported { .. })));
    Ok(())
}
