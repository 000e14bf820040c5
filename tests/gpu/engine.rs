//! What a step leaves behind that fails or is refused, and what optimizers keep.

use std::sync::{Arc, Weak};

use crate::harness::wrapped::{Change, Wrapped};
use crate::harness::{self, GpuTest, Outcome, small};
use crate::reference::batch_for;
use osculant::Result;
use osculant::data::Batch;
use osculant::gpu::{Gpu, Slice};
use osculant::linalg::EigenOptions;
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, Gradient, GradientRequest, GraphObjective, GroupedQuadratic, Loaded, Losses,
    Objective, Parts, Quadratic, QuadraticRequest, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, Base, DebiasedSgd, DebiasedSgdOptions, DecoupledNewtonCg, DecoupledOptions,
    Lbfgs, LbfgsOptions, LowRankSaddleFreeNewton, LrsfnOptions, Muon, MuonOptions, NewtonCg,
    NewtonCgOptions, Optimizer, OptimizerState, Preconditioner, RankRule, Schedule, Sgd,
    SgdOptions, Shampoo, ShampooOptions, Soap, SoapOptions, Strategy,
};
use osculant::vector::{Layout, Vector};

/// Of how many operations one fails where long trials were not asked for: each method begins at another, so that all kinds are met.
const STRIDE: u64 = 7;

/// Methods that take every step, and one whose line search looks at losses of its own.
const WITHOUT_A_JUDGE: [&str; 7] = [
    "sgd",
    "adam",
    "debiased sgd",
    "muon",
    "soap",
    "shampoo",
    "lbfgs",
];

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        a_failed_step_changes_nothing,
        a_refused_step_changes_the_damping,
        a_batch_that_overflows_is_refused,
        a_gradient_that_is_no_number_is_named,
        damaged_and_foreign_states_are_refused,
        programs_of_sizes_long_gone_are_forgotten,
        batches_of_other_sizes_share_kernels,
        programs_go_with_their_vector,
    ]
}

pub(crate) fn classifier() -> Model {
    let shape = DataShape {
        features: 4,
        targets: TargetShape::Classes(3),
    };
    Sequential::new()
        .dense(5)
        .activation(Activation::Tanh)
        .dense(3)
        .model(shape, Loss::SoftmaxCrossEntropy)
}

pub(crate) type Boxed<O> = Box<dyn Optimizer<O>>;

fn rough(rank: usize) -> EigenOptions {
    EigenOptions::default().with_rank(rank)
}

/// Every method, and every kind of thing that one remembers.
pub(crate) fn methods<O: Parts>() -> Result<Vec<(&'static str, Boxed<O>)>> {
    let newton = NewtonCgOptions::default;
    let decoupled = DecoupledOptions::default;
    let lrsfn = || LrsfnOptions::default().with_eigen(rough(3));
    let fisher = Preconditioner::EmpiricalFisher { exponent: 0.75 };
    let noise = RankRule::Noise {
        least: 0.1,
        parts: 2,
    };
    // One side of the first weight has no factor.
    let soap = SoapOptions::default().with_interval(2).with_largest(4);
    let shampoo = ShampooOptions::default().with_interval(2);
    let lbfgs = LbfgsOptions::default().with_history(2);
    let lr = |options: LrsfnOptions| LowRankSaddleFreeNewton::new(options);
    Ok(vec![
        ("sgd", Box::new(Sgd::new(SgdOptions::default())?)),
        ("adam", Box::new(Adam::new(AdamOptions::default())?)),
        ("muon", Box::new(Muon::new(MuonOptions::default())?)),
        ("soap", Box::new(Soap::new(soap)?)),
        ("shampoo", Box::new(Shampoo::new(shampoo)?)),
        ("lbfgs", Box::new(Lbfgs::new(lbfgs)?)),
        ("newton-cg", Box::new(NewtonCg::new(newton())?)),
        (
            "hessian",
            Box::new(NewtonCg::new(newton().with_curvature(Curvature::Hessian))?),
        ),
        (
            "fisher",
            Box::new(NewtonCg::new(newton().with_preconditioner(fisher))?),
        ),
        (
            "nystrom",
            Box::new(NewtonCg::new(NewtonCgOptions::nystrom(3, 1))?),
        ),
        ("decoupled", Box::new(DecoupledNewtonCg::new(decoupled())?)),
        (
            "cross-fit, judged apart",
            Box::new(DecoupledNewtonCg::new(
                decoupled()
                    .with_strategy(Strategy::cross_fit(2))
                    .with_acceptance(0.25),
            )?),
        ),
        ("lrsfn", Box::new(lr(lrsfn())?)),
        (
            "lrsfn with Adam and a running average",
            Box::new(lr(lrsfn()
                .with_base(Base::Adam(AdamOptions::default()))
                .with_average(0.5))?),
        ),
        (
            "cross-fit lrsfn",
            Box::new(lr(lrsfn()
                .with_strategy(Strategy::cross_fit(2))
                .with_acceptance(0.25))?),
        ),
        (
            "decoupled lrsfn with a rank by noise",
            Box::new(lr(lrsfn()
                .with_strategy(Strategy::decoupled())
                .with_rank_rule(noise))?),
        ),
        (
            "debiased sgd",
            Box::new(DebiasedSgd::new(
                DebiasedSgdOptions::default().with_strategy(Strategy::cross_fit(2)),
            )?),
        ),
    ])
}

