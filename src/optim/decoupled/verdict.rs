//! How a step of several solves is judged.

use crate::error::Result;
use crate::gpu::{Commands, Gpu, Recording, Slice, Work};
use crate::linalg::Afterword;
use crate::optim::judge::{Candidate, Judge};
use crate::optim::saved::missing;
use crate::vector::Vector;

/// What those who judge say of a step.
pub(super) struct Verdict {
    /// The loss before.
    pub(super) base: f64,
    pub(super) step: Candidate,
    /// What the solves promised, with the steps' own slopes and squares: see [`Memory::products`](super::solve::Memory::products).
    pub(super) products: Vec<f32>,
}

impl Verdict {
    pub(super) fn new(judge: &mut Judge, mut read: Vec<Vec<f32>>) -> Result<Self> {
        let products = read.pop().ok_or_else(|| missing("products of steps"))?;
        let (base, found) = judge.results(&read)?;
        let step = found.first().copied();
        Ok(Self {
            base,
            step: step.ok_or_else(|| missing("candidate"))?,
            products,
        })
    }

    /// The verdict of a judge after what must run before.
    pub(super) async fn of(
        judge: &mut Judge,
        gpu: &Gpu,
        before: &Work,
        (step, factor): (&Vector, f64),
        products: &Slice,
    ) -> Result<Self> {
        judge.begin();
        judge.prepare(gpu, &[(step, factor)])?;
        let mut reads = judge.reads().to_vec();
        reads.push(products);
        let commands = std::iter::once(before.into()).chain(judge.commands());
        let read = gpu.run_and_read_async(commands, &reads).await?;
        Self::new(judge, read)
    }
}

/// The step and its loss, in the last submission of the last solve.
pub(super) struct Ending<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) add: &'a Recording,
    pub(super) step: &'a Vector,
    pub(super) factor: f64,
    pub(super) products: &'a Slice,
    pub(super) judge: &'a mut Judge,
}

impl Afterword for Ending<'_> {
    fn prepare(&mut self, _: usize) -> Result<()> {
        self.judge.prepare(self.gpu, &[(self.step, self.factor)])
    }

    fn commands(&self) -> Vec<Commands<'_>> {
        let add = Commands::from(self.add);
        std::iter::once(add).chain(self.judge.commands()).collect()
    }

    fn reads(&self) -> Vec<&Slice> {
        let mut reads = self.judge.reads().to_vec();
        reads.push(self.products);
        reads
    }
}
