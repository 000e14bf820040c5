//! Commands as data, and how they are replayed into an encoder and submitted.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::device::Gpu;
use super::pipeline::Pipeline;
use super::slice::{ELEMENT, Slice};
use super::texels::Texels;
use super::uploads::Upload;
use crate::error::{Error, Result};

/// One command of a [`Recording`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Command {
    /// Run a kernel.
    Dispatch {
        /// The kernel.
        pipeline: Arc<Pipeline>,
        /// Its buffers.
        bind_group: wgpu::BindGroup,
        /// Number of workgroups in each dimension.
        workgroups: [u32; 3],
    },
    /// Copy the beginning of a slice to a texture.
    Texels(Texels),
    /// Copy elements of a slice to another.
    Copy {
        /// From here.
        source: Slice,
        /// From this element of it on.
        source_start: usize,
        /// To here.
        destination: Slice,
        /// To this element of it and on.
        destination_start: usize,
        /// So many elements.
        elements: usize,
    },
    /// Write what the host has to say when it is replayed.
    Upload(Upload),
    /// Commands of somebody else.
    Custom(Custom),
}

/// Commands that a caller records, see [`Recording::custom`].
#[derive(Clone)]
pub struct Custom(Arc<CustomCommands>);

type CustomCommands = dyn Fn(&mut wgpu::CommandEncoder) + Send + Sync;

impl fmt::Debug for Custom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Custom")
    }
}

/// What a kernel reads or writes.
#[expect(
    clippy::large_enum_variant,
    reason = "a few are made when a dispatch is recorded, and none is kept"
)]
pub(crate) enum Binding<'a> {
    Slice(&'a Slice),
    Texels(Texels),
}

/// A list of commands that can be replayed any number of times; nothing is created when it is.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    commands: Vec<Command>,
    held: Vec<Held>,
}

/// Something that lives as long as a recording.
#[derive(Clone)]
struct Held(Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Held")
    }
}

impl Recording {
    /// An empty recording.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kernel run with `bindings` at 0, 1, .. of group 0; no workgroups at all adds nothing.
    ///
    /// Two bindings of one dispatch may lie in the same buffer only if the kernel reads both or writes both, because
    /// wgpu tracks whole buffers; this is found when the recording is submitted.
    ///
    /// # Errors
    /// [`Error::OverLimit`] for too many workgroups or too large a binding, [`Error::Gpu`] if the bindings do not
    /// fit the kernel, [`Error::DeviceLost`].
    pub fn dispatch(
        &mut self,
        gpu: &Gpu,
        pipeline: &Arc<Pipeline>,
        bindings: &[&Slice],
        workgroups: [u32; 3],
    ) -> Result<()> {
        let bindings: Vec<Binding<'_>> =
            bindings.iter().map(|slice| Binding::Slice(slice)).collect();
        self.dispatch_bindings(gpu, pipeline, &bindings, workgroups)
    }

