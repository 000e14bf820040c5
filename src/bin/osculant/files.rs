//! The files of a report.

use std::path::Path;

use crate::failure::{Failure, Outcome};
use crate::html;
use crate::plots::{self, Axis};
use crate::report::Report;

/// Writes a report's `report.json`, curves and `report.html` into a folder.
pub(crate) fn write(report: &Report, folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, error))?;
    let save = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|error| Failure::file(&path, error))
    };
    let json = serde_json::to_string_pretty(report)
        .map_err(|error| Failure::new(format!("report.json: {error}")))?;
    save("report.json", json.as_bytes())?;
    let mut pictures = Vec::new();
    for axis in [Axis::Work, Axis::Seconds] {
        plots::png(
            report,
            axis,
            &folder.join(format!("{}.png", axis.file_stem())),
        )?;
        let svg = plots::svg(report, axis)?;
        save(&format!("{}.svg", axis.file_stem()), svg.as_bytes())?;
        pictures.push(svg);
    }
    save("report.html", html::page(report, &pictures).as_bytes())
}
