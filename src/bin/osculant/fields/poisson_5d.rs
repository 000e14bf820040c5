//! Poisson's equation in five dimensions.

use std::f64::consts::PI;

use osculant::data::{Points, Region, Sampling, Term};

use super::{Field, network};

/// Seed of the points where the error is measured: far from those of the runs.
const TEST: u64 = 1_000_003;

fn cube() -> osculant::Result<Region> {
    Region::new(&[[0.0, 1.0]; 5])
}

pub(crate) static POISSON_5D: Field = Field {
    name: "poisson-5d",
    sentence: "-Laplacian u = pi^2 sum_i cos(pi x_i) on the unit cube of five dimensions, u = sum_i cos(pi x_i) on its boundary; network 5-64-1 with tanh",
    dimensions: 5,
    resampled: true,
    points: || {
        let faces = cube()?.faces(&[0, 1, 2, 3, 4]);
        let terms = vec![
            Term::new("interior", 3000, vec![cube()?]),
            Term::new("boundary", 500, faces),
        ];
        Points::new("poisson-5d", terms, Sampling::Uniform, 0)
    },
    network: |scope, x| network(scope, x, &[64]),
    residuals: |_, x, u| {
        let pi = PI as f32;
        let sum = (x * pi).cos().sum(&[1]);
        vec![u.laplacian(x) + sum * (pi * pi), u - sum]
    },
    solution: |x| x.iter().map(|x| (PI * x).cos()).sum(),
    test: || {
        let terms = vec![Term::new("test", 4000, vec![cube()?])];
        let points = Points::new("poisson-5d", terms, Sampling::Sobol, TEST)?.draw(0)?;
        Ok(points.features().iter().map(|&x| f64::from(x)).collect())
    },
};
