//! Every hand-written kernel on vectors beside the same in f64 on the host, also with more workgroups than one row of a grid holds.

use std::sync::Arc;

use super::blocks::{Coefficients, InnerProducts, Rows, Sketch, combine_rows, sketch, weigh};
use super::half::{pack, unpack};
use super::spectrum::{SPECTRUM_ELEMENTS, Spectrum, corrections, eigenvector_weights};
use super::step::{CONTROL, Control, MOVES_AT, take};
use super::vector::*;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::random::{Philox, philox4x32};
use crate::vector::{Block, Layout, Vector};
use rand::RngExt;

/// More than 65,535 workgroups of 64 vec4s, and of 64 pairs.
const TWO_ROWS: usize = 16_800_000;
/// A few vec4s.
const FEW: usize = 1028;
/// Bindings that hold all there is; and 256 elements and no whole segment more: then there are five, the last of one vec4.
const WHOLE: usize = usize::MAX;
const NARROW: usize = 300;

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Philox::new(seed, 1 << 32);
    // Long vectors repeat a prime number of them.
    let few: Vec<f32> = (0..count.min(65_521))
        .map(|_| random.random_range(-1.0f32..1.0))
        .collect();
    (0..count).map(|i| few[i % few.len()]).collect()
}

fn slice(gpu: &Gpu, values: &[f32]) -> Result<Slice> {
    let slice = gpu.buffer("values", values.len())?;
    gpu.upload(&slice, 0, values)?;
    Ok(slice)
}

fn run(gpu: &Gpu, recording: &Recording, read: &Slice) -> Result<Vec<f32>> {
    gpu.submit(|recorder| recorder.replay(recording))?;
    Ok(gpu.read(&[read])?.remove(0))
}

/// Fails where an element is off by more than `units` of f32's rounding of its `size`, or of the value where that is larger.
#[track_caller]
fn near(found: &[f32], units: f64, expected: impl Fn(usize) -> (f64, f64)) {
    for (at, &found) in found.iter().enumerate() {
        let (value, size) = expected(at);
        let bound = units * f64::from(f32::EPSILON) / 2.0 * size.max(value.abs());
        let error = (f64::from(found) - value).abs();
        assert!(
            error <= bound,
            "element {at}: {found:e}, expected {value:e}"
        );
    }
}

#[test]
fn combinations_of_two_vectors() -> Result<()> {
    let gpu = Gpu::new()?;
    // A second row of the grid would take more than a binding holds.
    for (count, binding) in [(FEW, WHOLE), (FEW, NARROW), (1_000_000, WHOLE)] {
        let (a, b) = (numbers(1, count), numbers(2, count));
        let vectors = [
            slice(&gpu, &a)?,
            slice(&gpu, &b)?,
            gpu.buffer("out", count)?,
        ];
        let [x, y, out] = vectors.map(|vector| vector.with_binding(binding));
        let coefficients = slice(&gpu, &[9.0, 0.3, -1.7])?;
        let mut recording = Recording::new();
        combine(&gpu, &mut recording, &out, &x, &y, (&coefficients, 1))?;
        let found = run(&gpu, &recording, &out)?;
        near(&found, 3.0, |i| {
            let [x, y] = [0.3f32, -1.7].map(f64::from);
            let (x, y) = (x * f64::from(a[i]), y * f64::from(b[i]));
            (x + y, x.abs() + y.abs())
        });
    }
    Ok(())
}

#[test]
fn unit_vectors_and_preconditioners() -> Result<()> {
    let gpu = Gpu::new()?;
    for (count, binding) in [(FEW, WHOLE), (FEW, NARROW), (TWO_ROWS, WHOLE)] {
        let a = numbers(3, count);
        let vectors = [slice(&gpu, &a)?, gpu.buffer("y", count)?];
        let [x, y] = vectors.map(|vector| vector.with_binding(binding));
        let sums = slice(&gpu, &[7.5])?;
        let mut recording = Recording::new();
        normalize(&gpu, &mut recording, &y, &x, &sums)?;
        let found = run(&gpu, &recording, &y)?;
        // inverseSqrt has 2 units in the last place, so four halves.
        near(&found, 6.0, |i| (f64::from(a[i]) / 7.5f64.sqrt(), 0.0));
        let mut recording = Recording::new();
        let settings = slice(&gpu, &[0.2, 0.75])?;
        preconditioner(&gpu, &mut recording, &y, &x, &settings)?;
        let found = run(&gpu, &recording, &y)?;
        // A power is an exponential of a logarithm.
        near(&found, 40.0, |i| {
            (
                (f64::from(a[i]).max(0.0) + f64::from(0.2f32)).powf(-0.75),
                0.0,
            )
        });
    }
    let zero = slice(&gpu, &[0.0])?;
    let (x, y) = (slice(&gpu, &[1.0; 4])?, gpu.buffer("y", 4)?);
    let mut recording = Recording::new();
    normalize(&gpu, &mut recording, &y, &x, &zero)?;
    assert_eq!(run(&gpu, &recording, &y)?, [0.0; 4]);
    Ok(())
}