/// Parameters and state, to the bit.
pub(crate) fn memory<O: Parts>(
    objective: &O,
    method: &Boxed<O>,
    theta: &Vector,
) -> Result<(Vec<Vec<u32>>, OptimizerState)> {
    let bits = |tensor: &Vec<f32>| tensor.iter().map(|x| x.to_bits()).collect();
    let theta = theta.read(objective.gpu())?.iter().map(bits).collect();
    Ok((theta, method.state(objective)?))
}

/// Lets every operation of a step fail, one after another (every [`STRIDE`]th, from another one for each method, unless long trials were
/// asked for): parameters and state are what they were each time, and the step that goes well in the end has the bits of one that nothing
/// came before.
fn a_failed_step_changes_nothing(gpu: &Gpu) -> Outcome {
    // A device of its own: other trials work with the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    let model = classifier();
    // The last batch has another size, so that programs are compiled in the step that fails.
    let batches = [16, 16, 24].map(|rows| batch_for(&model, rows, rows as u64));
    let [mut ours, mut theirs] = [methods()?, methods()?];
    for (_, method) in ours.iter_mut().chain(&mut theirs) {
        // What belongs to a run is part of the state, too.
        let course = method.course_mut();
        course.set_schedule(Schedule::Linear { last: 0.5 }, 10)?;
        course.set_averaging(0.75)?;
    }
    let stride = if harness::long() { 1 } else { STRIDE };
    for (nth, ((name, method), (_, twin))) in (0..).zip(ours.iter_mut().zip(&mut theirs)) {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(1)?;
        for batch in &batches[..2] {
            method.step(&mut objective, &theta, batch)?;
        }
        let before = memory(&objective, method, &theta)?;
        let start = std::time::Instant::now();
        let mut failures = nth % stride;
        loop {
            gpu.fail_after(Some(failures));
            let result = method.step(&mut objective, &theta, &batches[2]);
            let reached = !gpu.fails_later();
            gpu.fail_after(None);
            if !reached {
                result?;
                break;
            }
            if let Ok(report) = result {
                return Err(
                    format!("{name}: operation {failures} failed unseen, {report:?}").into(),
                );
            }
            let after = memory(&objective, method, &theta)?;
            if after != before {
                let what = if after.0 == before.0 {
                    "state"
                } else {
                    "parameters"
                };
                return Err(
                    format!("{name}: other {what} after operation {failures} failed").into(),
                );
            }
            failures += stride;
        }
        if std::env::var_os("OSCULANT_TEST_FIGURES").is_some() {
            eprintln!("{name}: {failures} operations, {:?}", start.elapsed());
        }
        if failures < 5 {
            return Err(format!("{name}: only {failures} operations").into());
        }
        let mut other = GraphObjective::new(gpu, model.clone())?;
        let at = other.initial_parameters(1)?;
        for batch in &batches {
            twin.step(&mut other, &at, batch)?;
        }
        if memory(&objective, method, &theta)? != memory(&other, twin, &at)? {
            return Err(format!("{name}: other bits after {failures} failures").into());
        }
    }
    Ok(())
}

/// Losses that get worse wherever one goes: what the results are at every point but the base.
struct Worse(Slice);

