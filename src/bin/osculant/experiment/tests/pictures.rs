//! Pictures and tensors.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::*;

const CLASSES: &str = "[network]\nhidden = []\nloss = \"softmax-cross-entropy\"\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Pictures of 1 x 2 pixels, in two members of a gzip file, and their labels.
fn pictures(folder: &Path, images: &str, labels_file: &str, labels: &[u8]) {
    let count = labels.len() as u8;
    let head = [0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 1, 0, 0, 0, 2];
    let pixels: Vec<u8> = labels.iter().flat_map(|label| [label * 10, 255]).collect();
    let members = [gzip(&head), gzip(&pixels)].concat();
    std::fs::write(folder.join(format!("{images}.gz")), members).unwrap();
    let bytes = [&[0, 0, 8, 1, 0, 0, 0, count], labels].concat();
    std::fs::write(folder.join(labels_file), bytes).unwrap();
}

fn open(folder: &Path, data: &str) -> Outcome<Experiment> {
    let path = folder.join("net.toml");
    std::fs::write(&path, format!("[data]\n{data}{CLASSES}")).unwrap();
    Experiment::open(&path)
}

#[test]
fn pictures_are_read_from_files_and_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let train = [1, 2, 3, 1, 2, 3];
    pictures(
        folder.path(),
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        &train,
    );
    pictures(
        folder.path(),
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        &[3, 1],
    );
    let halves = [
        "folder = \".\"\n",
        "images = \"train-images-idx3-ubyte\"\nlabels = \"train-labels-idx1-ubyte\"\n\
         test-images = \"t10k-images-idx3-ubyte.gz\"\ntest-labels = \"t10k-labels-idx1-ubyte\"\n",
    ];
    for data in halves {
        let experiment = open(folder.path(), data).unwrap();
        assert_eq!(labels(&experiment), [0, 1, 2, 0, 1, 2]);
        let data = experiment.data();
        assert_eq!(data.test.features(), [30.0 / 255.0, 1.0, 10.0 / 255.0, 1.0]);
        assert!(experiment.description().starts_with("network 2-3;"));
    }
    let split = "images = \"train-images-idx3-ubyte.gz\"\nlabels = \"train-labels-idx1-ubyte\"\ntest = 0.5\n";
    let data = open(folder.path(), split).unwrap().data();
    assert_eq!((data.train.len(), data.test.len()), (3, 3));

    let message = open(
        folder.path(),
        &split.replace("images-idx3-ubyte.gz", "pictures"),
    )
    .unwrap_err()
    .to_string();
    assert!(
        message.contains("line 2, column 10") && message.contains("train-pictures"),
        "{message}"
    );
    let swapped = "images = \"train-labels-idx1-ubyte\"\nlabels = \"train-images-idx3-ubyte.gz\"\n";
    let message = open(folder.path(), swapped).unwrap_err().to_string();
    assert!(message.contains("train-labels-idx1-ubyte"), "{message}");
}

#[test]
fn tensors_are_read_and_refused_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = |first: f32| {
        let inputs: Vec<u8> = (0..4)
            .flat_map(|x| (first + x as f32).to_le_bytes())
            .collect();
        let labels: Vec<u8> = [4i64, 6, 4, 6]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let inputs = TensorView::new(Dtype::F32, vec![4, 1], &inputs).unwrap();
        let labels = TensorView::new(Dtype::I64, vec![4], &labels).unwrap();
        let bytes = safetensors::serialize([("x", inputs), ("y", labels)], None).unwrap();
        std::fs::write(folder.path().join("points.safetensors"), bytes).unwrap();
    };
    file(0.0);
    let data = "file = \"points.safetensors\"\ninputs = \"x\"\ntarget = \"y\"\ntest-file = \"points.safetensors\"\n";
    let experiment = open(folder.path(), data).unwrap();
    assert_eq!(labels(&experiment), [0, 1, 0, 1]);
    let standardised = format!("{data}standardise = true\n");
    let features = open(folder.path(), &standardised)
        .unwrap()
        .data()
        .test
        .features()
        .to_vec();
    assert!(
        (features.iter().sum::<f32>()).abs() < 1e-6 && features[0] < -1.0,
        "{features:?}"
    );
    for (wrong, place) in [
        ("inputs = \"x\"", "line 3, column 10"),
        ("target = \"y\"", "line 4, column 10"),
    ] {
        let wrong = data.replace(wrong, &wrong.replace(['x', 'y'], "z"));
        let message = open(folder.path(), &wrong).unwrap_err().to_string();
        assert!(
            message.contains(place) && message.contains("no tensor 'z'; its tensors are: x, y"),
            "{message}"
        );
    }
}
