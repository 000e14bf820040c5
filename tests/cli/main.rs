//! The binary, run as a user runs it.
#![allow(clippy::unwrap_used)]

mod own_data;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use safetensors::SafeTensors;
use serde_json::Value;

fn osculant(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osculant"));
    command.args(arguments).output().unwrap()
}

/// What a successful command printed.
fn success(arguments: &[&str]) -> String {
    let output = osculant(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that must fail with exit code 1 complained about; every one of `words` is in it.
fn failure(arguments: &[&str], words: &[&str]) {
    let output = osculant(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
    assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
    for word in words {
        assert!(
            errors.contains(word),
            "{arguments:?}: no '{word}' in: {errors}"
        );
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn help_explains_commands_options_and_gives_examples() {
    let help = success(&["--help"]);
    for word in [
        "devices",
        "train",
        "compare",
        "Examples:",
        "OSCULANT_ADAPTER",
    ] {
        assert!(help.contains(word), "no '{word}' in: {help}");
    }
    let help = success(&["train", "--help"]);
    for word in [
        "digits-mlp",
        "mnist-autoencoder",
        "--resume",
        "--checkpoint",
        "--adapter",
        "max-iterations",
        "learning-rate",
        "Examples:",
    ] {
        assert!(help.contains(word), "no '{word}' in: {help}");
    }
    let help = success(&["compare", "--help"]);
    for word in [
        "--tune",
        "--seeds",
        "newton-cg",
        "OPTIMIZER.KEY=VALUE",
        "report.json",
        "Examples:",
    ] {
        assert!(help.contains(word), "no '{word}' in: {help}");
    }
}

#[test]
fn nobody_has_to_read_to_the_end() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osculant"));
    command.args(["show", "digits-mlp", "--phase", "gradient"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}

#[test]
fn devices_are_listed_as_a_table_and_as_json() {
    let list: Value = serde_json::from_str(&success(&["devices", "--json"])).unwrap();
    let list = list.as_array().unwrap();
    let table = success(&["devices"]);
    for adapter in list {
        assert!(adapter["max_storage_buffer_binding_size"].as_u64().unwrap() > 0);
        let first_word = adapter["name"].as_str().unwrap().split(' ').next().unwrap();
        assert!(table.contains(first_word), "no '{first_word}' in: {table}");
    }
    assert!(!list.is_empty(), "the tests need an adapter");
}

#[test]
fn a_comparison_writes_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/report");
    let arguments = [
        "compare",
        "digits-mlp",
        "--optimizers",
        "sgd,adam,newton-cg",
        "--seeds",
        "1",
        "--work",
        "0.5",
        "--set",
        "adam.learning-rate=0.02",
        "--out",
        out.to_str().unwrap(),
    ];
    let table = success(&arguments);
    for name in ["sgd", "adam", "newton-cg", "learning-rate=0.02"] {
        assert!(table.contains(name), "no '{name}' in: {table}");
    }

    let report = json(&out.join("report.json"));
    assert_eq!(report["problem"], "digits-mlp");
    assert_eq!(keys(&report["adapter"]), ["backend", "driver", "name"]);
    let runs = report["runs"].as_array().unwrap();
    let names: Vec<&str> = runs
        .iter()
        .map(|run| run["optimizer"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["sgd", "adam", "newton-cg"]);
    assert_eq!(runs[1]["options"]["learning-rate"], 0.02);
    for run in runs {
        for key in ["final", "history", "optimizer", "options", "seed"] {
            assert!(keys(run).contains(&key), "no '{key}' in {:?}", keys(run));
        }
        assert_eq!(run["seed"], 0);
        let history = run["history"].as_array().unwrap();
        assert!(history.len() >= 2);
        for point in history {
            let expected = [
                "seconds",
                "step",
                "test_accuracy",
                "test_loss",
                "train_loss",
                "work",
                "work_flops",
            ];
            assert_eq!(keys(point), expected);
            assert!(
                point.as_object().unwrap().values().all(Value::is_number),
                "{point}"
            );
        }
        assert_eq!(Some(&run["final"]), history.last());
        assert!(run["final"]["work"].as_f64().unwrap() >= 0.5);
        // Every optimizer starts at the same parameters.
        assert_eq!(
            history[0]["train_loss"],
            runs[0]["history"][0]["train_loss"]
        );
    }

    for stem in ["loss-over-work", "loss-over-seconds"] {
        let png = std::fs::read(out.join(format!("{stem}.png"))).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000);
        let svg = std::fs::read_to_string(out.join(format!("{stem}.svg"))).unwrap();
        assert!(svg.contains("newton-cg") && svg.contains("<polyline"));
    }
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(html.matches("<svg").count(), 2);
    assert!(
        !html.contains("src=") && !html.contains("href="),
        "it must be self-contained"
    );
    assert!(html.contains(report["adapter"]["name"].as_str().unwrap()));
}

#[test]
fn differential_equations_report_the_error_of_their_solution() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let mut arguments = vec!["compare", "poisson-2d", "--optimizers"];
    arguments.push("adam,lbfgs,levenberg-marquardt");
    arguments.extend(["--seeds", "1", "--work", "60"]);
    arguments.extend(["--out", out.to_str().unwrap()]);
    let table = success(&arguments);
    assert!(table.contains("relative L2"), "{table}");
    let report = json(&out.join("report.json"));
    assert_eq!(report["terms"], serde_json::json!(["interior", "boundary"]));
    for run in report["runs"].as_array().unwrap() {
        let history = run["history"].as_array().unwrap();
        for point in history {
            let number = |key: &str| point[key].as_f64().unwrap();
            // The mean square of the solution on the unit square is 1/4.
            let error = (number("test_loss") / 0.25).sqrt();
            assert!(
                (number("relative_l2") / error - 1.0).abs() < 1e-3,
                "{point}"
            );
            let terms = point["term_losses"].as_array().unwrap();
            let sum: f64 = terms.iter().map(|loss| loss.as_f64().unwrap()).sum();
            assert!((sum / number("train_loss") - 1.0).abs() < 1e-6, "{point}");
        }
        let (first, last) = (&history[0], &run["final"]);
        let loss = |point: &Value| point["train_loss"].as_f64().unwrap();
        assert!(last["relative_l2"].is_number() && loss(last) < 0.5 * loss(first));
    }
}

#[test]
fn tuning_chooses_one_trial_of_each_optimizer() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments = [
        "compare",
        "digits-mlp",
        "--optimizers",
        "adam,newton-cg",
        "--seeds",
        "1",
        "--work",
        "0.5",
        "--tune",
        "--set",
        "newton-cg.batch=256",
        "--out",
        out,
    ];
    success(&arguments);
    let report = json(&folder.path().join("report.json"));
    let trials = report["tuning"].as_array().unwrap();
    let count = |name: &str, only_chosen: bool| {
        let counted = |trial: &&Value| {
            trial["optimizer"] == name && (!only_chosen || trial["chosen"] == true)
        };
        trials.iter().filter(counted).count()
    };
    assert!(count("adam", false) >= 6);
    assert!(count("newton-cg", false) <= count("adam", false));
    assert_eq!((count("adam", true), count("newton-cg", true)), (1, 1));
    // What was set by hand was not tuned.
    assert_eq!(report["runs"][1]["options"]["batch"], 256);
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(html.contains("<h2>Tuning</h2>"));
}

#[test]
fn a_run_that_diverges_is_reported_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments = [
        "compare",
        "digits-mlp",
        "--optimizers",
        "sgd,adam",
        "--seeds",
        "1",
        "--work",
        "0.5",
        "--set",
        "sgd.learning-rate=1e30",
        "--out",
        out,
    ];
    assert!(success(&arguments).contains("diverged"));
    let report = json(&folder.path().join("report.json"));
    let status = |run: usize| report["runs"][run]["status"].as_str().unwrap();
    assert!(status(0).starts_with("diverged"), "{}", status(0));
    assert_eq!(status(1), "finished");

    let train = [
        "train",
        "digits-mlp",
        "--optimizer",
        "sgd",
        "--work",
        "0.5",
        "--set",
    ];
    failure(
        &[&train[..], &["learning-rate=1e30"]].concat(),
        &["diverged", "learning rate"],
    );
}

#[test]
fn bad_input_ends_with_a_message_that_helps() {
    let train = |rest: &[&str]| {
        let mut all = vec![
            "train",
            "digits-mlp",
            "--optimizer",
            "adam",
            "--work",
            "0.1",
        ];
        all.extend(rest);
        all.iter()
            .map(|&argument| argument.to_owned())
            .collect::<Vec<_>>()
    };
    let fails = |arguments: &[String], words: &[&str]| {
        failure(
            &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
            words,
        );
    };
    failure(
        &["train", "digit-mlp", "--optimizer", "adam"],
        &["digit-mlp", "digits-mlp"],
    );
    failure(
        &["train", "digits-mlp", "--optimizer", "newton"],
        &["newton", "newton-cg"],
    );
    failure(&["train", "digits-mlp"], &["--optimizer"]);
    failure(&["trian"], &["trian", "train"]);
    fails(
        &train(&["--set", "momentum=0.5"]),
        &["momentum", "learning-rate", "beta1"],
    );
    fails(&train(&["--set", "beta1"]), &["KEY=VALUE"]);
    fails(
        &train(&["--set", "beta1=much"]),
        &["beta1", "much", "a number"],
    );
    fails(&train(&["--set", "beta1=2"]), &["beta1", "below 1"]);
    fails(&train(&["--set", "batch=0"]), &["batch", "1 to 1438"]);
    fails(&train(&["--set", "batch=9999"]), &["batch", "1 to 1438"]);
    fails(
        &train(&["--adapter", "no such adapter"]),
        &["no such adapter", "osculant devices"],
    );
    fails(&train(&["--resume", "x", "--seed", "1"]), &["--resume"]);
    failure(
        &["train", "digits-mlp", "--optimizer", "adam", "--work", "-1"],
        &["--work"],
    );
    failure(
        &[
            "train",
            "mnist-mlp",
            "--optimizer",
            "adam",
            "--data",
            "no-such-folder",
        ],
        &["no-such-folder", "cargo xtask data"],
    );

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let compare = [
        "compare",
        "digits-mlp",
        "--out",
        out,
        "--work",
        "0.1",
        "--optimizers",
    ];
    let compare = |rest: &[&str], words: &[&str]| failure(&[&compare[..], rest].concat(), words);
    compare(&["sgd,newton"], &["newton", "newton-cg"]);
    compare(&["sgd,sgd"], &["sgd", "twice"]);
    compare(&["sgd", "--set", "momentum=0"], &["sgd.momentum=0"]);
    compare(&["sgd", "--set", "adam.beta1=0"], &["adam", "--optimizers"]);
    compare(
        &["sgd", "--set", "sgd.speed=9"],
        &["speed", "learning-rate, momentum"],
    );
    compare(&["sgd", "--seeds", "0"], &["--seeds"]);

    let file = folder.path().join("file");
    std::fs::write(&file, "no checkpoint").unwrap();
    let file = file.to_str().unwrap();
    failure(
        &["train", "digits-mlp", "--resume", file],
        &["not a sound checkpoint"],
    );
    failure(
        &["train", "digits-mlp", "--resume", "no-such-file"],
        &["no-such-file"],
    );
    let below = format!("{file}/report");
    failure(
        &[
            &["compare", "digits-mlp", "--optimizers", "sgd", "--out"],
            &[below.as_str()][..],
        ]
        .concat(),
        &["file"],
    );
}

/// All tensors of a checkpoint as bytes.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| (name, view.data().to_vec()))
        .collect()
}

#[test]
fn a_resumed_run_ends_with_the_bits_of_one_that_was_never_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    // Newton-CG does several epochs of work in a step; both halves must have steps, and epochs with a short last batch.
    let cases: [(&str, &str, &str, &[&str]); 6] = [
        ("sgd", "1.5", "3", &["batch=100"]),
        (
            "adam",
            "1.5",
            "3",
            &["batch=100", "growth=2:1:300", "averaging=0.9"],
        ),
        ("newton-cg", "15", "30", &["batch=300"]),
        (
            "debiased-sgd",
            "3",
            "6",
            &["batch=100", "strategy=cross-fit"],
        ),
        (
            "lrsfn",
            "12",
            "24",
            &[
                "batch=100",
                "base=gradient",
                "strategy=cross-fit",
                "folds=3",
                "directions=1",
            ],
        ),
        (
            "decoupled-newton-cg",
            "6",
            "12",
            &[
                "batch=300",
                "strategy=decoupled",
                "acceptance=0.1",
                "dealing=with-replacement",
            ],
        ),
    ];
    for (optimizer, half, whole, settings) in cases {
        let path = |name: &str| folder.path().join(format!("{optimizer}-{name}"));
        let (straight, first, second) = (path("straight"), path("first"), path("second"));
        let mut start = vec!["train", "digits-mlp", "--optimizer", optimizer];
        for setting in settings {
            start.extend(["--set", setting]);
        }
        start.extend(["--seed", "5"]);
        let run = |rest: &[&str]| success(&[&start[..], rest].concat());
        run(&["--work", whole, "--checkpoint", straight.to_str().unwrap()]);
        run(&["--work", half, "--checkpoint", first.to_str().unwrap()]);
        assert_ne!(tensors(&first), tensors(&straight));
        let out = path("report");
        success(&[
            "train",
            "digits-mlp",
            "--resume",
            first.to_str().unwrap(),
            "--work",
            whole,
            "--checkpoint",
            second.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ]);
        assert_eq!(tensors(&second), tensors(&straight), "{optimizer}");
        assert!(tensors(&second).contains_key("dense0.weight"));
        // The report is of the whole run.
        let report = json(&out.join("report.json"));
        assert_eq!(report["runs"][0]["seed"], 5);
        assert_eq!(report["runs"][0]["history"][0]["step"], 0);
    }
    let first = folder.path().join("sgd-first");
    failure(
        &[
            "train",
            "digits-autoencoder",
            "--resume",
            first.to_str().unwrap(),
        ],
        &["digits-mlp"],
    );
}