    /// As [`dispatch`](Self::dispatch), where bindings may also be textures. Those are copied right before.
    pub(crate) fn dispatch_bindings(
        &mut self,
        gpu: &Gpu,
        pipeline: &Arc<Pipeline>,
        bindings: &[Binding<'_>],
        workgroups: [u32; 3],
    ) -> Result<()> {
        gpu.check()?;
        let limits = gpu.limits();
        if let Some(&most) = workgroups.iter().max()
            && most > limits.max_compute_workgroups_per_dimension
        {
            return Err(Error::OverLimit {
                what: format!("kernel '{}'", pipeline.label()),
                needed: most.into(),
                limit_name: "max_compute_workgroups_per_dimension",
                limit: limits.max_compute_workgroups_per_dimension.into(),
                advice: "spread the workgroups over two dimensions (see osculant::gpu::grid)",
            });
        }
        for binding in bindings {
            let Binding::Slice(slice) = binding else {
                continue;
            };
            if slice.bytes() > limits.max_storage_buffer_binding_size {
                return Err(Error::OverLimit {
                    what: format!(
                        "binding '{}' to kernel '{}'",
                        slice.label(),
                        pipeline.label()
                    ),
                    needed: slice.bytes(),
                    limit_name: "max_storage_buffer_binding_size",
                    limit: limits.max_storage_buffer_binding_size,
                    advice: "bind parts of the buffer",
                });
            }
        }
        let entries: Vec<_> = (0u32..)
            .zip(bindings)
            .map(|(number, binding)| wgpu::BindGroupEntry {
                binding: number,
                resource: match binding {
                    Binding::Slice(slice) => slice.binding(),
                    Binding::Texels(texels) => texels.binding(),
                },
            })
            .collect();
        let descriptor = wgpu::BindGroupDescriptor {
            label: Some(pipeline.label()),
            layout: pipeline.layout(),
            entries: &entries,
        };
        let bind_group = gpu.guarded(
            || gpu.device().create_bind_group(&descriptor),
            || format!("the bindings of kernel '{}'", pipeline.label()).into(),
        )?;
        if workgroups.iter().all(|&count| count > 0) {
            for binding in bindings {
                if let Binding::Texels(texels) = binding {
                    self.commands.push(Command::Texels(texels.clone()));
                }
            }
            self.commands.push(Command::Dispatch {
                pipeline: Arc::clone(pipeline),
                bind_group,
                workgroups,
            });
        }
        Ok(())
    }

    /// Adds a copy of `source` to `destination`.
    ///
    /// # Errors
    /// [`Error::Length`] if their lengths differ, [`Error::Unsupported`] if both lie in one buffer, which wgpu
    /// does not allow, or if their buffers were not made for copies.
    pub fn copy(&mut self, source: &Slice, destination: &Slice) -> Result<()> {
        if source.len() != destination.len() {
            return Err(Error::Length {
                what: format!("'{}', copied to '{}',", source.label(), destination.label()),
                found: source.len(),
                expected: destination.len(),
            });
        }
        self.copy_part(source, 0, destination, 0, source.len())
    }

    /// Adds a copy of `elements` elements from `source_start` on to `destination` from `destination_start` on; starts may be anywhere.
    ///
    /// # Errors
    /// [`Error::Length`] if a range reaches beyond its slice, else as [`copy`](Self::copy).
    pub fn copy_part(
        &mut self,
        source: &Slice,
        source_start: usize,
        destination: &Slice,
        destination_start: usize,
        elements: usize,
    ) -> Result<()> {
        for (slice, start) in [(source, source_start), (destination, destination_start)] {
            let end = start.saturating_add(elements);
            if end > slice.len() {
                return Err(Error::Length {
                    what: format!("the end of a copy from or to '{}'", slice.label()),
                    found: end,
                    expected: slice.len(),
                });
            }
        }
        let refuse = |message: &str| {
            Err(Error::Unsupported {
                what: format!("copying '{}' to '{}'", source.label(), destination.label()),
                message: message.into(),
            })
        };
        if source.buffer() == destination.buffer() {
            return refuse("both lie in one buffer; copy with a kernel");
        }
        if !source
            .buffer()
            .usage()
            .contains(wgpu::BufferUsages::COPY_SRC)
        {
            return refuse("create the source with BufferUsages::COPY_SRC");
        }
        if !destination
            .buffer()
            .usage()
            .contains(wgpu::BufferUsages::COPY_DST)
        {
            return refuse("create the destination with BufferUsages::COPY_DST");
        }
        self.commands.push(Command::Copy {
            source: source.clone(),
            source_start,
            destination: destination.clone(),
            destination_start,
            elements,
        });
        Ok(())
    }

    /// Adds what a caller records at this place in every replay: passes with pipelines and bind groups of their own, copies, anything that an
    /// encoder takes. It runs between the commands before and those after.
    pub fn custom(&mut self, record: impl Fn(&mut wgpu::CommandEncoder) + Send + Sync + 'static) {
        self.push(Command::Custom(Custom(Arc::new(record))));
    }

    /// Adds a write of the whole slice by the host, with numbers that [`Upload::set`] says before each replay; zeros before.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a buffer made without [`wgpu::BufferUsages::COPY_DST`].
    pub fn upload(&mut self, gpu: &Gpu, slice: &Slice) -> Result<Upload> {
        let upload = Upload::to(gpu.device(), slice)?;
        self.push(Command::Upload(upload.clone()));
        Ok(upload)
    }

    fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// Adds the commands of another recording at the end.
    pub fn append(&mut self, other: Self) {
        self.commands.extend(other.commands);
        for Held(other) in other.held {
            self.hold(other);
        }
    }

    /// Keeps something as long as this recording, or one that it is appended to: a program whose buffers its commands use, so that no cache
    /// takes it for forgotten and no batch is loaded elsewhere.
    pub fn hold(&mut self, what: Arc<dyn Any + Send + Sync>) {
        if !self
            .held
            .iter()
            .any(|Held(known)| Arc::ptr_eq(known, &what))
        {
            self.held.push(Held(what));
        }
    }

    /// The commands, in order.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Each kernel run by itself, with the copies right before it: to time them one by one.
    #[must_use]
    pub fn kernel_runs(&self) -> Vec<Self> {
        self.commands
            .split_inclusive(|command| matches!(command, Command::Dispatch { .. }))
            .map(|commands| Self {
                commands: commands.to_vec(),
                held: self.held.clone(),
            })
            .filter(|run| run.dispatches() == 1)
            .collect()
    }

    /// Number of kernel runs.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        self.commands
            .iter()
            .filter(|command| matches!(command, Command::Dispatch { .. }))
            .count()
    }
}

/// Writes recordings into a command encoder.
///
/// One compute pass stays open over consecutive dispatches, also of consecutive recordings, because passes are what
/// costs time on the host. It ends at a copy, at [`encoder`](Self::encoder), and when the recorder is dropped.
#[derive(Debug)]
pub struct Recorder<'e> {
    encoder: &'e mut wgpu::CommandEncoder,
    pass: Option<OpenPass>,
}

/// A compute pass with the kernel that is set in it.
#[derive(Debug)]
struct OpenPass {
    pass: wgpu::ComputePass<'static>,
    pipeline: Option<Arc<Pipeline>>,
}

