//! Tables in files, and what the environment asks for.

use std::path::Path;

use super::{Capabilities, Family, Rule, Table, Tuning};
use crate::error::{Error, Result};

impl Tuning {
    /// Reads a table that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`Error::Option`] if the file cannot be read, is no table, or was made by another version of this crate. Whether it fits the adapter
    /// is found out by [`Gpu::with_tuning`](crate::gpu::Gpu::with_tuning).
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |message: String| Error::Option {
            option: format!("tuning file {}", path.display()),
            message: format!("{message}; make a new one with `osculant tune --out FILE`"),
        };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        let table: Table =
            serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        if table.version != env!("CARGO_PKG_VERSION") {
            return Err(refuse(format!(
                "it was made by version {} of osculant, and this is {}",
                table.version,
                env!("CARGO_PKG_VERSION")
            )));
        }
        Ok(Self {
            rule: Rule::Table(table),
        })
    }

    /// Writes the table as JSON.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no table, or if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let refuse = |message: String| Error::Option {
            option: format!("tuning file {}", path.display()),
            message,
        };
        let Rule::Table(table) = &self.rule else {
            return Err(refuse("only measured tables are written to files".into()));
        };
        let text =
            serde_json::to_string_pretty(table).map_err(|error| refuse(error.to_string()))?;
        std::fs::write(path, text + "\n").map_err(|error| refuse(error.to_string()))
    }

    /// What the environment asks for: the table in the file that `OSCULANT_TUNING` names; with `OSCULANT_TUNING=forced:NAME` the first
    /// kernel of [`Family::all`] whose name begins so, for every product; else the built-in rules.
    pub(crate) fn from_env(capabilities: &Capabilities) -> Result<Self> {
        let Some(value) = std::env::var("OSCULANT_TUNING")
            .ok()
            .filter(|value| !value.is_empty())
        else {
            return Ok(Self::builtin());
        };
        match value.strip_prefix("forced:") {
            Some(name) => forced_by_name(name, capabilities),
            None => Self::read(Path::new(&value)),
        }
    }
}

/// The kernel whose name begins with `name`, the first one in the order of [`Family::all`]; the built-in rules on a device that cannot run
/// it.
fn forced_by_name(name: &str, capabilities: &Capabilities) -> Result<Tuning> {
    let find = |capabilities: &Capabilities| {
        Family::all(capabilities)
            .into_iter()
            .find(|family| family.to_string().starts_with(name))
    };
    if let Some(family) = find(capabilities) {
        return Ok(Tuning::forced(family));
    }
    let everywhere = (2..=7).any(|log| {
        find(&Capabilities {
            subgroup_size: Some(1 << log),
            wide_loads: true,
            textures: true,
            large_workgroups: true,
            software: true,
        })
        .is_some()
    });
    if everywhere {
        Ok(Tuning::builtin())
    } else {
        Err(Error::Option {
            option: "OSCULANT_TUNING".into(),
            message: format!(
                "there is no kernel '{name}' for products; names are like {}, or the first words of one",
                Family::all(capabilities)
                    .iter()
                    .map(|family| format!("'{family}'"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        })
    }
}
