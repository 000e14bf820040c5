//! What is said of files that cannot be used.

use super::*;

/// The message about a file of this text; every one of `words` is in it.
#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let folder = folder(text);
    let message = Experiment::open(&folder.path().join("net.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("net.toml") || message.contains("houses.csv"),
        "{message}"
    );
    for word in words {
        assert!(message.contains(word), "no '{word}' in: {message}");
    }
}

#[test]
fn keys_that_are_not_known_are_refused_with_the_nearest() {
    refused(
        &format!("{DATA}standardize = true\n{NETWORK}"),
        &[
            "line 6, column 1",
            "[data] has no key 'standardize'",
            "did you mean 'standardise'?",
        ],
    );
    refused(
        &format!("{DATA}{NETWORK}hiden = 3\n"),
        &["line 9", "[network] has no key 'hiden'", "'hidden'"],
    );
    refused(
        &format!("{DATA}{NETWORK}[trian]\nwork = 3\n"),
        &["line 9", "no table [trian]", "'train'"],
    );
    refused(
        &format!("work = 3\n{DATA}{NETWORK}"),
        &["line 1", "'work' is in no table", "below [train]"],
    );
    refused(
        &format!("{DATA}{NETWORK}[train]\nlearning-rate = 3\n"),
        &[
            "line 10",
            "has no key 'learning-rate'",
            "there are optimizer, work, seed",
        ],
    );
    refused(
        &format!("{DATA}{NETWORK}[optimizers.adm]\n"),
        &["line 9", "no optimizer 'adm'", "did you mean 'adam'?"],
    );
    refused(
        &format!("{DATA}{NETWORK}[train]\noptimizer = \"newton\"\n"),
        &["line 10, column 13", "no optimizer 'newton'", "newton-cg"],
    );
    refused(
        &format!("{DATA}{NETWORK}[compare]\noptimizers = [\"sgd\", \"sgd\"]\n"),
        &["line 10", "sgd twice"],
    );
    refused(
        &format!("{DATA}{NETWORK}[optimizers.adam]\nlearning_rate = 1\n"),
        &[
            "line 10",
            "adam has no option 'learning_rate'",
            "did you mean 'learning-rate'?",
        ],
    );
    refused(
        &format!("{DATA}{NETWORK}activation = \"tanhh\"\n"),
        &["line 9, column 14", "'tanhh'", "did you mean 'tanh'?"],
    );
    refused(
        &format!("{DATA}{}", NETWORK.replace("softmax-cross-entropy", "mse")),
        &["line 8", "'mse'", "mean-squares"],
    );
}

#[test]
fn values_of_another_type_are_refused_by_key_and_line() {
    refused(
        &format!("{DATA}{NETWORK}l2 = \"little\"\n"),
        &[
            "line 9, column 6",
            "l2 in [network] is \"little\", which is not a number",
            "l2 = 0.0001",
        ],
    );
    refused(
        &format!("{DATA}{NETWORK}l2 = -1\n"),
        &[
            "line 9",
            "l2 in [network] is -1, which is not a number from 0 on",
        ],
    );
    refused(
        &format!("{DATA}{}", NETWORK.replace("= 4", "= [4, 0]")),
        &[
            "line 7",
            "hidden in [network] is [4, 0]",
            "hidden = [32, 16]",
        ],
    );
    refused(
        &format!("{DATA}standardise = 1\n{NETWORK}"),
        &["line 6", "is 1, which is not true or false"],
    );
    refused(
        &format!("{}{NETWORK}", DATA.replace("0.25", "1.5")),
        &["line 5", "test in [data] is 1.5", "between 0 and 1"],
    );
    refused(
        &format!("{}{NETWORK}", DATA.replace("\"kind\"", "3")),
        &["line 3", "target in [data] is 3"],
    );
    refused(
        &format!("{DATA}{NETWORK}[train]\nwork = -1\n"),
        &["line 10", "work in [train] is -1", "epochs above 0"],
    );
    refused(
        &format!("{DATA}{NETWORK}[train]\nseed = 0.5\n"),
        &["line 10", "seed in [train] is 0.5"],
    );
    refused(
        &format!("{DATA}{NETWORK}[compare]\nseeds = 0\n"),
        &["line 10", "1 to 1000"],
    );
    refused(
        &format!("network = 3\n{DATA}"),
        &["line 1", "network is a number, not a table", "[network]"],
    );
    refused(
        &format!("optimizers.adam = 3\n{DATA}{NETWORK}"),
        &[
            "line 1",
            "adam in [optimizers] is no table",
            "[optimizers.adam]",
        ],
    );
    refused(
        &format!("{DATA}{NETWORK}[optimizers.adam]\nbeta1 = [0.9]\n"),
        &["line 10", "beta1 of adam", "beta1 = 0.9"],
    );
}

