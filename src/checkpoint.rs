//! Checkpoints: everything that a run needs to continue with the same bits, in one safetensors file.
//!
//! | in the file | what |
//! |---|---|
//! | tensor `NAME` | the parameter of this name, f32, with its shape |
//! | tensor `optimizer/VECTOR/NAME` | the part of an optimizer's vector that belongs to this parameter |
//! | tensor `optimizer/VECTOR/#K` | tensor `K`, flat, of a vector that is not in parameter space, as Kronecker factors |
//! | metadata `optimizer/SCALAR` | a number of the optimizer, as the shortest decimal text that gives back its bits |
//! | metadata `format` | [`FORMAT`] |
//! | other metadata | what the caller wishes to remember: seed, step, position in the data |
//!
//! Any reader of safetensors sees the parameters by their names.
//!
//! ```
//! use osculant::checkpoint::Checkpoint;
//! use osculant::data::digits;
//! use osculant::gpu::Gpu;
//! use osculant::nn::{Loss, Sequential};
//! use osculant::objective::GraphObjective;
//! use osculant::optim::{Optimizer, Sgd, SgdOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let data = digits()?;
//! let gpu = Gpu::new()?;
//! let model = Sequential::new().dense(10).model(&data, Loss::SoftmaxCrossEntropy);
//! let mut objective = GraphObjective::new(&gpu, model)?;
//! let theta = objective.initial_parameters(0)?;
//! let mut sgd = Sgd::new(SgdOptions::default())?;
//! sgd.step(&mut objective, &theta, &data.batch(&[0, 1, 2])?)?;
//!
//! let path = std::env::temp_dir().join(format!("doc-{}.safetensors", std::process::id()));
//! let state = sgd.state(&objective)?;
//! Checkpoint::capture(&gpu, &theta, state.clone())?.with("step", "1").save(&path)?;
//!
//! let loaded = Checkpoint::load(&path)?;
//! loaded.restore_parameters(&gpu, &theta)?;
//! assert_eq!(loaded.optimizer_state(theta.layout())?, state);
//! assert_eq!(loaded.metadata("step")?, "1");
//! # std::fs::remove_file(path)?;
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, HashMap};
#[cfg(not(target_arch = "wasm32"))]
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::error::Error;
use crate::gpu::Gpu;
use crate::optim::OptimizerState;
use crate::vector::{Layout, Vector};

/// Name and version of what is in the file.
pub const FORMAT: &str = "osculant checkpoint 1";

/// Names of tensors and metadata that belong to the optimizer begin so.
const OPTIMIZER: &str = "optimizer/";
/// Names of the tensors of vectors that are not in parameter space begin so.
const NUMBERED: &str = "#";

/// What can go wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file is no checkpoint, or it is damaged.
    #[error("{path} is not a sound checkpoint: {message}")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// The parameters in the file are not those of the model.
    #[error("the checkpoint belongs to another model: {message}")]
    WrongModel {
        /// The first difference.
        message: String,
    },
    /// A tensor that must be there is missing.
    #[error("the checkpoint has no tensor '{name}': it belongs to another model or optimizer")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// An entry of the metadata that must be there is missing.
    #[error("the checkpoint's metadata has no '{key}': it was written by something else")]
    MissingMetadata {
        /// Its key.
        key: String,
    },
    /// A name that the file's layout cannot hold.
    #[error("'{name}' cannot be stored: {message}")]
    Name {
        /// The name.
        name: String,
        /// Why, and what to do.
        message: &'static str,
    },
    /// An error of the device.
    #[error(transparent)]
    Device(#[from] Error),
}

/// Result with a [`CheckpointError`].
pub type Result<T> = std::result::Result<T, CheckpointError>;

