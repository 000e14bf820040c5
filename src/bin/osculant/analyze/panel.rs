//! Pictures of several panels, side by side.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::register_font;

use crate::failure::{Failure, Outcome};
use crate::plots::{COLOURS, FONT, PNG_SCALE, TEXT, TITLE};

/// Size of a panel.
const PANEL: (u32, u32) = (680, 520);
/// Height of the strip with the title, and of that with a panel's legend.
const HEAD: u32 = 48;
const LEGEND: u32 = 34;

/// How an axis is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Equal distances are equal differences.
    #[default]
    Linear,
    /// Equal distances are equal ratios.
    Logarithmic,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A line.
    Line,
    /// A point for each element.
    Points,
    /// A broken line.
    Dashes,
    /// A point and a horizontal interval for every three elements: the middle, and both ends.
    Intervals,
}

/// Points with a name.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    mark: Mark,
}

impl Series {
    /// With a name for the legend; without one it is not in the legend.
    pub(crate) fn new(name: impl Into<String>, points: Vec<(f64, f64)>, mark: Mark) -> Self {
        // What is not finite has no place in a picture; with an interval goes its middle.
        let together = if mark == Mark::Intervals { 3 } else { 1 };
        let finite =
            |points: &&[(f64, f64)]| points.iter().all(|(x, y)| x.is_finite() && y.is_finite());
        let points = points
            .chunks(together)
            .filter(finite)
            .flatten()
            .copied()
            .collect();
        Self {
            name: name.into(),
            points,
            mark,
        }
    }
}

/// One panel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panel {
    /// Name of the horizontal axis.
    pub(crate) x: String,
    /// Name of the vertical axis.
    pub(crate) y: String,
    pub(crate) x_scale: Scale,
    pub(crate) y_scale: Scale,
    /// Names of the heights 0, 1, ... in place of numbers.
    pub(crate) rows: Vec<String>,
    pub(crate) series: Vec<Series>,
}

impl Panel {
    /// The label of a height.
    fn height(&self, y: f64) -> String {
        if self.rows.is_empty() {
            return number(y);
        }
        let row = y.round();
        let name = (row >= 0.0 && (y - row).abs() < 1e-6).then(|| self.rows.get(row as usize));
        name.flatten().cloned().unwrap_or_default()
    }
}

/// Writes `stem.png` and `stem.svg` into a folder.
pub(crate) fn write(folder: &Path, stem: &str, title: &str, panels: &[Panel]) -> Outcome {
    let columns = panels.len().clamp(1, 3) as u32;
    let lines = (panels.len() as u32).div_ceil(columns).max(1);
    let size = (PANEL.0 * columns, PANEL.1 * lines + HEAD);
    let path = folder.join(format!("{stem}.png"));
    let area = BitMapBackend::new(&path, (size.0 * PNG_SCALE, size.1 * PNG_SCALE));
    draw(area.into_drawing_area(), title, panels, columns, PNG_SCALE)
        .map_err(|message| Failure::file(&path, message))?;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    draw(area, title, panels, columns, 1).map_err(Failure::new)?;
    let path = folder.join(format!("{stem}.svg"));
    std::fs::write(&path, text).map_err(|error| Failure::file(&path, error))
}

fn draw<B: DrawingBackend>(
    area: DrawingArea<B, Shift>,
    title: &str,
    panels: &[Panel],
    columns: u32,
    scale: u32,
) -> Result<(), String> {
    let text = |error: DrawingAreaErrorKind<B::ErrorType>| format!("cannot draw: {error}");
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| "the font inside the program is damaged")?;
    area.fill(&WHITE).map_err(text)?;
    let (head, rest) = area.split_vertically(HEAD * scale);
    let font = (FONT, TITLE * scale).into_text_style(&head);
    let at = (16 * scale as i32, 14 * scale as i32);
    head.draw(&Text::new(title.to_owned(), at, font))
        .map_err(text)?;
    let lines = panels.len().div_ceil(columns as usize).max(1);
    for (place, panel) in rest
        .split_evenly((lines, columns as usize))
        .iter()
        .zip(panels)
    {
        draw_panel(place, panel, scale)?;
    }
    area.present().map_err(text)
}

/// A range that holds all numbers, with room beside them; never empty.
fn range(numbers: impl Iterator<Item = f64>, scale: Scale) -> Range<f64> {
    let finite = numbers.filter(|x| x.is_finite() && (scale == Scale::Linear || *x > 0.0));
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    });
    if low > high {
        return 0.1..1.0;
    }
    match scale {
        Scale::Linear => {
            let room = 0.04 * (high - low).max(1e-9 * high.abs().max(1e-9));
            low - room..high + room
        }
        Scale::Logarithmic => low * 0.8..high * 1.25,
    }
}

