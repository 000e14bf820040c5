//! All figures of a run, and `bench.json`.

use osculant::gpu::Gpu;
use serde_json::{Map, Value, json};

use super::network;
use super::products;
use super::timing::Figure;
use super::vectors;

/// What a run measured.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    /// In GFLOP/s.
    pub(crate) fma_peak: Figure,
    /// How they were computed.
    pub(crate) fma_kernel: String,
    /// In GB/s.
    pub(crate) copy: Figure,
    /// How they were copied.
    pub(crate) copy_kernel: String,
    /// Matrix products.
    pub(crate) products: Vec<products::Measured>,
    /// Operations on long vectors.
    pub(crate) vectors: vectors::Measured,
    /// The networks.
    pub(crate) networks: Vec<network::Measured>,
}

impl Results {
    /// `bench.json`. Next to figures that are medians of a time or of a ratio of times, `spread` has their interquartile range over the
    /// median; what was not measured is null.
    pub(crate) fn json(&self, gpu: &Gpu, quick: bool) -> Value {
        let Self {
            fma_peak,
            copy,
            vectors,
            ..
        } = self;
        let gemm: Vec<Value> = self.products.iter().map(|row| self.product(row)).collect();
        let problems: Map<String, Value> = self
            .networks
            .iter()
            .map(|network| (network.name.to_owned(), problem(network)))
            .collect();
        json!({
            "environment": environment(gpu, quick),
            "device": {
                "fma_peak_gflops": fma_peak.median,
                "fma_kernel": self.fma_kernel,
                "copy_gbps": copy.median,
                "copy_kernel": self.copy_kernel,
                "spread": {"fma_peak_gflops": fma_peak.spread, "copy_gbps": copy.spread},
            },
            "gemm": gemm,
            "vector": {
                "axpy_fraction": self.of_copy(vectors.axpy),
                "dot_fraction": self.of_copy(vectors.dot),
                "axpy_gbps": vectors.axpy.median,
                "dot_gbps": vectors.dot.median,
                "spread": {"axpy_gbps": vectors.axpy.spread, "dot_gbps": vectors.dot.spread},
            },
            "problems": problems,
        })
    }

    /// Part of the rate of a copy.
    pub(crate) fn of_copy(&self, rate: Figure) -> f64 {
        rate.median / self.copy.median
    }

    /// Part of the rate of multiply-adds.
    pub(crate) fn of_peak(&self, rate: Figure) -> f64 {
        rate.median / self.fma_peak.median
    }

    fn product(&self, row: &products::Measured) -> Value {
        json!({
            "m": row.product.m,
            "n": row.product.n,
            "k": row.product.k,
            "transpose": row.transpose(),
            "family": row.family,
            "gflops": row.gflops.median,
            "fraction": self.of_peak(row.gflops),
            "spread": row.gflops.spread,
        })
    }
}

fn problem(network: &network::Measured) -> Value {
    let mut spread = Map::new();
    let mut values = Map::new();
    let mut put = |name: &str, figure: Option<Figure>| {
        values.insert(name.into(), json!(figure.map(|figure| figure.median)));
        if let Some(figure) = figure {
            spread.insert(name.into(), json!(figure.spread));
        }
    };
    let milliseconds = |figure: Figure| figure.scaled(1e3);
    put("gradient_ms", Some(milliseconds(network.gradient)));
    put("hvp_ms", Some(milliseconds(network.hvp)));
    put("ggn_ms", Some(milliseconds(network.ggn)));
    put("ggn_block_32_ms", network.ggn_block.map(milliseconds));
    put(
        "linearize_over_gradient",
        Some(network.linearize_over_gradient),
    );
    put(
        "ggn_linearize_over_gradient",
        Some(network.ggn_linearize_over_gradient),
    );
    put("hvp_over_gradient", Some(network.hvp_over_gradient));
    put("ggn_over_gradient", Some(network.ggn_over_gradient));
    put("block_gain_32", network.block_gain);
    put("cg_overhead", network.cg_overhead);
    let rest = json!({
        "loss": network.loss,
        "flops": network.flops,
        "hvp_over_flop_ratio": network.hvp_over_gradient.median / network.hvp_flop_ratio(),
        "ggn_over_flop_ratio": network.ggn_over_gradient.median / network.ggn_flop_ratio(),
        "readbacks_per_step": network.readbacks_per_step,
        "dispatches_per_product": network.dispatches,
        "planned_bytes": network.planned_bytes,
        "peak_bytes": network.peak_bytes,
        "block_width": network.block_width,
        "gradients_per_submission": network.gradients_together,
        "spread": spread,
    });
    if let Value::Object(rest) = rest {
        values.extend(rest);
    }
    Value::Object(values)
}

fn environment(gpu: &Gpu, quick: bool) -> Value {
    let info = gpu.info();
    json!({
        "adapter": {"name": info.name, "backend": info.backend, "type": info.device_type},
        "driver": format!("{} {}", info.driver, info.driver_info).trim(),
        "limits": {
            "max_storage_buffer_binding_size": info.max_storage_buffer_binding_size,
            "max_buffer_size": info.max_buffer_size,
            "max_storage_buffers_per_shader_stage": info.max_storage_buffers_per_shader_stage,
            "max_compute_workgroup_storage_size": info.max_compute_workgroup_storage_size,
            "max_compute_invocations_per_workgroup": info.max_compute_invocations_per_workgroup,
            "min_storage_buffer_offset_alignment": info.min_storage_buffer_offset_alignment,
            "subgroup_min_size": info.subgroup_min_size,
            "subgroup_max_size": info.subgroup_max_size,
            "features": info.features,
        },
        "versions": {"osculant": env!("CARGO_PKG_VERSION"), "wgpu": wgpu_version()},
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "quick": quick,
        "tuning": if gpu.tuning().entries().is_empty() { "built-in rules" } else { "file" },
    })
}

/// The version of wgpu in the lock file.
fn wgpu_version() -> Option<&'static str> {
    let lock = include_str!("../../../../Cargo.lock");
    let (_, after) = lock.split_once("name = \"wgpu\"\nversion = \"")?;
    after.split_once('"').map(|(version, _)| version)
}
