//! Recorded steps of Newton-CG.

use super::NewtonCg;
use super::options::{NewtonCgOptions, Preconditioner, RADII};
use super::trust_region::MOST;
use super::workspace::{Memory, Workspace};
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::step::{self, COEFFICIENTS_AT, CONTROL, Control, Rules, decide, take};
use crate::kernels::vector::combine;
use crate::linalg::{Script as Solve, Stop};
use crate::objective::{Curvature, Curved, Loaded, QuadraticRequest};
use crate::optim::control::{control, told};
use crate::optim::judge::AT_ONCE;
use crate::optim::recorded::{Recordable, Recorded, Script, StepOutcome, refuse, without_average};
use crate::optim::report::StepReport;
use crate::optim::saved::missing;
use crate::optim::work::{Work, flops};
use crate::vector::Vector;

/// Lengths of the line search that a recorded step tries.
fn lengths(options: &NewtonCgOptions) -> usize {
    match options.curvature {
        Curvature::GaussNewton => options.max_line_search.min(AT_ONCE),
        _ => 1,
    }
}

/// Coefficients `[1, a]` of the candidates of the next step.
fn coefficients(method: &NewtonCg) -> Vec<f32> {
    let factor = method.course.factor();
    let shrink = method.options.shrink;
    let lengths = (0..AT_ONCE as i32).map(|k| factor * shrink.powi(k));
    lengths.flat_map(|a| [1.0, a as f32]).collect()
}

/// What a step tells, out of what the device has left of it.
fn read(method: &NewtonCg, words: &[u32]) -> (StepOutcome, StepReport) {
    let control = control(words);
    let (outcome, report) = told(&control);
    let (trusts, number) = (method.trusts(), |x: f32| f64::from(x));
    let report = StepReport {
        step_length: (outcome == StepOutcome::Taken).then_some(number(control.factor)),
        damping: (!trusts).then_some(number(control.damping_used)),
        radius: trusts.then_some(number(control.radius_used)),
        cg_iterations: Some(control.iterations as usize),
        cg_stop: Stop::from_code(control.stop),
        ..report
    };
    (outcome, report)
}

/// What the device knows before the first step.
fn first(method: &NewtonCg) -> Control {
    let damping = method.damping as f32;
    // With a trust region there is none.
    let floored = if method.trusts() { 0.0 } else { damping };
    Control {
        damping,
        radius: method.radius as f32,
        floored: floored.max(super::workspace::LEAST_DAMPING),
        steps: method.steps as u32,
        one: 1.0,
        remembers: u32::from(method.has_previous),
        ..Control::default()
    }
}

pub(super) fn rules(options: &NewtonCgOptions) -> Rules {
    let damping = &options.damping;
    Rules {
        candidates: lengths(options),
        trusts: options.curvature == Curvature::Hessian,
        armijo: options.armijo as f32,
        decrease: damping.decrease as f32,
        grow: damping.increase(),
        minimum: damping.minimum as f32,
        radii: [(MOST * options.radius) as f32, *RADII.start() as f32],
    }
}

