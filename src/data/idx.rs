//! Pictures and labels in the IDX format of MNIST (Y. LeCun, C. Cortes, C. Burges), raw or compressed with gzip.
//!
//! A file is a big-endian header - a magic number, then the size of each dimension - followed by one byte per number.

use super::{Dataset, Targets};
use crate::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Unsigned bytes (8) in one dimension (1).
const LABELS_MAGIC: u32 = 0x0801;
/// Unsigned bytes (8) in three dimensions (3): picture, row, column.
const IMAGES_MAGIC: u32 = 0x0803;

/// Reads the four files of `folder` as the data sets (train, test), both called `name`; pixels become 0 to 1.
///
/// The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
/// `t10k-labels-idx1-ubyte`, or the same with `.gz` where the plain one is missing (of one or several members).
///
/// The classes are the labels that occur in either half, in order: labels 1 to 10, or 0 to 9 without a 4, become the classes 0, 1, 2, ...
/// Where that renumbers them a warning in the log says so, and [`Dataset::original_labels`] has the labels of the files. A label of which
/// training has no picture is a class nevertheless, with a warning that names it.
///
/// # Errors
/// [`Error::Io`] when the folder or a file is missing or cannot be read; [`Error::Data`] when a file is not IDX, is
/// shorter or longer than its header says, or the files disagree about the number or size of the pictures.
pub fn load(folder: &Path, name: &str) -> Result<(Dataset, Dataset)> {
    if !folder.is_dir() {
        return Err(missing(folder, "no such folder"));
    }
    let train = read_part(folder, "train")?;
    let test = read_part(folder, "t10k")?;
    if train.size != test.size {
        return Err(bad(
            folder,
            format!(
                "training pictures are {}x{}, test pictures {}x{}",
                train.size[0], train.size[1], test.size[0], test.size[1]
            ),
        ));
    }
    let trained: BTreeSet<u8> = train.labels.iter().copied().collect();
    let tested: BTreeSet<u8> = test.labels.iter().copied().collect();
    let unknown: Vec<u8> = tested.difference(&trained).copied().collect();
    if !unknown.is_empty() {
        log::warn!(
            "{}: only test pictures have the labels {unknown:?}; what no training picture shows cannot be learned",
            folder.display()
        );
    }
    let labels: Vec<u8> = trained.union(&tested).copied().collect();
    if renumbers(&labels) {
        log::warn!(
            "{}: the labels {labels:?} became the classes 0 to {}",
            folder.display(),
            labels.len() - 1
        );
    }
    Ok((
        train.into_dataset(name, &labels)?,
        test.into_dataset(name, &labels)?,
    ))
}

/// Whether some of the labels, in order, differ from their classes 0, 1, 2, ...
fn renumbers(labels: &[u8]) -> bool {
    labels
        .iter()
        .enumerate()
        .any(|(class, &label)| class != usize::from(label))
}

/// The pictures and labels of one half, still as bytes.
struct Part {
    pixels: Vec<u8>,
    size: [usize; 2],
    labels: Vec<u8>,
}

impl Part {
    /// `labels` has the label of each class.
    fn into_dataset(self, name: &str, labels: &[u8]) -> Result<Dataset> {
        let features = self
            .pixels
            .iter()
            .map(|&pixel| f32::from(pixel) / 255.0)
            .collect();
        let class = |label: &u8| labels.partition_point(|known| known < label) as u32;
        let targets = Targets::Classes {
            labels: self.labels.iter().map(class).collect(),
            classes: labels.len(),
        };
        let width = self.size[0] * self.size[1];
        let data = Dataset::new(name, features, width, targets)?;
        Ok(if renumbers(labels) {
            data.with_original_labels(labels.iter().map(|&label| u32::from(label)).collect())
        } else {
            data
        })
    }
}