#[test]
fn halves() -> Result<()> {
    let gpu = Gpu::new()?;
    for count in [FEW, 2 * 4_194_400] {
        let a = numbers(4, count);
        let (x, packed) = (slice(&gpu, &a)?, gpu.buffer("packed", count / 2)?);
        let back = gpu.buffer("x", count)?;
        let mut recording = Recording::new();
        pack(&gpu, &mut recording, &packed, &x, 64.0)?;
        unpack(&gpu, &mut recording, &back, &packed, 64.0)?;
        let found = run(&gpu, &recording, &back)?;
        // Rounded to eleven bits, either way: 2^13 to 2^14 units of f32; below 2^-14 / 64 with an absolute error of 2^-24 / 64.
        near(&found, 16_384.0, |i| (f64::from(a[i]), 1.0 / 1024.0 / 64.0));
        assert_ne!(found, a);
    }
    Ok(())
}

#[test]
fn weighted_sums_of_numbers() -> Result<()> {
    let gpu = Gpu::new()?;
    let (w, a, b) = (numbers(5, 260), numbers(6, 130), numbers(7, 130));
    let result = gpu.buffer("result", 130)?;
    let mut recording = Recording::new();
    let [weights, x, y] = [slice(&gpu, &w)?, slice(&gpu, &a)?, slice(&gpu, &b)?];
    weigh(&gpu, &mut recording, &result, &weights, &x, &y)?;
    let found = run(&gpu, &recording, &result)?;
    near(&found, 3.0, |i| {
        let x = f64::from(w[i]) * f64::from(a[i]);
        let y = f64::from(w[130 + i]) * f64::from(b[i]);
        (x + y, x.abs() + y.abs())
    });
    Ok(())
}

#[test]
fn inner_products_of_two_vectors() -> Result<()> {
    let gpu = Gpu::new()?;
    for (count, binding) in [
        (4, WHOLE),
        (FEW, WHOLE),
        (FEW, NARROW),
        (300_004, WHOLE),
        (300_004, 100_000),
    ] {
        let (a, b) = (numbers(8, count), numbers(9, count));
        let [x, y] = [slice(&gpu, &a)?, slice(&gpu, &b)?].map(|x| x.with_binding(binding));
        let result = gpu.buffer("result", 5)?;
        let partials = gpu.buffer("partials", partial_elements(&x))?;
        let mut recording = Recording::new();
        inner_products(&gpu, &mut recording, (&result, 2), &partials, &x, &y)?;
        let found = run(&gpu, &recording, &result)?;
        assert_eq!(found[..2], [0.0; 2]);
        near(&found[2..], 30.0, |i| {
            let (p, q) = [(&a, &b), (&a, &a), (&b, &b)][i];
            let terms = p.iter().zip(q).map(|(&p, &q)| f64::from(p) * f64::from(q));
            (terms.clone().sum(), terms.map(f64::abs).sum())
        });
    }
    Ok(())
}

