//! The kernel that decides beside the host's rules, on cases from both sides of every threshold.

use super::NewtonCgOptions;
use super::options::RADII;
use super::recorded::rules;
use super::trust_region::{accepts, next_radius};
use crate::error::Result;
use crate::gpu::{Gpu, Recording};
use crate::kernels::cg::{STATE_ELEMENTS, State};
use crate::kernels::step::{self, CONTROL, Control, Evidence, decide};
use crate::linalg::Stop;
use crate::objective::Curvature;
use crate::optim::decision::{Ratio, falls_enough};
use crate::random::Philox;
use rand::RngExt;

/// What a solve and a judge have found: of a direction of slope -1, whose model promises a change of -1/2 at its full length.
struct Case {
    damping: f32,
    radius: f32,
    stop: u32,
    changes: [f32; 4],
    error: f32,
    /// `|g|^2` in the unit.
    gradient_square: f32,
}

const UNIT: f32 = 4.0;
const SQUARE: f32 = 0.25;
const LENGTHS: [f32; 4] = [1.0, 0.5, 0.25, 0.125];

/// What the device makes of a case.
fn on_the_device(gpu: &Gpu, options: &NewtonCgOptions, case: &Case) -> Result<Control> {
    let slice = |label: &str, values: &[f32]| -> Result<crate::gpu::Slice> {
        let slice = gpu.buffer(label, values.len())?;
        gpu.upload(&slice, 0, values)?;
        Ok(slice)
    };
    let mut solve = State {
        max_iterations: 3,
        shift: case.damping,
        // An element of the gradient whose power of two is the unit.
        largest: (1.25 * UNIT).to_bits(),
        ..State::default()
    };
    solve.next.stop = case.stop;
    solve.next.iterations = 2;
    solve.next.gg = case.gradient_square;
    // The damped model is g.v + v.(C + damping) v / 2 = -1/2 + damping |v|^2 / 2.
    let model = -0.5 + 0.5 * case.damping * SQUARE;
    let state = gpu.buffer("state", STATE_ELEMENTS + 4)?;
    gpu.upload(&state, 0, bytemuck::bytes_of(&solve))?;
    gpu.upload(
        &state,
        STATE_ELEMENTS,
        &[0.0, 0.0, model / (UNIT * UNIT), 0.0],
    )?;
    let mut results = vec![0.0f32; 256];
    for (k, change) in case.changes.iter().enumerate() {
        results[64 * k..64 * k + 3].copy_from_slice(&[3.0 + change, *change, case.error]);
    }
    let coefficients: Vec<f32> = LENGTHS.iter().flat_map(|a| [1.0, *a]).collect();
    let sums: Vec<f32> = [-1.0, 2.0 * UNIT * UNIT, SQUARE].repeat(4);
    let control = gpu.buffer("control", CONTROL)?;
    let first = Control {
        damping: case.damping,
        radius: case.radius,
        steps: 7,
        ..Control::default()
    };
    gpu.upload(&control, 0, bytemuck::bytes_of(&first))?;
    let evidence = Evidence {
        state: &state,
        base: &slice("base", &[3.0, 0.0, 0.0])?,
        results: &slice("results", &results)?,
        sums: &slice("sums", &sums)?,
        coefficients: &slice("coefficients", &coefficients)?,
    };
    let mut recording = Recording::new();
    decide(gpu, &mut recording, &rules(options), &evidence, &control)?;
    gpu.submit(|recorder| recorder.replay(&recording))?;
    let words = gpu.read_u32(&[&control])?.concat();
    Ok(bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words)))
}

/// What the host's rules make of it: whether it is taken and which candidate, damping, radius.
fn on_the_host(options: &NewtonCgOptions, case: &Case) -> (bool, usize, f32, f32) {
    let trusts = options.curvature == Curvature::Hessian;
    let error = f64::from(case.error);
    let enough = |k: usize| {
        let (a, change) = (f64::from(LENGTHS[k]), f64::from(case.changes[k]));
        change.is_finite() && falls_enough(change, error, options.armijo * a, -1.0)
    };
    let found = if trusts {
        Some(0)
    } else {
        (0..4).find(|&k| enough(k))
    };
    let k = found.unwrap_or(0);
    let (a, change) = (f64::from(LENGTHS[k]), f64::from(case.changes[k]));
    let shift = if trusts { 0.0 } else { f64::from(case.damping) };
    let model = -0.5 + 0.5 * f64::from(case.damping) * f64::from(SQUARE);
    let promised = -a + 0.5 * a * a * (2.0 * (model + 1.0) - shift * f64::from(SQUARE));
    let ratio = Ratio::new(change, error, promised);
    let taken = found.is_some() && change.is_finite() && (!trusts || accepts(ratio.most));
    let judged = if taken { ratio } else { Ratio::REFUSED };
    let (damping, radius) = (f64::from(case.damping), f64::from(case.radius));
    let stop = Stop::from_code(case.stop).unwrap_or(Stop::NotFinite);
    let rule =
        |rho| next_radius(radius, options.radius, rho, stop).clamp(*RADII.start(), *RADII.end());
    if trusts {
        (
            taken,
            k,
            case.damping,
            judged.decides(rule).unwrap_or(radius) as f32,
        )
    } else {
        (
            taken,
            k,
            options.damping.judge(damping, judged) as f32,
            case.radius,
        )
    }
}