#[test]
fn options_that_cannot_be_used_are_refused_where_they_stand() {
    let adam = format!("{DATA}{NETWORK}[optimizers.adam]\nlearning-rate = 0.1\n");
    refused(
        &format!("{adam}beta1 = \"much\"\n"),
        &[
            "line 11, column 9",
            "beta1 of adam is 'much', which is not a number",
            "beta1 = 0.9",
        ],
    );
    refused(
        &format!("{adam}beta1 = 2\n"),
        &["line 11, column 9", "beta1", "below 1"],
    );
    refused(
        &format!("{adam}decay = \"step\"\n"),
        &["line 11", "decay of adam is 'step'", "decay = \"constant\""],
    );
    let rows = "which is not a number from 1 to 3 or 'all'";
    refused(
        &format!("{adam}batch = 1000\n"),
        &[
            "line 11, column 9",
            "batch of adam is '1000'",
            rows,
            "for example batch = \"all\"",
        ],
    );
    refused(
        &format!("{adam}growth = \"fast\"\n"),
        &[
            "line 11, column 10",
            "growth of adam is 'fast'",
            "growth = \"none\"",
        ],
    );
    // Alone these would not do, and together they do.
    read(&format!(
        "{DATA}{NETWORK}[optimizers.debiased-sgd]\ndirections = 2\nfolds = 3\n"
    ));
}

