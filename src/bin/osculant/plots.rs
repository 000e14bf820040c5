//! The curves: training loss, on a logarithmic scale, against work and against seconds.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::failure::{Failure, Outcome};
use crate::report::{Report, Run};
use crate::statistics::mean_curve;
use crate::training::Point;

const SIZE: (u32, u32) = (960, 600);
/// The PNG has twice the pixels, so that its text stays sharp.
pub(crate) const PNG_SCALE: u32 = 2;
/// Losses below this are drawn as this: f32 resolves no smaller mean loss.
const LOWEST: f64 = 1e-8;
/// Height of the strip with title and legend.
const HEAD: u32 = 70;
/// Where the curves begin.
const LEFT: i32 = 88;
pub(crate) const FONT: &str = "sans-serif";
pub(crate) const TITLE: u32 = 24;
pub(crate) const TEXT: u32 = 18;
/// Distinguishable also without red-green vision (Okabe and Ito 2008).
pub(crate) const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 140, 0),
    RGBColor(0, 150, 110),
    RGBColor(190, 80, 150),
    RGBColor(90, 90, 90),
    RGBColor(86, 180, 233),
];

/// What the loss is drawn against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Work, in epochs.
    Work,
    /// Time, in seconds.
    Seconds,
}

impl Axis {
    /// Name of the picture, without `.png` or `.svg`.
    pub(crate) fn file_stem(self) -> &'static str {
        match self {
            Axis::Work => "loss-over-work",
            Axis::Seconds => "loss-over-seconds",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Axis::Work => {
                "work in epochs (a gradient of all training rows is 1, a curvature product 2)"
            }
            Axis::Seconds => "seconds on this adapter, evaluations not counted",
        }
    }

    fn of(self, point: &Point) -> f64 {
        match self {
            Axis::Work => point.work,
            Axis::Seconds => point.seconds,
        }
    }
}

/// Draws a picture into a PNG file.
pub(crate) fn png(report: &Report, axis: Axis, path: &Path) -> Outcome {
    let size = (SIZE.0 * PNG_SCALE, SIZE.1 * PNG_SCALE);
    let area = BitMapBackend::new(path, size).into_drawing_area();
    draw(report, axis, area, PNG_SCALE).map_err(|message| Failure::file(path, message))
}

/// Draws a picture as SVG.
pub(crate) fn svg(report: &Report, axis: Axis) -> Outcome<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    draw(report, axis, area, 1).map_err(Failure::new)?;
    Ok(text)
}

/// Places on the axis, and the training losses there.
type Curve = Vec<(f64, f64)>;

/// A run as a curve, of the losses that are finite.
fn curve(run: &Run, axis: Axis) -> Curve {
    let points = run.history.iter();
    points
        .filter(|point| point.train_loss.is_finite())
        .map(|point| (axis.of(point), point.train_loss.max(LOWEST)))
        .collect()
}

/// All sizes are multiplied by `scale`.
fn draw<B: DrawingBackend>(
    report: &Report,
    axis: Axis,
    area: DrawingArea<B, Shift>,
    scale: u32,
) -> Result<(), String> {
    let text = |error: DrawingAreaErrorKind<B::ErrorType>| format!("cannot draw: {error}");
    // The machine may have no fonts at all, so the font comes with the program. Registering it twice does no harm.
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| "the font inside the program is damaged")?;
    let groups: Vec<(&str, Vec<Curve>)> = report
        .by_optimizer()
        .into_iter()
        .map(|runs| {
            (
                runs[0].optimizer,
                runs.iter().map(|run| curve(run, axis)).collect(),
            )
        })
        .collect();
    let (horizontal, vertical) = ranges(groups.iter().flat_map(|(_, curves)| curves).flatten());
    area.fill(&WHITE).map_err(text)?;
    let (head, area) = area.split_vertically(HEAD * scale);
    let names = groups.iter().map(|(name, _)| *name);
    legend(&head, &report.problem, names, scale).map_err(text)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12 * scale)
        .margin_right(24 * scale)
        .x_label_area_size(52 * scale)
        .y_label_area_size(76 * scale)
        .build_cartesian_2d(horizontal, vertical.log_scale())
        .map_err(text)?;
    chart
        .configure_mesh()
        .x_desc(axis.label())
        .y_desc("training loss")
        .x_labels(10)
        .y_labels(12)
        .x_label_formatter(&|x| format!("{}", (x * 1e6).round() / 1e6))
        .y_label_formatter(&|y| loss_label(*y))
        .label_style((FONT, (TEXT - 2) * scale))
        .axis_desc_style((FONT, TEXT * scale))
        .bold_line_style(BLACK.mix(0.18))
        .max_light_lines(1)
        .light_line_style(BLACK.mix(0.05))
        .draw()
        .map_err(text)?;
    for ((_, curves), colour) in groups.into_iter().zip(COLOURS.into_iter().cycle()) {
        let mean = mean_curve(&curves);
        for curve in curves {
            let line = LineSeries::new(curve, colour.mix(0.5).stroke_width(scale));
            chart.draw_series(line).map_err(text)?;
        }
        let line = LineSeries::new(mean, colour.stroke_width(3 * scale));
        chart.draw_series(line).map_err(text)?;
    }
    area.present().map_err(text)
}

