//! What SOAP and Shampoo share: two moments of each matrix, running averages of `G G^T` and `G^T G`, and what the host makes of these.

use super::adam::{Adam, moments};
use super::rule::{Form, Matrix, Operands, Tensors};
use crate::graph::Tensor;
use crate::vector::Layout;

/// Names of the factors, and of what is made of them.
const FACTORS: [&str; 2] = ["factor of rows", "factor of columns"];
const MADE: [&str; 2] = ["made of rows", "made of columns"];
/// Where the factors begin among what is remembered of a matrix.
pub(super) const FIRST_FACTOR: usize = 2;

/// Matrices that have a factor; all else by elements.
pub(super) fn forms(layout: &Layout, largest: usize) -> Vec<Form> {
    let forms = layout.entries().iter().map(|entry| {
        let matrix = Matrix::of(entry, largest).filter(|matrix| matrix.orders().next().is_some());
        matrix.map_or(Form::Elements(entry.elements()), Form::Matrix)
    });
    forms.collect()
}

/// Moments and factors, and a matrix for each factor.
pub(super) fn memory(matrix: &Matrix) -> [Tensors; 2] {
    let named = |names: [&'static str; 2]| {
        let sides = matrix.shape.into_iter().zip(matrix.sides).zip(names);
        let factors = sides.filter(|((_, has), _)| *has);
        factors.map(|((n, _), name)| (name, vec![n, n]))
    };
    let state = moments(&matrix.shape).into_iter().chain(named(FACTORS));
    [state.collect(), named(MADE).collect()]
}

/// The factors with this step's gradient: `beta2 L + (1 - beta2) G G^T`, and `R` with `G^T G`.
pub(super) fn averaged<'b>(matrix: &Matrix, on: &Operands<'b>, adam: &Adam<'b>) -> Vec<Tensor<'b>> {
    let (g, mut averages) = (on.gradient, on.state[FIRST_FACTOR..].iter());
    let transposed = g.permute(&[1, 0]);
    let squares = [(g, transposed), (transposed, g)];
    let mut found = Vec::new();
    for ((left, right), _) in squares
        .into_iter()
        .zip(matrix.sides)
        .filter(|(_, has)| *has)
    {
        let average = averages.next().copied();
        found.extend(average.map(|average| adam.second_moment(average, left.dot(right))));
    }
    found
}

/// What is made of the factors of rows and columns, where there are some.
pub(super) fn made<'b>(matrix: &Matrix, on: &Operands<'b>) -> [Option<Tensor<'b>>; 2] {
    let mut all = on.made.iter().copied();
    matrix.sides.map(|has| if has { all.next() } else { None })
}

/// `L X R`, without the factors that are not there.
pub(super) fn between<'b>([left, right]: [Option<Tensor<'b>>; 2], x: Tensor<'b>) -> Tensor<'b> {
    let x = left.map_or(x, |left| left.dot(x));
    right.map_or(x, |right| x.dot(right))
}
