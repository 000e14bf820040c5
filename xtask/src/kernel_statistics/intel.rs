//! Statistics of ANV with the compiler brw, printed with `INTEL_DEBUG=cs`.

use super::page::{Row, Section};
use super::{Compiled, Kernel};
use crate::shell::Outcome;

/// A GPU of Intel.
pub(crate) struct Target {
    /// The shim's name for it.
    pub(crate) id: &'static str,
    title: &'static str,
    /// Lanes of a thread that the compiler aims at; wider ones it tries only on request.
    lanes: u32,
}

/// Discrete, integrated, and the present generation.
pub(crate) const TARGETS: [&Target; 3] = [
    &Target {
        id: "dg2",
        title: "Intel Xe-HPG (dg2: Arc A770)",
        lanes: 16,
    },
    &Target {
        id: "tgl",
        title: "Intel Xe-LP (tgl: Iris Xe)",
        lanes: 16,
    },
    &Target {
        id: "lnl",
        title: "Intel Xe2 (lnl: Arc 140V)",
        lanes: 32,
    },
];

/// What the driver says of one kernel.
#[derive(Debug, PartialEq, Eq)]
struct Statistics {
    lanes: u32,
    instructions: u32,
    loops: u32,
    cycles: u32,
    spills: u32,
    fills: u32,
    sends: u32,
}

/// The table of one GPU.
pub(crate) fn section(
    target: &Target,
    adapter: &str,
    compiled: &[Compiled<'_>],
) -> Outcome<Section> {
    let rows = super::rows(target.id, compiled, parse, |kernel, statistics| {
        row(target, kernel, statistics)
    })?;
    Ok(Section {
        title: target.title.into(),
        adapter: adapter.into(),
        refused: super::refused(compiled),
        measure: "lanes per thread",
        full: target.lanes,
        columns: &["instructions", "loops", "cycles", "sends"],
        rows,
    })
}

fn row(target: &Target, kernel: &Kernel, statistics: &Statistics) -> Row {
    let reason = if statistics.lanes >= target.lanes {
        String::new()
    } else if kernel.workgroup <= statistics.lanes {
        format!("workgroups of {}", kernel.workgroup)
    } else {
        "registers".into()
    };
    Row {
        kernel: kernel.clone(),
        level: statistics.lanes,
        reason,
        spills: statistics.spills + statistics.fills,
        values: vec![
            statistics.instructions,
            statistics.loops,
            statistics.cycles,
            statistics.sends,
        ],
    }
}

/// The lines `SIMD16 shader: 337 instructions. 1 loops. 42504 cycles. 0:0 spills:fills, 47 sends, ...` of one kernel; where there are
/// several, the one that the driver will run: the widest that does not spill, else the widest.
fn parse(output: &str) -> Option<Statistics> {
    output
        .lines()
        .filter_map(variant)
        .max_by_key(|variant| (variant.spills == 0, variant.lanes))
}

fn variant(line: &str) -> Option<Statistics> {
    let line = line.trim_start().strip_prefix("SIMD")?;
    let (lanes, rest) = line.split_once(" shader: ")?;
    // The number before a word.
    let before = |word: &str| -> Option<u32> {
        let (start, _) = rest.split_once(word)?;
        start.split([' ', ':']).next_back()?.parse().ok()
    };
    let (spills, _) = rest.split_once(" spills:fills")?.0.rsplit_once(':')?;
    Some(Statistics {
        lanes: lanes.parse().ok()?,
        instructions: before(" instructions")?,
        loops: before(" loops")?,
        cycles: before(" cycles")?,
        spills: spills.split(' ').next_back()?.parse().ok()?,
        fills: before(" spills:fills")?,
        sends: before(" sends")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Statistics, TARGETS, parse, row};
    use crate::kernel_statistics::Kernel;

    /// A matrix product for dg2, as Mesa 25.0.7 printed it; the listing is cut.
    const PRINTED: &str = "
SIMD16 CS compile failed: Failure to register allocate.  Reduce number of live scalar values to avoid this.
Native code for unnamed compute shader (null) (src_hash 0x04812e98) (sha1 dc4f996de9ce39bb6a144078a8782fa468c33806)
SIMD8 shader: 282 instructions. 0 loops. 1796 cycles. 0:0 spills:fills, 27 sends, scheduled with mode top-down. Promoted 0 constants. Non-SSA regs (after NIR): 309. Compacted 5392 to 4912 bytes (9%)
   START B0 (140 cycles)
and(1)          g54<1>UD        g0<0,1,0>UD     0xffffffc0UD    { align1 WE_all 1N };
";

    #[test]
    fn printed_statistics_are_read() {
        let expected = Statistics {
            lanes: 8,
            instructions: 282,
            loops: 0,
            cycles: 1796,
            spills: 0,
            fills: 0,
            sends: 27,
        };
        assert_eq!(parse(PRINTED), Some(expected));
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn of_several_widths_the_widest_that_does_not_spill_counts() {
        let wide = PRINTED.replace("SIMD8 shader", "SIMD16 shader");
        let both = parse(&format!("{PRINTED}{wide}"));
        assert_eq!(both.map(|read| read.lanes), Some(16));
        let spilling = wide.replace("0:0 spills", "3:5 spills");
        let both = parse(&format!("{PRINTED}{spilling}")).map(|read| read.lanes);
        assert_eq!(both, Some(8));
        let alone = parse(&spilling).map(|read| (read.spills, read.fills));
        assert_eq!(alone, Some((3, 5)));
    }

    #[test]
    fn narrow_threads_have_a_reason() {
        let kernel = Kernel {
            family: "dot".into(),
            name: "a".into(),
            workgroup: 64,
        };
        let reason = |text: &str| parse(text).map(|read| row(TARGETS[0], &kernel, &read).reason);
        assert_eq!(reason(PRINTED).as_deref(), Some("registers"));
        let wide = PRINTED.replace("SIMD8 shader", "SIMD16 shader");
        assert_eq!(reason(&wide).as_deref(), Some(""));
        let small = Kernel {
            workgroup: 8,
            ..kernel.clone()
        };
        let small = parse(PRINTED).map(|read| row(TARGETS[0], &small, &read).reason);
        assert_eq!(small.as_deref(), Some("workgroups of 8"));
    }
}
