//! Preconditioned conjugate gradients (Hestenes and Stiefel 1952) for a Newton step, with all scalars on the device.

use std::sync::Arc;
use std::time::Instant;

use super::companion::{Beside, Companion, LineStep, read_log};
use super::submissions::{Pace, Submissions};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, PendingRead, Recorder, Recording, Slice};
use crate::kernels::cg::{self, STATE_ELEMENTS, State};
use crate::objective::Quadratic;
use crate::vector::Vector;

/// Iterations before the host's first look: Martens' test needs more than ten.
const FIRST: usize = 11;
/// Iterations from one look to the next. Two products keep a device busy for longer than the host needs to look, and are little to waste: when a stop
/// is seen, the next ones are queued already, so at most four iterations (and those before the first look) come after it.
const LATER: usize = 2;

/// Radii of a trust region whose squares are well inside f32.
const RADII: std::ops::RangeInclusive<f32> = 1e-15..=1e15;
/// Most iterations, and the longest window over which progress is measured.
const MOST_ITERATIONS: usize = 100_000;

/// A symmetric linear operator `C` on parameter space: replaying `multiply` writes `C input` to `output`.
#[derive(Clone, Debug)]
pub struct Operator {
    /// `v`; the solver writes its directions here.
    pub input: Vector,
    /// `C v`.
    pub output: Vector,
    /// The product.
    pub multiply: Recording,
}

impl From<&Quadratic> for Operator {
    fn from(quadratic: &Quadratic) -> Self {
        Self {
            input: quadratic.direction.clone(),
            output: quadratic.product.clone(),
            multiply: quadratic.multiply.clone(),
        }
    }
}

/// Why a solve ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stop {
    /// The model fell by too little over the last iterations (Martens 2010, section 4.4).
    RelativeProgress,
    /// The residual is small enough.
    Residual,
    /// A direction of curvature zero or below. Without a trust region the last iterate before it is the result; with one, the point where that
    /// direction meets the boundary.
    NegativeCurvature,
    /// The boundary of the trust region.
    Boundary,
    /// The cap on iterations.
    MaxIterations,
    /// A number overflowed; the result is the last iterate whose numbers were finite.
    NotFinite,
}

/// Settings of a solve.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CgOptions {
    /// Cap on iterations. Default 250.
    pub max_iterations: usize,
    /// Stop when `|r| <= residual_tolerance |g|`. Default 1e-5, about what f32 can reach.
    pub residual_tolerance: f32,
    /// Martens' epsilon: stop when the model fell by less than `k epsilon` of its value over the last `k = max(min_window, i/10)` iterations.
    /// 0 switches the test off. Default 5e-4.
    pub progress_tolerance: f32,
    /// Smallest `k` of that test. Default 10.
    pub min_window: usize,
    /// How many iterations go into one submission. It changes no number and no decision. Default [`Submissions::default`].
    pub submissions: Submissions,
}

impl Default for CgOptions {
    fn default() -> Self {
        Self {
            max_iterations: 250,
            residual_tolerance: 1e-5,
            progress_tolerance: 5e-4,
            min_window: 10,
            submissions: Submissions::default(),
        }
    }
}

impl CgOptions {
    /// Sets how many iterations go into one submission.
    #[must_use]
    pub fn with_submissions(mut self, value: Submissions) -> Self {
        self.submissions = value;
        self
    }

    /// Sets the cap on iterations.
    #[must_use]
    pub fn with_max_iterations(mut self, value: usize) -> Self {
        self.max_iterations = value;
        self
    }

    /// Sets the residual tolerance.
    #[must_use]
    pub fn with_residual_tolerance(mut self, value: f32) -> Self {
        self.residual_tolerance = value;
        self
    }

    /// Sets Martens' epsilon; 0 switches the test off.
    #[must_use]
    pub fn with_progress_tolerance(mut self, value: f32) -> Self {
        self.progress_tolerance = value;
        self
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |option: &str, message: String| {
            Err(Error::Option {
                option: option.into(),
                message,
            })
        };
        if self.max_iterations == 0 || self.max_iterations > MOST_ITERATIONS {
            return bad(
                "cg max_iterations",
                format!("{} is not in 1..=100000", self.max_iterations),
            );
        }
        if self.min_window == 0 || self.min_window > MOST_ITERATIONS {
            return bad(
                "cg min_window",
                format!("{} is not in 1..=100000", self.min_window),
            );
        }
        for (name, value) in [
            ("cg residual_tolerance", self.residual_tolerance),
            ("cg progress_tolerance", self.progress_tolerance),
        ] {
            if !(0.0..1.0).contains(&value) {
                return bad(name, format!("{value} is not in 0..1"));
            }
        }
        self.submissions.validate()
    }
}

