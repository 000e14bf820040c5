//! Statistics of RADV with the compiler ACO, printed with `RADV_DEBUG=shaderstats`.

use super::page::{Row, Section};
use super::{Compiled, Kernel};
use crate::shell::Outcome;

/// What decides how many waves of 64 lanes fit on one SIMD, as `radv_get_max_waves` of Mesa 25.0 counts.
pub(crate) struct Target {
    /// The shim's name for it.
    pub(crate) id: &'static str,
    title: &'static str,
    /// Most waves on a SIMD.
    waves: u32,
    /// Registers per lane of all waves together, and how many are given at once.
    vgprs: u32,
    vgpr_granule: u32,
    /// The same for scalar registers; none where every wave has its own fixed share.
    sgprs: Option<u32>,
    /// A SIMD's share of the workgroup memory (LDS) of its compute unit or pair of them, in bytes.
    lds: u32,
    lds_granule: u32,
    /// The driver counts a wave of 64 lanes as this many subgroups.
    subgroups_per_wave: u32,
}

/// The last two generations for games, and the one before, which is also that of the integrated GPUs of many laptops.
pub(crate) const TARGETS: [&Target; 3] = [
    &Target {
        id: "navi31",
        title: "AMD RDNA 3 (navi31: Radeon RX 7900)",
        waves: 16,
        vgprs: 768,
        vgpr_granule: 12,
        sgprs: None,
        lds: 32768,
        lds_granule: 1024,
        subgroups_per_wave: 2,
    },
    &Target {
        id: "navi21",
        title: "AMD RDNA 2 (navi21: Radeon RX 6800 and 6900)",
        waves: 16,
        vgprs: 512,
        vgpr_granule: 8,
        sgprs: None,
        lds: 32768,
        lds_granule: 1024,
        subgroups_per_wave: 2,
    },
    &Target {
        id: "vega10",
        title: "AMD GCN 5 (vega10: Radeon RX Vega)",
        waves: 10,
        vgprs: 256,
        vgpr_granule: 4,
        sgprs: Some(800),
        lds: 16384,
        lds_granule: 512,
        subgroups_per_wave: 1,
    },
];

/// What the driver says of one kernel.
#[derive(Debug, PartialEq, Eq)]
struct Statistics {
    vgprs: u32,
    sgprs: u32,
    spilled_vgprs: u32,
    spilled_sgprs: u32,
    lds: u32,
    scratch: u32,
    code: u32,
    subgroups: u32,
    instructions: u32,
    latency: u32,
    inverse_throughput: u32,
}

/// What lets no more waves onto a SIMD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// All waves fit.
    None,
    Vgprs,
    Sgprs,
    Lds,
    /// The driver counts otherwise than [`limit`]; a newer driver, probably.
    Unexplained,
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
        measure: "waves per SIMD",
        full: target.waves,
        columns: &[
            "VGPRs",
            "SGPRs",
            "LDS bytes",
            "instructions",
            "code bytes",
            "latency",
            "inverse throughput",
        ],
        rows,
    })
}

fn row(target: &Target, kernel: &Kernel, statistics: &Statistics) -> Row {
    let waves = statistics.subgroups / target.subgroups_per_wave;
    let reason = match limit(target, kernel.workgroup, statistics) {
        Limit::None => String::new(),
        Limit::Vgprs => format!("{} VGPRs", statistics.vgprs),
        Limit::Sgprs => format!("{} SGPRs", statistics.sgprs),
        Limit::Lds => format!(
            "{} bytes of LDS for {} invocations",
            statistics.lds, kernel.workgroup
        ),
        Limit::Unexplained => "not explained".into(),
    };
    Row {
        kernel: kernel.clone(),
        level: waves,
        reason,
        spills: statistics.spilled_vgprs + statistics.spilled_sgprs + statistics.scratch,
        values: vec![
            statistics.vgprs,
            statistics.sgprs,
            statistics.lds,
            statistics.instructions,
            statistics.code,
            statistics.latency,
            statistics.inverse_throughput,
        ],
    }
}

/// The lines `name: number` of one kernel.
fn parse(output: &str) -> Option<Statistics> {
    let field = |name: &str| -> Option<u32> {
        output
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .and_then(|(_, value)| value.trim().parse().ok())
    };
    Some(Statistics {
        vgprs: field("VGPRs")?,
        sgprs: field("SGPRs")?,
        spilled_vgprs: field("Spilled VGPRs")?,
        spilled_sgprs: field("Spilled SGPRs")?,
        lds: field("LDS size")?,
        scratch: field("Scratch size")?,
        code: field("Code size")?,
        subgroups: field("Subgroups per SIMD")?,
        instructions: field("Instructions")?,
        latency: field("Latency")?,
        inverse_throughput: field("Inverse Throughput")?,
    })
}

