//! `osculant init`: a file to begin with.

use std::path::Path;

use crate::arguments::Init;
use crate::failure::{Failure, Outcome};

const TEMPLATE: &str = include_str!("template.toml");
/// Invented fruit, so that the file runs as it stands.
const FRUIT: &str = include_str!("fruit.csv");
const FRUIT_NAME: &str = "fruit.csv";

/// Writes the file and its data.
pub(crate) fn run(arguments: &Init) -> Outcome {
    let path = &arguments.file;
    if !path
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("toml"))
    {
        return Err(
            Failure::new(format!("{}: such a file ends with .toml", path.display())).hint(format!(
                "osculant init {}",
                path.with_extension("toml").display()
            )),
        );
    }
    let data = path.with_file_name(FRUIT_NAME);
    for file in [path, &data] {
        if file.exists() && !arguments.force {
            return Err(Failure::new(format!("{} is there already", file.display()))
                .hint("--force overwrites it; another name or folder leaves it as it is"));
        }
    }
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, error))?;
    }
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|error| Failure::file(path, error))
    };
    write(&data, FRUIT)?;
    write(path, TEMPLATE)?;
    println!("{} and {}: edit them, then", path.display(), data.display());
    println!("  osculant train {}", path.display());
    println!("  osculant compare {} --out out", path.display());
    Ok(())
}