/// Settings of a step of each method; parameters, both moments.
#[test]
fn steps_of_first_order_methods() -> Result<()> {
    let gpu = Gpu::new()?;
    let (theta, m, g) = (numbers(10, FEW), numbers(11, FEW), numbers(12, FEW));
    let v: Vec<f32> = numbers(13, FEW).iter().map(|v| v * v).collect();
    for (method, decay, nesterov, binding) in [
        (FirstOrderMethod::Sgd, 0.0f32, 0.0f32, WHOLE),
        (FirstOrderMethod::Sgd, 0.1, 1.0, WHOLE),
        (FirstOrderMethod::Sgd, 0.1, 1.0, NARROW),
        (FirstOrderMethod::Adam, 0.0, 0.0, WHOLE),
        (FirstOrderMethod::Adam, 0.1, 0.0, WHOLE),
        (FirstOrderMethod::Adam, 0.1, 0.0, NARROW),
    ] {
        let settings = [0.01f32, 0.9, 0.99, 1e-3, 0.19, 0.0199, decay, nesterov];
        let [
            rate,
            beta1,
            beta2,
            epsilon,
            correction1,
            correction2,
            decay,
            _,
        ] = settings.map(f64::from);
        let on = [&theta, &m, &v, &g].map(|values| slice(&gpu, values));
        let [a, b, c, d] = on;
        let [a, b, c, d] = [a?, b?, c?, d?].map(|vector| vector.with_binding(binding));
        // The settings, a loss, and three sums.
        let scalars = gpu.uniform("scalars", FIRST_ORDER_SCALARS)?;
        gpu.upload(
            &scalars,
            0,
            &[&settings[..], &[1.0, 0.0, 1.0, 1.0]].concat(),
        )?;
        let mut recording = Recording::new();
        first_order(
            &gpu,
            &mut recording,
            method,
            &FirstOrderOperands {
                theta: &a,
                first_moment: &b,
                second_moment: &c,
                gradient: &d,
                scalars: &scalars,
            },
        )?;
        gpu.submit(|recorder| recorder.replay(&recording))?;
        let found = gpu.read(&[&a, &b, &c])?;
        let adam = method == FirstOrderMethod::Adam;
        let slope = |i: usize| f64::from(g[i]) / correction1;
        let moment = |i: usize| {
            let (m, g) = (f64::from(m[i]), f64::from(g[i]));
            beta1 * m + if adam { (1.0 - beta1) * g } else { slope(i) }
        };
        let second = |i: usize| {
            let (v, g) = (f64::from(v[i]), f64::from(g[i]));
            if adam {
                beta2 * v + (1.0 - beta2) * g * g
            } else {
                v
            }
        };
        near(&found[1], 4.0, |i| (moment(i), 2.0));
        near(&found[2], 4.0, |i| (second(i), 1.0));
        near(&found[0], 8.0, |i| {
            let along = match (adam, nesterov > 0.0) {
                (true, _) => moment(i) / correction1 / ((second(i) / correction2).sqrt() + epsilon),
                (false, true) => slope(i) + beta1 * moment(i),
                (false, false) => moment(i),
            };
            (
                (1.0 - rate * decay) * f64::from(theta[i]) - rate * along,
                2.0,
            )
        });
    }
    Ok(())
}

/// What moves where the flag says so, and keeps its bits where it does not; in segments, too.
#[test]
fn vectors_that_are_taken_or_left() -> Result<()> {
    let gpu = Gpu::new()?;
    for (moves, binding) in [(0u32, WHOLE), (1, WHOLE), (0, NARROW), (1, NARROW)] {
        let (before, after) = (numbers(14, FEW), numbers(15, FEW));
        let [to, source] = [&before, &after].map(|values| slice(&gpu, values));
        let [to, source] = [to?, source?].map(|vector| vector.with_binding(binding));
        let control = gpu.buffer("control", CONTROL)?;
        let flags = Control {
            moves,
            ..Control::default()
        };
        gpu.upload(&control, 0, bytemuck::bytes_of(&flags))?;
        let mut recording = Recording::new();
        take(&gpu, &mut recording, &to, &source, (&control, MOVES_AT))?;
        let expected = if moves == 1 { &after } else { &before };
        assert_eq!(&run(&gpu, &recording, &to)?, expected);
    }
    Ok(())
}