#[test]
fn the_device_decides_as_the_host() -> Result<()> {
    let gpu = Gpu::new()?;
    let mut random = Philox::new(5, 1 << 40);
    // Of the promise -1/2: around 1, 3/4, 1/4 and 1/10 of it, none, and a rise; and of what Armijo asks for.
    let ratios = [
        1.2,
        0.76,
        0.74,
        0.26,
        0.24,
        0.11,
        0.09,
        0.021,
        0.019,
        0.0,
        -0.3,
        f32::INFINITY,
    ];
    let mut outcomes = [0usize; 4];
    for trusts in [false, true] {
        let mut options = NewtonCgOptions::default().with_max_line_search(4);
        if trusts {
            options = options.with_curvature(Curvature::Hessian);
        }
        for round in 0..120 {
            let mut draw = |count: usize| random.random_range(0..count);
            let ratio = ratios[round % ratios.len()];
            let mut changes = [-0.5 * ratio; 4];
            for (change, length) in changes.iter_mut().zip(LENGTHS).skip(1) {
                *change = -0.5 * length * ratios[draw(ratios.len())];
            }
            let case = Case {
                damping: [1e-8, 1e-3, 1.0, 100.0][draw(4)],
                radius: [1e-12, 0.3, 1.0, 60.0][draw(4)],
                stop: [1, 2, 3, 4, 5][draw(5)],
                changes,
                error: [0.0, 1e-4, 0.02, 0.3][draw(4)],
                gradient_square: 2.0,
            };
            let device = on_the_device(&gpu, &options, &case)?;
            let (taken, k, damping, radius) = on_the_host(&options, &case);
            let found = (
                device.outcome == step::TAKEN,
                device.candidate as usize,
                device.damping,
                device.radius,
            );
            let (changes, error) = (case.changes, case.error);
            assert_eq!(
                found,
                (taken, k, damping, radius),
                "{changes:?} +- {error}, trusts {trusts}"
            );
            assert_eq!(device.moves, u32::from(taken));
            assert_eq!(device.steps, 7 + u32::from(taken));
            assert_eq!(device.chosen, if taken { LENGTHS[k] } else { 0.0 });
            outcomes[device.outcome as usize] += 1;
        }
    }
    assert!(outcomes[1] > 50 && outcomes[2] > 50, "{outcomes:?}");
    Ok(())
}

#[test]
fn what_is_stationary_or_not_finite_teaches_nothing() -> Result<()> {
    let gpu = Gpu::new()?;
    let options = NewtonCgOptions::default();
    let case = |stop: u32, change: f32| Case {
        damping: 0.5,
        radius: 1.0,
        stop,
        changes: [change; 4],
        error: 0.0,
        gradient_square: 2.0,
    };
    let good = on_the_device(&gpu, &options, &case(2, -0.5))?;
    assert_eq!(
        (good.outcome, good.damping),
        (step::TAKEN, 0.5 * (2.0f32 / 3.0))
    );
    assert_eq!(good.promised, -0.5);
    assert_eq!(good.gradient_norm, UNIT * 2.0f32.sqrt());
    let flat = Case {
        gradient_square: 0.0,
        ..case(2, -0.5)
    };
    let flat = on_the_device(&gpu, &options, &flat)?;
    assert_eq!(
        (flat.outcome, flat.moves, flat.damping),
        (step::STATIONARY, 0, 0.5)
    );
    let nowhere = Case {
        gradient_square: f32::INFINITY,
        ..case(2, -0.5)
    };
    let nowhere = on_the_device(&gpu, &options, &nowhere)?;
    assert!(nowhere.outcome > step::STATIONARY && nowhere.moves == 0 && nowhere.damping == 0.5);
    let bad = on_the_device(&gpu, &options, &case(2, f32::NAN))?;
    assert_eq!(
        (bad.outcome, bad.moves, bad.damping),
        (step::REFUSED, 0, 0.75)
    );
    Ok(())
}
