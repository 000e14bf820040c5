//! What invocations hand each other: within a subgroup, and through workgroup memory.

use osculant::gpu::Gpu;

use super::{Finding, Section, execute};

const SUBGROUPS: &str = include_str!("../../../../shaders/doctor/subgroups.wgsl");
const WORKGROUPS: &str = include_str!("../../../../shaders/doctor/workgroups.wgsl");
/// Invocations that try subgroups, and results of each.
const INVOCATIONS: usize = 64;
const RESULTS: usize = 6;
/// Workgroups that try workgroup memory, their invocations and rounds.
const GROUPS: usize = 64;
const SIZE: u32 = 256;
const ROUNDS: u32 = 16;

/// Broadcasts and adds within subgroups.
pub(super) fn subgroups(gpu: &Gpu) -> osculant::Result<Section> {
    if !gpu.features().contains(wgpu::Features::SUBGROUP) {
        return Ok(Section {
            name: "subgroups",
            findings: vec![Finding::new("subgroup operations", "none", "", true)],
            remarks: Vec::new(),
        });
    }
    let read = execute::<u32>(gpu, "subgroups", SUBGROUPS, &[], RESULTS * INVOCATIONS, 1)?;
    let info = gpu.info();
    Ok(judge_subgroups(
        &read,
        [info.subgroup_min_size, info.subgroup_max_size],
    ))
}

fn judge_subgroups(read: &[u32], [least, most]: [u32; 2]) -> Section {
    let rows: Vec<&[u32]> = read.chunks_exact(RESULTS).collect();
    let row = |index: u32| {
        rows.get(index as usize)
            .copied()
            .unwrap_or(&[u32::MAX; RESULTS])
    };
    let count = |right: &dyn Fn(usize, &[u32]) -> bool| {
        rows.iter()
            .enumerate()
            .filter(|(index, row)| right(*index, row))
            .count()
    };
    let all = rows.len();
    // Invocations that were sent the same value of lane 0 are a subgroup.
    let lanes = |leader: u32| rows.iter().filter(|row| row[2] == leader).count() as u32;
    let mut sizes: Vec<u32> = rows.iter().map(|row| row[0]).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let sizes_agree = sizes.iter().all(|size| (least..=most).contains(size));
    let findings = vec![
        Finding::new(
            "size",
            format!("{sizes:?}"),
            format!("from {least} to {most}"),
            sizes_agree,
        ),
        Finding::count(
            "broadcast from lane 0",
            count(&|_, r| row(r[2])[1] == 0 && row(r[2])[2] == r[2]),
            all,
        ),
        Finding::count("broadcast of the first", count(&|_, r| r[3] == r[2]), all),
        Finding::count(
            "exchange with lane xor 1",
            count(&|index, r| {
                let other = row(r[4]);
                r[4] != index as u32 && other[1] == r[1] ^ 1 && other[2] == r[2]
            }),
            all,
        ),
        Finding::count(
            "sum over the lanes",
            count(&|_, r| r[5] == lanes(r[2]) && r[5] <= r[0]),
            all,
        ),
    ];
    let mut remarks = Vec::new();
    if findings.iter().any(|finding| !finding.agrees) {
        remarks.push(
            "subgroup operations go wrong: take matrix kernels without them, OSCULANT_TUNING=forced:registers".to_owned(),
        );
    }
    Section {
        name: "subgroups",
        findings,
        remarks,
    }
}

/// Reads what other invocations wrote, across barriers.
pub(super) fn workgroups(gpu: &Gpu) -> osculant::Result<Section> {
    let most = gpu.limits().max_compute_invocations_per_workgroup;
    if most < SIZE {
        return Ok(Section {
            name: "workgroup memory",
            findings: vec![Finding::new(
                "workgroups of 256",
                format!("at most {most}"),
                "256",
                false,
            )],
            remarks: vec![format!(
                "workgroups have at most {most} invocations, fewer than WebGPU promises"
            )],
        });
    }
    let results = GROUPS * (SIZE as usize + 1);
    let read = execute::<u32>(gpu, "workgroup memory", WORKGROUPS, &[], results, GROUPS)?;
    Ok(judge_workgroups(&read))
}

fn judge_workgroups(read: &[u32]) -> Section {
    let expected = twin();
    let is_sum = |index: usize| index % (SIZE as usize + 1) == SIZE as usize;
    let right = |sums: bool| {
        let places = read.iter().zip(&expected).enumerate();
        places
            .filter(|(index, (a, b))| is_sum(*index) == sums && a == b)
            .count()
    };
    let findings = vec![
        Finding::count(
            "reads across a barrier",
            right(false),
            GROUPS * SIZE as usize,
        ),
        Finding::count("sums of 256 in a tree", right(true), GROUPS),
    ];
    let mut remarks = Vec::new();
    if findings.iter().any(|finding| !finding.agrees) {
        remarks.push(
            "workgroup memory or barriers go wrong: no result of this adapter can be trusted"
                .to_owned(),
        );
    }
    Section {
        name: "workgroup memory",
        findings,
        remarks,
    }
}

/// What the shader writes.
fn twin() -> Vec<u32> {
    let value = |group: u32, i: u32, round: u32| {
        group
            .wrapping_mul(2_654_435_761)
            .wrapping_add(40_503 * i)
            .wrapping_add(round)
    };
    let sum = |values: &mut dyn Iterator<Item = u32>| values.fold(0u32, u32::wrapping_add);
    (0..GROUPS as u32)
        .flat_map(|group| {
            let mut all: Vec<u32> = (0..SIZE)
                .map(|i| sum(&mut (0..ROUNDS).map(|round| value(group, SIZE - 1 - i, round))))
                .collect();
            all.push(sum(&mut (0..SIZE).map(|i| value(group, i, ROUNDS - 1))));
            all
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight subgroups of eight lanes.
    fn eights() -> Vec<u32> {
        (0..INVOCATIONS as u32)
            .flat_map(|index| {
                let leader = index / 8 * 8;
                [8, index % 8, leader, leader, index ^ 1, 8]
            })
            .collect()
    }

    #[test]
    fn a_wrong_lane_is_told() {
        let section = judge_subgroups(&eights(), [4, 16]);
        assert!(section.remarks.is_empty(), "{section:?}");
        for result in 1..RESULTS {
            let mut read = eights();
            read[RESULTS * 9 + result] ^= 4;
            let section = judge_subgroups(&read, [4, 16]);
            assert_eq!(section.remarks.len(), 1, "result {result}: {section:?}");
        }
        assert!(!judge_subgroups(&eights(), [16, 32]).findings[0].agrees);
    }

    #[test]
    fn memory_that_is_not_what_was_written_is_told() {
        assert!(judge_workgroups(&twin()).remarks.is_empty());
        let mut read = twin();
        read[3] += 1;
        assert!(!judge_workgroups(&read).remarks.is_empty());
    }
}