/// Weights of eigenvectors, more than a workgroup has invocations, of which the last three are not in use; damping from either of its two.
#[test]
fn weights_of_eigenvectors() -> Result<()> {
    let gpu = Gpu::new()?;
    let values: Vec<f64> = numbers(16, 67).into_iter().map(f64::from).collect();
    for (base, damping, least) in [(false, 0.3f32, 0.1f32), (true, 0.3, 0.1), (false, 0.1, 0.3)] {
        let given = Spectrum {
            alpha: 0.7,
            beta: 0.4,
            damping,
            least,
            count: 67,
        };
        let spectrum = gpu.buffer("spectrum", SPECTRUM_ELEMENTS + 70)?;
        gpu.upload(&spectrum, 0, &given.words(&values, 70))?;
        let (weights, factors) = (gpu.buffer("weights", 140)?, slice(&gpu, &[1.0; 4])?);
        let mut recording = Recording::new();
        eigenvector_weights(&gpu, &mut recording, [&weights, &factors], &spectrum, base)?;
        let found = run(&gpu, &recording, &weights)?;
        let (alpha, beta, gamma) = (f64::from(0.7f32), f64::from(0.4f32), f64::from(0.3f32));
        let factor = if base { 1.0 } else { -beta / gamma };
        let captured = |i: usize| -alpha / (values[i].abs() + gamma);
        // A division may be off by 2.5 units in the last place, so five halves.
        near(&found[..67], 8.0, |i| (captured(i), 0.0));
        near(&found[70..137], 16.0, |i| match base {
            true => (-1.0, 0.0),
            false => (captured(i) - factor, factor.abs()),
        });
        assert_eq!([&found[67..70], &found[137..]].concat(), [0.0; 6]);
        let factors = gpu.read(&[&factors])?.remove(0);
        assert_eq!(factors[..3], [1.0; 3]);
        near(&factors[3..], 6.0, |_| (factor, 0.0));
    }
    Ok(())
}

/// Rows of a table by a count on the device: the first, another, and the last one for all beyond.
#[test]
fn corrections_of_moments() -> Result<()> {
    let gpu = Gpu::new()?;
    let table = slice(&gpu, &[0.1, 0.01, 0.2, 0.02, 1.0, 1.0])?;
    for (steps, row) in [
        (0u32, [0.1f32, 0.01]),
        (1, [0.2, 0.02]),
        (2, [1.0; 2]),
        (9, [1.0; 2]),
    ] {
        let scalars = gpu.uniform("scalars", FIRST_ORDER_SCALARS)?;
        let before = numbers(17, FIRST_ORDER_SCALARS);
        gpu.upload(&scalars, 0, &before)?;
        let control = gpu.buffer("control", CONTROL)?;
        let counted = Control {
            steps,
            ..Control::default()
        };
        gpu.upload(&control, 0, bytemuck::bytes_of(&counted))?;
        let mut recording = Recording::new();
        corrections(&gpu, &mut recording, &scalars, &table, &control)?;
        let found = run(&gpu, &recording, &scalars)?;
        let expected = [&before[..4], &row[..], &before[6..]].concat();
        assert_eq!(found, expected);
    }
    Ok(())
}

/// Displacements of a direction of length 2 from a point at 7: by a fifth of the cube root of 1 + 7, and a power of two; and of no direction at all.
#[test]
fn displacements_for_differences() -> Result<()> {
    let gpu = Gpu::new()?;
    for (sums, e, slope) in [
        ([1.0, 4.0, 49.0f32], 0.125, 4.0),
        ([0.0, 0.0, 49.0], 0.0, 0.0),
    ] {
        let (sums, coefficients) = (slice(&gpu, &sums)?, gpu.buffer("coefficients", 6)?);
        let mut recording = Recording::new();
        displacement(&gpu, &mut recording, 0.2, &sums, &coefficients)?;
        let expected = [1.0, e, 1.0, -e, slope, -slope];
        near(&run(&gpu, &recording, &coefficients)?, 4.0, |i| {
            (expected[i], 0.0)
        });
    }
    Ok(())
}

fn layout(shapes: &[usize]) -> Result<Arc<Layout>> {
    let named = shapes.iter().enumerate();
    let tensors: Vec<_> = named.map(|(i, &n)| (i.to_string(), vec![n])).collect();
    Ok(Arc::new(Layout::new(&tensors)?))
}

