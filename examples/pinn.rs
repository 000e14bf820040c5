//! Burgers' equation `u_t + u u_x = 0.01 / pi u_xx` by a network, with the method of Levenberg and Marquardt: from an equation to a solution whose
//! steepest slope is known to be 152.005 (Basdevant et al. 1986). Two minutes on a software adapter.
//!
//! ```sh
//! cargo run --release --example pinn
//! ```

use std::f32::consts::PI;

use osculant::data::{Dataset, Points, Region, Sampling, Targets, Term};
use osculant::gpu::Gpu;
use osculant::graph::Tensor;
use osculant::nn::{DataShape, Init, Model, Scope, TargetShape};
use osculant::objective::GraphObjective;
use osculant::optim::{LevenbergMarquardt, LevenbergMarquardtOptions, Optimizer};

/// Rows are `(t, x)`. The factor `x^2 - 1` makes `u` zero at both ends, so that no term has to ask for it.
fn solution<'b>(scope: &Scope<'b>, at: Tensor<'b>) -> Tensor<'b> {
    let mut h = at;
    for layer in ["first", "second", "third"] {
        h = scope.dense(layer, h, 20, Init::Glorot).tanh();
    }
    let x = at.slice(&[0, 1], &[scope.rows(), 1]);
    scope.dense("last", h, 1, Init::Glorot) * (x.square() - 1.0)
}

fn main() -> osculant::Result<()> {
    let domain = Region::new(&[[0.0, 1.0], [-1.0, 1.0]])?;
    let terms = vec![
        Term::new("interior", 4000, vec![domain.clone()]),
        Term::new("initial", 200, vec![domain.slice(0, 0.0)]).with_weight(10.0),
    ];
    let points = Points::new("burgers", terms, Sampling::Sobol, 0)?;
    let shape = DataShape {
        features: 2,
        targets: TargetShape::Classes(2),
    };
    let equation = Model::least_squares(shape, |scope| {
        let at = scope.features();
        let u = solution(scope, at);
        let (u_t, u_x) = (u.derivative(at, &[1.0, 0.0]), u.derivative(at, &[0.0, 1.0]));
        let u_xx = u.derivatives(at, 2, &[(1.0, &[0.0, 1.0])]);
        let x = at.slice(&[0, 1], &[scope.rows(), 1]);
        scope.by_term(&[u_t + u * u_x - u_xx * (0.01 / PI), u + (x * PI).sin()])
    });
    // The same parameters, with the solution itself as output.
    let value = Model::least_squares(shape, |scope| solution(scope, scope.features()));

    let gpu = Gpu::new()?;
    let mut objective = GraphObjective::new(&gpu, equation)?;
    let theta = objective.initial_parameters(0)?;
    let mut method = LevenbergMarquardt::new(LevenbergMarquardtOptions::default())?;
    for step in 1..=120 {
        // New points every forty steps.
        let batch = points.draw((step - 1) / 40)?.full_batch();
        let report = method.step(&mut objective, &theta, &batch)?;
        if step % 20 == 0 {
            println!("step {step}: loss {:.2e}", report.loss_before);
        }
    }

    // The slope at the front when it is steepest.
    let (time, h) = (1.6037 / PI, 1e-4);
    let targets = Targets::Classes {
        labels: vec![0; 2],
        classes: 2,
    };
    let ends = Dataset::new("front", vec![time, -h, time, h], 2, targets)?;
    let u = GraphObjective::new(&gpu, value)?.outputs(&theta, &ends)?;
    println!("steepest slope: {:.2} (152.005)", (u[0] - u[1]) / (2.0 * h));
    Ok(())
}