impl Workspace {
    /// A step: the solve, the candidates, the decision, and what follows from it.
    fn record(
        &mut self,
        gpu: &Gpu,
        commands: &mut Recording,
        options: &NewtonCgOptions,
        (memory, control): (&Memory, &Slice),
    ) -> Result<()> {
        let trusts = options.curvature == Curvature::Hessian;
        let mut before = Recording::new();
        if let Preconditioner::EmpiricalFisher { exponent } = options.preconditioner {
            gpu.upload(&memory.settings, 0, &[0.0, exponent])?;
            before.copy_part(control, step::FLOORED_AT, &memory.settings, 0, 1)?;
        }
        let warm = !trusts && options.warm_start > 0.0;
        if warm {
            // Zeros before the first step was taken, and from zero a warm start is a cold one with a product more.
            gpu.upload(&memory.recall, 0, &[options.warm_start, 0.0])?;
            before.append(self.recall.clone());
        }
        before.append(self.before.recorded()?.clone());
        let at = |place| Some((control, place));
        let solve = Solve {
            shift: at(step::DAMPING_AT).filter(|_| !trusts),
            radius: at(step::RADIUS_AT).filter(|_| trusts),
            warm,
            before: &before,
        };
        self.cg.record(commands, &solve)?;
        let solution = self.cg.solution.clone();
        self.judge
            .record_grid(gpu, commands, &solution, lengths(options))?;
        let evidence = self.judge.evidence(self.cg.state());
        decide(gpu, commands, &rules(options), &evidence, control)?;
        let point = self.judge.point().slice();
        let (theta, v) = (self.theta.slice(), solution.slice());
        let moves = (control, step::MOVES_AT);
        combine(gpu, commands, point, theta, v, (control, COEFFICIENTS_AT))?;
        take(gpu, commands, theta, point, moves)?;
        take(gpu, commands, memory.previous.slice(), v, moves)
    }
}

impl<O: Curved + ?Sized> Recordable<O> for NewtonCg {
    fn recorded(
        mut self,
        objective: &mut O,
        theta: &Vector,
        loaded: &Loaded,
    ) -> Result<Recorded<Self>> {
        without_average(&self)?;
        crate::linalg::ConjugateGradients::check(objective.gpu())?;
        if self.options.preconditioner.refresh().is_some() {
            return Err(refuse("Nystrom and Kronecker preconditioners"));
        }
        let gpu = objective.gpu().clone();
        let options = self.options.clone().with_backtracking(false);
        let fisher = matches!(
            options.preconditioner,
            Preconditioner::EmpiricalFisher { .. }
        );
        let request = QuadraticRequest {
            curvature: options.curvature,
            fisher_diagonal: fisher,
            block: 0,
            losses: true,
        };
        let quadratic = objective.quadratic(theta, loaded, request)?;
        if self.memory.is_none() {
            self.memory = Some(Memory::new(objective, &options)?);
        }
        let begin = first(&self);
        let memory = self.memory.as_mut().ok_or_else(|| missing("memory"))?;
        let programs = (&quadratic, None);
        let mut workspace = Workspace::new(objective, theta, programs, memory, &options)?;
        let state = gpu.buffer("control of recorded steps", CONTROL)?;
        gpu.upload(&state, 0, bytemuck::bytes_of(&begin))?;
        let mut commands = Recording::new();
        commands.hold(Arc::clone(&quadratic) as _);
        commands.hold(Arc::new(theta.clone()));
        let upload = commands.upload(&gpu, workspace.judge.evidence(&state).coefficients)?;
        workspace.record(&gpu, &mut commands, &options, (memory, &state))?;
        let (cost, elements) = (&quadratic.cost, objective.layout().len());
        let warm = options.curvature != Curvature::Hessian && options.warm_start > 0.0;
        let products = options.cg.max_iterations + usize::from(warm);
        let mut work = Work::default();
        if fisher {
            work.gradient_and_fisher_diagonal(cost, loaded);
            work.vectors(flops::diagonal(products, elements));
        } else {
            work.gradient(cost, loaded);
        }
        work.products(products, cost, loaded);
        work.vectors(flops::conjugate_gradients(products, elements));
        let [at_base, at_point] = workspace.judge.costs();
        work.losses(1, &at_base, loaded);
        work.losses(lengths(&options), &at_point, loaded);
        let script = Script {
            commands,
            upload,
            carried: coefficients,
            words: state,
            read,
            work: work.in_report(StepReport::default()),
            count: |method| method.course.advance(true),
            settle: |method, words| {
                let left = control(words);
                (method.damping, method.radius) = (left.damping.into(), left.radius.into());
                method.radius = method.radius.clamp(*RADII.start(), *RADII.end());
                method.has_previous = left.remembers != 0;
                method.steps = left.steps as usize;
            },
        };
        Recorded::new(&gpu, self, script)
    }
}
