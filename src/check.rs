//! Whether an objective of somebody's own is what optimizers rely on.

use std::fmt;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::linalg::{Operator, PROBE_TOLERANCE, dot, norm};
use crate::objective::{
    Curvature, Curved, DISPLACEMENT, Gradient, GradientRequest, Loaded, Losses, QuadraticRequest,
    Slot,
};
use crate::vector::Vector;

/// What a gradient in f32 may be off by, of its slope along a direction: differences of losses see no more.
const SLOPES: f64 = 1e-2;
/// What products may be off by from differences of gradients.
const PRODUCTS: f64 = 1e-2;
/// What [`check()`] found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Check {
    /// Whether two runs gave the same bits of loss and gradient.
    pub repeatable: bool,
    /// `|s - g.v| / |g.v|`, with the slope `s` of the loss by a central difference along the gradient; and the part of it that errors of the
    /// losses may have made.
    pub slope: (f64, f64),
    /// Of products with the curvature, where there are any.
    pub products: Option<CheckedProducts>,
}

/// What [`check()`] found about products.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CheckedProducts {
    /// The matrix.
    pub curvature: Curvature,
    /// Whether two runs gave the same bits.
    pub repeatable: bool,
    /// `|C(2v) - 2 Cv| / |2 Cv|`
    pub linear: f64,
    /// `|u.Cv - v.Cu| / (|u| |Cv| + |v| |Cu|)`
    pub symmetric: f64,
    /// `|Cv - (g(theta + ev) - g(theta - ev)) / 2e| / |Cv|` along a random direction. Of the Hessian it is an error; the Gauss-Newton
    /// matrix is another one, and need not be near.
    pub difference: f64,
}

impl Check {
    /// Whether all is well: the same bits twice, slopes within 1 % and what the losses' errors make, products linear and symmetric to 1e-4,
    /// and those with the Hessian within 1 % of differences.
    pub fn passed(&self) -> bool {
        let (found, noise) = self.slope;
        let products = self.products.as_ref().is_none_or(|p| {
            let near = p.curvature != Curvature::Hessian || p.difference <= PRODUCTS;
            p.repeatable && p.linear <= PROBE_TOLERANCE && p.symmetric <= PROBE_TOLERANCE && near
        });
        self.repeatable && found <= SLOPES + noise && products
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |good: bool| if good { "ok" } else { "WRONG" };
        let (found, noise) = self.slope;
        writeln!(
            f,
            "{:<5} gradient: the same bits twice",
            word(self.repeatable)
        )?;
        let slopes = word(found <= SLOPES + noise);
        writeln!(
            f,
            "{slopes:<5} gradient: {found:.1e} from the slope of the loss, of which its rounding may be {noise:.1e}"
        )?;
        let Some(p) = &self.products else {
            return Ok(());
        };
        let name = match p.curvature {
            Curvature::GaussNewton => "Gauss-Newton product",
            _ => "Hessian product",
        };
        writeln!(f, "{:<5} {name}: the same bits twice", word(p.repeatable))?;
        writeln!(
            f,
            "{:<5} {name}: C(2v) - 2Cv is {:.1e} of it",
            word(p.linear <= PROBE_TOLERANCE),
            p.linear
        )?;
        writeln!(
            f,
            "{:<5} {name}: u.Cv - v.Cu is {:.1e} of them",
            word(p.symmetric <= PROBE_TOLERANCE),
            p.symmetric
        )?;
        let differences = format!(
            "{name}: {:.1e} from a difference of gradients",
            p.difference
        );
        match p.curvature {
            Curvature::Hessian => {
                writeln!(f, "{:<5} {differences}", word(p.difference <= PRODUCTS))
            }
            _ => writeln!(f, "      {differences}, which is of the Hessian"),
        }
    }
}

/// Looks once, before a long run, whether an objective is what optimizers rely on at `theta` on `batch`: a gradient that is that of the
/// loss, and products that are repeatable, linear, symmetric and, of the Hessian, near differences of gradients. With [`Curvature::None`]
/// the gradient alone. Some twelve evaluations, with blocking readbacks of whole vectors. What it found is printed by `{}`.
///
/// ```
/// use osculant::objective::{Curvature, Curved};
/// # use osculant::vector::Vector;
/// fn look<O: Curved>(own: &mut O, theta: &Vector, batch: &O::Batch) -> osculant::Result<()> {
///     let found = osculant::check(own, theta, batch, Curvature::Hessian)?;
///     print!("{found}");
///     assert!(found.passed());
///     Ok(())
/// }
/// ```
///
/// # Errors
/// Those of the objective; loss of the device.
#[cfg(not(target_arch = "wasm32"))]
pub fn check<O: Curved + ?Sized>(
    objective: &mut O,
    theta: &Vector,
    batch: &O::Batch,
    curvature: Curvature,
) -> Result<Check> {
    crate::gpu::blocking(check_async(objective, theta, batch, curvature))
}

