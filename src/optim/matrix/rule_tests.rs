//! Steps of one matrix in the f64 twin, against what they are by hand.

#![allow(clippy::unwrap_used)]

use super::memory::{Program, program};
use super::rule::{Form, Matrix, Rule};
use super::{Matrices, MuonOptions, ShampooOptions, SoapOptions};
use crate::graph::twin::{Leaves, evaluate};
use crate::optim::AdamOptions;
use crate::vector::Layout;

/// The step of a matrix and what is remembered then, in the first step that moves.
fn first(rule: &impl Rule, shape: [usize; 2], gradient: &[f64], made: &[&[f64]]) -> Vec<Vec<f64>> {
    let layout = Layout::new(&[("W".into(), shape.to_vec())]).unwrap();
    let program: Program = program(rule, &layout).unwrap();
    let zeros = |shape: &[usize]| vec![0.0; shape.iter().product()];
    let settings = rule.settings(1, 1.0);
    let mut inputs = vec![settings.iter().map(|&x| f64::from(x)).collect()];
    inputs.extend([gradient.to_vec(), zeros(&shape)]);
    inputs.extend(program.state[0].iter().map(|(_, shape)| zeros(shape)));
    inputs.extend(made.iter().map(|made| made.to_vec()));
    let leaves = Leaves {
        inputs,
        ..Leaves::default()
    };
    evaluate(&program.graph, &leaves, &program.wanted).unwrap()
}

fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        // Settings are f32 numbers.
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
    }
}

/// The singular values of a diagonal matrix are its elements.
#[test]
fn muon_moves_singular_values_near_one() {
    let options = MuonOptions::default().with_learning_rate(1.0);
    let moved = |s: f64| {
        (0..5).fold(s, |s, _| {
            3.4445 * s - 4.775 * s.powi(3) + 2.0315 * s.powi(5)
        })
    };
    let gradient = [3.0, 0.0, 0.0, 4.0];
    let found = first(&options, [2, 2], &gradient, &[]);
    near(&found[0], &[moved(0.6), 0.0, 0.0, moved(0.8)]);
    near(&found[1], &gradient.map(|g| 0.05 * g));
    // Four outputs of two inputs: a longer step by the root of 2. And of two outputs of four inputs it is no shorter.
    let wide = [3.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0];
    let found = first(&options, [2, 4], &wide, &[]);
    near(&found[0][..2], &[2f64.sqrt() * moved(0.6), 0.0]);
    let tall = [3.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0];
    near(
        &first(&options, [4, 2], &tall, &[])[0][..2],
        &[moved(0.6), 0.0],
    );
    // What the documentation promises.
    for part in 0..=1000 {
        let s = moved(2e-3f64.powf(f64::from(part) / 1000.0));
        assert!((0.68..1.21).contains(&s), "{part}: {s}");
    }
}

/// In the basis `(1, 1)`, `(1, -1)` of rows and columns the gradient has four equal elements, of which Adam's first step makes ones; back
/// again these are twice the first element.
#[test]
fn soap_is_adam_in_the_basis() {
    let root = 0.5f64.sqrt();
    let basis = [root, root, root, -root];
    let options = SoapOptions::default().with_adam(AdamOptions {
        learning_rate: 1.0,
        ..SoapOptions::default().adam
    });
    let gradient = [2.0, 0.0, 0.0, 0.0];
    let found = first(&options, [2, 2], &gradient, &[&basis, &basis]);
    near(&found[0], &[2.0, 0.0, 0.0, 0.0]);
    near(&found[2], &[0.05; 4]);
    near(&found[3], &[0.2, 0.0, 0.0, 0.0]);
}

/// `diag(2, 1)` times the identity has the norm of the root of 5, Adam's first step that of the root of 2.
#[test]
fn shampoo_has_the_norm_of_adam() {
    let options = ShampooOptions::default().with_adam(AdamOptions {
        learning_rate: 1.0,
        ..ShampooOptions::default().adam
    });
    let identity = [1.0, 0.0, 0.0, 1.0];
    let found = first(
        &options,
        [2, 2],
        &identity,
        &[&[2.0, 0.0, 0.0, 1.0], &identity],
    );
    let unit = 0.4f64.sqrt();
    near(&found[0], &[2.0 * unit, 0.0, 0.0, unit]);
}

#[test]
fn tensors_are_matrices_of_their_last_axis() {
    let tensors = [
        ("bias", vec![4]),
        ("row", vec![1, 4]),
        ("weight", vec![3, 4]),
        ("stack", vec![2, 3, 5]),
        ("column", vec![4, 1]),
        ("last", vec![4, 2]),
    ];
    let layout = Layout::new(&tensors.map(|(name, shape)| (name.into(), shape))).unwrap();
    let shapes = |forms: Vec<Form>| -> Vec<Option<[usize; 2]>> {
        let shape = |form: &Form| form.matrix().map(|matrix| matrix.shape);
        forms.iter().map(shape).collect()
    };
    let all = shapes(MuonOptions::default().forms(&layout));
    let expected = [None, None, Some([3, 4]), Some([6, 5]), None, Some([4, 2])];
    assert_eq!(all, expected);
    let hidden = MuonOptions::default().with_matrices(Matrices::Hidden);
    let expected = [None, None, None, Some([6, 5]), None, None];
    assert_eq!(shapes(hidden.forms(&layout)), expected);
    // With sides up to 3 the first weight has a factor of its rows, the last one of its columns, and the stack none.
    let few = SoapOptions::default().with_largest(3).forms(&layout);
    let of = |at: usize| few[at].matrix().map(|matrix: &Matrix| matrix.sides);
    assert_eq!(
        [of(2), of(3), of(5)],
        [Some([true, false]), None, Some([false, true])]
    );
}

/// Three rows in the order of their quotients 1, 3, 2, two columns in that of 1, 2.
#[test]
fn second_moments_go_with_the_columns_of_the_bases() {
    let matrix = Matrix {
        shape: [3, 2],
        sides: [true, true],
    };
    let factor = |diagonal: &[f32]| -> Vec<f32> {
        let n = diagonal.len();
        (0..n * n)
            .map(|at| {
                if at % (n + 1) == 0 {
                    diagonal[at / n]
                } else {
                    0.0
                }
            })
            .collect()
    };
    let (rows, columns) = (factor(&[1.0, 3.0, 2.0]), factor(&[1.0, 2.0]));
    let second = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let mut state = vec![second.clone(), second.clone(), rows, columns];
    let mut made = vec![factor(&[1.0; 3]), factor(&[1.0; 2])];
    let options = SoapOptions::default();
    options
        .refresh(&matrix, false, &mut state, &mut made)
        .unwrap();
    assert_eq!(state[0], second);
    assert_eq!(state[1], [4.0, 3.0, 6.0, 5.0, 2.0, 1.0]);
    let magnitudes: Vec<f64> = made[0].iter().map(|&x| f64::from(x.abs())).collect();
    near(&magnitudes, &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
}
