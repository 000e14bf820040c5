//! Tests of experiment files: what is read of them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod pictures;
mod refusals;

use osculant::data::Targets;
use tempfile::TempDir;

use super::*;
use crate::optimizers::Origin;
use crate::problems::Problem;

const HOUSES: &str = "id,colour,rooms,price,kind\n1,red,3,1.5,flat\n2,blue,4,2.5,house\n3,red,5,3,house\n4,blue,6,2,flat\n";

const DATA: &str =
    "[data]\nfile = \"houses.csv\"\ntarget = \"kind\"\nignore = \"id\"\ntest = 0.25\n";
const NETWORK: &str = "[network]\nhidden = 4\nloss = \"softmax-cross-entropy\"\n";

/// A folder with `net.toml`, which has this text, and the houses.
fn folder(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("net.toml"), text).unwrap();
    std::fs::write(folder.path().join("houses.csv"), HOUSES).unwrap();
    folder
}

fn read(text: &str) -> Experiment {
    Experiment::open(&folder(text).path().join("net.toml")).unwrap()
}

#[test]
fn the_template_is_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/fruit.toml");
    let arguments = crate::arguments::Init {
        file: path.clone(),
        force: false,
    };
    init::run(&arguments).unwrap();
    let experiment = Experiment::open(&path).unwrap();
    let data = experiment.data();
    // colour has four values; with weight and length.
    assert_eq!(
        (data.train.len(), data.test.len(), data.train.width()),
        (120, 30, 6)
    );
    assert!(
        experiment
            .description()
            .starts_with("network 6-16-4 with tanh; softmax-cross-entropy, l2 0.0001")
    );
    assert_eq!(experiment.train.optimizer, Some(Method::NewtonCg));
    assert_eq!(experiment.compare.optimizers.len(), 3);

    std::fs::write(&path, "mine").unwrap();
    let message = init::run(&arguments).unwrap_err().to_string();
    assert!(
        message.contains("is there already") && message.contains("--force"),
        "{message}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    init::run(&crate::arguments::Init {
        file: path.clone(),
        force: true,
    })
    .unwrap();
    Experiment::open(&path).unwrap();
    // A table of somebody's own beside a new file is not overwritten either.
    let other = crate::arguments::Init {
        file: folder.path().join("new/other.toml"),
        force: false,
    };
    assert!(
        init::run(&other)
            .unwrap_err()
            .to_string()
            .contains("fruit.csv")
    );
    let nameless = crate::arguments::Init {
        file: "experiment".into(),
        force: false,
    };
    assert!(
        init::run(&nameless)
            .unwrap_err()
            .to_string()
            .contains("osculant init experiment.toml")
    );
}

#[test]
fn the_reference_has_every_key() {
    let reference = include_str!("../../../../../docs/command-line.md");
    for (section, keys) in SECTIONS {
        let start = reference
            .find(&format!("\n\n`[{section}]`"))
            .unwrap_or_else(|| panic!("[{section}] is not in the reference"))
            + 2;
        let table = &reference[start..];
        let table = table.find("\n\n`[").map_or(table, |end| &table[..end]);
        for key in keys {
            assert!(
                table.contains(&format!("| `{}` |", key.name)),
                "{} of [{section}] is not in the reference",
                key.name
            );
        }
    }
    for (names, what) in [
        (network::LOSSES.map(|(name, _)| name).to_vec(), "loss"),
        (
            network::ACTIVATIONS.map(|(name, _)| name).to_vec(),
            "activation",
        ),
        (
            network::INITIAL.map(|(name, _)| name).to_vec(),
            "distribution",
        ),
    ] {
        for name in names {
            assert!(
                reference.contains(&format!("`{name}`")),
                "{what} {name} is not in the reference"
            );
        }
    }
}

/// What a message proposes to write can be written.
#[test]
fn every_example_of_a_key_has_its_form() {
    for (name, keys) in SECTIONS {
        for key in keys {
            let text = format!("[{name}]\n{} = {}\n", key.name, key.example);
            let document = Document::of(&text);
            let table = document.table().unwrap();
            let section = Section::open(&document, &table, name, keys).unwrap();
            let accepted = match key.form {
                "true or false" => section.flag(key.name).map(|found| found.is_some()),
                form if form.starts_with("the width") => {
                    section.widths(key.name).map(|found| found.is_some())
                }
                form if form.contains("whole number") => section
                    .whole(key.name, 0..=1000)
                    .map(|found| found.is_some()),
                form if form.contains("number") || form.contains("part") => section
                    .number(key.name, |_| true)
                    .map(|found| found.is_some()),
                _ => section.texts(key.name).map(|found| found.is_some()),
            };
            assert!(accepted.unwrap(), "{text}");
        }
    }
}

#[test]
fn the_example_of_the_reference_is_read() {
    let reference = include_str!("../../../../../docs/command-line.md");
    let (_, example) = reference.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let folder = folder(example);
    let rows: String = (0..200)
        .map(|row| format!("{row},{},{}\n", row % 7, row * 3))
        .collect();
    let table = format!("id,rooms,price\n{rows}");
    std::fs::write(folder.path().join("houses.csv"), table).unwrap();
    let experiment = Experiment::open(&folder.path().join("net.toml")).unwrap();
    assert_eq!(
        experiment.description(),
        "network 1-32-16-1 with tanh; mean-squares"
    );
    assert_eq!(experiment.fixed(Method::NewtonCg), ["batch"]);
}

