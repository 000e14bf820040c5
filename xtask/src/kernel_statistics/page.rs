//! The tables of `docs/kernel-statistics.md`.

use super::Kernel;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Between this line and [`END`] the page is generated; outside of them it is written by hand.
pub(crate) const BEGIN: &str = "<!-- statistics -->";
const END: &str = "<!-- end of statistics -->";

/// One GPU.
pub(crate) struct Section {
    pub(crate) title: String,
    /// The adapter's name and its driver with version.
    pub(crate) adapter: String,
    /// What [`Row::level`] counts.
    pub(crate) measure: &'static str,
    /// The best level.
    pub(crate) full: u32,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Row>,
    /// What the device cannot run.
    pub(crate) refused: Vec<Kernel>,
}

/// One kernel on one GPU.
pub(crate) struct Row {
    pub(crate) kernel: Kernel,
    /// Waves per SIMD on AMD, lanes per thread on Intel: what register pressure takes away.
    pub(crate) level: u32,
    /// Why it is not full; empty if it is.
    pub(crate) reason: String,
    /// Registers spilled, or scratch bytes; 0 for a good kernel.
    pub(crate) spills: u32,
    pub(crate) values: Vec<u32>,
}

/// The page with its generated part replaced; `None` if it has no such part.
pub(crate) fn replace(page: &str, generated: &str) -> Option<String> {
    let start = page.find(BEGIN)? + BEGIN.len();
    let end = start + page[start..].find(END)?;
    Some(format!(
        "{}\n\n{generated}\n{}",
        &page[..start],
        &page[end..]
    ))
}

/// Everything between the markers.
pub(crate) fn generated(sections: &[Section]) -> String {
    let mut text = overview(sections);
    for section in sections {
        let _ = write!(
            text,
            "\n## {}\n\nCompiled for: {}.\n\n{}\n{}",
            section.title,
            section.adapter,
            families(section),
            limited(section) + &refused(section)
        );
    }
    text
}

