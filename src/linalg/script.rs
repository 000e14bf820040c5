//! A whole solve by conjugate gradients as commands, for steps that nobody looks at.

use super::conjugate_gradients::ConjugateGradients;
use crate::error::Result;
use crate::gpu::{Recording, Slice};
use crate::kernels::cg::{RADIUS_AT, SHIFT_AT, STATE_ELEMENTS};

/// How a recorded solve begins; where shift and radius are is on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a> {
    /// The slice and the place in it of the shift; none for zero.
    pub(crate) shift: Option<(&'a Slice, usize)>,
    /// The same of the radius of a trust region; none for no region.
    pub(crate) radius: Option<(&'a Slice, usize)>,
    /// Whether the solution holds a first iterate.
    pub(crate) warm: bool,
    /// What the operator and the right-hand side depend on.
    pub(crate) before: &'a Recording,
}

impl ConjugateGradients {
    /// Records a solve with all of its iterations. Those after the reason to stop change nothing, and cost their products: the numbers are
    /// those of [`solve`](Self::solve).
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::error::Error::Unsupported) for work that needs the host; limits of the device.
    pub(crate) fn record(&self, recording: &mut Recording, script: &Script<'_>) -> Result<()> {
        let (iteration, warm_start) = (self.iteration.recorded()?, self.warm_start.recorded()?);
        let first = self.gpu.buffer("first CG state", STATE_ELEMENTS)?;
        let state = self.first_state(0.0, 0.0);
        self.gpu.upload(&first, 0, bytemuck::bytes_of(&state))?;
        recording.copy_part(&first, 0, &self.state, 0, STATE_ELEMENTS)?;
        for (given, at) in [(script.shift, SHIFT_AT), (script.radius, RADIUS_AT)] {
            if let Some((slice, from)) = given {
                recording.copy_part(slice, from, &self.state, at, 1)?;
            }
        }
        recording.append(script.before.clone());
        let start = if script.warm {
            warm_start
        } else {
            &self.cold_start
        };
        recording.append(start.clone());
        for _ in 0..self.options.max_iterations {
            recording.append(iteration.clone());
        }
        recording.append(self.close.clone());
        Ok(())
    }

    /// The scalars of a solve, on the device.
    pub(crate) fn state(&self) -> &Slice {
        &self.state
    }
}
