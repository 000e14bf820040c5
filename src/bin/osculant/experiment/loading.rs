//! The rows of an experiment, from its files.

use std::path::Path;

use osculant::data::csv::{Columns, Encoding, Table};
use osculant::data::tensors::{self, Tensors};
use osculant::data::{Dataset, idx, standardise};
use osculant::nn::Loss;

use super::document::Section;
use super::source::{Files, Source};
use super::targets;
use crate::failure::{Failure, Outcome};

/// Training and test rows, with what there is to say about them.
pub(crate) struct Loaded {
    pub(crate) train: Dataset,
    pub(crate) test: Dataset,
    /// Sentences to print.
    pub(crate) remarks: Vec<String>,
}

impl Source {
    /// Reads the files. `section` is for messages that say which key is meant.
    pub(crate) fn load(&self, section: &Section<'_>, loss: Loss) -> Outcome<Loaded> {
        let (fraction, seed) = self.split;
        let path = |path: &Path| section.document.beside(&path.to_string_lossy());
        let classes = loss == Loss::SoftmaxCrossEntropy;
        let (mut remarks, mut names) = (Vec::new(), Vec::new());
        let explained = |error| explain(section, error);
        let halves = match &self.files {
            Files::Table {
                file,
                test,
                targets,
                ignored,
                categorical,
            } => {
                let mut columns = Columns {
                    targets: targets.clone(),
                    ignored: ignored.clone(),
                    categorical: categorical.clone(),
                };
                if let ([target], true) = (&targets[..], classes)
                    && !categorical.contains(target)
                {
                    columns.categorical.push(target.clone());
                }
                let (file, test) = (path(file), test.as_deref().map(path));
                let (rows, encoding) =
                    self.load_table(section, loss, &file, test.as_deref(), &columns)?;
                names = encoding.inputs();
                if let [target] = &targets[..] {
                    let categories = encoding.categories(target);
                    remarks.extend(categories.map(|known| targets::sentence(target, known)));
                }
                Ok(rows)
            }
            Files::Tensors {
                file,
                test,
                inputs,
                targets,
            } => {
                let tensors = Tensors {
                    inputs: inputs.clone(),
                    targets: targets.clone(),
                    classes,
                };
                match test {
                    None => tensors::load(&path(file), &tensors)
                        .and_then(|data| data.split(fraction, seed)),
                    Some(test) => tensors::load_halves(&path(file), &path(test), &tensors),
                }
            }
            Files::Folder(folder) => idx::load(&path(folder), "pictures"),
            Files::Pictures { train, test } => {
                let (images, labels) = (path(&train.0), path(&train.1));
                match test {
                    None => idx::load_files(&images, &labels, "pictures")
                        .and_then(|data| data.split(fraction, seed)),
                    Some(test) => {
                        let test = (path(&test.0), path(&test.1));
                        idx::load_halves((&images, &labels), (&test.0, &test.1), "pictures")
                    }
                }
            }
        };
        let (mut train, mut test) = halves.map_err(explained)?;
        if train.width() != test.width() {
            let message = format!(
                "the training rows have {} inputs, the test rows {}",
                train.width(),
                test.width()
            );
            return Err(section.document.incomplete(message));
        }
        if self.standardise {
            standardise(&mut train, &mut test).map_err(explained)?;
        } else {
            check_digits(section, &train, &names)?;
        }
        let (train, test) = targets::prepare(section, loss, train, test, self.standardise_target)?;
        Ok(Loaded {
            train,
            test,
            remarks,
        })
    }

    /// The rows of a table as numbers, and how they became that.
    fn load_table(
        &self,
        section: &Section<'_>,
        loss: Loss,
        file: &Path,
        test_file: Option<&Path>,
        columns: &Columns,
    ) -> Outcome<((Dataset, Dataset), Encoding)> {
        let explained = |error| explain(section, error);
        let rows = Table::read(file, columns).map_err(explained)?;
        let (train, test) = match test_file {
            Some(path) => (rows.clone(), rows.read_more(path).map_err(explained)?),
            None => rows.split(self.split.0, self.split.1).map_err(explained)?,
        };
        let encoding = Encoding::fit(&train).map_err(explained)?;
        if let [target] = &columns.targets[..] {
            let categories = encoding.categories(target);
            targets::check_categories(section, target, categories, train.len(), loss)?;
        }
        let train = encoding.apply(&train).map_err(explained)?;
        let test = encoding.apply(&test).map_err(|error| {
            let whole = || Encoding::fit(&rows)?.apply(&rows);
            let failure = explained(error);
            // Nothing is wrong with the rows but which of them are for tests.
            if test_file.is_none() && whole().is_ok() {
                failure.hint("the split made it a test row; another seed in [data] deals the rows differently")
            } else {
                failure
            }
        })?;
        Ok(((train, test), encoding))
    }
}

/// Refuses inputs that rounding would make equal: nobody wants that, and `standardise` helps.
fn check_digits(section: &Section<'_>, train: &Dataset, names: &[String]) -> Outcome {
    let rounded = train.rounded_columns();
    let Some((column, lost)) = rounded.first() else {
        return Ok(());
    };
    let input = match names.get(*column) {
        Some(name) => format!("column '{name}'"),
        None => format!("input {column} of a row"),
    };
    Err(section
        .document
        .incomplete(format!(
            "f32 cannot hold {input}: rounding moves it by up to {lost:.1e} of its standard deviation"
        ))
        .hint("write below [data]: standardise = true, which centres it before it is rounded"))
}

/// A failure of a reader, with the place in the file of the key that it speaks of.
fn explain(section: &Section<'_>, error: osculant::Error) -> Failure {
    if let osculant::Error::Io { path, .. } = &error
        && let Some(key) = naming(section, Path::new(path))
    {
        return section
            .document
            .failure(&section.span(key), &error)
            .hint("paths in the file are relative to the folder that it is in");
    }
    let osculant::Error::Option { option, message } = &error else {
        return error.into();
    };
    let key = match option.as_str() {
        "targets" | "target_column" => "target",
        "ignored" => "ignore",
        "test_fraction" => "test",
        // Softmax declares its target itself.
        "categorical" if !section.has("categorical") => "target",
        other => other,
    };
    section.document.failure(&section.span(key), message)
}

/// The key whose value is this path, or a folder in which it is.
fn naming<'a>(section: &Section<'a>, path: &Path) -> Option<&'a str> {
    section.entries().find_map(|(key, value, _)| {
        let named = section.document.beside(value.get_ref().as_str()?);
        path.starts_with(named).then_some(key)
    })
}