#[test]
fn data_network_and_optimizers_are_read() {
    let text = format!(
        "{DATA}standardise = true\n{NETWORK}activation = \"relu\"\ninitial = \"he\"\nl2 = 1e-3\n[train]\noptimizer = \"adam\"\nwork = 2.5\n\
         seed = 7\n[compare]\noptimizers = [\"sgd\", \"newton-cg\"]\nseeds = 2\ntune = true\n[optimizers.adam]\nlearning-rate = 1e-4\n\
         batch = \"all\"\n[optimizers.newton-cg]\nbacktracking = false\nbatch = 2\n"
    );
    let experiment = read(&text);
    let data = experiment.data();
    assert_eq!((data.train.len(), data.test.len()), (3, 1));
    assert_eq!(
        data.train.targets(),
        &Targets::Classes {
            labels: labels(&experiment),
            classes: 2
        }
    );
    assert_eq!(
        (experiment.train.work, experiment.train.seed),
        (Some(2.5), Some(7))
    );
    assert_eq!(
        (
            experiment.compare.seeds,
            experiment.compare.tune,
            experiment.l2()
        ),
        (Some(2), true, 1e-3)
    );
    let problem = Problem::Own(Arc::new(experiment));
    let configured = |method| {
        let mut setup = Setup::new(method, &problem).with_origin(Origin::Train);
        problem.experiment().unwrap().configure(&mut setup).unwrap();
        setup
    };
    let adam = configured(Method::Adam);
    assert_eq!(
        (
            adam.get::<f64>("learning-rate").unwrap(),
            adam.text("batch").unwrap()
        ),
        (1e-4, "all")
    );
    assert!(
        !configured(Method::NewtonCg)
            .get::<bool>("backtracking")
            .unwrap()
    );
    // A default batch of more rows than there are is all of them.
    assert_eq!(configured(Method::Sgd).text("batch").unwrap(), "all");
    assert_eq!(
        problem.experiment().unwrap().fixed(Method::NewtonCg),
        ["backtracking", "batch"]
    );
}

fn labels(experiment: &Experiment) -> Vec<u32> {
    match experiment.data().train.targets() {
        Targets::Classes { labels, .. } => labels.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_category_that_the_split_took_from_training_is_blamed_on_the_split() {
    let text = format!("{DATA}{NETWORK}");
    let folder = folder(&text);
    let open = |seed: u32, colour: &str| {
        std::fs::write(
            folder.path().join("houses.csv"),
            HOUSES.replace("4,blue", &format!("4,{colour}")),
        )
        .unwrap();
        let text = text.replace("[network]", &format!("seed = {seed}\n[network]"));
        let path = folder.path().join("net.toml");
        std::fs::write(&path, text).unwrap();
        Experiment::open(&path).map(drop)
    };
    let refused: Vec<String> = (0..8)
        .filter_map(|seed| open(seed, "green").err())
        .map(|failure| failure.to_string())
        .collect();
    // What the hint proposes works.
    assert!((1..8).contains(&refused.len()), "{refused:?}");
    for message in refused {
        assert!(
            message.contains("is in no training row") && message.contains("another seed"),
            "{message}"
        );
    }
}

/// Means and categories are those of the training rows.
#[test]
fn a_test_file_is_scaled_as_the_training_rows_are() {
    let text = "[data]\nfile = \"houses.csv\"\ntest-file = \"more.csv\"\ntarget = \"price\"\nignore = [\"id\", \"kind\"]\n\
                standardise = true\nstandardise-target = true\n[network]\nhidden = []\nloss = \"mean-squares\"\n";
    let folder = folder(text);
    std::fs::write(
        folder.path().join("more.csv"),
        "price;rooms;colour;id;kind\n2.25;4.5;blue;9;flat\n",
    )
    .unwrap();
    let experiment = Experiment::open(&folder.path().join("net.toml")).unwrap();
    let test = &experiment.data().test;
    // Half of the rows are blue, and rooms are at their mean.
    assert_eq!(test.features(), [1.0, -1.0, 0.0]);
    assert_eq!(
        test.targets(),
        &Targets::Values {
            values: vec![0.0],
            width: 1
        }
    );
    assert_eq!(experiment.description(), "network 3-1; mean-squares");

    std::fs::write(
        folder.path().join("more.csv"),
        "price,rooms,colour\n2,4,green\n",
    )
    .unwrap();
    let message = Experiment::open(&folder.path().join("net.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("more.csv") && message.contains("line 2, column 'colour': 'green'"),
        "{message}"
    );
}

#[test]
fn two_classes_are_one_output_for_binary_cross_entropy() {
    let experiment = read(&format!("{DATA}{}", NETWORK.replace("softmax", "binary")));
    assert!(
        experiment.description().starts_with("network 4-4-1"),
        "{}",
        experiment.description()
    );
    let targets = experiment.data().train.targets().clone();
    assert!(
        matches!(&targets, Targets::Values { values, width: 1 } if values.iter().all(|x| *x == 0.0 || *x == 1.0)),
        "{targets:?}"
    );
}