fn draw_panel<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    panel: &Panel,
    scale: u32,
) -> Result<(), String> {
    let text = |error: DrawingAreaErrorKind<B::ErrorType>| format!("cannot draw: {error}");
    let (head, area) = area.split_vertically(LEGEND * scale);
    legend(&head, &panel.series, scale).map_err(text)?;
    let points = || panel.series.iter().flat_map(|s| &s.points);
    let horizontal = range(points().map(|p| p.0), panel.x_scale);
    let vertical = range(points().map(|p| p.1), panel.y_scale);
    match (panel.x_scale, panel.y_scale) {
        (Scale::Linear, Scale::Linear) => chart(&area, panel, scale, horizontal, vertical),
        (Scale::Linear, Scale::Logarithmic) => {
            chart(&area, panel, scale, horizontal, vertical.log_scale())
        }
        (Scale::Logarithmic, Scale::Linear) => {
            chart(&area, panel, scale, horizontal.log_scale(), vertical)
        }
        (Scale::Logarithmic, Scale::Logarithmic) => chart(
            &area,
            panel,
            scale,
            horizontal.log_scale(),
            vertical.log_scale(),
        ),
    }
    .map_err(text)
}

fn chart<B: DrawingBackend, X, Y>(
    area: &DrawingArea<B, Shift>,
    panel: &Panel,
    scale: u32,
    horizontal: X,
    vertical: Y,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(12 * scale)
        .margin_right(24 * scale)
        .x_label_area_size(52 * scale)
        .y_label_area_size(if panel.rows.is_empty() { 84 } else { 220 } * scale)
        .build_cartesian_2d(horizontal, vertical)?;
    chart
        .configure_mesh()
        .x_desc(&panel.x)
        .y_desc(&panel.y)
        .x_labels(8)
        .y_labels(8.max(panel.rows.len()))
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| panel.height(*y))
        .label_style((FONT, (TEXT - 2) * scale))
        .axis_desc_style((FONT, TEXT * scale))
        .bold_line_style(BLACK.mix(0.18))
        .max_light_lines(1)
        .light_line_style(BLACK.mix(0.05))
        .draw()?;
    for (series, colour) in panel.series.iter().zip(COLOURS.into_iter().cycle()) {
        let points = series.points.iter().copied();
        match series.mark {
            Mark::Line => {
                let style = colour.stroke_width(3 * scale);
                chart.draw_series(LineSeries::new(points, style))?;
            }
            Mark::Dashes => {
                let style = colour.stroke_width(2 * scale);
                let (dash, gap) = (8 * scale, 6 * scale);
                chart.draw_series(DashedLineSeries::new(points, dash, gap, style))?;
            }
            Mark::Points => {
                let radius = 3 * scale;
                chart.draw_series(points.map(|p| Circle::new(p, radius, colour.filled())))?;
            }
            Mark::Intervals => {
                let style = colour.stroke_width(2 * scale);
                let known = |three: &&[(f64, f64)]| three.iter().all(|p| p.0.is_finite());
                for three in series.points.chunks_exact(3).filter(known) {
                    let radius = 4 * scale;
                    chart.draw_series([Circle::new(three[0], radius, colour.filled())])?;
                    let ends = three[1..].iter().copied();
                    chart.draw_series(LineSeries::new(ends, style))?;
                }
            }
        }
    }
    Ok(())
}

/// A number as a short decimal, or with an exponent where that would be long.
fn number(x: f64) -> String {
    let size = x.abs();
    // Places of labels are sums, and zero among them a rounding error.
    if size < 1e-12 {
        return "0".into();
    }
    if !(0.999e-2..1e5).contains(&size) {
        return format!("{x:.0e}");
    }
    let text = format!("{x:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The name of each series in its colour.
fn legend<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    series: &[Series],
    scale: u32,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let at = |x: i32, y: i32| (x * scale as i32, y * scale as i32);
    let font = (FONT, TEXT * scale).into_text_style(area);
    let mut x = 96;
    for (series, colour) in series.iter().zip(COLOURS.into_iter().cycle()) {
        if series.name.is_empty() {
            continue;
        }
        if matches!(series.mark, Mark::Points | Mark::Intervals) {
            let radius = 4 * scale;
            area.draw(&Circle::new(at(x + 8, 20), radius, colour.filled()))?;
        } else {
            let end = if series.mark == Mark::Dashes { 12 } else { 20 };
            let stroke = colour.stroke_width(4 * scale);
            area.draw(&PathElement::new([at(x, 20), at(x + end, 20)], stroke))?;
        }
        area.draw(&Text::new(
            series.name.clone(),
            at(x + 26, 11),
            font.clone(),
        ))?;
        let (width, _) = area.estimate_text_size(&series.name, &font)?;
        x += 26 + (width / scale) as i32 + 22;
    }
    Ok(())
}