/// How a solve went.
#[derive(Clone, Debug, PartialEq)]
pub struct CgReport {
    /// Why it ended.
    pub stop: Stop,
    /// Iterations that counted: products with `C` whose result was used.
    pub iterations: usize,
    /// Products computed, also those after the stop that nobody needed and the one for a warm start.
    pub products: usize,
    /// Value of the damped model `g.x + x.(C + shift) x / 2` at the start and after each iteration.
    pub model: Vec<f64>,
    /// `|g|`; not a number where the gradient is not finite.
    pub gradient_norm: f64,
    /// `|r| / |g|` at the end.
    pub relative_residual: f32,
    /// Curvature of the last direction as it is in [`ConjugateGradients::last_direction`], `p.(C + shift) p`.
    pub curvature: f32,
    /// The companion's model at the start: zero unless that is warm.
    pub companion_start: f64,
    /// What a companion found along each direction, that at which the solve stopped included; empty without one.
    pub companion: Vec<LineStep>,
}

impl CgReport {
    /// The companion's model `g'.x + x.(C' + shift) x / 2` at the start and after each of its steps.
    pub fn companion_model(&self) -> Vec<f64> {
        let mut value = self.companion_start;
        let mut model = vec![value];
        for step in &self.companion {
            value += step.length * (step.slope + 0.5 * step.length * step.curvature);
            model.push(value);
        }
        model
    }
}

/// What a solve is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System {
    pub(crate) shift: f32,
    pub(crate) radius: Option<f32>,
    pub(crate) warm: bool,
}