#[test]
fn what_is_missing_or_too_much_is_named() {
    refused("", &["[data] has no file", "file = \"houses.csv\""]);
    refused(NETWORK, &["[data] has no file"]);
    refused(DATA, &["[network] has no hidden", "hidden = [32, 16]"]);
    refused(
        &format!("{DATA}[network]\nhidden = 3\n"),
        &["[network] has no loss"],
    );
    refused(
        &format!("[data]\nfile = \"houses.csv\"\n{NETWORK}"),
        &["[data] has no target"],
    );
    refused(
        &format!("{DATA}folder = \"mnist\"\n{NETWORK}"),
        &["line 6", "one place for the data too many"],
    );
    refused(
        &format!("{DATA}inputs = \"x\"\n{NETWORK}"),
        &["line 6", "inputs in [data] means nothing for tables"],
    );
    refused(
        &format!("[data]\nfolder = \"mnist\"\ntarget = \"x\"\n{NETWORK}"),
        &["line 3", "target", "means nothing for a folder"],
    );
    refused(
        &format!("[data]\nfolder = \"mnist\"\ntest = 0.5\n{NETWORK}"),
        &["line 3", "files of their own", "remove test"],
    );
    refused(
        &format!("{DATA}test-file = \"more.csv\"\n{NETWORK}"),
        &["line 5", "files of their own"],
    );
    refused(
        &format!("[data]\nimages = \"a\"\n{NETWORK}"),
        &["[data] has no labels"],
    );
    refused(
        &format!("[data]\nimages = \"a\"\nlabels = \"b\"\ntest-labels = \"c\"\n{NETWORK}"),
        &["no test-images"],
    );
    refused(
        &format!("[data]\nfile = \"x.safetensors\"\ntarget = \"y\"\n{NETWORK}"),
        &["[data] has no inputs"],
    );
    refused(
        &format!(
            "[data]\nfile = \"x.safetensors\"\ninputs = \"x\"\ntarget = [\"y\", \"z\"]\n{NETWORK}"
        ),
        &["line 4", "one tensor of targets"],
    );
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_place() {
    refused(
        &format!("{DATA}{NETWORK}l2 0.1\n"),
        &["line 9", "KEY = VALUE"],
    );
    refused(
        &format!("{DATA}{NETWORK}hidden = 5\n"),
        &["line 9", "duplicate key"],
    );
    refused("[data]\nfile = \"houses.csv\n", &["line 2"]);
    let message = Experiment::open(Path::new("nowhere/net.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("nowhere/net.toml") && message.contains("osculant init nowhere/net.toml"),
        "{message}"
    );
}

#[test]
fn data_that_do_not_fit_are_refused_by_the_key_that_names_them() {
    refused(
        &format!("{}{NETWORK}", DATA.replace("houses.csv", "horses.csv")),
        &["line 2, column 8", "horses.csv: ", "relative to the folder"],
    );
    refused(
        &format!("[data]\nfolder = \"mnist\"\n{NETWORK}"),
        &["line 2, column 10", "mnist", "relative to the folder"],
    );
    refused(
        &format!("{}{NETWORK}", DATA.replace("\"kind\"", "\"kinds\"")),
        &[
            "line 3, column 10",
            "no column 'kinds'",
            "id, colour, rooms, price, kind",
        ],
    );
    refused(
        &format!("{}{NETWORK}", DATA.replace("\"id\"", "\"ids\"")),
        &["line 4", "no column 'ids'"],
    );
    refused(
        &format!("{DATA}categorical = [\"month\"]\n{NETWORK}"),
        &["line 6", "no column 'month'"],
    );
    refused(
        &format!("{}{NETWORK}", DATA.replace("0.25", "0.01")),
        &["line 5", "0.01 of the 4 rows", "leaves a part empty"],
    );
    let loss = |loss: &str| NETWORK.replace("softmax-cross-entropy", loss);
    refused(
        &format!("{DATA}{}", loss("mean-squares")),
        &[
            "line 3",
            "2 classes of 'kind': flat, house",
            "loss = \"softmax-cross-entropy\"",
        ],
    );
    let price = |loss_name: &str| {
        format!(
            "{}{}",
            DATA.replace("\"kind\"", "\"price\"")
                .replace("\"id\"", "[\"id\", \"kind\"]"),
            loss(loss_name)
        )
    };
    refused(
        &price("binary-cross-entropy"),
        &[
            "line 3",
            "binary-cross-entropy is for two classes, or numbers from 0 to 1",
            "mean-squares",
        ],
    );
    let several = price("softmax-cross-entropy").replace("\"price\"", "[\"price\", \"rooms\"]");
    refused(
        &several,
        &[
            "line 3",
            "the targets are numbers, and softmax-cross-entropy is for classes",
            "mean-squares",
        ],
    );
    refused(
        &format!("{}{NETWORK}", DATA.replace("houses.csv", "houses.xlsx")),
        &["line 2, column 8", "houses.xlsx", "save it as CSV"],
    );
    read(&price("mean-squares"));
    read(&price("poisson"));
    let scaled = price("poisson").replace("[network]", "standardise-target = true\n[network]");
    refused(
        &scaled,
        &["line 6", "standardise-target", "mean-squares", "remove it"],
    );
}

#[test]
fn columns_without_digits_for_f32_need_standardising() {
    let rows: String = (0..6)
        .map(|row| format!("{},{row}\n", 1_700_000_000 + 60 * row))
        .collect();
    let text = "[data]\nfile = \"seconds.csv\"\ntarget = \"price\"\n[network]\nhidden = 2\nloss = \"mean-squares\"\n";
    let folder = folder(text);
    std::fs::write(
        folder.path().join("seconds.csv"),
        format!("time,price\n{rows}"),
    )
    .unwrap();
    let path = folder.path().join("net.toml");
    let message = Experiment::open(&path).unwrap_err().to_string();
    assert!(
        message.contains("f32 cannot hold column 'time'") && message.contains("standardise = true"),
        "{message}"
    );
    std::fs::write(
        &path,
        text.replace("[network]", "standardise = true\n[network]"),
    )
    .unwrap();
    let features = Experiment::open(&path)
        .unwrap()
        .data()
        .train
        .features()
        .to_vec();
    let mean: f32 = features.iter().sum::<f32>() / features.len() as f32;
    assert!(
        mean.abs() < 1e-6 && features.iter().any(|x| x.abs() > 0.5),
        "{features:?}"
    );
}

#[test]
fn cells_that_cannot_be_used_are_named_by_line_and_column() {
    let folder = folder(&format!("{DATA}{NETWORK}"));
    let message = |from: &str, to: &str| {
        std::fs::write(folder.path().join("houses.csv"), HOUSES.replace(from, to)).unwrap();
        let read = Experiment::open(&folder.path().join("net.toml"));
        read.unwrap_err().to_string()
    };
    for (from, to, words) in [
        (
            "red,5",
            "red,",
            "line 4, column 'rooms': '' is a missing value",
        ),
        (
            "red,5",
            "red,NA",
            "line 4, column 'rooms': 'NA' is a missing value",
        ),
        (
            "red,5",
            "red,five",
            "line 4, column 'rooms': 'five' is not a number",
        ),
        ("red,5", "red", "line 4 has 4 cells, the header 5"),
        (
            "3,house",
            "3,",
            "line 4, column 'kind': '' is a missing value",
        ),
        (
            "red,5",
            "?,5",
            "line 4, column 'colour': '?' is a missing value",
        ),
    ] {
        let message = message(from, to);
        assert!(
            message.contains("houses.csv") && message.contains(words),
            "{message}"
        );
    }
}

#[test]
fn numbers_that_are_all_different_are_no_classes() {
    let rows: String = (0..30)
        .map(|row| format!("{row},{}.5\n", row * row))
        .collect();
    let folder = folder(&format!(
        "[data]\nfile = \"t.csv\"\ntarget = \"price\"\n{NETWORK}"
    ));
    std::fs::write(folder.path().join("t.csv"), format!("x,price\n{rows}")).unwrap();
    let message = Experiment::open(&folder.path().join("net.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("24 different numbers in 24 training rows")
            && message.contains("mean-squares"),
        "{message}"
    );
}
