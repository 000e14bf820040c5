//! Burgers' equation, with a front that steepens.

use std::f64::consts::PI;

use osculant::data::{Points, Region, Sampling, Term};

use super::{Field, column, grid, network};

/// Time, then space.
const DOMAIN: [[f64; 2]; 2] = [[0.0, 1.0], [-1.0, 1.0]];
const VISCOSITY: f64 = 0.01 / PI;

pub(crate) static BURGERS: Field = Field {
    name: "burgers",
    sentence: "u_t + u u_x = 0.01 / pi u_xx on -1 < x < 1 for 0 < t < 1, u = -sin(pi x) at t = 0 and u = 0 at the ends; network 2-20-20-20-1 with tanh",
    dimensions: 2,
    resampled: false,
    points: || {
        let domain = Region::new(&DOMAIN)?;
        let (initial, ends) = (domain.slice(0, 0.0), domain.faces(&[1]));
        let terms = vec![
            Term::new("interior", 10_000, vec![domain]),
            Term::new("initial", 256, vec![initial]),
            Term::new("boundary", 200, ends),
        ];
        Points::new("burgers", terms, Sampling::Sobol, 0)
    },
    network: |scope, x| network(scope, x, &[20; 3]),
    residuals: |scope, x, u| {
        let (time, place) = (&[1.0, 0.0][..], &[0.0, 1.0][..]);
        let viscous = u.derivatives(x, 2, &[(VISCOSITY as f32, place)]);
        let equation = u.derivative(x, time) + u * u.derivative(x, place) - viscous;
        let initial = u + (column(scope, x, 1) * PI as f32).sin();
        vec![equation, initial, u]
    },
    solution: cole_hopf,
    test: || Ok(grid(DOMAIN, [50, 100])),
};

/// The solution by the transformation of Cole and Hopf, `u = -int sin(pi y) f(y) k dz / int f(y) k dz` with `y = x - z sqrt(4 nu t)`, `f(y) =
/// exp(-cos(pi y) / (2 pi nu))` and the heat kernel `k = exp(-z^2)` (Basdevant et al. 1986): sums of analytic functions that vanish at both ends, which
/// the trapezoidal rule has to rounding.
fn cole_hopf(x: &[f64]) -> f64 {
    const END: f64 = 12.0;
    const STEPS: i32 = 3000;
    let width = (4.0 * VISCOSITY * x[0]).sqrt();
    let (mut numerator, mut denominator) = (0.0, 0.0);
    for step in -STEPS..=STEPS {
        let z = END * f64::from(step) / f64::from(STEPS);
        let y = PI * (x[1] - z * width);
        // The exponent is at most 0.
        let weight = (-(y.cos() + 1.0) / (2.0 * PI * VISCOSITY) - z * z).exp();
        numerator -= y.sin() * weight;
        denominator += weight;
    }
    numerator / denominator
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it solves, by differences: the equation, odd symmetry, the initial slice. At the front at `t = 1/pi` the slope is that of the
    /// table of Basdevant et al. 1986: at most 152.00516, at `t = 1.6037 / pi`.
    #[test]
    fn the_solution_solves_the_equation() {
        let u = |t: f64, x: f64| cole_hopf(&[t, x]);
        let h = 1e-4;
        for (t, x) in [(0.2, 0.3), (0.5, -0.6), (0.9, 0.5), (0.4, 0.05)] {
            let time = (u(t + h, x) - u(t - h, x)) / (2.0 * h);
            let slope = (u(t, x + h) - u(t, x - h)) / (2.0 * h);
            let second = (u(t, x + h) - 2.0 * u(t, x) + u(t, x - h)) / (h * h);
            let residual = time + u(t, x) * slope - VISCOSITY * second;
            assert!(
                residual.abs() < 1e-3 * (1.0 + slope.abs()),
                "{t}, {x}: {residual}"
            );
            assert!((u(t, x) + u(t, -x)).abs() < 1e-12);
        }
        assert!((u(1e-9, 0.3) + (0.3 * PI).sin()).abs() < 1e-6);
        let h = 1e-7;
        let steepest = (u(1.6037 / PI, h) - u(1.6037 / PI, -h)) / (2.0 * h);
        assert!((steepest + 152.00516).abs() < 1e-3, "{steepest}");
    }
}
