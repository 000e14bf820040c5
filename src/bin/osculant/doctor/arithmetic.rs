//! Sums and products with their rounding errors.

use osculant::gpu::Gpu;

use super::{Finding, Section, execute};
use crate::synthetic::uniform;

const SOURCE: &str = include_str!("../../../../shaders/doctor/arithmetic.wgsl");
/// Triples of numbers, and results of each.
const COUNT: usize = 1024;
const RESULTS: usize = 7;

/// Adds and multiplies.
pub(super) fn probe(gpu: &Gpu) -> osculant::Result<Section> {
    let numbers: Vec<[f32; 4]> = (0..COUNT).map(numbers).collect();
    let read = execute(
        gpu,
        "rounding errors",
        SOURCE,
        &numbers,
        RESULTS * COUNT,
        COUNT.div_ceil(64),
    )?;
    let read: Vec<f32> = read.into_iter().map(f32::from_bits).collect();
    Ok(judge(&numbers, &read))
}

/// `a` from 2^11 to 2^12, `b` from 1 to 2, and minus their rounded product: sums and products are exact in f64, and `a b + c` is what
/// rounding left.
fn numbers(index: usize) -> [f32; 4] {
    let (a, b) = (2048.0 * (1.0 + uniform(0, index)), 1.0 + uniform(1, index));
    [a, b, -(a * b), 0.0]
}

fn judge(numbers: &[[f32; 4]], read: &[f32]) -> Section {
    let count = |result: usize, expected: fn(f32, f32) -> f32| {
        let right = |(numbers, found): &(&[f32; 4], &[f32])| {
            found[result] == expected(numbers[0], numbers[1])
        };
        numbers
            .iter()
            .zip(read.chunks_exact(RESULTS))
            .filter(right)
            .count()
    };
    let sum_error = |a: f32, b: f32| (f64::from(a) + f64::from(b) - f64::from(a + b)) as f32;
    let product_error = |a: f32, b: f32| (f64::from(a) * f64::from(b) - f64::from(a * b)) as f32;
    let all = numbers.len();
    let fused = count(5, product_error);
    let (contracted, twice) = (count(6, product_error), count(6, |_, _| 0.0));
    let mut findings = vec![
        Finding::count("a + b rounded to nearest", count(0, |a, b| a + b), all),
        Finding::count("two-sum finds its error", count(1, sum_error), all),
        Finding::count("fast two-sum finds its error", count(2, sum_error), all),
        Finding::count("a b rounded to nearest", count(3, |a, b| a * b), all),
        Finding::count(
            "two-product by splitting finds its error",
            count(4, product_error),
            all,
        ),
        Finding::count(
            "two-product by fma finds its error (fma is fused)",
            fused,
            all,
        ),
    ];
    let plain = if contracted > twice {
        format!("fused, {contracted} of {all}")
    } else {
        format!("rounded twice, {twice} of {all}")
    };
    // Either is allowed.
    findings.push(Finding::new("a b + c without fma", plain, "", true));
    let mut remarks = Vec::new();
    if !findings[0].agrees || !findings[3].agrees {
        remarks.push("sums or products are not rounded to nearest: errors are larger than rounding analysis has it".to_owned());
    }
    if !(findings[1].agrees && findings[2].agrees) {
        remarks.push("compensated sums lose their error terms; the kernels of this crate add in levels instead".to_owned());
    }
    if !findings[4].agrees {
        remarks.push(
            "products by splitting lose their error terms; no kernel of this crate needs them"
                .to_owned(),
        );
    }
    if !findings[5].agrees {
        remarks.push("fma is not fused: it rounds twice, as WGSL allows".to_owned());
    }
    Section {
        name: "arithmetic",
        findings,
        remarks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shader's formulas in Rust, which keeps to them.
    fn twin([a, b, c, _]: [f32; 4]) -> [f32; RESULTS] {
        let upper = |x: f32| 4097.0 * x - (4097.0 * x - x);
        let (s, p) = (a + b, a * b);
        let part = s - a;
        let (ah, bh) = (upper(a), upper(b));
        let (al, bl) = (a - ah, b - bh);
        let two_sum = (a - (s - part)) + (b - part);
        let two_product = al * bl - (((p - ah * bh) - al * bh) - ah * bl);
        [
            s,
            two_sum,
            b - part,
            p,
            two_product,
            a.mul_add(b, -p),
            p + c,
        ]
    }

    #[test]
    fn exact_arithmetic_passes_and_lost_errors_are_told() {
        let numbers: Vec<[f32; 4]> = (0..COUNT).map(numbers).collect();
        let mut read = numbers.iter().copied().flat_map(twin).collect::<Vec<_>>();
        let section = judge(&numbers, &read);
        assert!(section.remarks.is_empty(), "{section:?}");
        assert!(
            section.findings[6].found.starts_with("rounded twice, 1024"),
            "{section:?}"
        );
        for results in read.chunks_exact_mut(RESULTS) {
            results[1] = 0.0;
            results[5] = 0.0;
        }
        let section = judge(&numbers, &read);
        assert_eq!(section.remarks.len(), 2, "{section:?}");
        assert!(!section.findings[1].agrees && section.findings[2].agrees);
    }
}
