//! Small random graphs: a recipe of numbers, which proptest can shorten, becomes a loss.

use osculant::Result;
use osculant::graph::Tensor;
use osculant::graph::tensor::Builder;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::cases::score;
use super::compare::Problem;

/// Which operation, on which two of the last tensors, and a choice within the operation.
pub(crate) type Step = (u8, u8, u8, u8);

/// Up to 14 operations.
pub(crate) fn recipes() -> impl Strategy<Value = Vec<Step>> {
    vec(any::<Step>(), 1..15)
}

/// A runner that draws the same cases each time.
pub(crate) fn runner(cases: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// Operations of which a recipe chooses one; those from [`SMOOTH`] on have kinks.
const OPERATIONS: u8 = 23;
const SMOOTH: u8 = 18;

/// The loss that a recipe describes; without `kinks` it is smooth everywhere.
pub(crate) fn random_graph(recipe: &[Step], kinks: bool) -> Result<Problem> {
    Problem::new(|b| {
        let indices = b.indices("indices", &[6]);
        let mut pool = vec![
            b.input("x", &[3, 4]),
            b.parameter("d", &[5, 1]),
            b.parameter("c", &[1, 4]),
            b.parameter("b", &[4, 4]),
            b.parameter("a", &[3, 4]),
        ];
        for &(operation, i, j, choice) in recipe {
            // Mostly of the last few tensors, so that graphs grow deep and not only wide.
            let recent = |i: u8| pool[pool.len() - 1 - usize::from(i) % pool.len().min(6)];
            let operation = operation % if kinks { OPERATIONS } else { SMOOTH };
            let y = apply(b, operation, recent(i), recent(j), indices, choice);
            let [rows, columns] = size(y);
            pool.push(if rows * columns > 64 { y.mean(&[0]) } else { y });
        }
        let used = pool.iter().rev().take(4);
        (
            used.fold(b.constant(0.0), |loss, &y| loss + score(b, y * 0.5)),
            None,
        )
    })
}

fn size(x: Tensor<'_>) -> [usize; 2] {
    let shape = x.shape();
    [shape[0], shape[1]]
}

/// `y`, or its mean where it does not broadcast with `x`.
fn fitting<'b>(x: Tensor<'b>, y: Tensor<'b>) -> Tensor<'b> {
    let fits = size(x)
        .iter()
        .zip(size(y))
        .all(|(&a, b)| a == b || a == 1 || b == 1);
    if fits { y } else { y.mean(&[0, 1]) }
}

/// All tensors have two axes; values stay of order one.
fn apply<'b>(
    b: &'b Builder,
    operation: u8,
    x: Tensor<'b>,
    other: Tensor<'b>,
    indices: Tensor<'b>,
    choice: u8,
) -> Tensor<'b> {
    let [rows, columns] = size(x);
    let y = fitting(x, other);
    let axis = usize::from(choice) % 2;
    match operation {
        0 => x.tanh(),
        1 => [x.sin(), x.cos(), x.logistic()][usize::from(choice) % 3],
        2 => [x.softplus(), x.erf(), x.tanh().exp()][usize::from(choice) % 3],
        3 => [
            (x * x + 0.5).log(),
            (x * x + 0.5).sqrt(),
            (x * x + 0.7).reciprocal(),
        ][usize::from(choice) % 3],
        4 => (x + y) * 0.7,
        5 => -x - y * 0.5,
        6 => x * y.sin(),
        7 => x / (y * y + 0.8),
        8 if size(other)[0] == columns => x.dot(other) * 0.5,
        8 if size(other)[1] == columns => x.dot(other.permute(&[1, 0])) * 0.5,
        8 if size(other)[0] == rows => x.permute(&[1, 0]).dot(other) * 0.5,
        8 => x.dot(x.permute(&[1, 0])) * 0.5,
        9 => x.permute(&[1, 0]),
        10 => x.slice(&[rows / 2, 0], &[rows - rows / 2, columns.div_ceil(2)]),
        11 => x.pad(&[axis, 1], &[rows + axis, columns + 2 + axis]),
        12 if size(other)[1 - axis] == size(x)[1 - axis] => x.concat(&[other], axis),
        12 => x.concat(&[x * x], axis),
        13 => x.mean(&[axis]),
        14 => y.sum(&[0, 1]).broadcast(&[3, 4]) * 0.1 + x.mean(&[0, 1]),
        15 => [x.reshape(&[columns, rows]), x.reshape(&[1, rows * columns])][axis],
        16 => x.gather(indices) * indices.one_hot(columns),
        17 => {
            let e = x.tanh().exp();
            e / e.sum(&[axis])
        }
        SMOOTH => x.relu(),
        19 => x.max(y),
        20 => y.select(x, x * 0.5),
        21 => x.max_over(&[axis]),
        _ => x.step() * y + b.constant(0.25),
    }
}
