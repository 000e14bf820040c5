//! Pictures and labels in the IDX format of MNIST (Y. LeCun, C. Cortes, C. Burges), raw or compressed with gzip.
//!
//! A file is a big-endian header - a magic number, then the size of each dimension - followed by one byte per number.

use super::Dataset;
use super::labels::Labels;
use crate::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
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
        return Err(with_fetching(missing(folder, "no such folder")));
    }
    let part = |prefix: &str| {
        let images = folder.join(format!("{prefix}-images-idx3-ubyte"));
        let labels = folder.join(format!("{prefix}-labels-idx1-ubyte"));
        read_part(&images, &labels).map_err(with_fetching)
    };
    halves(folder, name, part("train")?, part("t10k")?)
}

/// Reads one file of pictures and one of labels, under any names, as a data set called `name`; pixels become 0 to 1.
///
/// Where a file is missing the one with `.gz` behind its name is read. Classes are the labels that occur, as in [`load`].
///
/// # Errors
/// As [`load`].
pub fn load_files(images: &Path, labels: &Path, name: &str) -> Result<Dataset> {
    let part = read_part(images, labels)?;
    let classes = Labels::of(&part.labels, &[], &labels.display().to_string());
    part.into_dataset(name, &classes)
}

/// Reads the pictures and labels of a training and a test half, as [`load_files`] does, with classes that they have in common.
///
/// # Errors
/// As [`load`].
pub fn load_halves(
    train: (&Path, &Path),
    test: (&Path, &Path),
    name: &str,
) -> Result<(Dataset, Dataset)> {
    let halves_of = |(images, labels)| read_part(images, labels);
    halves(train.0, name, halves_of(train)?, halves_of(test)?)
}

fn halves(place: &Path, name: &str, train: Part, test: Part) -> Result<(Dataset, Dataset)> {
    if train.size != test.size {
        return Err(bad(
            place,
            format!(
                "training pictures are {}x{}, test pictures {}x{}",
                train.size[0], train.size[1], test.size[0], test.size[1]
            ),
        ));
    }
    let classes = Labels::of(&train.labels, &test.labels, &place.display().to_string());
    Ok((
        train.into_dataset(name, &classes)?,
        test.into_dataset(name, &classes)?,
    ))
}

/// The pictures, still as bytes, and labels of one half.
struct Part {
    pixels: Vec<u8>,
    size: [usize; 2],
    labels: Vec<u32>,
}

impl Part {
    fn into_dataset(self, name: &str, classes: &Labels) -> Result<Dataset> {
        let features = self
            .pixels
            .iter()
            .map(|&pixel| f32::from(pixel) / 255.0)
            .collect();
        let width = self.size[0] * self.size[1];
        classes.dataset(&self.labels, |targets| {
            Dataset::new(name, features, width, targets)
        })
    }
}

fn read_part(images: &Path, labels: &Path) -> Result<Part> {
    let ([pictures, rows, columns], pixels) = read_file(images, IMAGES_MAGIC)?;
    let ([count], bytes) = read_file(labels, LABELS_MAGIC)?;
    if pictures != count {
        return Err(bad(
            images,
            format!(
                "there are {pictures} pictures, but {count} labels in {}",
                labels.display()
            ),
        ));
    }
    Ok(Part {
        pixels,
        size: [rows, columns],
        labels: bytes.into_iter().map(u32::from).collect(),
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

/// What a gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Opens a file, or the one with `.gz` behind its name. The first bytes say whether it is compressed: those of IDX are zeros.
fn open(path: &Path) -> Result<(PathBuf, Box<dyn Read>)> {
    let mut longer = path.as_os_str().to_owned();
    longer.push(".gz");
    let longer = PathBuf::from(longer);
    let path = match (path.is_file(), longer.is_file()) {
        (true, _) => path.to_owned(),
        (false, true) => longer,
        (false, false) => return Err(missing(path, "no such file, nor with .gz")),
    };
    let failed = |error| read_error(&path, error);
    let mut file = BufReader::new(File::open(&path).map_err(failed)?);
    let compressed = file.fill_buf().map_err(failed)?.starts_with(&GZIP);
    Ok(if compressed {
        (path, Box::new(MultiGzDecoder::new(file)))
    } else {
        (path, Box::new(file))
    })
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
    Error::Io {
        path: path.display().to_string(),
        source: io::Error::new(io::ErrorKind::NotFound, what),
    }
}

/// Says of a missing file of a well-known set where it comes from.
fn with_fetching(error: Error) -> Error {
    match error {
        Error::Io { path, source } if source.kind() == io::ErrorKind::NotFound => {
            let message = format!(
                "{source}; in a checkout of osculant, `cargo xtask data fashion-mnist` or `cargo xtask data mnist` fetches it"
            );
            Error::Io {
                path,
                source: io::Error::new(io::ErrorKind::NotFound, message),
            }
        }
        error => error,
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
