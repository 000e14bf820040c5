//! Convection on a circle.

use std::f64::consts::TAU;

use osculant::data::{Points, Region, Sampling, Term};
use osculant::nn::periodic;

use super::{Field, column, grid, network};

/// Time, then space.
const DOMAIN: [[f64; 2]; 2] = [[0.0, 1.0], [0.0, TAU]];
const SPEED: f64 = 40.0;

pub(crate) static CONVECTION: Field = Field {
    name: "convection",
    sentence: "u_t + 40 u_x = 0 on a circle of length 2 pi for 0 < t < 1, u = sin(x) at t = 0; network of t, cos x and sin x with three hidden layers of 50, tanh",
    dimensions: 2,
    resampled: false,
    points: || {
        let domain = Region::new(&DOMAIN)?;
        let initial = domain.slice(0, 0.0);
        let terms = vec![
            Term::new("interior", 10_000, vec![domain]),
            Term::new("initial", 257, vec![initial]),
        ];
        Points::new("convection", terms, Sampling::Sobol, 0)
    },
    network: |scope, x| {
        let circle = periodic(column(scope, x, 1), TAU as f32, 1);
        let inputs = column(scope, x, 0).concat(&[circle], 1);
        network(scope, inputs, &[50, 50, 50])
    },
    residuals: |scope, x, u| {
        let equation = u.derivative(x, &[1.0, SPEED as f32]);
        vec![equation, u - column(scope, x, 1).sin()]
    },
    solution: |x| (x[1] - SPEED * x[0]).sin(),
    test: || Ok(grid(DOMAIN, [101, 64])),
};
