//! Files that come back, and files that are refused.

use super::*;

fn layout(columns: usize) -> Layout {
    let tensors = [
        ("w".to_owned(), vec![2, columns]),
        ("b".to_owned(), vec![columns]),
    ];
    Layout::new(&tensors).unwrap()
}

/// What [`Checkpoint::capture`] makes, without a device.
fn checkpoint() -> Checkpoint {
    let tensor = |shape: &[usize], values: &[f32]| Tensor {
        shape: shape.to_vec(),
        values: values.to_vec(),
    };
    let tensors = [
        (
            "w",
            tensor(&[2, 2], &[1.0, -0.0, f32::MIN_POSITIVE / 4.0, 4.0]),
        ),
        ("b", tensor(&[2], &[0.1, 0.2])),
        ("optimizer/moment/w", tensor(&[2, 2], &[5.0, 6.0, 7.0, 8.0])),
        ("optimizer/moment/b", tensor(&[2], &[9.0, 10.0])),
    ];
    Checkpoint {
        tensors: tensors
            .map(|(name, tensor)| (name.to_owned(), tensor))
            .into(),
        metadata: [("optimizer/damping".to_owned(), (2.0f64 / 3.0).to_string())].into(),
    }
    .with("seed", "7")
}

#[test]
fn a_saved_checkpoint_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    checkpoint().save(&path).unwrap();
    let loaded = Checkpoint::load(&path).unwrap();
    assert_eq!(loaded, checkpoint());
    assert!(loaded.tensors["w"].values[1].is_sign_negative());
    let state = loaded.optimizer_state(&layout(2)).unwrap();
    assert_eq!(
        state.scalar("damping").unwrap().to_bits(),
        (2.0f64 / 3.0).to_bits()
    );
    assert_eq!(state.vector("moment").unwrap()[1], [9.0, 10.0]);
    assert_eq!(loaded.metadata("seed").unwrap(), "7");
    // Nothing but the file itself is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn vectors_that_are_not_in_parameter_space_come_back_by_number() {
    let mut checkpoint = checkpoint();
    let parts: Vec<Vec<f32>> = (0..12).map(|k| vec![k as f32; 1 + k]).collect();
    for (number, values) in parts.iter().enumerate() {
        let tensor = Tensor {
            shape: vec![values.len()],
            values: values.clone(),
        };
        let name = vector_part("factors", &numbered(number));
        checkpoint.tensors.insert(name, tensor);
    }
    let state = checkpoint.optimizer_state(&layout(2)).unwrap();
    assert_eq!(state.vector("factors").unwrap(), parts);
    assert_eq!(state.vector("moment").unwrap().len(), 2);
}

#[test]
fn a_damaged_or_foreign_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    assert!(matches!(
        Checkpoint::load(&path),
        Err(CheckpointError::Io { .. })
    ));
    checkpoint().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for broken in [&bytes[..bytes.len() - 1], &bytes[..20], b"nonsense"] {
        std::fs::write(&path, broken).unwrap();
        assert!(matches!(
            Checkpoint::load(&path),
            Err(CheckpointError::Corrupt { .. })
        ));
    }
    let foreign = safetensors::serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap();
    std::fs::write(&path, foreign).unwrap();
    assert!(matches!(
        Checkpoint::load(&path),
        Err(CheckpointError::Corrupt { .. })
    ));
}

#[test]
fn a_checkpoint_of_another_model_is_refused() {
    let error = checkpoint().optimizer_state(&layout(3)).unwrap_err();
    assert!(
        matches!(error, CheckpointError::WrongModel { .. }),
        "{error}"
    );
    let mut partial = checkpoint();
    partial.tensors.remove("optimizer/moment/b");
    let error = partial.optimizer_state(&layout(2)).unwrap_err();
    assert!(
        matches!(error, CheckpointError::MissingTensor { .. }),
        "{error}"
    );
    let error = partial.metadata("step").unwrap_err();
    assert!(
        matches!(error, CheckpointError::MissingMetadata { .. }),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = checkpoint()
        .save(&folder.path().join("no-such-folder/a"))
        .unwrap_err();
    assert!(matches!(error, CheckpointError::Io { .. }), "{error}");
    let path = folder.path().join("a");
    checkpoint().save(&path).unwrap();
    let error = checkpoint().with("format", "mine").save(&path).unwrap_err();
    assert!(matches!(error, CheckpointError::Name { .. }), "{error}");
    assert_eq!(Checkpoint::load(&path).unwrap(), checkpoint());
}