/// One line for each GPU, for the terminal.
pub(crate) fn summary(sections: &[Section]) -> String {
    sections
        .iter()
        .map(|section| {
            let spilling: Vec<String> = section
                .rows
                .iter()
                .filter(|row| row.spills > 0)
                .map(|row| format!("{} {}", row.kernel.family, row.kernel.name))
                .collect();
            format!(
                "{}: {} kernels ({} more not for this GPU), {} at full level, spilling: {}",
                section.title,
                section.rows.len(),
                section.refused.len(),
                section
                    .rows
                    .iter()
                    .filter(|row| row.reason.is_empty())
                    .count(),
                if spilling.is_empty() {
                    "none".into()
                } else {
                    spilling.join("; ")
                }
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn overview(sections: &[Section]) -> String {
    let mut text = String::from(
        "| GPU | kernels | kernels that spill | measure | full | kernels at full | lowest | of |\n|---|---|---|---|---|---|---|---|\n",
    );
    for section in sections {
        let spilling = section.rows.iter().filter(|row| row.spills > 0).count();
        let full = section
            .rows
            .iter()
            .filter(|row| row.reason.is_empty())
            .count();
        let lowest = section.rows.iter().min_by_key(|row| row.level);
        let (level, of) = lowest.map_or((0, String::new()), |row| {
            let of = if row.reason.is_empty() {
                "all".into()
            } else {
                format!("{}: {}", row.kernel.family, row.reason)
            };
            (row.level, of)
        });
        let _ = writeln!(
            text,
            "| {} | {} | {spilling} | {} | {} | {full} | {level} | {of} |",
            section.title,
            section.rows.len(),
            section.measure,
            section.full
        );
    }
    text
}

/// One line for each family: the ranges of its kernels.
fn families(section: &Section) -> String {
    let mut families: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &section.rows {
        families.entry(&row.kernel.family).or_default().push(row);
    }
    let mut text = header(
        &["family", "kernels", "spills", section.measure],
        section.columns,
    );
    for (family, rows) in families {
        let spills: u32 = rows.iter().map(|row| row.spills).sum();
        let levels = range(rows.iter().map(|row| row.level));
        let _ = write!(text, "| {family} | {} | {spills} | {levels} |", rows.len());
        for column in 0..section.columns.len() {
            let _ = write!(
                text,
                " {} |",
                range(rows.iter().map(|row| row.values[column]))
            );
        }
        text.push('\n');
    }
    text
}

/// What is below the full level or spills, worst first: one line for all kernels of a family with the same reason, with the figures of the
/// longest of them.
fn limited(section: &Section) -> String {
    type Key<'a> = (Reverse<bool>, u32, &'a str, &'a str);
    let mut groups: BTreeMap<Key<'_>, Vec<&Row>> = BTreeMap::new();
    for row in &section.rows {
        if !row.reason.is_empty() || row.spills > 0 {
            let key = (
                Reverse(row.spills > 0),
                row.level,
                row.kernel.family.as_str(),
                row.reason.as_str(),
            );
            groups.entry(key).or_default().push(row);
        }
    }
    if groups.is_empty() {
        return format!("Every kernel has {} {}.\n", section.full, section.measure);
    }
    let first = [
        section.measure,
        "limited by",
        "spills",
        "family",
        "kernels",
        "the longest of them",
        "workgroup",
    ];
    let mut text = format!(
        "Kernels with fewer than {} {}, or with spills, worst first:\n\n{}",
        section.full,
        section.measure,
        header(&first, section.columns)
    );
    let instructions = section
        .columns
        .iter()
        .position(|&name| name == "instructions")
        .unwrap_or_default();
    for ((_, level, family, reason), rows) in groups {
        let Some(longest) = rows.iter().max_by_key(|row| row.values[instructions]) else {
            continue;
        };
        let _ = write!(
            text,
            "| {level} | {reason} | {} | {family} | {} | {} | {} |",
            range(rows.iter().map(|row| row.spills)),
            rows.len(),
            longest.kernel.name,
            longest.kernel.workgroup
        );
        for value in &longest.values {
            let _ = write!(text, " {value} |");
        }
        text.push('\n');
    }
    text
}

/// What has no statistics.
fn refused(section: &Section) -> String {
    if section.refused.is_empty() {
        return String::new();
    }
    let names: Vec<String> = section
        .refused
        .iter()
        .map(|kernel| format!("{} {}", kernel.family, kernel.name))
        .collect();
    format!(
        "\nNot compiled, because the device has not what they need: {}.\n",
        names.join("; ")
    )
}

fn header(first: &[&str], then: &[&str]) -> String {
    let all: Vec<&str> = first.iter().chain(then).copied().collect();
    format!("| {} |\n|{}\n", all.join(" | "), "---|".repeat(all.len()))
}

/// `7`, or `7 to 12`.
fn range(values: impl Iterator<Item = u32> + Clone) -> String {
    let (least, most) = (
        values.clone().min().unwrap_or_default(),
        values.max().unwrap_or_default(),
    );
    if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    }
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, Row, Section, generated, replace, summary};
    use crate::kernel_statistics::Kernel;

    fn row(name: &str, level: u32, reason: &str, spills: u32) -> Row {
        Row {
            kernel: Kernel {
                family: "dot".into(),
                name: name.into(),
                workgroup: 64,
            },
            level,
            reason: reason.into(),
            spills,
            values: vec![10 * level],
        }
    }

    fn section() -> Section {
        Section {
            title: "A GPU".into(),
            adapter: "adapter; driver 1.2".into(),
            measure: "waves per SIMD",
            full: 16,
            columns: &["instructions"],
            rows: vec![
                row("good", 16, "", 0),
                row("slow", 8, "96 VGPRs", 0),
                Row {
                    values: vec![90],
                    ..row("slower", 8, "96 VGPRs", 0)
                },
                row("bad", 12, "64 VGPRs", 3),
            ],
            refused: vec![row("absent", 0, "", 0).kernel],
        }
    }

    #[test]
    fn only_the_part_between_the_markers_is_replaced() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replace(&page, "new\n");
        assert_eq!(
            new,
            Some(format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"))
        );
        assert_eq!(replace("no markers", "new"), None);
    }

    #[test]
    fn spilling_kernels_come_first_and_good_ones_not_at_all() {
        let text = generated(&[section()]);
        let bad = text.find("| 12 | 64 VGPRs | 3 | dot | 1 | bad | 64 | 120 |");
        let slow = text.find("| 8 | 96 VGPRs | 0 | dot | 2 | slower | 64 | 90 |");
        assert!(bad.is_some() && bad < slow, "{text}");
        assert!(!text.contains("good"));
        assert!(text.contains("what they need: dot absent."));
        assert!(text.contains("| A GPU | 4 | 1 | waves per SIMD | 16 | 1 | 8 | dot: 96 VGPRs |"));
        assert!(text.contains("| dot | 4 | 3 | 8 to 16 | 80 to 160 |"));
    }

    #[test]
    fn the_summary_names_what_spills() {
        assert!(summary(&[section()]).ends_with("spilling: dot bad"));
    }
}