/// Which resource gives the number of waves that the driver reports.
fn limit(target: &Target, workgroup: u32, statistics: &Statistics) -> Limit {
    // The driver compiles workgroups of up to 32 invocations for waves of 32 lanes where there are such, and two of them count as one of
    // 64.
    let small = target.subgroups_per_wave == 2 && workgroup <= 32;
    let (lanes, granule) = if small {
        (32, 2 * target.vgpr_granule)
    } else {
        (64, target.vgpr_granule)
    };
    let by_vgprs = target.vgprs * (64 / lanes)
        / statistics
            .vgprs
            .max(1)
            .next_multiple_of(if small { 8 } else { 4 })
            .next_multiple_of(granule);
    let by_sgprs = target.sgprs.map_or(u32::MAX, |all| {
        all / statistics.sgprs.max(1).next_multiple_of(16)
    });
    let lds_per_wave =
        statistics.lds.next_multiple_of(target.lds_granule) / workgroup.div_ceil(lanes).max(1);
    let by_lds = if lds_per_wave == 0 {
        u32::MAX
    } else {
        target.lds.div_ceil(lds_per_wave)
    };
    let waves = target.waves.min(by_vgprs).min(by_sgprs).min(by_lds);
    let reported = statistics.subgroups * 64 / (lanes * target.subgroups_per_wave);
    if waves != reported {
        Limit::Unexplained
    } else if waves == target.waves {
        Limit::None
    } else if waves == by_lds {
        Limit::Lds
    } else if waves == by_vgprs {
        Limit::Vgprs
    } else {
        Limit::Sgprs
    }
}

#[cfg(test)]
mod tests {
    use super::{Limit, Statistics, TARGETS, limit, parse, row};
    use crate::kernel_statistics::Kernel;

    /// A matrix product for navi31, as Mesa 25.0.7 printed it.
    const PRINTED: &str = "
Compute Shader:
*** SHADER STATS ***
Driver pipeline hash: 16422520358436504701
SGPRs: 128
VGPRs: 84
Spilled SGPRs: 0
Spilled VGPRs: 0
Code size: 1896
LDS size: 0
Scratch size: 0
Subgroups per SIMD: 18
Combined inputs: 0
Combined outputs: 0
Hash: 3949825771
Instructions: 394
Copies: 69
Branches: 11
Latency: 5201
Inverse Throughput: 1316
VMEM Clause: 12
SMEM Clause: 9
Pre-Sched SGPRs: 15
Pre-Sched VGPRs: 71
VALU: 278
SALU: 21
VMEM: 20
SMEM: 10
VOPD: 0
********************
";

    fn statistics(vgprs: u32, sgprs: u32, lds: u32, subgroups: u32) -> Statistics {
        Statistics {
            vgprs,
            sgprs,
            spilled_vgprs: 0,
            spilled_sgprs: 0,
            lds,
            scratch: 0,
            code: 0,
            subgroups,
            instructions: 0,
            latency: 0,
            inverse_throughput: 0,
        }
    }

    #[test]
    fn printed_statistics_are_read() {
        let read = parse(PRINTED);
        let expected = Statistics {
            code: 1896,
            instructions: 394,
            latency: 5201,
            inverse_throughput: 1316,
            ..statistics(84, 128, 0, 18)
        };
        assert_eq!(read, Some(expected));
        assert_eq!(parse(&PRINTED.replace("VGPRs: 84", "")), None);
    }

    #[test]
    fn spills_are_counted() {
        let kernel = Kernel {
            family: "dot".into(),
            name: "a".into(),
            workgroup: 64,
        };
        let spilled = PRINTED
            .replace("Spilled SGPRs: 0", "Spilled SGPRs: 2")
            .replace("Scratch size: 0", "Scratch size: 256");
        let row = parse(&spilled).map(|read| row(TARGETS[0], &kernel, &read));
        let row = row.map(|row| (row.spills, row.level, row.reason));
        assert_eq!(row, Some((258, 9, "84 VGPRs".into())));
    }

    #[test]
    fn the_limit_agrees_with_the_driver() {
        let [navi31, navi21, vega10] = TARGETS;
        // GPU, registers and workgroup memory of a kernel for workgroups of 64, and what explains the waves.
        for (target, statistics, expected) in [
            (navi31, statistics(12, 128, 512, 32), Limit::None),
            (navi31, statistics(84, 128, 0, 18), Limit::Vgprs),
            (navi31, statistics(96, 128, 0, 16), Limit::Vgprs),
            (navi21, statistics(80, 128, 0, 12), Limit::Vgprs),
            (vega10, statistics(28, 48, 1024, 9), Limit::Vgprs),
            (vega10, statistics(36, 112, 0, 7), Limit::Vgprs),
            (vega10, statistics(24, 112, 0, 7), Limit::Sgprs),
            (vega10, statistics(24, 48, 4096, 4), Limit::Lds),
            (navi31, statistics(84, 128, 0, 20), Limit::Unexplained),
        ] {
            assert_eq!(limit(target, 64, &statistics), expected, "{statistics:?}");
        }
        // Four waves share the memory of their workgroup.
        let shared = statistics(24, 128, 16384, 16);
        assert_eq!(limit(navi31, 256, &shared), Limit::Lds);
        // Waves of 32 lanes, where the driver counts each as one subgroup.
        assert_eq!(limit(navi31, 32, &statistics(96, 128, 0, 16)), Limit::None);
    }
}