impl Worse {
    fn losses(&self, losses: &mut Option<Losses>) -> Result<()> {
        match losses {
            None => Ok(()),
            Some(losses) => losses.at_point.tail().copy(&self.0, &losses.results),
        }
    }
}

impl Change for Worse {
    fn gradient(&self, program: &mut Gradient) -> Result<()> {
        self.losses(&mut program.losses)
    }

    fn quadratic(&self, program: &mut Quadratic) -> Result<()> {
        self.losses(&mut program.losses)
    }

    fn grouped(&self, program: &mut GroupedQuadratic) -> Result<()> {
        self.losses(&mut program.losses)
    }
}

/// An objective with losses that change by so much.
fn pessimist(gpu: &Gpu, model: Model, change: f32) -> Result<Wrapped<Worse>> {
    let results = gpu.buffer("worse", 3)?;
    gpu.upload(&results, 0, &[1.0 + change, change, 0.0])?;
    Wrapped::new(gpu, model, Worse(results))
}

fn a_refused_step_changes_the_damping(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let batches = [16, 16, 24].map(|rows| batch_for(&model, rows, rows as u64));
    for change in [1.0, f32::INFINITY, f32::NAN] {
        for (name, mut method) in methods()? {
            if WITHOUT_A_JUDGE.contains(&name) {
                continue;
            }
            let mut objective = pessimist(gpu, model.clone(), change)?;
            let theta = objective.inner.initial_parameters(1)?;
            for batch in &batches {
                let before = memory(&objective, &method, &theta)?;
                let report = method.step(&mut objective, &theta, batch)?;
                let (point, mut state) = memory(&objective, &method, &theta)?;
                assert!(
                    !report.accepted && report.step_norm == 0.0,
                    "{name}: {report:?}"
                );
                assert_eq!(report.loss_after, Some(report.loss_before), "{name}");
                assert_eq!(point, before.0, "{name}: parameters");
                // More damping, or a smaller radius, and nothing else.
                let mut changed = 0;
                for ((what, now), (_, then)) in state.scalars.iter_mut().zip(&before.1.scalars) {
                    let right = match what.as_str() {
                        "damping" => *now > *then,
                        "radius" => *now < *then,
                        _ => continue,
                    };
                    if *now != *then {
                        assert!(right, "{name}: {what} from {then} to {now}");
                        changed += 1;
                        *now = *then;
                    }
                }
                assert_eq!(changed, 1, "{name}");
                // A method that has made no step yet remembers zeros, or nothing.
                if before.1.vectors.len() == state.vectors.len() {
                    assert_eq!(state, before.1, "{name}: state");
                }
            }
        }
    }
    Ok(())
}

/// What of a state can be damaged: each number and each vector, in turn.
fn damaged(state: &OptimizerState) -> Vec<(String, OptimizerState)> {
    let mut all = Vec::new();
    for at in 0..state.scalars.len() {
        let name = state.scalars[at].0.clone();
        let mut numbers = vec![f64::NAN, f64::INFINITY];
        // Products of two pairs have any sign.
        let is_product = name.starts_with("lbfgs_sy") || name.starts_with("lbfgs_yy");
        if !name.contains("eigenvalue") && !is_product {
            numbers.push(-1.0);
        }
        for number in numbers {
            let mut other = state.clone();
            other.scalars[at].1 = number;
            all.push((format!("{name} {number}"), other));
        }
        if !name.contains("eigenvalue") && !name.contains("noise") {
            let mut other = state.clone();
            other.scalars.remove(at);
            all.push((format!("no {name}"), other));
        }
    }
    for at in 0..state.vectors.len() {
        let name = state.vectors[at].0.clone();
        let mut other = state.clone();
        other.vectors[at].1[0][0] = f32::NAN;
        all.push((format!("NaN in {name}"), other));
        let mut other = state.clone();
        other.vectors[at].1[0].pop();
        all.push((format!("short {name}"), other));
        let mut other = state.clone();
        other.vectors[at].1.pop();
        all.push((format!("fewer tensors of {name}"), other));
        let mut other = state.clone();
        other.vectors.remove(at);
        all.push((format!("no {name}"), other));
    }
    all
}

