//! `osculant doctor`: what an adapter does where drivers differ, for reports of bugs.

mod arithmetic;
mod functions;
mod groups;
mod loops;
mod special;

use std::time::Instant;

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use osculant::Error;
use osculant::gpu::{AdapterDescription, Gpu, Recording, grid};
use serde::Serialize;

use crate::arguments::Doctor;
use crate::failure::{Failure, Outcome};
use crate::place;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// What was tried.
    what: String,
    /// What the adapter made of it.
    found: String,
    /// What IEEE 754 or WGSL have it to be.
    expected: String,
    /// Whether that is so.
    agrees: bool,
}

/// What belongs together, and what its oddities mean.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Section {
    name: &'static str,
    findings: Vec<Finding>,
    /// What follows from the findings that do not agree.
    remarks: Vec<String>,
}

/// The file of `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    osculant: &'static str,
    adapter: &'a AdapterDescription,
    limits: Vec<(&'static str, String)>,
    seconds: f64,
    sections: Vec<Section>,
}

impl Finding {
    fn new(
        what: impl Into<String>,
        found: impl ToString,
        expected: impl ToString,
        agrees: bool,
    ) -> Self {
        Self {
            what: what.into(),
            found: found.to_string(),
            expected: expected.to_string(),
            agrees,
        }
    }

    /// A count of cases that came out right.
    fn count(what: &str, right: usize, all: usize) -> Self {
        let expected = format!("{all} of {all}");
        Self::new(what, format!("{right} of {all}"), expected, right == all)
    }
}

/// Tries everything, prints it, writes the file.
pub(crate) fn run(arguments: &Doctor) -> Outcome {
    let gpu = place::device(arguments.adapter.as_deref(), None)?;
    let start = Instant::now();
    type Probe = fn(&Gpu) -> osculant::Result<Section>;
    let probes: [(&'static str, Probe); 6] = [
        ("loops", loops::probe),
        ("special numbers", special::probe),
        ("arithmetic", arithmetic::probe),
        ("functions", functions::probe),
        ("subgroups", groups::subgroups),
        ("workgroup memory", groups::workgroups),
    ];
    let mut sections = Vec::new();
    for (name, probe) in probes {
        sections.push(match probe(&gpu) {
            Ok(section) => section,
            // One kernel that the driver refuses is a finding; a device that is gone is the end.
            Err(error @ (Error::Shader { .. } | Error::Gpu { .. } | Error::OverLimit { .. })) => {
                refused(name, &error)
            }
            Err(error) => return Err(error.into()),
        });
    }
    let report = Report {
        osculant: env!("CARGO_PKG_VERSION"),
        adapter: gpu.info(),
        limits: limits(&gpu),
        seconds: start.elapsed().as_secs_f64(),
        sections,
    };
    print(&report);
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        std::fs::write(path, text + "\n").map_err(|error| Failure::file(path, error))?;
        println!("Written to {}.", path.display());
    }
    Ok(())
}

fn refused(name: &'static str, error: &Error) -> Section {
    let text = error.to_string();
    let reason = text.lines().next().unwrap_or_default();
    Section {
        name,
        findings: vec![Finding::new("the kernel", "refused", "runs", false)],
        remarks: vec![reason.to_owned()],
    }
}

/// What decides which kernels run.
fn limits(gpu: &Gpu) -> Vec<(&'static str, String)> {
    let (limits, info, features) = (gpu.limits(), gpu.info(), gpu.features());
    let has = |feature: wgpu::Features| {
        let word = if features.contains(feature) {
            "yes"
        } else {
            "no"
        };
        word.to_owned()
    };
    let subgroups = if features.contains(wgpu::Features::SUBGROUP) {
        format!("{} to {}", info.subgroup_min_size, info.subgroup_max_size)
    } else {
        "none".to_owned()
    };
    vec![
        (
            "storage buffers per stage",
            limits.max_storage_buffers_per_shader_stage.to_string(),
        ),
        (
            "invocations per workgroup",
            limits.max_compute_invocations_per_workgroup.to_string(),
        ),
        (
            "workgroup memory in bytes",
            limits.max_compute_workgroup_storage_size.to_string(),
        ),
        (
            "workgroups per dimension",
            limits.max_compute_workgroups_per_dimension.to_string(),
        ),
        (
            "largest binding in bytes",
            limits.max_storage_buffer_binding_size.to_string(),
        ),
        (
            "largest buffer in bytes",
            limits.max_buffer_size.to_string(),
        ),
        (
            "alignment of bindings in bytes",
            limits.min_storage_buffer_offset_alignment.to_string(),
        ),
        ("subgroup sizes", subgroups),
        ("64-bit integers", has(wgpu::Features::SHADER_INT64)),
        ("half precision", has(wgpu::Features::SHADER_F16)),
        ("timestamps", has(wgpu::Features::TIMESTAMP_QUERY)),
    ]
}

fn print(report: &Report<'_>) {
    let adapter = report.adapter;
    println!(
        "osculant {} on {adapter} {}",
        report.osculant, adapter.driver_info
    );
    let mut table = table(["limit or feature", "value"]);
    for (name, value) in &report.limits {
        table.add_row([*name, value.as_str()]);
    }
    println!("{table}");
    let mut table = self::table(["", "tried", "found", "expected, where it differs"]);
    for section in &report.sections {
        for (index, finding) in section.findings.iter().enumerate() {
            table.add_row([
                if index == 0 { section.name } else { "" },
                finding.what.as_str(),
                finding.found.as_str(),
                if finding.agrees {
                    ""
                } else {
                    finding.expected.as_str()
                },
            ]);
        }
    }
    println!("{table}");
    for section in &report.sections {
        for remark in &section.remarks {
            println!("{}: {remark}", section.name);
        }
    }
    if report
        .sections
        .iter()
        .all(|section| section.remarks.is_empty())
    {
        println!("Nothing unusual.");
    }
    println!("{:.1} s", report.seconds);
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    if !table.is_tty() {
        table.set_width(120);
    }
    table
}

/// Runs a kernel on one input, or none, and reads its result.
fn execute<T: bytemuck::NoUninit>(
    gpu: &Gpu,
    label: &str,
    source: &str,
    input: &[T],
    results: usize,
    workgroups: usize,
) -> osculant::Result<Vec<u32>> {
    let pipeline = gpu.pipeline(label, source, &[])?;
    let result = gpu.buffer(label, results)?;
    let mut recording = Recording::new();
    let workgroups = grid(gpu.limits(), workgroups)?;
    if input.is_empty() {
        recording.dispatch(gpu, &pipeline, &[&result], workgroups)?;
    } else {
        let given = gpu.buffer(label, size_of_val(input) / 4)?;
        gpu.upload(&given, 0, input)?;
        recording.dispatch(gpu, &pipeline, &[&result, &given], workgroups)?;
    }
    gpu.submit(|recorder| recorder.replay(&recording))?;
    let mut read = gpu.read_u32(&[&result])?;
    Ok(read.pop().unwrap_or_default())
}
