use super::*;
use proptest::prelude::*;

fn classes(labels: Vec<u32>, classes: usize) -> Targets {
    Targets::Classes { labels, classes }
}

/// Row `i` is `[i, -i]` with label `i mod 3`.
fn counted(rows: usize) -> Dataset {
    let features = (0..rows).flat_map(|i| [i as f32, -(i as f32)]).collect();
    let labels = (0..rows as u32).map(|i| i % 3).collect();
    Dataset::new("counted", features, 2, classes(labels, 3)).unwrap()
}

fn message(features: Vec<f32>, width: usize, targets: Targets) -> String {
    let error = Dataset::new("sample", features, width, targets).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    error.to_string()
}

#[test]
fn impossible_shapes_are_refused() {
    assert!(message(vec![], 2, Targets::Inputs).contains("no row"));
    assert!(message(vec![1.0], 0, Targets::Inputs).contains("rows of 0"));
    assert!(message(vec![1.0; 5], 2, Targets::Inputs).contains("rows of 2"));
    assert!(message(vec![1.0; 4], 2, classes(vec![0], 1)).contains("1 labels"));
    for (values, width) in [(vec![1.0; 3], 2), (vec![], 0), (vec![1.0], usize::MAX)] {
        let text = message(vec![1.0; 4], 2, Targets::Values { values, width });
        assert!(text.contains("target values"), "{text}");
    }
}

#[test]
fn what_f32_cannot_hold_is_kept_through_selections_or_refused() {
    let seconds: Vec<f64> = (0..4).map(|i| 1.7e9 + f64::from(i)).collect();
    let data = Dataset::from_f64("clock", &seconds, 1, Targets::Inputs).unwrap();
    assert_eq!(data.features(), [1.7e9; 4]);
    let part = data.subset(&[3, 1]).unwrap().as_autoencoder();
    assert_eq!([part.exact(0), part.exact(1)], [1.7e9 + 3.0, 1.7e9 + 1.0]);

    let refused = |values: &[f64]| {
        Dataset::from_f64("tiny", values, 2, Targets::Inputs)
            .unwrap_err()
            .to_string()
    };
    let text = refused(&[1.0, 1e-50, 2.0, 3e-50]);
    assert!(text.contains("column 1") && text.contains("f32"), "{text}");
    let text = refused(&[1.0, 1e39]);
    assert!(text.contains("row 0, column 1"), "{text}");
    // A constant column loses nothing that could tell its rows apart.
    assert!(Dataset::from_f64("constant", &[1e-50; 3], 1, Targets::Inputs).is_ok());
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let text = message(vec![1.0, 2.0, 3.0, f32::NAN], 2, Targets::Inputs);
    assert!(text.contains("row 1, column 1 is NaN"), "{text}");
    let values = vec![0.0, f32::INFINITY];
    let text = message(vec![1.0; 4], 2, Targets::Values { values, width: 1 });
    assert!(text.contains("row 1, target column 0 is inf"), "{text}");
}

#[test]
fn labels_out_of_range_are_named() {
    let text = message(vec![1.0; 4], 2, classes(vec![0, 3], 3));
    assert!(text.contains("row 1 has label 3"), "{text}");
}

#[test]
fn weights_of_rows_go_with_them() {
    let data = counted(4).with_weights(vec![0.5, 2.0, 0.0, 1.0]).unwrap();
    assert_eq!(data.batch(&[1, 3]).unwrap().weights, [1.0, 0.5]);
    assert_eq!(data.full_batch().weights, [0.125, 0.5, 0.0, 0.25]);
    let chosen = data.subset(&[3, 0]).unwrap();
    assert_eq!(chosen.full_batch().weights, [0.5, 0.25]);
    assert!(data.clone().with_weights(vec![1.0]).is_err());
    assert!(data.clone().with_weights(vec![0.0; 4]).is_err());
    assert!(data.with_weights(vec![-1.0; 4]).is_err());
}

#[test]
fn a_batch_holds_its_rows_with_equal_weights() {
    let batch = counted(10).batch(&[4, 0, 4]).unwrap();
    assert_eq!(batch.features, [4.0, -4.0, 0.0, 0.0, 4.0, -4.0]);
    assert_eq!(batch.targets, classes(vec![1, 0, 1], 3));
    assert_eq!(batch.weights, [1.0 / 3.0; 3]);
}

#[test]
fn batches_and_subsets_without_or_beyond_rows_are_refused() {
    let data = counted(4);
    assert!(matches!(data.batch(&[]), Err(Error::Data { .. })));
    assert!(
        data.batch(&[0, 4])
            .unwrap_err()
            .to_string()
            .contains("row 4 of 4")
    );
    assert!(matches!(data.subset(&[]), Err(Error::Data { .. })));
    assert!(matches!(data.subset(&[9]), Err(Error::Data { .. })));
    assert!(matches!(data.head(0), Err(Error::Data { .. })));
    assert!(matches!(data.head(5), Err(Error::Data { .. })));
    assert_eq!(data.row(4), None);
}

#[test]
fn the_full_batch_is_the_batch_of_all_rows() {
    let data = counted(4);
    assert_eq!(data.full_batch(), data.batch(&[0, 1, 2, 3]).unwrap());
    assert_eq!(data.head(4).unwrap(), data);
    assert_eq!(data.row(2), Some(&[2.0, -2.0][..]));
}

#[test]
fn an_autoencoder_has_its_inputs_as_targets() {
    let data = counted(4).as_autoencoder();
    assert_eq!(data.batch(&[1]).unwrap().targets, Targets::Inputs);
    assert_eq!(data.features(), counted(4).features());
}

#[test]
fn a_split_that_leaves_a_part_empty_is_refused() {
    for fraction in [0.0, 1.0, -0.5, 2.0, 0.01, f64::NAN, f64::INFINITY] {
        let error = counted(10).split(fraction, 1).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{fraction}");
    }
}

proptest! {
    #[test]
    fn a_split_keeps_every_row_once_with_its_target(rows in 2usize..60, seed: u64) {
        let data = counted(rows);
        let (train, test) = data.split(0.5, seed).unwrap();
        prop_assert_eq!(&(train.clone(), test.clone()), &data.split(0.5, seed).unwrap());
        let mut seen = Vec::new();
        for part in [&train, &test] {
            let Targets::Classes { labels, .. } = part.targets() else {
                return Err(TestCaseError::fail("the split changed the kind of target"));
            };
            for (row, label) in part.features().chunks_exact(2).zip(labels) {
                prop_assert_eq!(row[0] as u32 % 3, *label);
                seen.push(row[0] as usize);
            }
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..rows).collect::<Vec<_>>());
    }
}
