//! Errors of elementary functions.

use osculant::gpu::Gpu;

use super::{Finding, Section, execute};
use crate::synthetic::uniform;

const SOURCE: &str = include_str!("../../../../shaders/doctor/functions.wgsl");
/// Points of each function, as in the shader.
const COUNT: usize = 2048;
/// Errors from which on a function is remarked on, in units of the last place.
const LARGE: f64 = 16.0;

/// A function with its twin, and where it is tried.
struct Function {
    name: &'static str,
    twin: fn(f64, f64) -> f64,
    /// A point from two numbers in 0..1.
    point: fn(f32, f32) -> [f32; 2],
    /// What WGSL allows, in words.
    allowed: &'static str,
    /// The same as a number: the largest error at a point, from x and the unit of the last place of the exact value there.
    bound: fn(f64, f64) -> f64,
}

/// From 2^-60 to 2^60.
fn any_size(u: f32) -> f32 {
    (120.0 * u - 60.0).exp2()
}

const FUNCTIONS: [Function; 8] = [
    Function {
        name: "exp, -80 to 80",
        twin: |x, _| x.exp(),
        point: |u, _| [160.0 * u - 80.0, 0.0],
        allowed: "3 + 2 |x| ulp",
        bound: |x, ulp| (3.0 + 2.0 * x.abs()) * ulp,
    },
    Function {
        name: "log, 2^-60 to 2^60, half of them near 1",
        twin: |x, _| x.ln(),
        point: |u, v| [if v < 0.5 { any_size(u) } else { 0.5 + 1.5 * u }, 0.0],
        allowed: "3 ulp, 2^-21 near 1",
        bound: |x, ulp| {
            if (0.5..=2.0).contains(&x) {
                2f64.powi(-21)
            } else {
                3.0 * ulp
            }
        },
    },
    Function {
        name: "sin, -3.1 to 3.1",
        twin: |x, _| x.sin(),
        point: |u, _| [6.25 * u - 3.125, 0.0],
        allowed: "2^-11",
        bound: |_, _| 2f64.powi(-11),
    },
    Function {
        name: "cos, -3.1 to 3.1",
        twin: |x, _| x.cos(),
        point: |u, _| [6.25 * u - 3.125, 0.0],
        allowed: "2^-11",
        bound: |_, _| 2f64.powi(-11),
    },
    Function {
        name: "tanh, -9 to 9, half of them near 0",
        twin: |x, _| x.tanh(),
        point: |u, v| {
            [
                if v < 0.5 {
                    18.0 * u - 9.0
                } else {
                    (-20.0 * u).exp2()
                },
                0.0,
            ]
        },
        allowed: "1e-5",
        bound: |_, _| 1e-5,
    },
    Function {
        name: "sqrt, 2^-60 to 2^60",
        twin: |x, _| x.sqrt(),
        point: |u, _| [any_size(u), 0.0],
        allowed: "4.5 ulp",
        bound: |_, ulp| 4.5 * ulp,
    },
    Function {
        name: "1 / sqrt, 2^-60 to 2^60",
        twin: |x, _| 1.0 / x.sqrt(),
        point: |u, _| [any_size(u), 0.0],
        allowed: "2 ulp",
        bound: |_, ulp| 2.0 * ulp,
    },
    Function {
        name: "x / y, 2^-60 to 2^60",
        twin: |x, y| x / y,
        point: |u, v| [any_size(u), any_size(v)],
        allowed: "2.5 ulp",
        bound: |_, ulp| 2.5 * ulp,
    },
];

/// Compares functions with their twins in f64.
pub(super) fn probe(gpu: &Gpu) -> osculant::Result<Section> {
    let points = points();
    let read = execute(
        gpu,
        "functions",
        SOURCE,
        &points,
        points.len(),
        points.len() / 64,
    )?;
    let read: Vec<f32> = read.into_iter().map(f32::from_bits).collect();
    Ok(judge(&points, &read))
}

fn points() -> Vec<[f32; 2]> {
    let of = |function: &Function| {
        let point = function.point;
        (0..COUNT).map(move |index| point(uniform(2, index), uniform(3, index)))
    };
    FUNCTIONS.iter().flat_map(of).collect()
}

/// The distance of neighbouring f32 at this size.
fn unit_in_the_last_place(value: f64) -> f64 {
    2f64.powi((value.abs().log2().floor() as i32).clamp(-126, 127) - 23)
}

fn judge(points: &[[f32; 2]], read: &[f32]) -> Section {
    let (mut findings, mut large) = (Vec::new(), Vec::new());
    let mut outside = Vec::new();
    for (function, (points, found)) in FUNCTIONS
        .iter()
        .zip(points.chunks(COUNT).zip(read.chunks(COUNT)))
    {
        let (mut worst, mut worst_at, mut absolute) = (0.0f64, 0.0f32, 0.0f64);
        let mut within = true;
        for (&[x, y], &found) in points.iter().zip(found) {
            let exact = (function.twin)(f64::from(x), f64::from(y));
            let ulp = unit_in_the_last_place(exact);
            let error = if found.is_finite() {
                (f64::from(found) - exact).abs()
            } else {
                f64::INFINITY
            };
            // Half a unit more: the bound is about a value that need not be an f32.
            within &= error <= (function.bound)(f64::from(x), ulp) + 0.5 * ulp;
            absolute = absolute.max(error);
            if error / ulp > worst {
                (worst, worst_at) = (error / ulp, x);
            }
        }
        let shown = format!("{worst:.1} ulp at {worst_at:.3e}, at most {absolute:.1e}");
        findings.push(Finding::new(function.name, shown, function.allowed, within));
        let short = function.name.split(',').next().unwrap_or_default();
        if !within {
            outside.push(short);
        } else if worst > LARGE {
            large.push(short);
        }
    }
    let mut remarks = Vec::new();
    if !outside.is_empty() {
        remarks.push(format!(
            "{} less exact than WGSL asks for; this is the driver's defect",
            are(&outside)
        ));
    }
    if !large.is_empty() {
        remarks.push(format!(
            "{} within what WGSL allows, but with large relative errors somewhere; tolerances of tests on this adapter must know",
            are(&large)
        ));
    }
    Section {
        name: "functions",
        findings,
        remarks,
    }
}

fn are(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_values_pass_and_others_are_told() {
        assert_eq!(unit_in_the_last_place(1.0), f64::from(f32::EPSILON));
        assert_eq!(unit_in_the_last_place(-3.0), 2.0 * f64::from(f32::EPSILON));
        let points = points();
        let mut read: Vec<f32> = points
            .iter()
            .enumerate()
            .map(|(index, &[x, y])| {
                (FUNCTIONS[index / COUNT].twin)(f64::from(x), f64::from(y)) as f32
            })
            .collect();
        let section = judge(&points, &read);
        assert!(section.remarks.is_empty(), "{section:?}");
        assert!(
            section
                .findings
                .iter()
                .all(|finding| finding.found.starts_with("0.5 ulp")),
            "{section:?}"
        );
        read[7 * COUNT] *= 1.000_001;
        read[5 * COUNT] = f32::NAN;
        let section = judge(&points, &read);
        assert!(
            section.remarks[0].starts_with("sqrt, x / y are less exact"),
            "{section:?}"
        );
    }
}