/// As [`check()`], without blocking the thread.
///
/// # Errors
/// As there.
pub async fn check_async<O: Curved + ?Sized>(
    objective: &mut O,
    theta: &Vector,
    batch: &O::Batch,
    curvature: Curvature,
) -> Result<Check> {
    let gpu = objective.gpu().clone();
    let loaded = objective.load(Slot::default(), batch)?;
    let gradient = objective.gradient(theta, &loaded, GradientRequest { losses: true })?;
    let (first, second) = (run(&gpu, &gradient).await?, run(&gpu, &gradient).await?);
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let repeatable = bits(&first) == bits(&second);
    let slope = slope(&gpu, &gradient, theta).await?;
    let products = match curvature {
        Curvature::None => None,
        _ => Some(products(objective, theta, &loaded, curvature).await?),
    };
    Ok(Check {
        repeatable,
        slope,
        products,
    })
}

/// Loss and gradient.
async fn run(gpu: &Gpu, gradient: &Gradient) -> Result<Vec<f32>> {
    gpu.run_async([&gradient.run]).await?;
    let mut all = gpu.read_async(&[&gradient.value]).await?.concat();
    all.extend(gradient.gradient.read_async(gpu).await?.concat());
    Ok(all)
}

/// How far a displacement of a direction goes, over the direction: as in [`FiniteDifferences`](crate::objective::FiniteDifferences).
fn reach(theta: &[Vec<f32>], v: &[Vec<f32>]) -> f64 {
    f64::from(DISPLACEMENT) * (1.0 + norm(&theta.concat())).cbrt() / norm(&v.concat())
}

/// `theta + e v`
fn displaced(theta: &[Vec<f32>], e: f64, v: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let add = |(x, v): (&f32, &f32)| (f64::from(*x) + e * f64::from(*v)) as f32;
    let tensors = theta.iter().zip(v);
    tensors
        .map(|(x, v)| x.iter().zip(v).map(add).collect())
        .collect()
}

/// The error of the slope along the gradient, and what the losses' errors may make of it.
async fn slope(gpu: &Gpu, gradient: &Gradient, theta: &Vector) -> Result<(f64, f64)> {
    let (at, g) = (
        theta.read_async(gpu).await?,
        gradient.gradient.read_async(gpu).await?,
    );
    let square = dot(&g.concat(), &g.concat());
    let Some(losses) = gradient.losses.as_ref().filter(|_| square > 0.0) else {
        return Ok((0.0, 0.0));
    };
    let e = reach(&at, &g);
    gpu.run_async([&losses.at_base]).await?;
    let [ahead, one] = change(gpu, losses, &displaced(&at, e, &g)).await?;
    let [behind, other] = change(gpu, losses, &displaced(&at, -e, &g)).await?;
    let found = (ahead - behind) / (2.0 * e);
    Ok((
        (found - square).abs() / square,
        (one + other) / (2.0 * e * square),
    ))
}

/// The change of the loss at a point, and the bound on its error.
async fn change(gpu: &Gpu, losses: &Losses, at: &[Vec<f32>]) -> Result<[f64; 2]> {
    losses.point.write_async(gpu, at).await?;
    gpu.run_async([&losses.at_point]).await?;
    let found = gpu.read_async(&[&losses.results]).await?.concat();
    Ok([1, 2].map(|i| found.get(i).copied().map_or(f64::NAN, f64::from)))
}

async fn products<O: Curved + ?Sized>(
    objective: &mut O,
    theta: &Vector,
    loaded: &Loaded,
    curvature: Curvature,
) -> Result<CheckedProducts> {
    let gpu = objective.gpu().clone();
    let request = QuadraticRequest {
        curvature,
        ..QuadraticRequest::default()
    };
    let quadratic = objective.quadratic(theta, loaded, request)?;
    gpu.run_async([&quadratic.linearize]).await?;
    let found = Operator::from(&*quadratic).behaviour(&gpu).await?;
    let (v, cv) = (&found.v, &found.product);
    let over = |[off, size]: [f64; 2]| if size > 0.0 { off / size } else { off };
    // Last, because it evaluates elsewhere.
    let point = Vector::new(&gpu, "displaced parameters", theta.layout())?;
    let there = objective.gradient(&point, loaded, GradientRequest::default())?;
    let (at, mut slopes) = (theta.read_async(&gpu).await?, Vec::new());
    let e = reach(&at, v);
    for e in [e, -e] {
        point.write_async(&gpu, &displaced(&at, e, v)).await?;
        gpu.run_async([&there.run]).await?;
        slopes.push(there.gradient.read_async(&gpu).await?);
    }
    let difference: Vec<f64> = (slopes[0].concat().iter().zip(slopes[1].concat()))
        .map(|(a, b)| (f64::from(*a) - f64::from(b)) / (2.0 * e))
        .collect();
    let apart = difference.iter().zip(cv);
    let apart = apart.map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>();
    Ok(CheckedProducts {
        curvature,
        repeatable: found.different == 0,
        linear: over(found.nonlinear),
        symmetric: over(found.asymmetric),
        difference: over([apart.sqrt(), norm(cv)]),
    })
}