impl<'e> Recorder<'e> {
    /// Records into this encoder. Errors in the commands come up at its `finish`, in the caller's hands.
    pub fn new(encoder: &'e mut wgpu::CommandEncoder) -> Self {
        Self {
            encoder,
            pass: None,
        }
    }

    /// Adds the commands of a recording.
    pub fn replay(&mut self, recording: &Recording) {
        for command in &recording.commands {
            match command {
                Command::Dispatch {
                    pipeline,
                    bind_group,
                    workgroups: [x, y, z],
                } => {
                    let open = self.pass();
                    if !open
                        .pipeline
                        .as_ref()
                        .is_some_and(|set| Arc::ptr_eq(set, pipeline))
                    {
                        open.pass.set_pipeline(pipeline.raw());
                        open.pipeline = Some(Arc::clone(pipeline));
                    }
                    open.pass.set_bind_group(0, bind_group, &[]);
                    open.pass.dispatch_workgroups(*x, *y, *z);
                }
                Command::Texels(texels) => texels.update(self.encoder()),
                Command::Upload(upload) => upload.record(self.encoder()),
                Command::Custom(Custom(record)) => record(self.encoder()),
                Command::Copy {
                    source,
                    source_start,
                    destination,
                    destination_start,
                    elements,
                } => {
                    self.encoder().copy_buffer_to_buffer(
                        source.buffer(),
                        source.offset_bytes() + *source_start as u64 * ELEMENT,
                        destination.buffer(),
                        destination.offset_bytes() + *destination_start as u64 * ELEMENT,
                        *elements as u64 * ELEMENT,
                    );
                }
            }
        }
    }

    /// The encoder, for commands of the caller's own; ends the open compute pass.
    pub fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder
    }

    fn pass(&mut self) -> &mut OpenPass {
        self.pass.get_or_insert_with(|| {
            let descriptor = wgpu::ComputePassDescriptor {
                label: Some("osculant"),
                timestamp_writes: None,
            };
            // The pass may not borrow the encoder beside it in this struct. While a pass is open nothing here touches
            // the encoder, which is all that the lifetime would enforce.
            let pass = self
                .encoder
                .begin_compute_pass(&descriptor)
                .forget_lifetime();
            OpenPass {
                pass,
                pipeline: None,
            }
        })
    }
}

impl Gpu {
    /// Records commands and submits them. An empty recording submits an empty command buffer.
    ///
    /// # Errors
    /// [`Error::Gpu`] if wgpu refuses a command, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn submit(&self, record: impl FnOnce(&mut Recorder<'_>)) -> Result<()> {
        self.try_submit(|recorder| {
            record(recorder);
            Ok(())
        })
    }

    /// As [`submit`](Self::submit) where recording itself may fail: then nothing is submitted.
    ///
    /// # Errors
    /// Those of `record`, and those of [`submit`](Self::submit).
    pub fn try_submit<T>(&self, record: impl FnOnce(&mut Recorder<'_>) -> Result<T>) -> Result<T> {
        self.submit_indexed(record).map(|(value, _)| value)
    }

    pub(super) fn submit_indexed<T>(
        &self,
        record: impl FnOnce(&mut Recorder<'_>) -> Result<T>,
    ) -> Result<(T, wgpu::SubmissionIndex)> {
        self.check()?;
        let work = || {
            let mut encoder =
                self.device()
                    .create_command_encoder(&wgpu::CommandEncoderDescriptor {
                        label: Some("osculant"),
                    });
            let mut recorder = Recorder::new(&mut encoder);
            let value = record(&mut recorder)?;
            drop(recorder);
            let submission = self.queue().submit([encoder.finish()]);
            self.shared.submissions.fetch_add(1, Ordering::Relaxed);
            Ok((value, submission))
        };
        let outcome = self.guarded(work, || "submitted commands".into());
        self.shared.health.check_reported()?;
        outcome?
    }
}

/// `workgroups` as a grid: one row, or several equal rows where one would exceed the device's
/// `max_compute_workgroups_per_dimension`.
///
/// The grid may be a little larger than asked for. A kernel rebuilds its linear index as
/// `id.x + id.y * num_workgroups.x * WORKGROUP` and returns when that is beyond the end of its data.
///
/// # Errors
/// [`Error::OverLimit`] if two dimensions are not enough.
pub fn grid(limits: &wgpu::Limits, workgroups: usize) -> Result<[u32; 3]> {
    let most = limits.max_compute_workgroups_per_dimension.max(1);
    let over = || Error::OverLimit {
        what: "a kernel, in workgroups,".into(),
        needed: workgroups as u64,
        limit_name: "max_compute_workgroups_per_dimension (squared)",
        limit: u64::from(most) * u64::from(most),
        advice: "use a smaller batch or network",
    };
    let rows = workgroups.div_ceil(most as usize).max(1);
    let columns = workgroups.div_ceil(rows);
    if rows > most as usize {
        return Err(over());
    }
    let convert = |count: usize| u32::try_from(count).map_err(|_| over());
    Ok([convert(columns)?, convert(rows)?, 1])
}