#[test]
fn a_benchmark_writes_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/bench");
    let arguments = ["bench", "--quick", "--problem", "digits-mlp", "--out"];
    let text = success(&[&arguments[..], &[out.to_str().unwrap()]].concat());
    assert!(text.contains("digits-mlp"), "{text}");
    let bench = json(&out.join("bench.json"));
    let positive = |value: &Value, key: &str| {
        let number = value[key].as_f64().unwrap_or(0.0);
        assert!(number > 0.0, "{key}: {}", value[key]);
    };
    for key in ["adapter", "driver", "limits", "versions"] {
        assert!(!bench["environment"][key].is_null(), "no {key}");
    }
    for key in ["fma_peak_gflops", "copy_gbps"] {
        positive(&bench["device"], key);
    }
    for key in ["axpy_fraction", "dot_fraction", "axpy_gbps"] {
        positive(&bench["vector"], key);
    }
    let gemm = bench["gemm"].as_array().unwrap();
    for transpose in ["NN", "NT", "TN"] {
        assert!(gemm.iter().any(|row| row["transpose"] == transpose));
    }
    for row in gemm {
        assert!(row["family"].is_string());
        for key in ["m", "n", "k", "gflops", "fraction"] {
            positive(row, key);
        }
    }
    assert_eq!(keys(&bench["problems"]), ["digits-mlp"]);
    let problem = &bench["problems"]["digits-mlp"];
    for key in [
        "gradient_ms",
        "hvp_ms",
        "ggn_ms",
        "ggn_block_32_ms",
        "linearize_over_gradient",
        "hvp_over_gradient",
        "ggn_over_gradient",
        "block_gain_32",
        "readbacks_per_step",
        "planned_bytes",
        "peak_bytes",
    ] {
        positive(problem, key);
    }
    // An overhead can come out negative where other work disturbs it.
    assert!(problem["cg_overhead"].is_number());
    for key in ["gradient", "hvp", "ggn"] {
        positive(&problem["flops"], key);
    }
    for key in ["hvp", "ggn", "ggn_block"] {
        positive(&problem["dispatches_per_product"], key);
    }
    // What PyTorch gives for the same numbers (`benches/peers/peers.py`).
    let loss = problem["loss"].as_f64().unwrap();
    assert!((loss - 2.491_786_7).abs() < 1e-5 * loss, "{loss}");
    failure(&["bench", "--problem", "no-such-network"], &["digits-mlp"]);
}

