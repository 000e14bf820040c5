//! Poisson's equation on a square.

use std::f64::consts::PI;

use osculant::data::{Points, Region, Sampling, Term};

use super::{Field, column, grid, network};

const SQUARE: [[f64; 2]; 2] = [[0.0, 1.0]; 2];

pub(crate) static POISSON_2D: Field = Field {
    name: "poisson-2d",
    sentence: "-(u_xx + u_yy) = 2 pi^2 sin(pi x) sin(pi y) on the unit square, u = 0 on its boundary; network 2-64-1 with tanh",
    dimensions: 2,
    resampled: false,
    points: || {
        let square = Region::new(&SQUARE)?;
        let faces = square.faces(&[0, 1]);
        let terms = vec![
            Term::new("interior", 900, vec![square]),
            Term::new("boundary", 120, faces),
        ];
        Points::new("poisson-2d", terms, Sampling::Sobol, 0)
    },
    network: |scope, x| network(scope, x, &[64]),
    residuals: |scope, x, u| {
        let pi = PI as f32;
        let product = (column(scope, x, 0) * pi).sin() * (column(scope, x, 1) * pi).sin();
        vec![u.laplacian(x) + product * (2.0 * pi * pi), u]
    },
    solution: |x| (PI * x[0]).sin() * (PI * x[1]).sin(),
    test: || Ok(grid(SQUARE, [50, 50])),
};
