//! Data and networks of a file.

use std::path::PathBuf;

use tempfile::TempDir;

use super::{failure, json, success};

/// What `osculant init` writes.
fn written() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fruit.toml");
    success(&["init", path.to_str().unwrap()]);
    (folder, path)
}

#[test]
fn a_written_file_is_trained_and_the_command_line_overrides_it() {
    let (folder, path) = written();
    let file = path.to_str().unwrap();
    failure(&["init", file], &["is there already", "--force"]);
    let checkpoint = folder.path().join("fruit.safetensors");
    let stored = checkpoint.to_str().unwrap();
    let out = folder.path().join("out");
    let arguments = [
        "train",
        file,
        "--work",
        "1",
        "--seed",
        "3",
        "--set",
        "damping=0.5",
        "--checkpoint",
        stored,
        "--out",
        out.to_str().unwrap(),
    ];
    let text = success(&arguments);
    assert!(
        text.contains("4 classes of 'kind': apple, banana, lemon, plum"),
        "{text}"
    );
    let report = json(&out.join("report.json"));
    let run = &report["runs"][0];
    assert_eq!(report["problem"], "fruit.toml");
    assert_eq!(
        (&run["optimizer"], &run["seed"]),
        (&"newton-cg".into(), &3.into())
    );
    // The file says 64 and 0.1.
    assert_eq!(
        (&run["options"]["batch"], &run["options"]["damping"]),
        (&64.into(), &0.5.into())
    );

    success(&["train", file, "--resume", stored, "--work", "2"]);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("hidden = [16]", "hidden = [8]")).unwrap();
    failure(
        &["train", file, "--resume", stored, "--work", "2"],
        &["[data] or [network] of fruit.toml", "without --resume"],
    );
    failure(
        &["train", file, "--data", "pictures"],
        &["leave --data out"],
    );
    failure(
        &["train", file, "--set", "dampening=1"],
        &["newton-cg has no option 'dampening'"],
    );
    std::fs::write(&path, text.replace("l2 =", "l3 =")).unwrap();
    failure(
        &["train", file],
        &["line 16", "no key 'l3'", "did you mean 'l2'?"],
    );
}

#[test]
fn a_written_file_is_compared_and_shown() {
    let (folder, path) = written();
    let file = path.to_str().unwrap();
    let out = folder.path().join("out");
    let out_text = out.to_str().unwrap();
    success(&[
        "compare", file, "--work", "1", "--seeds", "1", "--out", out_text,
    ]);
    let report = json(&out.join("report.json"));
    let runs = report["runs"].as_array().unwrap();
    let names: Vec<_> = runs.iter().map(|run| run["optimizer"].as_str()).collect();
    assert_eq!(names, [Some("sgd"), Some("adam"), Some("newton-cg")]);
    assert_eq!(runs[1]["options"]["learning-rate"], 0.01);
    assert!(out.join("report.html").exists());

    let listing = success(&["show", file, "--json"]);
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    assert!(listing.is_object());
    assert!(success(&["show", file, "--locate"]).contains("finite on 120 rows"));

    success(&[
        "analyze", "spectrum", file, "--train", "2", "--steps", "8", "--probes", "1", "--out",
        out_text,
    ]);
    let spectrum = json(&out.join("spectrum.json"));
    assert_eq!(spectrum["problem"], "fruit.toml");
    assert_eq!(spectrum["examples"], 120);

    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("optimizers = [", "# ")).unwrap();
    failure(
        &["compare", file, "--out", out_text],
        &["which optimizers?", "--optimizers", "[compare]"],
    );
    std::fs::write(&path, text.replace("optimizer =", "# ")).unwrap();
    failure(
        &["train", file],
        &["which optimizer?", "--optimizer adam", "[train]"],
    );
}
