//! One wgpu device for burn and osculant.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, DeviceKind, Tensor};
use osculant::gpu::Gpu;
use osculant::{Error, Result};

use crate::copies::Copies;

/// One wgpu device and queue, which burn and osculant both submit to: what either leaves in a buffer the other one sees, and nothing waits
/// in between.
///
/// ```no_run
/// use burn::tensor::DeviceKind;
/// use osculant_burn::SharedDevice;
///
/// # fn main() -> osculant::Result<()> {
/// let shared = SharedDevice::new(DeviceKind::DefaultDevice)?;
/// let layer = burn::nn::LinearConfig::new(64, 10).init(&shared.device());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SharedDevice {
    /// Without automatic differentiation.
    burn: Device,
    gpu: Gpu,
}

impl SharedDevice {
    /// On a device that burn makes: all features and limits of the adapter. Once for each kind in a process: clones share it.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] where burn finds none of the kind; those of [`Gpu::from_wgpu`].
    pub fn new(kind: DeviceKind) -> Result<Self> {
        let request = format!(" for burn's {kind:?}");
        let made = Device::wgpu_options().device_kind(kind).init_with_setup();
        let (device, setup) = made.map_err(|error| Error::NoAdapter {
            request,
            present: format!("unknown to burn ({error})"),
            hint: "Ask for another DeviceKind; software adapters, such as llvmpipe, are DeviceKind::Cpu.".into(),
        })?;
        Self::from_setup(&device, &setup)
    }

    /// On a device of burn's, and the setup that burn gave with it (`init_with_setup`) or took for it (`setup`). A device that was made
    /// elsewhere and handed to burn needs the features `SHADER_INT64`, `SUBGROUP` and `TIMESTAMP_QUERY`, where its adapter has them: burn
    /// looks at the adapter.
    ///
    /// One number goes through both to see that they are one device.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device that is not that of the setup; those of [`Gpu::from_wgpu`].
    pub fn from_setup(device: &Device, setup: &WgpuSetup) -> Result<Self> {
        let gpu = Gpu::from_wgpu(setup.device.clone(), setup.queue.clone())?;
        let burn = device.clone().inner();
        let shared = Self { burn, gpu };
        // wgpu panics at a buffer of another instance.
        match catch_unwind(AssertUnwindSafe(|| shared.probe())) {
            Ok(Ok(())) => Ok(shared),
            _ => Err(Error::Unsupported {
                what: format!("a burn device ({device:?}) with the wgpu device of a setup"),
                message: "they are not one device: take both from one `init_with_setup`, or the device that burn made of this setup".into(),
            }),
        }
    }

    /// The device to make modules and tensors on, with automatic differentiation.
    pub fn device(&self) -> Device {
        self.burn.clone().autodiff()
    }

    /// The same device as osculant sees it.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Whether a device of burn's, with automatic differentiation or without, is this one.
    pub(crate) fn is(&self, device: &Device) -> bool {
        device.clone().inner() == self.burn
    }

    fn probe(&self) -> Result<()> {
        let number = self.gpu.buffer("a number of burn's", 1)?;
        let mut copies = Copies::default();
        copies.read(Tensor::<1>::from_data([0.75f32], &self.burn), &number)?;
        copies.submit(&self.gpu)?;
        if self.gpu.read(&[&number])? == [[0.75]] {
            return Ok(());
        }
        Err(Error::Data {
            what: "a number of burn's".into(),
            message: "it did not arrive".into(),
        })
    }
}