fn read_part(folder: &Path, prefix: &str) -> Result<Part> {
    let images = folder.join(format!("{prefix}-images-idx3-ubyte"));
    let ([pictures, rows, columns], pixels) = read_file(&images, IMAGES_MAGIC)?;
    let labels = folder.join(format!("{prefix}-labels-idx1-ubyte"));
    let ([count], labels) = read_file(&labels, LABELS_MAGIC)?;
    if pictures != count {
        return Err(bad(
            folder,
            format!("{prefix} has {pictures} pictures, but {count} labels"),
        ));
    }
    Ok(Part {
        pixels,
        size: [rows, columns],
        labels,
    })
}

/// The dimensions and the bytes of one file, plain or with `.gz`.
fn read_file<const DIMENSIONS: usize>(
    path: &Path,
    magic: u32,
) -> Result<([usize; DIMENSIONS], Vec<u8>)> {
    let (path, mut reader) = open(path)?;
    let found = read_word(&path, &mut reader)?;
    if found != magic {
        return Err(bad(
            &path,
            format!("magic number {found:#010x}, expected {magic:#010x}: not such an IDX file"),
        ));
    }
    let mut dimensions = [0; DIMENSIONS];
    let mut expected = 1u64;
    for dimension in &mut dimensions {
        let size = read_word(&path, &mut reader)?;
        // Two such sizes always fit 64 bits; a third may not, and then no file is that long either.
        expected = expected.saturating_mul(u64::from(size));
        *dimension = size as usize;
    }
    if expected == 0 {
        return Err(bad(
            &path,
            format!("there is no data: the header says {dimensions:?}"),
        ));
    }
    // The header is not believed: memory grows only with bytes that are there, up to one more than are due.
    let mut bytes = Vec::new();
    let wanted = expected.saturating_add(1);
    let result = reader.take(wanted).read_to_end(&mut bytes);
    let found = bytes.len() as u64;
    result.map_err(|error| match read_error(&path, error) {
        Error::Data { message, .. } if found == expected => bad(
            &path,
            format!("all {expected} bytes are there, but what follows them is not the end of a gzip file: {message}"),
        ),
        error => error,
    })?;
    if found < expected {
        return Err(bad(
            &path,
            format!("truncated: the header says {expected} bytes, {found} are there"),
        ));
    }
    if found > expected {
        return Err(bad(
            &path,
            format!("there are more bytes than the {expected} that the header says"),
        ));
    }
    Ok((dimensions, bytes))
}

/// Opens the plain file, or the compressed one beside it.
fn open(plain: &Path) -> Result<(PathBuf, Box<dyn Read>)> {
    let mut compressed = plain.as_os_str().to_owned();
    compressed.push(".gz");
    let compressed = PathBuf::from(compressed);
    if plain.is_file() {
        let file = File::open(plain).map_err(|error| read_error(plain, error))?;
        Ok((plain.to_owned(), Box::new(BufReader::new(file))))
    } else if compressed.is_file() {
        let file = File::open(&compressed).map_err(|error| read_error(&compressed, error))?;
        Ok((
            compressed,
            Box::new(MultiGzDecoder::new(BufReader::new(file))),
        ))
    } else {
        Err(missing(plain, "no such file, nor with .gz"))
    }
}

fn read_word(path: &Path, reader: &mut impl Read) -> Result<u32> {
    let mut word = [0; 4];
    reader
        .read_exact(&mut word)
        .map_err(|error| read_error(path, error))?;
    Ok(u32::from_be_bytes(word))
}

/// A stream that ends early or does not decompress is bad data; the rest is the operating system's.
fn read_error(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => bad(path, "truncated: the file ends early".to_owned()),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => bad(
            path,
            format!("not gzip, or damaged, or something else follows in the file: {source}"),
        ),
        _ => Error::Io {
            path: path.display().to_string(),
            source,
        },
    }
}

fn missing(path: &Path, what: &str) -> Error {
    let message = format!(
        "{what}; in a checkout of osculant, `cargo xtask data fashion-mnist` or `cargo xtask data mnist` fetches it"
    );
    Error::Io {
        path: path.display().to_string(),
        source: io::Error::new(io::ErrorKind::NotFound, message),
    }
}

fn bad(path: &Path, message: String) -> Error {
    Error::Data {
        what: path.display().to_string(),
        message,
    }
}

#[cfg(test)]
#[path = "idx_tests.rs"]
mod tests;
