//! Whether the targets are what a loss is for, and how they are scaled.

use osculant::data::{Dataset, Targets};
use osculant::nn::Loss;

use super::document::Section;
use super::network::LOSSES;
use crate::failure::{Failure, Outcome};

/// Names that are printed of a target's categories.
const SHOWN: usize = 12;

/// The name of a loss in the file.
pub(crate) fn name(loss: Loss) -> &'static str {
    LOSSES
        .iter()
        .find(|(_, known)| *known == loss)
        .map_or("", |(name, _)| name)
}

/// What the classes of a column are.
pub(crate) fn sentence(column: &str, categories: &[String]) -> String {
    let shown: Vec<&str> = categories.iter().take(SHOWN).map(String::as_str).collect();
    let more = if categories.len() > SHOWN {
        ", ..."
    } else {
        ""
    };
    format!(
        "{} classes of '{column}': {}{more}",
        categories.len(),
        shown.join(", ")
    )
}

fn mismatch(section: &Section<'_>, message: String, loss: Loss) -> Failure {
    section
        .document
        .failure(&section.span("target"), message)
        .hint(format!("write below [network]: loss = \"{}\"", name(loss)))
}

/// Whether a target of categories, or of none, suits a loss.
pub(crate) fn check_categories(
    section: &Section<'_>,
    target: &str,
    categories: Option<&[String]>,
    rows: usize,
    loss: Loss,
) -> Outcome {
    let Some(categories) = categories else {
        return Ok(());
    };
    let numbers = categories.iter().all(|text| text.parse::<f64>().is_ok());
    match loss {
        Loss::SoftmaxCrossEntropy if numbers && rows > 10 && 2 * categories.len() > rows => {
            Err(mismatch(
                section,
                format!(
                    "'{target}' has {} different numbers in {rows} training rows, which is too many for classes",
                    categories.len()
                ),
                Loss::MeanSquaredError,
            ))
        }
        Loss::SoftmaxCrossEntropy => Ok(()),
        Loss::BinaryCrossEntropy if categories.len() == 2 => Ok(()),
        loss => Err(mismatch(
            section,
            format!(
                "the target is {}, and {} is for {}",
                sentence(target, categories),
                name(loss),
                wanted(loss)
            ),
            Loss::SoftmaxCrossEntropy,
        )),
    }
}

/// What a loss is for.
fn wanted(loss: Loss) -> &'static str {
    match loss {
        Loss::SoftmaxCrossEntropy => "classes",
        Loss::BinaryCrossEntropy => "two classes, or numbers from 0 to 1",
        Loss::Poisson => "counts, numbers from 0 on",
        _ => "numbers",
    }
}

/// Training and test rows with targets as the loss has them, scaled as the training rows have them where that is asked for.
pub(crate) fn prepare(
    section: &Section<'_>,
    loss: Loss,
    train: Dataset,
    test: Dataset,
    scale: bool,
) -> Outcome<(Dataset, Dataset)> {
    let scaling = match (scale, loss, train.targets()) {
        (true, Loss::MeanSquaredError, Targets::Values { values, width }) => {
            Some(Scale::of(values, *width))
        }
        (true, ..) => {
            return Err(section
                .bad(
                    "standardise-target",
                    format!("is for loss = \"mean-squares\", not for {}", name(loss)),
                )
                .hint("remove it"));
        }
        (false, ..) => None,
    };
    let prepared = |data: Dataset| -> Outcome<Dataset> {
        let targets = match data.targets() {
            Targets::Classes { labels, classes: 2 } if loss == Loss::BinaryCrossEntropy => {
                Targets::Values {
                    values: labels.iter().map(|&label| label as f32).collect(),
                    width: 1,
                }
            }
            Targets::Classes { classes, .. } if loss != Loss::SoftmaxCrossEntropy => {
                let message = format!(
                    "the targets are {classes} classes, and {} is for {}",
                    name(loss),
                    wanted(loss)
                );
                return Err(mismatch(section, message, Loss::SoftmaxCrossEntropy));
            }
            Targets::Values { values, width } => {
                check_values(section, values, loss)?;
                match &scaling {
                    None => return Ok(data),
                    Some(scaling) => Targets::Values {
                        values: scaling.applied(values),
                        width: *width,
                    },
                }
            }
            _ => return Ok(data),
        };
        Ok(data.with_targets(targets)?)
    };
    Ok((prepared(train)?, prepared(test)?))
}

fn check_values(section: &Section<'_>, values: &[f32], loss: Loss) -> Outcome {
    if loss == Loss::SoftmaxCrossEntropy {
        let message = format!(
            "the targets are numbers, and {} is for {}",
            name(loss),
            wanted(loss)
        );
        return Err(mismatch(section, message, Loss::MeanSquaredError));
    }
    let suits = |value: f32| match loss {
        Loss::BinaryCrossEntropy => (0.0..=1.0).contains(&value),
        Loss::Poisson => value >= 0.0,
        _ => true,
    };
    match values.iter().find(|&&value| !suits(value)) {
        None => Ok(()),
        Some(value) => Err(mismatch(
            section,
            format!(
                "a target is {value}, and {} is for {}",
                name(loss),
                wanted(loss)
            ),
            Loss::MeanSquaredError,
        )),
    }
}

/// Mean and standard deviation of each target.
struct Scale(Vec<(f64, f64)>);

impl Scale {
    fn of(values: &[f32], width: usize) -> Self {
        let rows = (values.len() / width) as f64;
        let column = |column: usize| {
            let of_column = || {
                values
                    .iter()
                    .skip(column)
                    .step_by(width)
                    .map(|&value| f64::from(value))
            };
            let mean = of_column().sum::<f64>() / rows;
            let variance = of_column().map(|value| (value - mean).powi(2)).sum::<f64>() / rows;
            (mean, if variance > 0.0 { variance.sqrt() } else { 1.0 })
        };
        Self((0..width).map(column).collect())
    }

    fn applied(&self, values: &[f32]) -> Vec<f32> {
        let scaled = values.iter().zip(self.0.iter().cycle());
        scaled
            .map(|(&value, (mean, deviation))| ((f64::from(value) - mean) / deviation) as f32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_scaled_for_itself() {
        let scale = Scale::of(&[1.0, 5.0, 3.0, 5.0], 2);
        assert_eq!(scale.applied(&[5.0, 6.0]), [3.0, 1.0]);
    }
}