/// The title, and the name of each optimizer in its colour, above the curves and so never over one.
fn legend<'a, B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    problem: &str,
    names: impl Iterator<Item = &'a str>,
    scale: u32,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let at = |x: i32, y: i32| (x * scale as i32, y * scale as i32);
    let font = |size: u32| (FONT, size * scale).into_text_style(area);
    let title = format!("{problem}: training loss");
    area.draw(&Text::new(title, at(LEFT, 12), font(TITLE)))?;
    let mut x = LEFT;
    for (name, colour) in names.zip(COLOURS.into_iter().cycle()) {
        let stroke = colour.stroke_width(4 * scale);
        area.draw(&PathElement::new([at(x, 58), at(x + 28, 58)], stroke))?;
        area.draw(&Text::new(name.to_owned(), at(x + 36, 49), font(TEXT)))?;
        let (width, _) = area.estimate_text_size(name, &font(TEXT))?;
        x += 36 + (width / scale) as i32 + 36;
    }
    Ok(())
}

/// Ranges that hold all points; never empty.
fn ranges<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> (Range<f64>, Range<f64>) {
    let (mut right, mut low, mut high) = (0.0f64, f64::INFINITY, LOWEST);
    for &(x, y) in points {
        right = right.max(x);
        low = low.min(y);
        high = high.max(y);
    }
    let right = if right > 0.0 { right } else { 1.0 };
    (0.0..right, low.min(high) * 0.8..high * 1.4)
}

/// A loss as a short decimal, or a power of ten where that would be long.
fn loss_label(loss: f64) -> String {
    if loss >= 0.999e-3 {
        let text = format!("{loss:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{loss:.0e}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::methods::Method;
    use crate::optimizers::Setup;
    use crate::problems::Problem;
    use crate::training::End;

    fn run(losses: &[f64]) -> Run {
        let points = losses.iter().enumerate().map(|(step, &loss)| Point {
            step: step as u64,
            work: step as f64,
            work_flops: step as f64,
            seconds: step as f64,
            train_loss: loss,
            test_loss: loss,
            test_accuracy: f64::NAN,
            relative_l2: None,
            term_losses: Vec::new(),
        });
        let setup = Setup::new(Method::Adam, &Problem::DigitsMlp);
        Run::new(&setup, 0, points.collect(), &End::Finished).unwrap()
    }

    /// `NaN.max(x)` is x: a loss that is not a number would be drawn as the lowest of all.
    #[test]
    fn losses_that_are_not_finite_are_not_drawn() {
        let drawn = curve(&run(&[2.0, f64::NAN, f64::INFINITY, 1.0]), Axis::Work);
        assert_eq!(drawn, [(0.0, 2.0), (3.0, 1.0)]);
        assert!(curve(&run(&[f64::NAN]), Axis::Seconds).is_empty());
        let (horizontal, vertical) = ranges([].iter());
        assert!(horizontal.end > horizontal.start && vertical.end > vertical.start);
    }

    #[test]
    fn an_evaluation_that_is_not_finite_says_so_and_survives_a_checkpoint() {
        let run = run(&[f64::NAN]);
        let text = crate::table::ending(&Problem::DigitsMlp, &run);
        assert!(
            text.contains("test accuracy not finite") && text.contains("test loss is NaN"),
            "{text}"
        );
        let stored = serde_json::to_string(&run.history).unwrap();
        let read: Vec<Point> = serde_json::from_str(&stored).unwrap();
        assert!(
            read[0].train_loss.is_nan() && read[0].work == 0.0,
            "{stored}"
        );
    }
}
