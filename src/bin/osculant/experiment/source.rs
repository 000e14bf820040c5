//! The data of an experiment: which files, which columns, which rows are trained on.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::document::{Key, Section};
use crate::failure::{Failure, Outcome};

/// The part of the rows that is set apart where nothing is said.
const TEST: f64 = 0.2;

const FILE: &str = "the path of a .csv or .safetensors file";
const NAMES: &str = "a column's name, or a list of them";

/// What `[data]` may say.
pub(crate) const KEYS: [Key; 15] = [
    key("file", FILE, "\"houses.csv\""),
    key("test-file", FILE, "\"houses-test.csv\""),
    key(
        "target",
        "the name of a column or tensor, or a list of columns",
        "\"price\"",
    ),
    key("ignore", NAMES, "[\"id\"]"),
    key("categorical", NAMES, "[\"month\"]"),
    key("inputs", "the name of a tensor", "\"x\""),
    key(
        "folder",
        "the path of a folder with the four files of MNIST",
        "\"mnist\"",
    ),
    key(
        "images",
        "the path of an IDX file",
        "\"images-idx3-ubyte.gz\"",
    ),
    key(
        "labels",
        "the path of an IDX file",
        "\"labels-idx1-ubyte.gz\"",
    ),
    key(
        "test-images",
        "the path of an IDX file",
        "\"test-images-idx3-ubyte.gz\"",
    ),
    key(
        "test-labels",
        "the path of an IDX file",
        "\"test-labels-idx1-ubyte.gz\"",
    ),
    key("test", "a part of the rows between 0 and 1", "0.2"),
    key("seed", "a whole number from 0 on", "0"),
    key("standardise", "true or false", "true"),
    key("standardise-target", "true or false", "true"),
];

const fn key(name: &'static str, form: &'static str, example: &'static str) -> Key {
    Key {
        name,
        form,
        example,
    }
}

/// A kind of files, with the keys that it has beside those of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) enum Files {
    Table {
        file: PathBuf,
        test: Option<PathBuf>,
        targets: Vec<String>,
        ignored: Vec<String>,
        categorical: Vec<String>,
    },
    Tensors {
        file: PathBuf,
        test: Option<PathBuf>,
        inputs: String,
        targets: String,
    },
    Folder(PathBuf),
    Pictures {
        train: (PathBuf, PathBuf),
        test: Option<(PathBuf, PathBuf)>,
    },
}

/// Where the rows come from, and what is done with them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Source {
    pub(super) files: Files,
    /// Part of the rows that is set apart, and its seed; unused where there are files for it.
    pub(super) split: (f64, u64),
    pub(super) standardise: bool,
    pub(super) standardise_target: bool,
}

impl Source {
    pub(crate) fn read(section: &Section<'_>) -> Outcome<Self> {
        let files = files(section)?;
        let has_test = match &files {
            Files::Table { test, .. } | Files::Tensors { test, .. } => test.is_some(),
            Files::Folder(_) => true,
            Files::Pictures { test, .. } => test.is_some(),
        };
        let test = section.number("test", |part| part > 0.0 && part < 1.0)?;
        let seed = section.whole("seed", 0..=u64::MAX)?;
        for (key, given) in [("test", test.is_some()), ("seed", seed.is_some())] {
            if has_test && given {
                return Err(section
                    .bad(
                        key,
                        "is about a split of the rows, but the test rows have files of their own",
                    )
                    .hint(format!("remove {key}")));
            }
        }
        Ok(Self {
            files,
            split: (test.unwrap_or(TEST), seed.unwrap_or(0)),
            standardise: section.flag("standardise")?.unwrap_or(false),
            standardise_target: section.flag("standardise-target")?.unwrap_or(false),
        })
    }
}