/// A tensor on the host.
#[derive(Clone, Debug, PartialEq)]
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Parameters, the optimizer's state, and metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Reads the parameters from the device and takes them together with the optimizer's state.
    ///
    /// # Errors
    /// [`CheckpointError::Device`]; [`CheckpointError::Name`] for names that would be mistaken for others.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn capture(gpu: &Gpu, theta: &Vector, optimizer: OptimizerState) -> Result<Self> {
        crate::gpu::blocking(Self::capture_async(gpu, theta, optimizer))
    }

    /// As [`capture`](Self::capture), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn capture_async(
        gpu: &Gpu,
        theta: &Vector,
        optimizer: OptimizerState,
    ) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        let entries = theta.layout().entries();
        for (entry, values) in entries.iter().zip(theta.read_async(gpu).await?) {
            if entry.name.starts_with(OPTIMIZER) || entry.name.starts_with(NUMBERED) {
                return Err(reserved(&entry.name));
            }
            let shape = entry.shape.clone();
            tensors.insert(entry.name.clone(), Tensor { shape, values });
        }
        for (name, parts) in optimizer.vectors {
            if name.contains('/') {
                let message = "the name of an optimizer's vector must not have a slash";
                return Err(CheckpointError::Name { name, message });
            }
            let own = parts.len() == entries.len()
                && entries
                    .iter()
                    .zip(&parts)
                    .all(|(e, p)| e.elements() == p.len());
            for (number, values) in parts.into_iter().enumerate() {
                let (part, shape) = match entries.get(number).filter(|_| own) {
                    Some(entry) => (entry.name.clone(), entry.shape.clone()),
                    None => (numbered(number), vec![values.len()]),
                };
                tensors.insert(vector_part(&name, &part), Tensor { shape, values });
            }
        }
        let metadata = optimizer
            .scalars
            .into_iter()
            .map(|(name, value)| (format!("{OPTIMIZER}{name}"), value.to_string()))
            .collect();
        Ok(Self { tensors, metadata })
    }

    /// Adds an entry to the metadata. Keys that begin with `optimizer/`, and the key `format`, belong to this format: they cannot be saved.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// An entry of the metadata.
    ///
    /// # Errors
    /// [`CheckpointError::MissingMetadata`].
    pub fn metadata(&self, key: &str) -> Result<&str> {
        self.metadata
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| CheckpointError::MissingMetadata { key: key.into() })
    }

    /// Writes the parameters in the file to `theta`; only if all of them fit.
    ///
    /// # Errors
    /// [`CheckpointError::WrongModel`], [`CheckpointError::MissingTensor`], [`CheckpointError::Device`]. `theta` is then as it was.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn restore_parameters(&self, gpu: &Gpu, theta: &Vector) -> Result<()> {
        crate::gpu::blocking(self.restore_parameters_async(gpu, theta))
    }

    /// As [`restore_parameters`](Self::restore_parameters), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn restore_parameters_async(&self, gpu: &Gpu, theta: &Vector) -> Result<()> {
        let layout = theta.layout();
        let known = |name: &str| layout.entries().iter().any(|entry| entry.name == name);
        let mut parameters = self
            .tensors
            .keys()
            .filter(|name| !name.starts_with(OPTIMIZER));
        if let Some(name) = parameters.find(|name| !known(name)) {
            return Err(CheckpointError::WrongModel {
                message: format!("it has a parameter '{name}', which the model has not"),
            });
        }
        let values = self.parts(layout, str::to_owned)?;
        Ok(theta.write_async(gpu, &values).await?)
    }

    /// The optimizer's state, for [`Optimizer::restore`](crate::optim::Optimizer::restore).
    ///
    /// # Errors
    /// [`CheckpointError::WrongModel`], [`CheckpointError::MissingTensor`].
    pub fn optimizer_state(&self, layout: &Layout) -> Result<OptimizerState> {
        let mut scalars = Vec::new();
        for (key, text) in &self.metadata {
            if let Some(name) = key.strip_prefix(OPTIMIZER) {
                let value = text.parse().map_err(|_| CheckpointError::WrongModel {
                    message: format!("the optimizer's '{name}' is '{text}', not a number"),
                })?;
                scalars.push((name.to_owned(), value));
            }
        }
        let mut names: Vec<&str> = self
            .tensors
            .keys()
            .filter_map(|name| name.strip_prefix(OPTIMIZER)?.split_once('/'))
            .map(|(vector, _)| vector)
            .collect();
        names.dedup();
        let vectors = names
            .into_iter()
            .map(|name| {
                // Vectors that are not in parameter space have tensors by number.
                let of_number = |n: usize| self.tensors.get(&vector_part(name, &numbered(n)));
                let parts = match of_number(0) {
                    Some(_) => (0..)
                        .map_while(of_number)
                        .map(|t| t.values.clone())
                        .collect(),
                    None => self.parts(layout, |parameter| vector_part(name, parameter))?,
                };
                Ok((name.to_owned(), parts))
            })
            .collect::<Result<_>>()?;
        Ok(OptimizerState { scalars, vectors })
    }

    /// The tensors of a vector in parameter space, in the order of the layout.
    fn parts(&self, layout: &Layout, name_of: impl Fn(&str) -> String) -> Result<Vec<Vec<f32>>> {
        let part = |entry: &crate::vector::Entry| {
            let name = name_of(&entry.name);
            match self.tensors.get(&name) {
                None => Err(CheckpointError::MissingTensor { name }),
                Some(tensor) if tensor.shape != entry.shape => Err(CheckpointError::WrongModel {
                    message: format!(
                        "'{name}' has the shape {:?}, in the model {:?}",
                        tensor.shape, entry.shape
                    ),
                }),
                Some(tensor) => Ok(tensor.values.clone()),
            }
        };
        layout.entries().iter().map(part).collect()
    }

    /// Writes the file, by way of a temporary one beside it: an interruption leaves the old file or the new one, never half of it.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]; [`CheckpointError::Name`] for metadata under a key that belongs to the format.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.bytes_of(&path.display().to_string())?;
        let temporary = beside(path);
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)
        });
        written.map_err(|source| {
            // What is left of the attempt is of no use; the first error is the one to report.
            let _ = std::fs::remove_file(&temporary);
            io(path, source)
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`CheckpointError::Io`], [`CheckpointError::Corrupt`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| io(path, source))?;
        Self::parse(&bytes, &path.display().to_string())
    }

    /// What [`save`](Self::save) writes, for where there are no files.
    ///
    /// # Errors
    /// [`CheckpointError::Name`] for metadata under a key that belongs to the format.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.bytes_of("what is to be written")
    }

    /// As [`load`](Self::load), from what is in a file.
    ///
    /// # Errors
    /// [`CheckpointError::Corrupt`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes, "what was read")
    }

    /// For errors `path` says where they go.
    fn bytes_of(&self, path: &str) -> Result<Vec<u8>> {
        if self.metadata.contains_key("format") {
            return Err(reserved("format"));
        }
        let mut metadata: HashMap<String, String> = self.metadata.clone().into_iter().collect();
        metadata.insert("format".into(), FORMAT.into());
        let bytes: Vec<Vec<u8>> = self
            .tensors
            .values()
            .map(|tensor| tensor.values.iter().flat_map(|x| x.to_le_bytes()).collect())
            .collect();
        let corrupt = |error: safetensors::SafeTensorError| corrupt(path, error.to_string());
        let mut views = Vec::with_capacity(bytes.len());
        for ((name, tensor), bytes) in self.tensors.iter().zip(&bytes) {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(corrupt)?;
            views.push((name.as_str(), view));
        }
        safetensors::serialize(views, Some(metadata)).map_err(corrupt)
    }

    fn parse(bytes: &[u8], path: &str) -> Result<Self> {
        let damaged = |error: safetensors::SafeTensorError| corrupt(path, error.to_string());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let mut metadata: BTreeMap<String, String> = header
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        match metadata.remove("format") {
            Some(format) if format == FORMAT => {}
            Some(format) => {
                let message = format!("its format is '{format}', this version reads '{FORMAT}'");
                return Err(corrupt(path, message));
            }
            None => {
                let message = "it is a safetensors file of something else".into();
                return Err(corrupt(path, message));
            }
        }
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(bytes).map_err(damaged)?.tensors() {
            if view.dtype() != Dtype::F32 {
                let message = format!("'{name}' has elements of type {:?}, not F32", view.dtype());
                return Err(corrupt(path, message));
            }
            let (words, _) = view.data().as_chunks::<4>();
            let values = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
            let shape = view.shape().to_vec();
            tensors.insert(name, Tensor { shape, values });
        }
        Ok(Self { tensors, metadata })
    }
}

fn vector_part(vector: &str, parameter: &str) -> String {
    format!("{OPTIMIZER}{vector}/{parameter}")
}

fn numbered(number: usize) -> String {
    format!("{NUMBERED}{number}")
}

/// The name of the temporary file: in the same folder, or it could not be renamed.
#[cfg(not(target_arch = "wasm32"))]
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

#[cfg(not(target_arch = "wasm32"))]
fn io(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Io {
        path: path.display().to_string(),
        source,
    }
}

fn corrupt(path: &str, message: String) -> CheckpointError {
    CheckpointError::Corrupt {
        path: path.into(),
        message,
    }
}

fn reserved(name: &str) -> CheckpointError {
    CheckpointError::Name {
        name: name.into(),
        message: "the checkpoint's format uses this name itself; take another",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "checkpoint_tests.rs"]
mod tests;
