//! What the page does, without a browser: native WORK SEEDS
//!
//! Trains by each method from the seeds below SEEDS until WORK epochs of work are done, on a device as WebGPU guarantees it: its limits,
//! and no features, hence no subgroups. Prints JSON.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(work), Some(seeds)) = (arguments.next(), arguments.next()) else {
        return Err("usage: native WORK SEEDS".into());
    };
    pollster::block_on(native::compare(work.parse()?, seeds.parse()?))
}

/// The library has no blocking functions in a browser, and the page no program.
#[cfg(target_arch = "wasm32")]
fn main() {}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use osculant::gpu::Gpu;
    use osculant_web::training::{Method, Training};
    use serde_json::{Value, json};

    pub(super) async fn compare(work: f64, seeds: u64) -> Result<(), Box<dyn std::error::Error>> {
        let gpu = plain().await?;
        let mut runs = Vec::new();
        for method in Method::ALL {
            for seed in 0..seeds {
                runs.push(run(&gpu, method, seed, work).await?);
            }
        }
        let adapter = &gpu.info().name;
        println!("{}", json!({ "adapter": adapter, "runs": runs }));
        Ok(())
    }

    /// The adapter that osculant takes, with a device that has nothing beyond WebGPU.
    async fn plain() -> Result<Gpu, Box<dyn std::error::Error>> {
        let chosen = Gpu::new_async().await?;
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
        let is_chosen = |adapter: &&wgpu::Adapter| {
            let info = adapter.get_info();
            info.name == chosen.info().name && info.backend.to_str() == chosen.info().backend
        };
        let adapter = adapters
            .iter()
            .find(is_chosen)
            .ok_or("the adapter is gone")?;
        let descriptor = wgpu::DeviceDescriptor::default();
        let (device, queue) = adapter.request_device(&descriptor).await?;
        Ok(Gpu::from_wgpu(device, queue)?)
    }

    async fn run(gpu: &Gpu, method: Method, seed: u64, work: f64) -> osculant::Result<Value> {
        let mut training = Training::new(gpu, method, seed)?;
        let mut losses = Vec::new();
        while training.work() < work {
            losses.push(training.step().await?);
        }
        let standing = training.evaluate().await?;
        Ok(json!({
            "method": method.name(),
            "seed": seed,
            "losses": losses,
            "final": standing.train_loss,
            "accuracy": standing.accuracy,
        }))
    }
}
