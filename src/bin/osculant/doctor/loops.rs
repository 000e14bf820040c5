//! Whether long loops run to their ends.

use osculant::gpu::Gpu;

use super::{Finding, Section, execute};

const SOURCE: &str = include_str!("../../../../shaders/doctor/loops.wgsl");

/// What is tried: iterations of a loop, of one after it, and of an outer and an inner one.
const CASES: [(&str, [u32; 4]); 4] = [
    ("a loop of 70,000", [70_000, 0, 0, 0]),
    ("a loop of 1,000,000", [1_000_000, 0, 0, 0]),
    ("two of 40,000, one after the other", [40_000, 40_000, 0, 0]),
    ("300 of 300, one inside another", [0, 0, 300, 300]),
];

/// Runs loops that are longer than some drivers let them be.
pub(super) fn probe(gpu: &Gpu) -> osculant::Result<Section> {
    let counts = CASES.map(|(_, counts)| counts);
    let read = execute(
        gpu,
        "long loops",
        SOURCE,
        &counts,
        2 * CASES.len(),
        CASES.len(),
    )?;
    Ok(judge(&read))
}

fn judge(read: &[u32]) -> Section {
    let (mut findings, mut remarks) = (Vec::new(), Vec::new());
    for ((what, [first, second, outer, inner]), state) in CASES.iter().zip(read.chunks_exact(2)) {
        let (expected, ran) = (first + second + outer * inner, state[0]);
        let agrees = ran == expected && state[1] == last(ran);
        let found = if state[1] == last(ran) {
            format!("{ran} iterations")
        } else {
            format!("{ran} iterations, with another result")
        };
        findings.push(Finding::new(
            *what,
            found,
            format!("{expected} iterations"),
            agrees,
        ));
    }
    if findings.iter().any(|finding| !finding.agrees) {
        remarks.push(format!(
            "loops end early here ({}), all of an invocation together and without an error; the kernels of this crate stay below 65,535 \
                and divide longer sums among invocations",
            findings[1].found
        ));
    }
    Section {
        name: "loops",
        findings,
        remarks,
    }
}

/// The state after so many iterations; see the shader.
fn last(iterations: u32) -> u32 {
    (0..iterations.min(1 << 24)).fold(0u32, |x, _| {
        x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_that_end_early_are_told() {
        let right = [70_000u32, 1_000_000, 80_000, 90_000]
            .map(|n| [n, last(n)])
            .concat();
        assert!(judge(&right).remarks.is_empty());
        let short = [65_535u32; 4].map(|n| [n, last(n)]).concat();
        let section = judge(&short);
        assert!(
            section.remarks[0].contains("65535 iterations"),
            "{section:?}"
        );
        assert!(section.findings.iter().all(|finding| !finding.agrees));
        // The right number with a state that no loop left.
        let mut other = right;
        other[1] += 1;
        assert!(!judge(&other).findings[0].agrees);
    }
}