fn damaged_and_foreign_states_are_refused(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let theta = objective.initial_parameters(1)?;
    let mut all = methods()?;
    let mut states = Vec::new();
    for (name, method) in &mut all {
        // A method whose steps were all refused remembers as little as one that has made none.
        let mut steps = 0;
        for seed in 0..50 {
            let batch = batch_for(&model, 24, seed);
            steps += usize::from(method.step(&mut objective, &theta, &batch)?.accepted);
            if steps == 2 {
                break;
            }
        }
        if steps < 2 {
            return Err(format!("{name}: no steps").into());
        }
        states.push((*name, method.state(&objective)?));
    }
    // Those whose states say the same things.
    let family = |name: &str| match name {
        "newton-cg" | "hessian" | "fisher" => "newton-cg",
        "decoupled" | "cross-fit, judged apart" => "decoupled",
        _ if name.contains("lrsfn") && !name.contains("Adam") && !name.contains("cross") => "lrsfn",
        _ => "",
    };
    for ((name, method), (_, own)) in all.iter_mut().zip(states.clone()) {
        let mut bad = damaged(&own);
        for (other, state) in &states {
            if other != name && (family(name).is_empty() || family(name) != family(other)) {
                bad.push((format!("state of {other}"), state.clone()));
            }
        }
        for (what, state) in bad {
            if method.restore(&objective, &state).is_ok() {
                return Err(format!("{name}: {what} was taken").into());
            }
            assert_eq!(method.state(&objective)?, own, "{name}: {what}");
        }
        method.restore(&objective, &own)?;
        assert_eq!(method.state(&objective)?, own, "{name}");
    }
    Ok(())
}

/// A batch whose curvature products overflow, though loss and gradient are finite.
fn a_batch_that_overflows_is_refused(gpu: &Gpu) -> Outcome {
    let shape = DataShape {
        features: 2,
        targets: TargetShape::Inputs,
    };
    // z = s x with s = 1e20 a at x = 1e-22: losses of 1e-4 a^2, slopes of 2e18 a^2, curvatures of 2e40 a^2, which f32 does not hold.
    let model = Model::new(shape, |scope| {
        let x = scope.parameter("x", &[1, 2], Init::Constant(1e-22));
        let z = scope.features() * 1e20 * x;
        let losses = z.square().sum(&[1]).reshape(&[scope.rows()]);
        Output {
            losses,
            outputs: z,
            metric: None,
        }
    });
    let batch = |scale: f32| Batch {
        features: (0..16).map(|i| scale * (1.0 + i as f32 / 16.0)).collect(),
        targets: osculant::data::Targets::Inputs,
        weights: vec![0.125; 8],
    };
    for (name, mut method) in methods()? {
        if WITHOUT_A_JUDGE.contains(&name) {
            continue;
        }
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(0)?;
        let before = theta.read(gpu)?;
        let state = method.state(&objective)?;
        let outcome = method.step(&mut objective, &theta, &batch(1.0));
        let same = theta.read(gpu)? == before;
        let now = method.state(&objective)?;
        let of = |state: &OptimizerState, name: &str| state.scalar(name).unwrap_or(f64::NAN);
        let smaller = of(&now, "radius") < of(&state, "radius");
        let trusts_less = smaller || of(&now, "damping") > of(&state, "damping");
        match outcome {
            Ok(report) if !report.accepted && same && trusts_less => {}
            // Its preconditioner divides by the squares of the slopes.
            Ok(report) if name == "fisher" && report.loss_after < Some(report.loss_before) => {}
            Err(osculant::Error::NotFinite { .. }) if same => {
                return Err(format!("{name}: a dead end").into());
            }
            other => return Err(format!("{name}: {other:?}, same {same}").into()),
        }
        // And it goes on.
        method.step(&mut objective, &theta, &batch(1e-19))?;
    }
    Ok(())
}

/// Where the gradient is no number, the advice is about data and parameters, not about scale or damping, also where the node cannot be
/// found.
fn a_gradient_that_is_no_number_is_named(gpu: &Gpu) -> Outcome {
    let shape = DataShape {
        features: 1,
        targets: TargetShape::Inputs,
    };
    // sqrt(|x|)^2 at 0: the loss is 0, its slope 0 / 0.
    let model = Model::new(shape, |scope| {
        let x = scope.parameter("x", &[1, 1], Init::Constant(0.0));
        let z = (scope.features() * x.square()).sqrt();
        Output {
            losses: z.sum(&[1]).reshape(&[scope.rows()]),
            outputs: z,
            metric: None,
        }
    });
    let batch = batch_for(&model, 8, 1);
    let batch = Batch {
        features: batch.features.iter().map(|x| x.abs() + 1.0).collect(),
        ..batch
    };
    for (name, mut method) in methods()? {
        // The model has no Fisher diagonal, which wants sums over the batch.
        if WITHOUT_A_JUDGE.contains(&name) || name == "fisher" {
            continue;
        }
        let mut objective = pessimist(gpu, model.clone(), 1.0)?;
        let theta = objective.inner.initial_parameters(0)?;
        match method.step(&mut objective, &theta, &batch) {
            Err(error) if error.to_string().contains("gradient is") => {}
            other => return Err(format!("{name}: {other:?}").into()),
        }
    }
    Ok(())
}