/// The kind of files that the keys speak of.
fn files(section: &Section<'_>) -> Outcome<Files> {
    let path =
        |key: &str| Ok::<_, Failure>(section.text(key)?.map(|found| PathBuf::from(found.value)));
    let [file, folder, images] = ["file", "folder", "images"].map(|key| section.has(key));
    match (file, folder, images) {
        (false, false, false) => {
            return Err(section.missing(
                "file",
                "there are no data without it, unless folder, or images and labels, name pictures",
            ));
        }
        (true, true, _) | (_, true, true) | (true, _, true) => {
            let key = if folder { "folder" } else { "images" };
            return Err(section
                .bad(key, "is one place for the data too many")
                .hint("keep one of file, folder and images"));
        }
        _ => {}
    }
    if folder {
        only(section, &["folder"], "a folder of pictures")?;
        return Ok(Files::Folder(path("folder")?.unwrap_or_default()));
    }
    if images {
        only(
            section,
            &["images", "labels", "test-images", "test-labels"],
            "pictures",
        )?;
        let of = |key: &str, why: &str| path(key)?.ok_or_else(|| section.missing(key, why));
        let train = (
            of("images", "")?,
            of("labels", "images are nothing without it")?,
        );
        let test = match (section.has("test-images"), section.has("test-labels")) {
            (false, false) => None,
            _ => Some((
                of("test-images", "test-labels are of no pictures")?,
                of("test-labels", "test-images have no labels")?,
            )),
        };
        return Ok(Files::Pictures { train, test });
    }
    let (file, test) = (path("file")?.unwrap_or_default(), path("test-file")?);
    let target = section
        .texts("target")?
        .ok_or_else(|| section.missing("target", "what is to be predicted?"))?;
    if target.value.is_empty() {
        return Err(section
            .bad("target", "is empty")
            .hint("name the column that is to be predicted"));
    }
    let is_tensors = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("safetensors"))
    };
    if let Some(other) = test
        .as_ref()
        .filter(|other| is_tensors(other) != is_tensors(&file))
    {
        return Err(section.bad(
            "test-file",
            format!(
                "is {}, another kind of file than {}",
                other.display(),
                file.display()
            ),
        ));
    }
    for (key, path) in [("file", Some(&file)), ("test-file", test.as_ref())] {
        if let Some(path) = path.filter(|path| is_foreign(path)) {
            return Err(section
                .bad(key, format!("is {}, which is not {FILE}", path.display()))
                .hint("the program that wrote it can save it as CSV"));
        }
    }
    if is_tensors(&file) {
        only(
            section,
            &["file", "test-file", "target", "inputs"],
            ".safetensors files",
        )?;
        let inputs = section
            .text("inputs")?
            .ok_or_else(|| section.missing("inputs", "which tensor of the file has them?"))?;
        let [target] = &target.value[..] else {
            return Err(section.bad(
                "target",
                "has several names; a file of tensors has one tensor of targets",
            ));
        };
        return Ok(Files::Tensors {
            file,
            test,
            inputs: inputs.value,
            targets: target.clone(),
        });
    }
    only(
        section,
        &["file", "test-file", "target", "ignore", "categorical"],
        "tables",
    )?;
    let names = |key: &str| {
        Ok::<_, Failure>(
            section
                .texts(key)?
                .map_or_else(Vec::new, |found| found.value),
        )
    };
    Ok(Files::Table {
        file,
        test,
        targets: target.value,
        ignored: names("ignore")?,
        categorical: names("categorical")?,
    })
}

/// Whether a file's name ends as those of formats that are not read; any other ending is tried as a table.
fn is_foreign(path: &Path) -> bool {
    let foreign = [
        "xlsx", "xls", "ods", "parquet", "json", "npy", "npz", "pt", "h5",
    ];
    path.extension()
        .is_some_and(|end| foreign.iter().any(|known| end.eq_ignore_ascii_case(known)))
}

/// Refuses keys that this kind of data has no use for.
fn only(section: &Section<'_>, keys: &[&str], what: &str) -> Outcome {
    let common = ["test", "seed", "standardise", "standardise-target"];
    match section
        .present()
        .into_iter()
        .find(|key| !keys.contains(key) && !common.contains(key))
    {
        None => Ok(()),
        Some(key) => Err(section
            .bad(key, format!("means nothing for {what}"))
            .hint(format!("remove it; such data have {}", keys.join(", ")))),
    }
}