/// Each quantity is a file, whose tensors are named after the parameters.
#[test]
fn statistics_write_a_file_for_each_quantity() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let all = "gradient,per-example-gradients,variance,ggn-diagonal,kronecker-factors";
    let arguments = ["statistics", "digits-mlp", "--rows", "6", "--seed", "3"];
    let printed = success(&[&arguments[..], &["--quantity", all, "--out", out]].concat());
    for word in ["diag_ggn_exact", "kflr", "6 training rows", "gradients"] {
        assert!(printed.contains(word), "no '{word}' in: {printed}");
    }
    let numbers = |quantity: &str, tensor: &str| -> (Vec<usize>, Vec<f32>) {
        let bytes = std::fs::read(folder.path().join(format!("{quantity}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor(tensor).unwrap();
        let values = tensor.data().as_chunks::<4>().0.iter();
        let values = values.map(|&b| f32::from_le_bytes(b)).collect();
        (tensor.shape().to_vec(), values)
    };
    let (shape, each) = numbers("per-example-gradients", "dense0.bias");
    let (_, gradient) = numbers("gradient", "dense0.bias");
    assert_eq!(shape, [6, gradient.len()]);
    for (at, sum) in gradient.iter().enumerate() {
        let own: f32 = each.iter().skip(at).step_by(gradient.len()).sum();
        assert!((own - sum).abs() < 1e-5, "{own} {sum}");
    }
    for quantity in ["variance", "ggn-diagonal"] {
        let (_, values) = numbers(quantity, "dense0.weight");
        assert!(values.iter().all(|&x| x >= 0.0) && values.iter().any(|&x| x > 0.0));
    }
    assert_eq!(
        numbers("kronecker-factors", "dense0.weight rows").0,
        [65, 65]
    );
    let refused = |more: &[&str], words: &[&str]| {
        failure(
            &[&["statistics", "digits-mlp", "--out", out], more].concat(),
            words,
        );
    };
    refused(&["--rows", "100000"], &["training set", "give a number"]);
    refused(&["--quantity", "no-such"], &["no-such", "ggn-diagonal"]);
}

#[test]
fn analyses_write_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    success(&[
        "analyze",
        "spectrum",
        "digits-mlp",
        "--steps",
        "12",
        "--probes",
        "2",
        "--out",
        out,
    ]);
    let spectrum = json(&folder.path().join("spectrum.json"));
    let largest = spectrum["eigenvalues"][0]["value"].as_f64().unwrap();
    assert!(largest > 0.1 && largest < 100.0, "{largest}");
    assert!(spectrum["density"].as_array().unwrap().len() > 100);
    assert!(folder.path().join("spectrum.png").exists());

    success(&[
        "analyze",
        "bias",
        "digits-mlp",
        "--batch",
        "32",
        "--batches",
        "2",
        "--losses",
        "2.2",
        "--iterations",
        "2",
        "--k",
        "3",
        "--dampings",
        "0",
        "--directions",
        "cg",
        "--out",
        out,
    ]);
    let bias = json(&folder.path().join("bias.json"));
    let checkpoint = &bias["checkpoints"][0];
    assert!(checkpoint["train_loss"].as_f64().unwrap() <= 2.2);
    let direction = &checkpoint["directions"][0];
    for what in ["slope", "curvature"] {
        for on in ["a", "b", "full"] {
            assert!(direction[what][on].is_f64(), "{direction}");
        }
    }
    // Five strategies after one and after two iterations.
    assert_eq!(checkpoint["path"].as_array().unwrap().len(), 10);
    for file in ["bias.svg", "bias-path.csv", "bias-directions.csv"] {
        assert!(folder.path().join(file).exists(), "{file}");
    }

    success(&[
        "analyze",
        "strategies",
        "digits-mlp",
        "--batches",
        "64",
        "--iterations",
        "2",
        "--dampings",
        "0.3",
        "--seeds",
        "2",
        "--work",
        "1",
        "--out",
        out,
    ]);
    let rows = json(&folder.path().join("strategies.json"));
    assert_eq!(rows.as_array().unwrap().len(), 9);
    assert!(rows[0]["train_loss"]["mean"].is_f64());
    assert!(folder.path().join("strategies.svg").exists());
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let lrsfn = [
        "analyze",
        "strategies",
        "digits-mlp",
        "--method",
        "lrsfn",
        "--batches",
        "64",
        "--dampings",
        "1",
        "--step-lengths",
        "0.3",
    ];
    let short = [
        "--seeds",
        "2",
        "--tuning-seeds",
        "1",
        "--work",
        "1",
        "--out",
        out,
    ];
    success(&[&lrsfn[..], &short].concat());
    let rows = json(&folder.path().join("strategies.json"));
    assert_eq!(rows.as_array().unwrap().len(), 6);

    failure(
        &[
            "analyze",
            "bias",
            "digits-mlp",
            "--batch",
            "5000",
            "--out",
            out,
        ],
        &["two batches"],
    );
    failure(
        &[
            "analyze",
            "spectrum",
            "digits-mlp",
            "--batch",
            "0",
            "--out",
            out,
        ],
        &["--batch 0", "all"],
    );
}

/// Writes NaN over the first number of a tensor of a checkpoint: after 8 bytes with its length, the header says where tensors are.
fn poison(path: &Path, tensor: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let entries = header.as_object().unwrap();
    let entry = entries.iter().find(|(name, _)| *name == tensor);
    let start = entry.unwrap().1["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + length + start..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn the_node_at_which_numbers_stop_being_finite_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sgd.safetensors");
    let file = file.to_str().unwrap();
    let train = ["train", "digits-mlp", "--optimizer", "sgd"];
    success(&[&train[..], &["--work", "0.2", "--checkpoint", file]].concat());
    let show = ["show", "digits-mlp", "--checkpoint", file, "--locate"];
    assert!(success(&show).contains("are finite on 1000 rows"));
    poison(Path::new(file), "dense1.weight");
    let found = success(&show);
    for word in [
        "the loss",
        "'dense1.weight'",
        "NaN at [0, 0]",
        "the parameter itself",
    ] {
        assert!(found.contains(word), "no '{word}' in {found}");
    }
    let resumed = osculant(&[
        "train",
        "digits-mlp",
        "--resume",
        file,
        "--work",
        "0.4",
        "--locate",
    ]);
    let (printed, errors) = (
        String::from_utf8(resumed.stdout).unwrap(),
        String::from_utf8(resumed.stderr).unwrap(),
    );
    assert_eq!(resumed.status.code(), Some(1));
    assert!(printed.contains("'dense1.weight'"), "{printed}");
    assert!(errors.contains("'dense1.weight'"), "{errors}");
    failure(&["show", "digits-autoencoder"], &["--locate"]);
    success(&["show", "digits-autoencoder", "--locate"]);
}

#[test]
fn a_doctor_reports_what_an_adapter_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("doctor.json");
    let text = success(&["doctor", "--json", path.to_str().unwrap()]);
    let report = json(&path);
    let name = report["adapter"]["name"].as_str().unwrap();
    assert!(text.contains(name.split(' ').next().unwrap()), "{text}");
    let sections = report["sections"].as_array().unwrap();
    let names: Vec<&str> = sections
        .iter()
        .map(|section| section["name"].as_str().unwrap())
        .collect();
    let expected = [
        "loops",
        "special numbers",
        "arithmetic",
        "functions",
        "subgroups",
        "workgroup memory",
    ];
    assert_eq!(names, expected);
    for section in sections {
        let findings = section["findings"].as_array().unwrap();
        assert!(!findings.is_empty(), "{section}");
        // What differs is explained.
        let differs = findings.iter().any(|finding| finding["agrees"] == false);
        let remarks = section["remarks"].as_array().unwrap();
        assert!(!differs || !remarks.is_empty(), "{section}");
        for remark in remarks {
            assert!(text.contains(remark.as_str().unwrap()), "{remark}");
        }
    }
    if name.contains("llvmpipe") {
        // Mesa ends all loops of an invocation together.
        assert!(text.contains("65535 iterations"), "{text}");
    }
    // Every adapter has memory that works.
    assert_eq!(
        sections[5]["findings"][0]["agrees"], true,
        "{}",
        sections[5]
    );
    failure(
        &["doctor", "--adapter", "no such adapter"],
        &["osculant devices"],
    );
}

