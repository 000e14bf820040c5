//! The kernel that decides beside the host's rules, on cases from both sides of every threshold.

use super::recorded::rules;
use super::{Base, DampingRule, LrsfnOptions};
use crate::error::Result;
use crate::gpu::{Gpu, Recording};
use crate::kernels::spectrum::{EVIDENCE, Found, SPECTRUM_ELEMENTS, Spectrum, accept};
use crate::kernels::step::{self, CONTROL, Control};
use crate::optim::control::control;
use crate::optim::damping::AdaptiveDamping;
use crate::optim::decision::{Ratio, falls_enough};
use crate::optim::first_order::{AdamOptions, Moments, SgdOptions};
use crate::optim::saved::missing;
use crate::random::Philox;
use rand::RngExt;

const VALUES: [f64; 3] = [2.0, -1.0, 0.5];
const PROJECTIONS: [f32; 3] = [0.5, 0.25, -1.0];
const ALPHA: f32 = 0.5;
const LEAST: f32 = 0.125;

/// What a judge has found of a direction of slope -1.
#[derive(Clone, Copy)]
struct Case {
    damping: f32,
    change: f32,
    error: f32,
    gradient_square: f32,
    square: f32,
    /// Settings of the base optimizer, the loss, and `(g.m, g.g, m.m)`.
    scalars: [f32; 12],
}

const GOOD: Case = Case {
    damping: 0.5,
    change: -1.0,
    error: 0.0,
    gradient_square: 2.0,
    square: 0.25,
    scalars: [
        0.1, 0.9, 0.99, 1e-8, 0.1, 0.01, 0.0, 0.0, 3.0, 1.0, 1.0, 1.0,
    ],
};

/// What the device makes of a case.
fn on_the_device(gpu: &Gpu, options: &LrsfnOptions, case: &Case) -> Result<Control> {
    let slice = |label: &str, values: &[f32]| -> Result<crate::gpu::Slice> {
        let slice = gpu.buffer(label, values.len())?;
        gpu.upload(&slice, 0, values)?;
        Ok(slice)
    };
    let mut evidence = vec![3.0, 3.0 + case.change, case.change, case.error];
    evidence.extend([-1.0, case.gradient_square, case.square, 0.0]);
    evidence.extend(case.scalars);
    assert_eq!(evidence.len(), EVIDENCE);
    let known = Spectrum {
        alpha: ALPHA,
        beta: 1.0,
        damping: case.damping,
        least: LEAST,
        count: 3,
    };
    // One more, which is not in use.
    let spectrum = gpu.buffer("spectrum", SPECTRUM_ELEMENTS + 4)?;
    gpu.upload(&spectrum, 0, &known.words(&VALUES, 4))?;
    let [a, b, c] = PROJECTIONS;
    let found = Found {
        evidence: &slice("evidence", &evidence)?,
        spectrum: &spectrum,
        projections: &slice("projections", &[a, b, c, 1e30])?,
    };
    let before = Control {
        damping: case.damping,
        steps: 7,
        ..Control::default()
    };
    let words = gpu.buffer("control", CONTROL)?;
    gpu.upload(&words, 0, bytemuck::bytes_of(&before))?;
    let mut recording = Recording::new();
    accept(gpu, &mut recording, &rules(options), &found, &words)?;
    gpu.submit(|recorder| recorder.replay(&recording))?;
    Ok(control(&gpu.read_u32(&[&words])?.concat()))
}

/// What the host's rules make of it, where all numbers are finite: whether it is taken, and the damping.
fn on_the_host(options: &LrsfnOptions, case: &Case) -> (bool, f64, f64) {
    let damping = f64::from(case.damping.max(LEAST));
    let pairs = VALUES.iter().zip(PROJECTIONS);
    let curvature: f64 = pairs
        .map(|(value, p)| {
            let moved = f64::from(ALPHA) * f64::from(p) / (value.abs() + damping);
            value * moved * moved
        })
        .sum();
    let promised = -1.0 + 0.5 * curvature;
    let (change, error) = (f64::from(case.change), f64::from(case.error));
    let DampingRule::Adaptive(rule) = options.rule else {
        return (true, f64::from(case.damping), promised);
    };
    let taken = change.is_finite() && falls_enough(change, error, 0.0, 0.0);
    let ratio = if taken {
        Ratio::new(change, error, promised)
    } else {
        Ratio::REFUSED
    };
    let next = rule.judge(damping, ratio).max(options.least_damping());
    (taken, next, promised)
}