/// Rows beyond the first, tensors beyond the first, blocks that start at a later row: the same numbers as on the host.
#[test]
fn random_blocks() -> Result<()> {
    let gpu = Gpu::new()?;
    let layout = layout(&[301, 70])?;
    let (seed, stream) = ([17u32, 3], [5u32, 1]);
    let settings = gpu.buffer("settings", 4)?;
    gpu.upload(&settings, 0, &[seed[0], seed[1], stream[0], stream[1]])?;
    for kind in [Sketch::Signs, Sketch::Gaussian] {
        let block = Block::new(&gpu, "block", &layout, 5)?;
        let mut recording = Recording::new();
        let start = 2;
        sketch(&gpu, &mut recording, &block, start, &settings, kind)?;
        let found = run(&gpu, &recording, block.slice())?;
        for row in 0..5 {
            for (index, entry) in layout.entries().iter().enumerate() {
                let at = row * layout.len() + entry.offset;
                for (i, &found) in found[at..at + entry.elements()].iter().enumerate() {
                    if row < start {
                        assert_eq!(found, 0.0);
                        continue;
                    }
                    let first = (start * 2 + index) as u32;
                    let words = |block: usize| {
                        let counter = [
                            block as u32,
                            first,
                            stream[0] + (row - start) as u32,
                            stream[1],
                        ];
                        philox4x32(counter, seed)
                    };
                    let expected = match kind {
                        Sketch::Signs => {
                            let word = words(i / 128)[i % 128 / 32];
                            f64::from(word >> (i % 32) & 1) * 2.0 - 1.0
                        }
                        Sketch::Gaussian => {
                            let words = words(i / 4);
                            let unit = |word: u32| (f64::from(word >> 8) + 1.0) / 16_777_216.0;
                            // Two cosines, then the two sines of the same angles.
                            let pair = 2 * (i % 2);
                            let radius = (-2.0 * unit(words[pair]).ln()).sqrt();
                            let angle = std::f64::consts::TAU * unit(words[pair + 1]);
                            radius * if i % 4 < 2 { angle.cos() } else { angle.sin() }
                        }
                    };
                    // Drivers may err by 2^-11 in a cosine.
                    let error = (f64::from(found) - expected).abs();
                    assert!(
                        error < 3e-3,
                        "{kind:?} {row} {index} {i}: {found}, {expected}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// Inner products and combinations of vectors that lie in one binding, and in several with the last one partly filled; sums added on the
/// host, and on the device with one lane and, for more than 4,096 of them, with 64.
#[test]
fn blocks_of_vectors() -> Result<()> {
    let gpu = Gpu::new()?;
    // Rows of 80 MiB: one in a binding of 128 MiB, so every row is a group of its own there.
    for (len, width) in [(3001usize, 5usize), (20_971_520, 2)] {
        let layout = layout(&[len])?;
        let block = Block::new(&gpu, "block", &layout, width)?;
        let other = Vector::new(&gpu, "vector", &layout)?;
        let rows: Vec<Vec<f32>> = (0..width).map(|i| numbers(20 + i as u64, len)).collect();
        let tensors: Vec<_> = rows.iter().map(|row| vec![row.clone()]).collect();
        block.write(&gpu, &tensors)?;
        let right = numbers(30, len);
        other.write(&gpu, std::slice::from_ref(&right))?;
        let mut recording = Recording::new();
        let products = InnerProducts::record(
            &gpu,
            &mut recording,
            &Rows::all(&block),
            &Rows::from(&other),
        )?;
        let sums = gpu.buffer("sums", 3 * width)?;
        products.record_sum(&gpu, &mut recording, &sums, (1, 3))?;
        let found = run(&gpu, &recording, &sums)?;
        let on_host = products.sum(&mut gpu.read(&products.reads())?.into_iter());
        for (row, values) in rows.iter().enumerate() {
            let terms = values.iter().zip(&right);
            let terms = terms.map(|(&a, &b)| f64::from(a) * f64::from(b));
            let (exact, size): (f64, f64) = (terms.clone().sum(), terms.map(f64::abs).sum());
            near(&[on_host[(row, 0)] as f32], 10.0, |_| (exact, size));
            near(&[found[3 * row + 1]], 30.0, |_| (exact, size));
            assert_eq!([found[3 * row], found[3 * row + 2]], [0.0; 2]);
        }
        let mut recording = Recording::new();
        let weights = slice(&gpu, &[9.0, 0.5, -1.5, 2.0, 0.25, -3.0])?;
        let coefficients = Coefficients {
            slice: &weights,
            first: 1,
            width: 6,
        };
        let out = Rows::from(&other);
        combine_rows(
            &gpu,
            &mut recording,
            &out,
            coefficients,
            &Rows::all(&block),
            true,
        )?;
        let found = run(&gpu, &recording, other.slice())?;
        near(&found[..len], 12.0, |i| {
            let weights = [0.5, -1.5, 2.0, 0.25, -3.0];
            let terms = rows
                .iter()
                .zip(weights)
                .map(|(row, w)| w * f64::from(row[i]));
            let right = f64::from(right[i]);
            let size = right.abs() + terms.clone().map(f64::abs).sum::<f64>();
            (right + terms.sum::<f64>(), size)
        });
    }
    Ok(())
}
