//! The heat equation on an interval.

use std::f64::consts::PI;

use osculant::data::{Points, Region, Sampling, Term};

use super::{Field, column, grid, network};

/// Time, then space.
const DOMAIN: [[f64; 2]; 2] = [[0.0, 1.0]; 2];
const CONDUCTIVITY: f64 = 0.25;

pub(crate) static HEAT_1D: Field = Field {
    name: "heat-1d",
    sentence: "u_t = u_xx / 4 on the unit interval for 0 < t < 1, u = sin(pi x) at t = 0 and u = 0 at its ends; network 2-64-1 with tanh",
    dimensions: 2,
    resampled: false,
    points: || {
        let domain = Region::new(&DOMAIN)?;
        let (initial, ends) = (domain.slice(0, 0.0), domain.faces(&[1]));
        let terms = vec![
            Term::new("interior", 900, vec![domain]),
            Term::new("initial", 40, vec![initial]),
            Term::new("boundary", 80, ends),
        ];
        Points::new("heat-1d", terms, Sampling::Sobol, 0)
    },
    network: |scope, x| network(scope, x, &[64]),
    residuals: |scope, x, u| {
        let second = u.derivatives(x, 2, &[(CONDUCTIVITY as f32, &[0.0, 1.0])]);
        let initial = u - (column(scope, x, 1) * PI as f32).sin();
        vec![u.derivative(x, &[1.0, 0.0]) - second, initial, u]
    },
    solution: |x| (-CONDUCTIVITY * PI * PI * x[0]).exp() * (PI * x[1]).sin(),
    test: || Ok(grid(DOMAIN, [50, 50])),
};