/// What is to be computed from the solution, in the submission that ends the solve.
pub(crate) trait Afterword {
    /// Gets ready for a solve that ends after iteration `end`. Where it goes along with the last iterations that is presumed: the solve may have
    /// ended before.
    fn prepare(&mut self, end: usize) -> Result<()>;
    /// Records it.
    fn record(&self, recorder: &mut Recorder<'_>);
    /// What it wants to read.
    fn reads(&self) -> Vec<&Slice>;
}

/// No afterword.
struct Nothing;

impl Afterword for Nothing {
    fn prepare(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn record(&self, _: &mut Recorder<'_>) {}

    fn reads(&self) -> Vec<&Slice> {
        Vec::new()
    }
}

/// The report in a state, if the solve has stopped; `read` begins with the state.
fn report(read: &[Vec<f32>], products: usize) -> Option<CgReport> {
    let (fixed, model) = read.first()?.split_at_checked(STATE_ELEMENTS)?;
    let state: State = bytemuck::pod_read_unaligned(bytemuck::cast_slice(fixed));
    let last = state.next;
    let stop = match last.stop {
        1 => Stop::RelativeProgress,
        2 => Stop::Residual,
        3 => Stop::NegativeCurvature,
        4 => Stop::Boundary,
        5 => Stop::MaxIterations,
        6 => Stop::NotFinite,
        _ => return None,
    };
    let iterations = last.iterations as usize;
    let unit = cg::unit(state.largest);
    let finite = f32::from_bits(state.largest).is_finite();
    let (companion_start, companion) = read
        .get(1)
        .map_or((0.0, Vec::new()), |log| read_log(log, iterations));
    // Along directions that start as -M^-1 g, not in units of it.
    let companion = companion
        .into_iter()
        .map(|step| LineStep {
            slope: step.slope * unit,
            curvature: step.curvature * unit * unit,
            length: step.length / unit,
        })
        .collect();
    Some(CgReport {
        stop,
        iterations,
        products,
        model: model[..=iterations.min(model.len() - 1)]
            .iter()
            .map(|&phi| f64::from(phi) * unit * unit)
            .collect(),
        gradient_norm: if finite {
            unit * f64::from(last.gg).sqrt()
        } else {
            f64::NAN
        },
        relative_residual: if last.gg > 0.0 {
            (last.rr / last.gg).sqrt()
        } else {
            0.0
        },
        curvature: last.curvature,
        companion_start,
        companion,
    })
}

/// A solver of `(C + shift) x = -g` with buffers and recordings for one operator; made once, run often.
#[derive(Debug)]
pub struct ConjugateGradients {
    gpu: Gpu,
    options: CgOptions,
    state: Slice,
    /// Log of a companion.
    log: Option<Slice>,
    /// The solution, that of the companion where there is one; also the first iterate of a warm start.
    pub solution: Vector,
    input: Vector,
    cold_start: Recording,
    warm_start: Recording,
    iteration: Recording,
    close: Recording,
    /// Iterates kept, with the number of the iteration after which each was copied.
    stored: Vec<(usize, Vector)>,
    stores: Vec<Recording>,
    /// Time of an iteration.
    pace: Pace,
}

impl ConjugateGradients {
    /// Whether a device can run conjugate gradients: its kernels need up to eight storage buffers, which is WebGPU's default. Asks before anything is made.
    ///
    /// # Errors
    /// [`Error::OverLimit`] naming the kernel and the limit.
    pub fn check(gpu: &Gpu) -> Result<()> {
        cg::check(gpu)
    }

    /// Prepares solves with `operator` and right-hand side `-gradient`. `inverse` holds the inverse diagonal of a preconditioner.
    /// The iterates after the iterations in `keep` (ascending) are kept in vectors of their own.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Length`] for vectors of different layouts, [`Error::OverLimit`] on a device that grants too little,
    /// [`Error::OutOfMemory`].
    pub fn new(
        gpu: &Gpu,
        operator: &Operator,
        gradient: &Vector,
        inverse: Option<&Vector>,
        options: &CgOptions,
        keep: &[usize],
    ) -> Result<Self> {
        Self::with_companion(gpu, operator, gradient, inverse, options, keep, None)
    }

    /// As [`new`](Self::new), with a companion that chooses the steps along the directions: two recurrences in one pass, and no further readbacks.
    ///
    /// The companion's first direction and its iterates start where those of conjugate gradients do. It goes `-d.r' / d.(C' + shift) d` along each
    /// direction `d` of the other, and not at all where that curvature is not positive; with the same quadratic on both sides these are the iterates of
    /// conjugate gradients. A solve ends where conjugate gradients on the first quadratic end; the last direction counts for the companion even where
    /// they stop at it.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Unsupported`] for a companion that has only the gradient, or only the product, of the directions' quadratic.
    pub fn with_companion(
        gpu: &Gpu,
        operator: &Operator,
        gradient: &Vector,
        inverse: Option<&Vector>,
        options: &CgOptions,
        keep: &[usize],
        companion: Option<&Companion>,
    ) -> Result<Self> {
        options.validate()?;
        Self::check(gpu)?;
        let layout: &Arc<_> = gradient.layout();
        let (solution, residual) = (
            Vector::new(gpu, "CG solution", layout)?,
            Vector::new(gpu, "CG residual", layout)?,
        );
        let state = gpu.buffer("CG state", STATE_ELEMENTS + options.max_iterations + 1)?;
        let partials = gpu.buffer("CG partial sums", cg::partial_elements(gpu, layout.len()))?;
        let on = cg::Operands {
            state: &state,
            partials: &partials,
            x: solution.slice(),
            r: residual.slice(),
            p: operator.input.slice(),
            q: operator.output.slice(),
            g: gradient.slice(),
            inverse: inverse.map(Vector::slice),
        };
        let mut cold_start = Recording::new();
        cg::start(gpu, &mut cold_start, &on, false)?;
        if let Some(companion) = companion
            && companion.gradient.is_same(gradient) != companion.product.is_same(&operator.output)
        {
            return Err(Error::Unsupported {
                what: "a companion with slopes of one quadratic and curvatures of another".into(),
                message: "that is worse than no companion; give gradient and product of the same examples".into(),
            });
        }
        let beside = match companion {
            None => None,
            Some(companion) => Some(Beside::new(gpu, companion, options)?),
        };
        let mut warm_start = Recording::new();
        if let Some(beside) = &beside {
            // The start has just made the solution zero.
            beside.record_cold_start(&mut cold_start, &solution)?;
            warm_start.copy(beside.solution.slice(), solution.slice())?;
        }
        warm_start.copy(solution.slice(), operator.input.slice())?;
        warm_start.append(operator.multiply.clone());
        if let Some(beside) = &beside {
            beside.record_warm_start(gpu, &mut warm_start, &state)?;
        }
        cg::start(gpu, &mut warm_start, &on, true)?;
        let mut iteration = operator.multiply.clone();
        if let Some(beside) = &beside {
            beside.record_step(gpu, &mut iteration, &on)?;
        }
        cg::iteration(gpu, &mut iteration, &on)?;
        let (log, solution) = match beside {
            None => (None, solution.clone()),
            Some(beside) => (Some(beside.log), beside.solution),
        };
        let mut close = Recording::new();
        cg::close(gpu, &mut close, &on)?;
        let mut stored = Vec::new();
        let mut stores = Vec::new();
        for &after in keep
            .iter()
            .filter(|&&after| after <= options.max_iterations)
        {
            let vector = Vector::new(gpu, "CG iterate", layout)?;
            let mut store = Recording::new();
            store.copy(solution.slice(), vector.slice())?;
            stored.push((after, vector));
            stores.push(store);
        }
        let input = operator.input.clone();
        Ok(Self {
            gpu: gpu.clone(),
            options: options.clone(),
            state,
            log,
            solution,
            input,
            cold_start,
            warm_start,
            iteration,
            close,
            stored,
            stores,
            pace: Pace::new(options.submissions),
        })
    }

    /// Solves with `shift` added to the diagonal; from `solution` if `warm`, else from zero. With a `radius`, stays in the trust region
    /// `|x| <= radius` (Steihaug 1983; the norm is that of the preconditioner), which needs a start from zero.
    ///
    /// `before` is replayed first in the same submission, for what the operator and right-hand side depend on.
    ///
    /// The host first looks after up to 11 iterations. Longer solves go on in twos, and the host looks at the end of two while the next ones are queued.
    /// How many iterations go into one submission is decided by [`CgOptions::submissions`].
    ///
    /// # Errors
    /// [`Error::Option`] for a shift or radius out of range, or loss of the device.
    pub fn solve(
        &self,
        before: &Recording,
        shift: f32,
        radius: Option<f32>,
        warm: bool,
    ) -> Result<CgReport> {
        let system = System {
            shift,
            radius,
            warm,
        };
        self.solve_after(system, |recorder| recorder.replay(before))
    }

    /// As [`solve`](Self::solve), with what `before` records.
    pub(crate) fn solve_after(
        &self,
        system: System,
        before: impl FnMut(&mut Recorder<'_>),
    ) -> Result<CgReport> {
        Ok(self.run(system, before, None::<&mut Nothing>)?.0)
    }

    /// As [`solve`](Self::solve), with what `before` records, and with an afterword in the one blocking readback that ends it. Gives what the
    /// afterword reads.
    pub(crate) fn solve_and<A: Afterword>(
        &self,
        system: System,
        before: impl FnMut(&mut Recorder<'_>),
        afterword: &mut A,
    ) -> Result<(CgReport, Vec<Vec<f32>>)> {
        self.run(system, before, Some(afterword))
    }

    fn run<A: Afterword>(
        &self,
        system: System,
        mut before: impl FnMut(&mut Recorder<'_>),
        mut afterword: Option<&mut A>,
    ) -> Result<(CgReport, Vec<Vec<f32>>)> {
        let most = self.options.max_iterations;
        self.prepare(&system)?;
        let mut submitted = 0usize;
        let mut older: Option<PendingRead> = None;
        let (start, mut before_look) = (Instant::now(), 0);
        loop {
            let round = match (self.options.submissions, submitted) {
                (Submissions::Fixed(count), _) => count,
                (Submissions::Timed(_), 0) => FIRST,
                (Submissions::Timed(_), _) => LATER,
            };
            let until = submitted.saturating_add(round).min(most);
            let last = until == most;
            let mut reads = vec![&self.state];
            reads.extend(&self.log);
            let own = reads.len();
            if let (true, Some(afterword)) = (last, &mut afterword) {
                afterword.prepare(most)?;
            }
            let joined = afterword.as_deref().filter(|_| last);
            if let Some(afterword) = joined {
                reads.extend(afterword.reads());
            }
            let mut begin = |recorder: &mut Recorder<'_>, first: usize| {
                if first == 0 {
                    before(recorder);
                    recorder.replay(if system.warm {
                        &self.warm_start
                    } else {
                        &self.cold_start
                    });
                }
            };
            // All submissions of a round but the last one, which is looked at.
            let each = self.pace.at_once(round);
            while until - submitted > each {
                self.gpu.submit(|recorder| {
                    begin(recorder, submitted);
                    self.iterate(recorder, submitted + 1..=submitted + each);
                })?;
                submitted += each;
            }
            let pending = self.gpu.submit_and_read_later(
                |recorder| {
                    begin(recorder, submitted);
                    self.iterate(recorder, submitted + 1..=until);
                    recorder.replay(&self.close);
                    if let Some(afterword) = joined {
                        afterword.record(recorder);
                    }
                    Ok(())
                },
                &reads,
            )?;
            submitted = until;
            let products = submitted + usize::from(system.warm);
            let looked = match older.take() {
                None => None,
                Some(look) => {
                    let read = look.wait()?;
                    self.pace.measured(start.elapsed(), before_look);
                    report(&read, products)
                }
            };
            if let Some(report) = looked {
                // What was queued meanwhile changes nothing, but may hold the afterword.
                let read = match &mut afterword {
                    None => Vec::new(),
                    Some(_) if last => pending.wait()?.split_off(own),
                    Some(afterword) => {
                        afterword.prepare(report.iterations)?;
                        self.gpu.submit_and_read(
                            |recorder| {
                                afterword.record(recorder);
                                Ok(())
                            },
                            &afterword.reads(),
                        )?
                    }
                };
                return Ok((report, read));
            }
            if last {
                let mut read = pending.wait()?;
                self.pace.measured(start.elapsed(), until);
                let extra = read.split_off(own);
                // At the cap the device always has a reason to stop.
                let report = report(&read, products).ok_or_else(|| Error::Gpu {
                    what: "conjugate gradients".into(),
                    message: "the device left no reason for its stop".into(),
                })?;
                return Ok((report, extra));
            }
            (older, before_look) = (Some(pending), until);
        }
    }

    /// Checks the system and uploads a new state.
    fn prepare(&self, system: &System) -> Result<()> {
        let &System {
            shift,
            radius,
            warm,
        } = system;
        if !shift.is_finite() || shift < 0.0 {
            return Err(Error::Option {
                option: "CG shift".into(),
                message: format!("{shift} is negative or not finite"),
            });
        }
        if let Some(radius) = radius
            && (warm || self.log.is_some() || !RADII.contains(&radius))
        {
            let message = format!(
                "radius {radius} with warm start {warm}: needs a radius in 1e-15..=1e15, a start from zero, and no companion"
            );
            return Err(Error::Option {
                option: "trust region".into(),
                message,
            });
        }
        let options = &self.options;
        let state = State {
            max_iterations: options.max_iterations as u32,
            min_window: options.min_window as u32,
            shift,
            residual_tolerance: options.residual_tolerance,
            progress_tolerance: options.progress_tolerance,
            radius: radius.unwrap_or(0.0),
            ..State::default()
        };
        self.gpu.upload(&self.state, 0, bytemuck::bytes_of(&state))
    }

    /// Iterations of one submission, with copies of the iterates to keep.
    fn iterate(&self, recorder: &mut Recorder<'_>, numbers: std::ops::RangeInclusive<usize>) {
        for number in numbers {
            recorder.replay(&self.iteration);
            if let Some(at) = self.stored.iter().position(|(after, _)| *after == number) {
                recorder.replay(&self.stores[at]);
            }
        }
    }

    /// One iteration, its product included: what a submission repeats. After the product come one kernel for vectors that one workgroup manages, two
    /// for longer ones.
    pub fn iteration(&self) -> &Recording {
        &self.iteration
    }

    /// The kept iterates of the last solve: number of the iteration and vector, ascending; only those before its end.
    pub fn kept(&self, report: &CgReport) -> impl DoubleEndedIterator<Item = (usize, &Vector)> {
        self.kept_before(report.iterations)
    }

    /// The kept iterates of a solve that ends after iteration `end`.
    pub(crate) fn kept_before(
        &self,
        end: usize,
    ) -> impl DoubleEndedIterator<Item = (usize, &Vector)> {
        self.stored
            .iter()
            .filter(move |(after, _)| *after < end)
            .map(|(after, vector)| (*after, vector))
    }

    /// The direction of negative curvature after [`Stop::NegativeCurvature`]; after other stops, one that was or would have been next. Its length has no
    /// meaning: directions are kept in units of the power of two at or below the gradient's largest element, in which their squares are finite.
    pub fn last_direction(&self) -> &Vector {
        &self.input
    }
}

#[cfg(test)]
mod tests {
    use super::CgOptions;

    #[test]
    fn options_out_of_range_are_named() {
        let refused = CgOptions::default().with_max_iterations(0).validate();
        let error = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("max_iterations"), "{error}");
        assert!(
            CgOptions::default()
                .with_residual_tolerance(f32::NAN)
                .validate()
                .is_err()
        );
        assert!(CgOptions::default().validate().is_ok());
    }
}
