#![allow(clippy::unwrap_used)]

use super::*;
use crate::data::Targets;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::io::Write;
use tempfile::TempDir;

const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

fn file(magic: u32, dimensions: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = magic.to_be_bytes().to_vec();
    for dimension in dimensions {
        file.extend(dimension.to_be_bytes());
    }
    file.extend(bytes);
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Three training and two test pictures of 2x1 pixels, in three classes.
fn good() -> [Vec<u8>; 4] {
    [
        file(IMAGES_MAGIC, &[3, 2, 1], &[0, 255, 51, 102, 153, 204]),
        file(LABELS_MAGIC, &[3], &[1, 0, 1]),
        file(IMAGES_MAGIC, &[2, 2, 1], &[255, 0, 0, 0]),
        file(LABELS_MAGIC, &[2], &[2, 0]),
    ]
}

fn write(files: &[Vec<u8>; 4]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in FILES.iter().zip(files) {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// The error's text when one of the good files is replaced.
fn data_error(index: usize, bytes: Vec<u8>) -> String {
    let mut files = good();
    files[index] = bytes;
    let error = load(write(&files).path(), "sample").unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    error.to_string()
}

#[test]
fn pixels_labels_and_classes_are_read() {
    let (train, test) = load(write(&good()).path(), "sample").unwrap();
    assert_eq!(train.features(), [0.0, 1.0, 0.2, 0.4, 0.6, 0.8]);
    assert_eq!(test.features(), [1.0, 0.0, 0.0, 0.0]);
    let classes = |labels| Targets::Classes { labels, classes: 3 };
    assert_eq!(train.targets(), &classes(vec![1, 0, 1]));
    assert_eq!(test.targets(), &classes(vec![2, 0]));
    assert_eq!((train.name(), train.width()), ("sample", 2));
}

#[test]
fn a_missing_folder_or_file_says_what_fetches_it() {
    let error = load(Path::new("/nowhere"), "sample").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("cargo xtask data fashion-mnist"), "{text}");
    assert!(text.contains("cargo xtask data mnist"), "{text}");
    for name in FILES {
        let folder = write(&good());
        std::fs::remove_file(folder.path().join(name)).unwrap();
        let text = load(folder.path(), "sample").unwrap_err().to_string();
        assert!(
            text.contains(name) && text.contains("cargo xtask data"),
            "{text}"
        );
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    for (index, whole) in good().into_iter().enumerate() {
        for length in 0..whole.len() {
            let text = data_error(index, whole[..length].to_vec());
            assert!(
                text.contains("truncated") && text.contains(FILES[index]),
                "{text}"
            );
        }
    }
}

#[test]
fn a_truncated_or_damaged_compressed_file_is_refused() {
    let whole = gzip(&good()[0]);
    let mut damaged = whole.clone();
    let checksum = whole.len() - 5;
    damaged[checksum] ^= 1;
    let mut cases = vec![damaged, b"no gzip at all".to_vec()];
    cases.extend((0..whole.len()).map(|length| whole[..length].to_vec()));
    for bytes in cases {
        let folder = write(&good());
        let plain = folder.path().join(FILES[0]);
        std::fs::remove_file(&plain).unwrap();
        std::fs::write(plain.with_extension("gz"), &bytes).unwrap();
        let error = load(folder.path(), "sample").unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error}");
    }
}

/// As `cat one.gz two.gz` and programs that compress in parallel write them; gunzip reads all.
#[test]
fn all_members_of_a_compressed_file_are_read() {
    let whole = good()[0].clone();
    for cut in 0..=whole.len() {
        let folder = write(&good());
        let plain = folder.path().join(FILES[0]);
        std::fs::remove_file(&plain).unwrap();
        let members = [gzip(&whole[..cut]), gzip(&whole[cut..])].concat();
        std::fs::write(plain.with_extension("gz"), &members).unwrap();
        let (train, _) = load(folder.path(), "sample").unwrap();
        assert_eq!(train.features(), [0.0, 1.0, 0.2, 0.4, 0.6, 0.8]);

        for (bytes, reason) in [
            ([&members[..], b"something else"].concat(), "what follows"),
            ([&members[..], b"junk"].concat(), "what follows"),
            (members[..members.len() - 1].to_vec(), "ends early"),
            ([members.clone(), gzip(&[0])].concat(), "more bytes"),
        ] {
            std::fs::write(plain.with_extension("gz"), bytes).unwrap();
            let error = load(folder.path(), "sample").unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}

#[test]
fn classes_are_the_labels_that_occur() {
    let labels = |train: [u8; 3], test: [u8; 2]| {
        let mut files = good();
        files[1] = file(LABELS_MAGIC, &[3], &train);
        files[3] = file(LABELS_MAGIC, &[2], &test);
        load(write(&files).path(), "sample").unwrap()
    };
    let targets = |labels: &[u32], classes| Targets::Classes {
        labels: labels.to_vec(),
        classes,
    };
    // From 1 on, with 9 in the test part alone.
    let (train, test) = labels([1, 10, 2], [9, 1]);
    assert_eq!(train.targets(), &targets(&[0, 3, 1], 4));
    assert_eq!(test.targets(), &targets(&[2, 0], 4));
    for data in [&train, &test, &test.subset(&[0]).unwrap()] {
        assert_eq!(data.original_labels(), Some(&[1, 2, 9, 10][..]));
    }
    assert_eq!(train.as_autoencoder().original_labels(), None);
    // Classes that are what they were called.
    let (train, _) = labels([0, 1, 2], [2, 2]);
    assert_eq!(
        (train.targets(), train.original_labels()),
        (&targets(&[0, 1, 2], 3), None)
    );
}

#[test]
fn excess_bytes_are_refused() {
    let mut longer = good()[0].clone();
    longer.push(0);
    assert!(data_error(0, longer).contains("more bytes"));
}

#[test]
fn a_wrong_magic_number_is_refused() {
    let text = data_error(0, good()[1].clone());
    assert!(
        text.contains("magic number 0x00000801, expected 0x00000803"),
        "{text}"
    );
    // Three dimensions of f32 instead of bytes.
    assert!(data_error(0, file(0x0d03, &[3, 2, 1], &[0; 24])).contains("magic"));
}

#[test]
fn counts_and_sizes_that_disagree_are_refused() {
    let text = data_error(1, file(LABELS_MAGIC, &[2], &[1, 0]));
    assert!(text.contains("3 pictures, but 2 labels"), "{text}");
    let text = data_error(2, file(IMAGES_MAGIC, &[2, 1, 1], &[255, 0]));
    assert!(text.contains("2x1") && text.contains("1x1"), "{text}");
    assert!(data_error(0, file(IMAGES_MAGIC, &[0, 2, 1], &[])).contains("no data"));
}

/// Each of these would ask for more memory than any machine has, if the header were believed.
#[test]
fn a_header_that_claims_more_than_the_file_holds_allocates_nothing() {
    for dimensions in [
        [u32::MAX; 3],
        [u32::MAX, u32::MAX, 1],
        [1, 1 << 31, 1 << 20],
    ] {
        let text = data_error(0, file(IMAGES_MAGIC, &dimensions, &[1, 2, 3]));
        assert!(text.contains("truncated"), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn what_was_written_is_read_back_raw_or_compressed(
        rows in 1u32..5, columns in 1u32..5, counts in prop::array::uniform2(1u32..6),
        compress in prop::array::uniform4(any::<bool>()), noise: u64,
    ) {
        use rand::Rng;
        let mut random = crate::random::Philox::new(noise, 0);
        let mut bytes = |length: u32| {
            let mut bytes = vec![0; length as usize];
            random.fill_bytes(&mut bytes);
            bytes
        };
        let folder = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for (part, count) in counts.into_iter().enumerate() {
            let (pixels, labels) = (bytes(count * rows * columns), bytes(count));
            for (index, contents) in [
                (2 * part, file(IMAGES_MAGIC, &[count, rows, columns], &pixels)),
                (2 * part + 1, file(LABELS_MAGIC, &[count], &labels)),
            ] {
                let (suffix, contents) = if compress[index] { (".gz", gzip(&contents)) } else { ("", contents) };
                std::fs::write(folder.path().join(format!("{}{suffix}", FILES[index])), contents).unwrap();
            }
            expected.push((pixels, labels));
        }
        let (train, test) = load(folder.path(), "noise").unwrap();
        for (data, (pixels, labels)) in [train, test].iter().zip(expected) {
            let read: Vec<u8> = data.features().iter().map(|x| (x * 255.0).round() as u8).collect();
            prop_assert_eq!(read, pixels);
            let Targets::Classes { labels: read, .. } = data.targets() else {
                return Err(TestCaseError::fail("IDX data have classes"));
            };
            let original = |&class: &u32| data.original_labels().map_or(class, |labels| labels[class as usize]);
            let read: Vec<u32> = read.iter().map(original).collect();
            prop_assert_eq!(read, labels.into_iter().map(u32::from).collect::<Vec<_>>());
        }
    }
}

#[test]
fn files_may_have_any_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let [images, labels, test_images, test_labels] = good();
    std::fs::write(path("pictures.bin"), gzip(&images)).unwrap();
    std::fs::write(path("labels.gz"), gzip(&labels)).unwrap();
    std::fs::write(path("test.idx"), test_images).unwrap();
    std::fs::write(path("test-labels.idx.gz"), gzip(&test_labels)).unwrap();
    // What is compressed says so itself, and `.gz` may be left out.
    let one = load_files(&path("pictures.bin"), &path("labels"), "sample").unwrap();
    assert_eq!(one.features(), [0.0, 1.0, 0.2, 0.4, 0.6, 0.8]);
    let labels = vec![1, 0, 1];
    assert_eq!(one.targets(), &Targets::Classes { labels, classes: 2 });
    let train = (path("pictures.bin"), path("labels.gz"));
    let test = (path("test.idx"), path("test-labels.idx"));
    let halves = load_halves((&train.0, &train.1), (&test.0, &test.1), "sample").unwrap();
    assert_eq!(halves, load(write(&good()).path(), "sample").unwrap());
    let error = load_files(&path("none"), &path("labels"), "sample").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(!error.to_string().contains("xtask"), "{error}");
}
