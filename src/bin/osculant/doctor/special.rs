//! What becomes of NaN, infinities and numbers too small for a full mantissa.

use osculant::gpu::Gpu;

use super::{Finding, Section, execute};

const SOURCE: &str = include_str!("../../../../shaders/doctor/special.wgsl");

const NUMBERS: [f32; 9] = [
    f32::NAN,
    f32::INFINITY,
    0.0,
    1.0,
    1e-40,
    f32::MIN_POSITIVE,
    100.0,
    3e38,
    -1.0,
];

/// What is tried, in the order of the shader, and what IEEE 754 makes of it; `max`, `min` and `clamp` as the crate defines them, NaN in,
/// NaN out.
const CASES: [(&str, f32); 25] = [
    ("NaN by its bits", 1.0),
    ("NaN == NaN", 0.0),
    ("NaN != NaN", 1.0),
    ("NaN < 1", 0.0),
    ("max(NaN, 0)", f32::NAN),
    ("min(NaN, 0)", f32::NAN),
    ("clamp(NaN, 0, 1)", f32::NAN),
    ("NaN + 1", f32::NAN),
    ("NaN * 0", f32::NAN),
    ("0 / 0", f32::NAN),
    ("1 / 0", f32::INFINITY),
    ("inf - inf", f32::NAN),
    ("inf * 0", f32::NAN),
    ("3e38 * 100", f32::INFINITY),
    ("exp(100)", f32::INFINITY),
    ("exp(-10000)", 0.0),
    ("log(0)", f32::NEG_INFINITY),
    ("log(-1)", f32::NAN),
    ("sqrt(-1)", f32::NAN),
    ("tanh(100)", 1.0),
    ("tanh(NaN)", f32::NAN),
    ("exp(NaN)", f32::NAN),
    ("sin(NaN)", f32::NAN),
    ("1e-40 * 1", 1e-40),
    ("2^-126 / 2", f32::MIN_POSITIVE / 2.0),
];
/// The cases about subnormal numbers.
const SUBNORMAL: usize = 23;

/// Computes with them.
pub(super) fn probe(gpu: &Gpu) -> osculant::Result<Section> {
    let read = execute(gpu, "special numbers", SOURCE, &NUMBERS, CASES.len(), 1)?;
    Ok(judge(&read))
}

fn judge(read: &[u32]) -> Section {
    let findings: Vec<Finding> = CASES
        .iter()
        .zip(read)
        .map(|(&(what, expected), &bits)| {
            let found = f32::from_bits(bits);
            let agrees =
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            Finding::new(what, shown(found), shown(expected), agrees)
        })
        .collect();
    let differ = |findings: &[Finding]| {
        let names = findings
            .iter()
            .filter(|f| !f.agrees)
            .map(|f| f.what.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let mut remarks = Vec::new();
    if !findings[0].agrees {
        remarks.push("not even the bits of a NaN are what they should be: losses that are not finite may pass unseen on this \
        adapter".to_owned());
    }
    let special = differ(&findings[1..SUBNORMAL]);
    if !special.is_empty() {
        remarks.push(format!(
            "{special} differ from IEEE 754, as WGSL allows; the kernels of this crate know NaN by its bits and do not rely on these"
        ));
    }
    if !differ(&findings[SUBNORMAL..]).is_empty() {
        remarks.push(
            "numbers below 1.2e-38 become zero; quantities of that size need another unit"
                .to_owned(),
        );
    }
    Section {
        name: "special numbers",
        findings,
        remarks,
    }
}

fn shown(number: f32) -> String {
    if number != 0.0 && number.is_finite() && !(1e-3..1e6).contains(&number.abs()) {
        format!("{number:e}")
    } else {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_ieee_is_named() {
        let mut bits = CASES.map(|(_, expected)| expected.to_bits());
        assert!(judge(&bits).remarks.is_empty());
        bits[4] = 0;
        bits[24] = 0;
        let remarks = judge(&bits).remarks;
        assert!(remarks[0].starts_with("max(NaN, 0) differ"), "{remarks:?}");
        assert!(remarks[1].contains("become zero"), "{remarks:?}");
    }
}
