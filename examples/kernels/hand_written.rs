//! The files of `shaders/`, with every choice that their `override` constants offer.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

use naga::{Literal, Module, Override, Scalar, ScalarKind, TypeInner};

use crate::listed::Listed;

/// Values for the constants that are sizes: those of a network 784-128-10, whose parameters fill 25,456 vec4s.
const SIZES: [(&str, f64); 2] = [("COUNT", 25_456.0), ("GROUPS", 100.0)];
/// The number of choices behind the constants that choose.
const CHOICES: [(&str, u32); 2] = [("METHOD", 2), ("HALF", 3)];

/// How vectors are loaded, and how where 64-bit loads are cheaper.
const WIDE: [(&str, &str); 2] = [
    ("four.wgsl", "four_wide.wgsl"),
    ("cg/floats.wgsl", "cg/floats_wide.wgsl"),
];
/// Regions of `cg/short` that its kernels hold several times, and how often those for a GPU's longest short vectors do.
const REPEATED: [&str; 3] = ["sums", "step", "turn"];
const TIMES: usize = 4;
/// What moves words as they are, and what it moves four of in their place.
const WORD: &str = "alias Words = u32;";
const WORDS: [(&str, &str); 2] = [("vec4<u32>", "by four"), ("vec2<u64>", "64-bit loads")];

/// Every file with an entry point, once for each combination of its choices.
pub(crate) fn all() -> Result<Vec<Listed>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut kernels = Vec::new();
    for path in wgsl_files(&folder)? {
        let text = with_includes(&folder, &fs::read_to_string(&path)?)?;
        let module =
            naga::front::wgsl::parse_str(&text).map_err(|error| error.emit_to_string(&text))?;
        if module.entry_points.is_empty() {
            continue;
        }
        let family = path
            .strip_prefix(&folder)?
            .with_extension("")
            .to_string_lossy()
            .replace('\\', "/");
        let text = if family == "cg/short" {
            repeated(text)
        } else {
            text
        };
        for (name, constants) in combinations(&module) {
            for (words, label) in WORDS {
                if text.contains(WORD) {
                    kernels.push(Listed {
                        family: family.clone(),
                        name: format!("{name} {label}").trim_start().into(),
                        text: text.replace(WORD, &format!("alias Words = {words};")),
                        constants: constants.clone(),
                    });
                }
            }
            for (plain, wide) in WIDE {
                let plain = fs::read_to_string(folder.join(plain))?;
                if text.contains(&plain) {
                    let wide = fs::read_to_string(folder.join(wide))?;
                    kernels.push(Listed {
                        family: family.clone(),
                        name: format!("{name} 64-bit loads").trim_start().into(),
                        text: text.replace(&plain, &wide),
                        constants: constants.clone(),
                    });
                }
            }
            kernels.push(Listed {
                family: family.clone(),
                name: if name.is_empty() {
                    "as it stands".into()
                } else {
                    name
                },
                text: text.clone(),
                constants,
            });
        }
    }
    Ok(kernels)
}

/// The text with its regions as often as a kernel has them, as the crate repeats them.
fn repeated(mut text: String) -> String {
    for name in REPEATED {
        let open = format!("//<{name}\n");
        let Some(start) = text.find(&open) else {
            continue;
        };
        let Some(length) = text[start..].find("//>") else {
            continue;
        };
        let one = text[start + open.len()..start + length].to_owned();
        let all: String = (0..TIMES)
            .map(|k| {
                one.replace("_0", &format!("_{k}"))
                    .replace("0u * LANES", &format!("{k}u * LANES"))
            })
            .collect();
        text.replace_range(start..start + length + 3, &all);
    }
    text
}

/// The choices in words, with the values of all constants.
fn combinations(module: &Module) -> Vec<(String, Vec<(String, f64)>)> {
    let mut combinations = vec![(String::new(), Vec::new())];
    for (_, constant) in module.overrides.iter() {
        let Some(name) = &constant.name else { continue };
        let values = values(module, name, constant);
        let chosen = values.len() > 1;
        combinations = combinations
            .iter()
            .flat_map(|(words, constants)| {
                values.iter().map(move |&value| {
                    let mut words = words.clone();
                    if chosen {
                        let space = if words.is_empty() { "" } else { " " };
                        words += &format!("{space}{name}={value}");
                    }
                    let mut constants = constants.clone();
                    constants.push((name.clone(), value));
                    (words, constants)
                })
            })
            .collect();
    }
    combinations
}

fn values(module: &Module, name: &str, constant: &Override) -> Vec<f64> {
    if let Some((_, size)) = SIZES.iter().find(|(known, _)| *known == name) {
        return vec![*size];
    }
    if let Some((_, count)) = CHOICES.iter().find(|(known, _)| *known == name) {
        return (0..*count).map(f64::from).collect();
    }
    if let TypeInner::Scalar(Scalar {
        kind: ScalarKind::Bool,
        ..
    }) = module.types[constant.ty].inner
    {
        return vec![0.0, 1.0];
    }
    let default = constant
        .init
        .and_then(|init| match module.global_expressions[init] {
            naga::Expression::Literal(Literal::U32(value)) => Some(f64::from(value)),
            naga::Expression::Literal(Literal::I32(value)) => Some(f64::from(value)),
            naga::Expression::Literal(Literal::F32(value)) => Some(f64::from(value)),
            _ => None,
        });
    vec![default.unwrap_or(1.0)]
}

/// The text with the files named by its lines `//#include NAME` in front, as the crate puts them together.
fn with_includes(folder: &Path, source: &str) -> io::Result<String> {
    let mut text = String::new();
    for name in source
        .lines()
        .filter_map(|line| line.strip_prefix("//#include "))
    {
        text += &fs::read_to_string(folder.join(name.trim()))?;
    }
    Ok(text + source)
}

fn wgsl_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(wgsl_files(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "wgsl")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