#[test]
fn the_device_decides_as_the_host() -> Result<()> {
    let gpu = Gpu::new()?;
    let mut random = Philox::new(6, 1 << 40);
    let rule = AdaptiveDamping::default().with_minimum(1e-3);
    let adaptive = LrsfnOptions::default()
        .with_rule(DampingRule::Adaptive(rule))
        .with_damping(0.2);
    let fixed = adaptive.clone().with_rule(DampingRule::Fixed);
    // Of the promise: around 3/4 and 1/4 of it, none, and rises.
    let ratios = [1.2, 0.76, 0.74, 0.26, 0.24, 0.01, 0.0, -0.01, -0.3];
    let mut outcomes = [0usize; 4];
    for options in [&adaptive, &fixed] {
        for round in 0..120 {
            let mut draw = |count: usize| random.random_range(0..count);
            let mut case = Case {
                damping: [1e-8, 0.126, 0.124, 1.0, 9e14][draw(5)],
                error: [0.0, 1e-4, 0.02, 0.3][draw(4)],
                ..GOOD
            };
            let promised = on_the_host(options, &case).2;
            assert!(promised < -0.8, "{promised}");
            case.change = (promised * ratios[round % ratios.len()]) as f32;
            if round % 24 == 7 && *options == adaptive {
                case.change = f32::INFINITY;
            }
            let device = on_the_device(&gpu, options, &case)?;
            let (taken, damping, promised) = on_the_host(options, &case);
            let found = (device.outcome == step::TAKEN, f64::from(device.damping));
            let what = format!(
                "{} +- {}, damping {}",
                case.change, case.error, case.damping
            );
            assert_eq!(found, (taken, damping), "{what}");
            assert!(
                (f64::from(device.promised) - promised).abs() < 1e-6,
                "{what}"
            );
            assert_eq!(device.damping_used, case.damping.max(LEAST), "{what}");
            let flags = [u32::from(taken), u32::from(!taken)];
            assert_eq!([device.moves, device.reverts], flags, "{what}");
            assert_eq!(device.steps, 7 + u32::from(taken), "{what}");
            outcomes[device.outcome as usize] += 1;
        }
    }
    assert!(outcomes[1] > 50 && outcomes[2] > 20, "{outcomes:?}");
    Ok(())
}

/// What is stationary counts, and teaches nothing; what is not finite does not count; a step that cannot be taken is refused, or not finite.
#[test]
fn what_does_not_move() -> Result<()> {
    let gpu = Gpu::new()?;
    let adaptive = LrsfnOptions::default();
    let fixed = adaptive.clone().with_rule(DampingRule::Fixed);
    let check = |options: &LrsfnOptions, case: Case, expected: (bool, u32, f32)| -> Result<()> {
        let left = on_the_device(&gpu, options, &case)?;
        let finite = left.outcome <= step::STATIONARY;
        assert_eq!((finite, left.steps, left.damping), expected, "{left:?}");
        assert_eq!((left.moves, left.reverts), (0, 8 - left.steps), "{left:?}");
        Ok(())
    };
    for options in [&adaptive, &fixed] {
        check(
            options,
            Case {
                square: 0.0,
                ..GOOD
            },
            (true, 8, 0.5),
        )?;
        for gradient_square in [f32::INFINITY, f32::NAN] {
            let case = Case {
                gradient_square,
                ..GOOD
            };
            check(options, case, (false, 7, 0.5))?;
        }
        // A step whose square overflows is refused by both.
        let long = Case {
            square: f32::INFINITY,
            ..GOOD
        };
        let damping = if options.rule == DampingRule::Fixed {
            0.5
        } else {
            0.75
        };
        check(options, long, (true, 7, damping))?;
    }
    for change in [f32::INFINITY, f32::NAN] {
        check(&adaptive, Case { change, ..GOOD }, (true, 7, 0.75))?;
        check(&fixed, Case { change, ..GOOD }, (false, 7, 0.5))?;
    }
    Ok(())
}

/// Steps of the base that its kernel takes, and those that it does not.
#[test]
fn whether_a_base_moves_is_known() -> Result<()> {
    let gpu = Gpu::new()?;
    let with = |base| LrsfnOptions::default().with_base(base);
    let sgd = with(Base::Sgd(SgdOptions::default()));
    let adam = with(Base::Adam(AdamOptions::default()));
    let mut seen = [0usize; 2];
    for options in [&sgd, &adam] {
        for (rate, gg, mm) in [
            (0.1, 1.0, 1.0),
            (1e30, 1.0, 1.0),
            (1e37, 1.0, 1.0),
            (1.0, f32::INFINITY, 1.0),
            (1.0, f32::NAN, 1.0),
            (1.0, 1.0, f32::INFINITY),
        ] {
            let mut case = GOOD;
            case.scalars[0] = rate;
            case.scalars[10..].copy_from_slice(&[gg, mm]);
            let settings = case.scalars.first_chunk().copied().unwrap_or_default();
            let method = super::fold::method(&options.base).ok_or_else(|| missing("base"))?;
            let moves = Moments::reaches(method, &settings, Moments::sums(&case.scalars));
            let left = on_the_device(&gpu, options, &case)?;
            assert_eq!(left.outcome == step::TAKEN, moves, "{rate} {gg} {mm}");
            seen[usize::from(moves)] += 1;
        }
    }
    assert_eq!(seen, [9, 3]);
    Ok(())
}
