//! Experiments: data, a network and optimizers in a TOML file, for `osculant train`, `compare` and `show`.

mod document;
pub(crate) mod init;
mod loading;
mod nearest;
mod network;
mod options;
mod source;
mod targets;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use osculant::data::Dataset;
use osculant::nn::{Loss, Model};

use crate::failure::{Failure, Outcome};
use crate::methods::Method;
use crate::optimizers::Setup;
use crate::problems::Data;
use document::{Document, Found, Key, Section};
use network::Network;
use options::Options;
use source::Source;

/// What a file may have.
const SECTIONS: [(&str, &[Key]); 4] = [
    ("data", &source::KEYS),
    ("network", &network::KEYS),
    ("train", &TRAIN),
    ("compare", &COMPARE),
];

const WORK: Key = Key {
    name: "work",
    form: "a number of epochs above 0",
    example: "60",
};

const TRAIN: [Key; 3] = [
    Key {
        name: "optimizer",
        form: "the name of an optimizer",
        example: "\"adam\"",
    },
    WORK,
    Key {
        name: "seed",
        form: "a whole number from 0 on",
        example: "0",
    },
];

const COMPARE: [Key; 4] = [
    Key {
        name: "optimizers",
        form: "a list of optimizers",
        example: "[\"sgd\", \"adam\", \"newton-cg\"]",
    },
    WORK,
    Key {
        name: "seeds",
        form: "a whole number from 1 to 1000",
        example: "3",
    },
    Key {
        name: "tune",
        form: "true or false",
        example: "true",
    },
];

/// What `[train]` says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Training {
    pub(crate) optimizer: Option<Method>,
    pub(crate) work: Option<f64>,
    pub(crate) seed: Option<u64>,
}

/// What `[compare]` says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) optimizers: Vec<Method>,
    pub(crate) work: Option<f64>,
    pub(crate) seeds: Option<u64>,
    pub(crate) tune: bool,
}

/// A file, with its data.
#[derive(Debug)]
pub(crate) struct Experiment {
    /// The name of the file.
    pub(crate) name: String,
    pub(crate) train: Training,
    pub(crate) compare: Comparison,
    /// Data and network, as checkpoints remember them.
    pub(crate) definition: String,
    network: Network,
    options: Vec<Options>,
    data: Arc<Data>,
    /// Sentences about the data, to print.
    pub(crate) remarks: Vec<String>,
}

impl Experiment {
    /// Reads a file and its data.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        Self::read(&Document::read(path)?)
    }

    fn read(document: &Document) -> Outcome<Self> {
        let table = document.table()?;
        let known: Vec<&str> = SECTIONS
            .iter()
            .map(|(name, _)| *name)
            .chain(["optimizers"])
            .collect();
        for (key, value) in &table {
            let name = key.get_ref();
            if known.contains(&&**name) {
                continue;
            }
            let what = if value.get_ref().is_table() {
                format!("there is no table [{name}]")
            } else {
                format!("'{name}' is in no table")
            };
            let of_section = SECTIONS
                .iter()
                .find(|(_, keys)| keys.iter().any(|key| key.name == &**name));
            return Err(match of_section.filter(|_| !value.get_ref().is_table()) {
                Some((section, _)) => document
                    .failure(&key.span(), what)
                    .hint(format!("write it below [{section}]")),
                None => document::unknown(document, &key.span(), &what, name, &known),
            });
        }
        let open = |at: usize| Section::open(document, &table, SECTIONS[at].0, SECTIONS[at].1);
        let (data, network, train, compare) = (open(0)?, open(1)?, open(2)?, open(3)?);
        let source = Source::read(&data)?;
        let network = Network::read(&network)?;
        let train = training(&train)?;
        let compare = comparison(&compare)?;
        let options = options::read(&Section::tables(document, &table, "optimizers")?)?;
        let mut loaded = source.load(&data, network.loss())?;
        for options in &options {
            options.check_rows(document, loaded.train.len())?;
        }
        if !network.has_classes() {
            loaded.remarks.push(format!(
                "test {} is {}",
                network.accuracy_name(),
                network.accuracy_meaning()
            ));
        }
        let definition = serde_json::to_string(&(&source, &network))
            .map_err(|error| Failure::new(error.to_string()))?;
        let name = document
            .path()
            .file_name()
            .unwrap_or(document.path().as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            train,
            compare,
            definition,
            network,
            options,
            data: Arc::new(Data::new(loaded.train, loaded.test)?),
            remarks: loaded.remarks,
        })
    }

    pub(crate) fn data(&self) -> Arc<Data> {
        self.data.clone()
    }

    /// Whether there are so few rows that an epoch is cheap.
    pub(crate) fn is_small(&self) -> bool {
        self.data.is_small()
    }

    pub(crate) fn rows(&self) -> usize {
        self.data.train.len()
    }

    pub(crate) fn loss(&self) -> Loss {
        self.network.loss()
    }

    pub(crate) fn l2(&self) -> f32 {
        self.network.l2()
    }

    pub(crate) fn model(&self, data: &Dataset) -> Model {
        self.network.model(data)
    }

    /// Gives an optimizer the options of the file.
    pub(crate) fn configure(&self, setup: &mut Setup) -> Outcome {
        let method = setup.method;
        let own = self
            .options
            .iter()
            .filter(|options| options.method == method);
        own.into_iter().try_for_each(|options| options.apply(setup))
    }

    /// The options that the file sets of an optimizer.
    pub(crate) fn fixed(&self, method: Method) -> Vec<String> {
        let own = self
            .options
            .iter()
            .filter(|options| options.method == method);
        own.flat_map(Options::keys).collect()
    }

    pub(crate) fn description(&self) -> String {
        self.network.description(&self.data.train)
    }

    pub(crate) fn accuracy(&self, metric: f64, spread: f64) -> f64 {
        self.network.accuracy(metric, spread)
    }

    pub(crate) fn accuracy_name(&self) -> &'static str {
        self.network.accuracy_name()
    }

    pub(crate) fn accuracy_meaning(&self) -> &'static str {
        self.network.accuracy_meaning()
    }
}

fn work(section: &Section<'_>) -> Outcome<Option<f64>> {
    section.number("work", |work| work > 0.0 && work.is_finite())
}

fn training(section: &Section<'_>) -> Outcome<Training> {
    let optimizer = section.text("optimizer")?;
    Ok(Training {
        optimizer: optimizer
            .map(|name| options::method(section.document, &name))
            .transpose()?,
        work: work(section)?,
        seed: section.whole("seed", 0..=u64::MAX)?,
    })
}

fn comparison(section: &Section<'_>) -> Outcome<Comparison> {
    let mut optimizers = Vec::new();
    if let Some(Found { value, span }) = section.texts("optimizers")? {
        for name in value {
            let method = options::method(
                section.document,
                &Found {
                    value: name,
                    span: span.clone(),
                },
            )?;
            if optimizers.contains(&method) {
                return Err(section.bad("optimizers", format!("has {} twice", method.name())));
            }
            optimizers.push(method);
        }
    }
    Ok(Comparison {
        optimizers,
        work: work(section)?,
        seeds: section.whole("seeds", 1..=1000)?,
        tune: section.flag("tune")?.unwrap_or(false),
    })
}