/// Files in the format of MNIST in which every label of `labels` has four training pictures, of 4x4 pixels, and one to test.
fn pictures(folder: &Path, labels: &[u8]) {
    let write = |name: &str, magic: u32, dimensions: &[usize], bytes: &[u8]| {
        let mut file = magic.to_be_bytes().to_vec();
        for &dimension in dimensions {
            file.extend((dimension as u32).to_be_bytes());
        }
        file.extend(bytes);
        std::fs::write(folder.join(name), file).unwrap();
    };
    for (part, copies) in [("train", 4), ("t10k", 1)] {
        let labels = labels.repeat(copies);
        // A dark pixel at a place of the label's own.
        let pixels: Vec<u8> = labels
            .iter()
            .flat_map(|&label| (0..16).map(move |place| if place == label { 255 } else { 0 }))
            .collect();
        let images = format!("{part}-images-idx3-ubyte");
        write(&images, 0x0803, &[labels.len(), 4, 4], &pixels);
        write(
            &format!("{part}-labels-idx1-ubyte"),
            0x0801,
            &[labels.len()],
            &labels,
        );
    }
}

#[test]
fn a_network_has_as_many_outputs_as_the_data_have_classes() {
    for (labels, said) in [
        (
            (1..=10).collect::<Vec<u8>>(),
            "10 classes, for the labels [1, 2, 3",
        ),
        (
            (0..9).collect(),
            "9 classes in the data; the network has 9 outputs",
        ),
        (
            vec![0, 1, 2, 5, 7],
            "5 classes, for the labels [0, 1, 2, 5, 7]",
        ),
        (
            (0..12).collect(),
            "12 classes in the data; the network has 12 outputs",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        pictures(folder.path(), &labels);
        let data = folder.path().to_str().unwrap();
        let out = folder.path().join("report");
        let text = success(&[
            "train",
            "mnist-mlp",
            "--optimizer",
            "adam",
            "--set",
            "batch=8",
            "--set",
            "learning-rate=0.01",
            "--work",
            "40",
            "--data",
            data,
            "--out",
            out.to_str().unwrap(),
        ]);
        assert!(text.contains(said), "{text}");
        // Classes that were confused could not be told apart.
        assert!(text.contains("100.00 %"), "{text}");
        let page = std::fs::read_to_string(out.join("report.html")).unwrap();
        let network = format!("network 16-128-{} with", labels.len());
        assert!(
            page.contains(&network) && page.contains("all training rows"),
            "{page}"
        );
    }
}

/// What a message proposes to type works.
#[test]
fn hints_work_when_typed() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path(), &(0..10).collect::<Vec<u8>>());
    let data = folder.path().to_str().unwrap();
    let out = folder.path().join("report");
    let train = ["train", "mnist-mlp", "--optimizer", "newton-cg"];
    let compare = [
        "compare",
        "mnist-mlp",
        "--optimizers",
        "newton-cg",
        "--seeds",
        "1",
        "--out",
        out.to_str().unwrap(),
    ];
    let rest = ["--work", "2", "--data", data];
    for command in [&train[..], &compare[..]] {
        let command = [command, &rest].concat();
        let output = osculant(&command);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        let hints: Vec<&str> = text
            .split("--set ")
            .skip(1)
            .map(|text| text.split([',', '\n']).next().unwrap().trim())
            .collect();
        assert_eq!(hints.len(), 2, "{text}");
        for hint in hints {
            success(&[&command[..], &["--set", hint]].concat());
        }
    }
    failure(
        &[
            "train",
            "mnist-mlp",
            "--optimizer",
            "sgd",
            "--data",
            "no-such-folder",
        ],
        &["--data FOLDER"],
    );
    // A file that is no data set has no such hint.
    let output = osculant(&["bench", "--tuning", "no-such-file"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("no-such-file") && !text.contains("--data"),
        "{text}"
    );
}
