//! Functions without data, with which optimizers are tested.

use super::init::Init;
use super::model::{DataShape, Model, Output, TargetShape};
use crate::graph::Tensor;

const NO_DATA: DataShape = DataShape {
    features: 0,
    targets: TargetShape::Inputs,
};

/// The only parameter of these functions, `x`.
const NAME: &str = "x";

fn value<'b>(x: Tensor<'b>, f: Tensor<'b>) -> Output<'b> {
    Output {
        losses: f.reshape(&[1]),
        outputs: x,
        metric: None,
    }
}

/// The function of Michalewicz (1992): `f(x) = -sum over i = 1..d of sin(x_i) sin(i x_i^2 / pi)^20`, from `x ~ N(0, I)`.
///
/// It has very many local minima, saddles and flat places. Use it with [`Batch::without_data`](crate::data::Batch::without_data).
#[must_use]
pub fn michalewicz(dimensions: usize) -> Model {
    Model::new(NO_DATA, move |scope| {
        let x = scope.parameter(NAME, &[dimensions], Init::Normal(1.0));
        let factors = (1..=dimensions).map(|i| (i as f64 / std::f64::consts::PI) as f32);
        let s = (x.square() * scope.data(factors.collect(), &[dimensions])).sin();
        let fourth = s.square().square();
        let power = fourth.square().square() * fourth;
        value(x, -(x.sin() * power).sum(&[0]))
    })
}

/// The monkey saddle `f(x, y) = x^3 - 3 x y^2 + (x^2 + y^2)^2`: its Hessian at 0 is zero, and three ways lead down, to `f = -27/256` at
/// distance 3/4. The fourth-order term bounds it from below; at 0 it changes no derivative up to the third. Starts from `N(0, 0.01^2)`.
#[must_use]
pub fn monkey_saddle() -> Model {
    Model::new(NO_DATA, |scope| {
        let point = scope.parameter(NAME, &[2], Init::Normal(0.01));
        let (x, y) = (point.slice(&[0], &[1]), point.slice(&[1], &[1]));
        let saddle = x * x.square() - x * y.square() * 3.0;
        value(point, saddle + (x.square() + y.square()).square())
    })
}
