//! `osculant devices`: the adapters that can be used.

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use osculant::gpu::{AdapterDescription, adapters};

use crate::failure::{Failure, Outcome};

const MIB: u64 = 1 << 20;

/// Prints the adapters as a table, or as a JSON list.
pub(crate) fn run(json: bool) -> Outcome {
    let adapters = adapters();
    if json {
        let text = serde_json::to_string_pretty(&adapters)
            .map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else if adapters.is_empty() {
        println!(
            "No adapter. On Debian or Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers (a software Vulkan driver), \
             or install your GPU's driver."
        );
    } else {
        println!("{}", table(&adapters));
        println!(
            "The first is taken unless --adapter NAME (or OSCULANT_ADAPTER, OSCULANT_BACKEND) says otherwise."
        );
    }
    Ok(())
}

fn table(adapters: &[AdapterDescription]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header([
            "#",
            "name",
            "backend",
            "kind",
            "driver",
            "binding",
            "workgroup",
            "subgroup",
            "features",
        ]);
    for (index, adapter) in adapters.iter().enumerate() {
        table.add_row([
            index.to_string(),
            adapter.name.clone(),
            adapter.backend.clone(),
            adapter.device_type.clone(),
            format!("{} {}", adapter.driver, adapter.driver_info)
                .trim()
                .to_owned(),
            format!("{} MiB", adapter.max_storage_buffer_binding_size / MIB),
            adapter.max_compute_invocations_per_workgroup.to_string(),
            format!(
                "{} to {}",
                adapter.subgroup_min_size, adapter.subgroup_max_size
            ),
            adapter.features.join(", "),
        ]);
    }
    table
}
