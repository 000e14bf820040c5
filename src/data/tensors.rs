//! Inputs and targets from a file of named tensors in the safetensors format.

use super::labels::Labels;
use super::{Dataset, Targets, rounding};
use crate::{Error, Result};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::Path;

/// What is read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensors {
    /// Name of the tensor of inputs, `[rows, ...]`: all numbers of a row are its inputs.
    pub inputs: String,
    /// Name of the tensor of targets: `[rows]` or `[rows, 1]` for class labels, `[rows, ...]` for numbers.
    pub targets: String,
    /// Whether targets are class labels: whole numbers from 0 on. The classes are the labels that occur, in order, as in
    /// [`idx::load`](super::idx::load).
    pub classes: bool,
}

/// Reads the rows of one file. Tensors may be of any whole or floating-point type; what f32 has no room for in inputs is kept for
/// [`standardise`](super::standardise), as in [`Dataset::from_f64`].
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Option`] when it has no such tensor; [`Error::Data`] when it is no safetensors file,
/// the tensors disagree about the number of rows, a number is not finite or no label, or f32 cannot hold the targets.
pub fn load(path: &Path, tensors: &Tensors) -> Result<Dataset> {
    let part = read(path, tensors)?;
    let labels = Labels::of(&part.labels, &[], &path.display().to_string());
    part.into_dataset(&labels)
}

/// Reads training and test rows from two files, with classes that they have in common.
///
/// # Errors
/// As [`load`].
pub fn load_halves(train: &Path, test: &Path, tensors: &Tensors) -> Result<(Dataset, Dataset)> {
    let place = train.display().to_string();
    let (train, test) = (read(train, tensors)?, read(test, tensors)?);
    let labels = Labels::of(&train.labels, &test.labels, &place);
    Ok((train.into_dataset(&labels)?, test.into_dataset(&labels)?))
}

/// The rows of a file.
struct Part {
    name: String,
    features: Vec<f64>,
    width: usize,
    /// Empty where targets are numbers.
    labels: Vec<u32>,
    values: Vec<f32>,
    target_width: usize,
    classes: bool,
}

impl Part {
    fn into_dataset(self, labels: &Labels) -> Result<Dataset> {
        let dataset = |targets| Dataset::from_f64(self.name, &self.features, self.width, targets);
        if self.classes {
            return labels.dataset(&self.labels, dataset);
        }
        dataset(Targets::Values {
            values: self.values,
            width: self.target_width,
        })
    }
}

fn read(path: &Path, tensors: &Tensors) -> Result<Part> {
    let bad = |message: String| Error::Data {
        what: path.display().to_string(),
        message,
    };
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        path: path.display().to_string(),
        source,
    })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        bad(format!(
            "this is no safetensors file, or it is damaged: {error}"
        ))
    })?;
    let tensor = |option: &str, name: &str| {
        let view = file.tensor(name).map_err(|_| {
            let mut names = file.names();
            names.sort_unstable();
            Error::Option {
                option: option.to_owned(),
                message: format!(
                    "{} has no tensor '{name}'; its tensors are: {}",
                    path.display(),
                    names.join(", ")
                ),
            }
        })?;
        let (Some(&rows), Some(values)) = (view.shape().first(), numbers(&view)) else {
            return Err(bad(format!(
                "tensor '{name}' is {:?} of shape {:?}; give whole or floating-point numbers of shape [rows, ...]",
                view.dtype(),
                view.shape()
            )));
        };
        if values.is_empty() {
            return Err(bad(format!(
                "tensor '{name}' is empty, of shape {:?}",
                view.shape()
            )));
        }
        let width = values.len() / rows;
        if let Some(index) = values.iter().position(|value| !(*value as f32).is_finite()) {
            let (row, value) = (index / width, values[index]);
            return Err(bad(format!(
                "tensor '{name}', row {row}: {value} is no finite f32"
            )));
        }
        Ok((rows, width, values))
    };
    let (rows, width, features) = tensor("inputs", &tensors.inputs)?;
    let (target_rows, target_width, targets) = tensor("targets", &tensors.targets)?;
    if rows != target_rows {
        return Err(bad(format!(
            "tensor '{}' has {rows} rows, but '{}' has {target_rows}",
            tensors.inputs, tensors.targets
        )));
    }
    let lost = rounding::lost(&targets, target_width, |i| f64::from(targets[i] as f32));
    if let (false, Some(lost)) = (
        tensors.classes,
        lost.iter().find(|lost| **lost > rounding::TOLERATED),
    ) {
        return Err(bad(format!(
            "f32 cannot hold tensor '{}': rounding moves it by up to {lost:.1e} of its standard deviation; subtract a constant from it, \
             or scale it",
            tensors.targets
        )));
    }
    let mut labels = Vec::new();
    if tensors.classes {
        let name = &tensors.targets;
        if target_width != 1 {
            return Err(bad(format!(
                "tensor '{name}' has {target_width} numbers per row; class labels are one number per row"
            )));
        }
        for (row, &value) in targets.iter().enumerate() {
            if value.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&value) {
                return Err(bad(format!(
                    "tensor '{name}', row {row}: {value} is no class label; labels are whole numbers from 0 on"
                )));
            }
            labels.push(value as u32);
        }
    }
    Ok(Part {
        name: path
            .file_stem()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned(),
        features,
        width,
        labels,
        values: targets.into_iter().map(|value| value as f32).collect(),
        target_width,
        classes: tensors.classes,
    })
}

/// The numbers of a tensor, or none for a type that has no such numbers.
fn numbers(view: &TensorView<'_>) -> Option<Vec<f64>> {
    fn of<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|&bytes| number(bytes))
            .collect()
    }
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F64 => of(bytes, f64::from_le_bytes),
        Dtype::F32 => of(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F16 => of(bytes, |b| f64::from(f16::from_le_bytes(b))),
        Dtype::BF16 => of(bytes, |b| f64::from(bf16::from_le_bytes(b))),
        Dtype::U64 => of(bytes, |b| u64::from_le_bytes(b) as f64),
        Dtype::I64 => of(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::U32 => of(bytes, |b| f64::from(u32::from_le_bytes(b))),
        Dtype::I32 => of(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U16 => of(bytes, |b| f64::from(u16::from_le_bytes(b))),
        Dtype::I16 => of(bytes, |b| f64::from(i16::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => of(bytes, |[b]: [u8; 1]| f64::from(b)),
        Dtype::I8 => of(bytes, |b| f64::from(i8::from_le_bytes(b))),
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Inputs `[3, 2]` of f64 and labels of i64, or another tensor of targets.
    fn file(targets: TensorView<'_>) -> (tempfile::TempDir, std::path::PathBuf) {
        let inputs: Vec<u8> = [1.7e9, 1.0, 1.7e9 + 1.0, 2.0, 1.7e9 + 2.0, 3.0f64]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let inputs = TensorView::new(Dtype::F64, vec![3, 2], &inputs).unwrap();
        let bytes = safetensors::serialize([("x", inputs), ("y", targets)], None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.safetensors");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn labels(labels: [i64; 3]) -> Vec<u8> {
        labels
            .iter()
            .flat_map(|label| label.to_le_bytes())
            .collect()
    }

    fn named(targets: &str, classes: bool) -> Tensors {
        Tensors {
            inputs: "x".into(),
            targets: targets.into(),
            classes,
        }
    }

    #[test]
    fn labels_and_numbers_are_read() {
        let bytes = labels([5, 2, 5]);
        let view = || TensorView::new(Dtype::I64, vec![3], &bytes).unwrap();
        let (_folder, path) = file(view());
        let data = load(&path, &named("y", true)).unwrap();
        assert_eq!((data.name(), data.len(), data.width()), ("points", 3, 2));
        let classes = Targets::Classes {
            labels: vec![1, 0, 1],
            classes: 2,
        };
        assert_eq!(data.targets(), &classes);
        assert_eq!(data.original_labels(), Some(&[2, 5][..]));
        // f32 does not tell seconds since 1970 apart.
        assert_eq!(data.rounded_columns().len(), 1);
        let values = vec![5.0, 2.0, 5.0];
        let numbers = load(&path, &named("y", false)).unwrap();
        assert_eq!(numbers.targets(), &Targets::Values { values, width: 1 });

        let other = labels([2, 7, 2]);
        let (_other, test) = file(TensorView::new(Dtype::I64, vec![3], &other).unwrap());
        let (train, test) = load_halves(&path, &test, &named("y", true)).unwrap();
        assert_eq!(train.original_labels(), Some(&[2, 5, 7][..]));
        let classes = Targets::Classes {
            labels: vec![0, 2, 0],
            classes: 3,
        };
        assert_eq!(test.targets(), &classes);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let bytes = labels([5, -2, 5]);
        let refused = |shape: Vec<usize>, bytes: &[u8], tensors: &Tensors, reason: &str| {
            let (_folder, path) = file(TensorView::new(Dtype::I64, shape, bytes).unwrap());
            let error = load(&path, tensors).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        };
        refused(
            vec![3],
            &bytes,
            &named("z", true),
            "no tensor 'z'; its tensors are: x, y",
        );
        refused(
            vec![3],
            &bytes,
            &named("y", true),
            "row 1: -2 is no class label",
        );
        refused(
            vec![2],
            &bytes[..16],
            &named("y", true),
            "'x' has 3 rows, but 'y' has 2",
        );
        let twice = [&bytes[..], &bytes[..]].concat();
        refused(vec![3, 2], &twice, &named("y", true), "2 numbers per row");
        refused(vec![0], &[], &named("y", true), "'y' is empty");
        refused(
            vec![3],
            &labels([1_700_000_000, 1_700_000_001, 1_700_000_002]),
            &named("y", false),
            "f32 cannot hold tensor 'y'",
        );
        let nan = f64::NAN.to_le_bytes().repeat(3);
        let (_folder, path) = file(TensorView::new(Dtype::F64, vec![3], &nan).unwrap());
        let error = load(&path, &named("y", false)).unwrap_err().to_string();
        assert!(error.contains("'y', row 0: NaN"), "{error}");
        std::fs::write(&path, "no tensors").unwrap();
        let error = load(&path, &named("y", true)).unwrap_err();
        assert!(error.to_string().contains("no safetensors file"), "{error}");
        let error = load(Path::new("/nowhere/x.safetensors"), &named("y", true)).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}