/// An objective whose programs are said to be large, and which itself keeps none.
struct Heavy {
    inner: GraphObjective,
    made: Vec<Weak<Gradient>>,
}

impl Objective for Heavy {
    type Batch = Batch;

    fn gpu(&self) -> &Gpu {
        self.inner.gpu()
    }

    fn layout(&self) -> &Arc<Layout> {
        self.inner.layout()
    }

    fn load(&mut self, slot: Slot, batch: &Batch) -> Result<Loaded> {
        self.inner.load(slot, batch)
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        let known = self.made.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.into_iter().find(|g| g.loaded == *loaded) {
            return Ok(known);
        }
        let mut made = Gradient::clone(&*self.inner.gradient(at, loaded, request)?);
        made.cost.bytes = 400 << 20;
        let made = Arc::new(made);
        self.made.push(Arc::downgrade(&made));
        Ok(made)
    }
}

/// An optimizer does not hold on to programs that take more than its budget of a GiB.
fn programs_of_sizes_long_gone_are_forgotten(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let mut objective = Heavy {
        inner: GraphObjective::new(gpu, model.clone())?,
        made: Vec::new(),
    };
    let theta = objective.inner.initial_parameters(1)?;
    let mut adam = Adam::new(AdamOptions::default())?;
    for rows in 8..13 {
        adam.step(&mut objective, &theta, &batch_for(&model, rows, 1))?;
    }
    let alive: Vec<bool> = objective
        .made
        .iter()
        .map(|g| g.strong_count() > 0)
        .collect();
    assert_eq!(alive, [false, false, false, true, true]);
    Ok(())
}

/// Kernels read how many rows there are: the first step with a batch of another size compiles nothing, where the size asks for no other
/// family of products.
fn batches_of_other_sizes_share_kernels(gpu: &Gpu) -> Outcome {
    // A device without kernels yet.
    let gpu = &small::device(gpu, gpu.device().features(), gpu.limits().clone())?;
    let model = classifier();
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let theta = objective.initial_parameters(1)?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
    newton.step(&mut objective, &theta, &batch_for(&model, 96, 1))?;
    let before = gpu.pipelines();
    for rows in [100, 112, 128] {
        let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
        newton.step(&mut objective, &theta, &batch_for(&model, rows, 1))?;
    }
    assert!(before > 10);
    assert_eq!(gpu.pipelines() - before, 0);
    Ok(())
}

/// Whoever starts anew with one objective and one optimizer does not pile up what was made for vectors that are gone.
fn programs_go_with_their_vector(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let batch = batch_for(&model, 16, 1);
    let mut objective = GraphObjective::new(gpu, model)?;
    for (name, mut method) in methods()? {
        let theta = objective.initial_parameters(1)?;
        method.step(&mut objective, &theta, &batch)?;
        let loaded = objective.load(Slot::default(), &batch)?;
        let request = GradientRequest::default();
        let gradient = Arc::downgrade(&objective.gradient(&theta, &loaded, request)?);
        let curved = QuadraticRequest {
            curvature: Curvature::GaussNewton,
            losses: true,
            ..QuadraticRequest::default()
        };
        let quadratic = Arc::downgrade(&objective.quadratic(&theta, &loaded, curved)?);
        let another = objective.initial_parameters(2)?;
        method.step(&mut objective, &another, &batch)?;
        if gradient.strong_count() == 0 || quadratic.strong_count() == 0 {
            return Err(format!("{name}: forgotten while the vector is there").into());
        }
        drop(theta);
        method.step(&mut objective, &another, &batch)?;
        if gradient.strong_count() > 0 || quadratic.strong_count() > 0 {
            return Err(format!("{name}: kept without the vector").into());
        }
    }
    Ok(())
}
