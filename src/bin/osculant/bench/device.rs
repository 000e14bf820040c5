//! The adapter's own limits: multiply-adds and copies.

use osculant::gpu::{Gpu, Recording, grid};
use osculant::kernels::dot::Capabilities;

use super::timing::{Effort, Figure, Times, replay};

const FMA: &str = include_str!("../../../../shaders/bench/fma.wgsl");
const COPY: &str = include_str!("../../../../shaders/bench/copy.wgsl");
/// Copies load floats, or 64-bit integers.
const FOUR: &str = include_str!("../../../../shaders/four.wgsl");
const FOUR_WIDE: &str = include_str!("../../../../shaders/four_wide.wgsl");

/// Elements of the vectors that are copied, added and multiplied: 64 MiB each, more than most caches hold.
const ELEMENTS: usize = 1 << 24;
/// Invocations in a workgroup of both kernels.
const WORKGROUP: usize = 64;
/// Workgroups that multiply and add: more invocations than any device has at once.
const FMA_GROUPS: usize = 4096;
/// Rounds are doubled until they take this long.
const FMA_SECONDS: f64 = 1e-2;
/// Rounds that take this long are enough in any case.
const MOST_FMA_SECONDS: f64 = 0.1;
/// Most rounds, where the clock does not get there: the most iterations that every driver finishes.
const MOST_FMA_ROUNDS: u32 = 1 << 15;

/// Elements of a long vector on this device: as many as one binding holds where that is less.
pub(crate) fn long_vector(gpu: &Gpu) -> usize {
    let most = gpu.limits().max_storage_buffer_binding_size / 4;
    ELEMENTS.min(usize::try_from(most).unwrap_or(ELEMENTS)) / 256 * 256
}

/// Most operations per second, in GFLOP/s: the best of several numbers of independent accumulators, and of `fma` and `a * b + c`.
pub(crate) fn fma_peak(gpu: &Gpu, effort: Effort) -> osculant::Result<(Figure, String)> {
    let invocations = FMA_GROUPS * WORKGROUP;
    let result = gpu.buffer("multiply-adds", 4 * invocations)?;
    let rounds = gpu.buffer("rounds of multiply-adds", 1)?;
    let mut variants = Vec::new();
    for pairs in [1u32, 2, 4, 8] {
        for fused in [true, false] {
            let constants = [
                ("PAIRS", f64::from(pairs)),
                ("FUSED", f64::from(u8::from(fused))),
            ];
            let pipeline = gpu.pipeline("multiply-adds", FMA, &constants)?;
            let mut recording = Recording::new();
            recording.dispatch(
                gpu,
                &pipeline,
                &[&result, &rounds],
                grid(gpu.limits(), FMA_GROUPS)?,
            )?;
            variants.push((pairs, fused, recording));
        }
    }
    // More rounds until the fastest variant takes long enough, and until twice the rounds take twice the time: few of them would measure
    // what it costs to start workgroups. Variants far behind are dropped on the way.
    let mut count = 1u32;
    let mut before = f64::INFINITY;
    loop {
        gpu.upload(&rounds, 0, &[count])?;
        let mut seconds = Vec::new();
        for (pairs, _, recording) in &variants {
            let best = replay(gpu, recording, 1)?.min(replay(gpu, recording, 1)?);
            seconds.push(best / f64::from(*pairs));
        }
        let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        if fastest > FMA_SECONDS / 256.0 {
            let mut seconds = seconds.into_iter();
            variants.retain(|_| seconds.next().is_some_and(|each| each < 2.0 * fastest));
        }
        let steady = fastest >= FMA_SECONDS / 8.0 && fastest >= 1.9 * before;
        if steady || fastest >= MOST_FMA_SECONDS || count >= MOST_FMA_ROUNDS {
            break;
        }
        before = fastest;
        count *= 2;
    }
    let recordings: Vec<&Recording> = variants.iter().map(|variant| &variant.2).collect();
    let times = Times::take(gpu, &recordings, effort)?;
    let rates = variants
        .iter()
        .enumerate()
        .map(|(index, &(pairs, fused, _))| {
            let flops = 64.0 * f64::from(pairs) * f64::from(count) * invocations as f64;
            let name = if fused { "fma" } else { "a * b + c" };
            (
                rate(times.seconds(index), flops),
                format!("{name}, {} accumulators", 2 * pairs),
            )
        });
    Ok(best(rates))
}

/// Most bytes read and written per second, in GB/s: the best of several lengths of workgroups.
pub(crate) fn copy(gpu: &Gpu, effort: Effort) -> osculant::Result<(Figure, String)> {
    let elements = long_vector(gpu);
    let a = gpu.buffer("copied from", elements)?;
    let b = gpu.buffer("copied to", elements)?;
    gpu.upload(&a, 0, &vec![1f32; elements])?;
    let mut variants = Vec::new();
    let mut kinds = vec![("vec4s", FOUR)];
    if Capabilities::of(gpu).wide_loads {
        kinds.push(("pairs of 64-bit integers", FOUR_WIDE));
    }
    for (kind, four) in kinds {
        let text = [four, COPY].concat();
        for per in [1usize, 4, 16, 64, 256] {
            let count = elements / 4;
            let constants = [("COUNT", count as f64), ("PER", per as f64)];
            let pipeline = gpu.pipeline("copy", &text, &constants)?;
            let mut recording = Recording::new();
            let workgroups = grid(gpu.limits(), count.div_ceil(WORKGROUP * per))?;
            recording.dispatch(gpu, &pipeline, &[&b, &a], workgroups)?;
            variants.push((format!("{per} {kind} per invocation"), recording));
        }
    }
    let recordings: Vec<&Recording> = variants.iter().map(|variant| &variant.1).collect();
    let times = Times::take(gpu, &recordings, effort)?;
    let rates = variants.iter().enumerate().map(|(index, (name, _))| {
        (
            rate(times.seconds(index), 8.0 * elements as f64),
            name.clone(),
        )
    });
    Ok(best(rates))
}

/// Giga-somethings per second.
pub(crate) fn rate(seconds: Figure, amount: f64) -> Figure {
    Figure {
        median: 1e-9 * amount / seconds.median,
        ..seconds
    }
}

/// The variant with the highest rate.
fn best(rates: impl Iterator<Item = (Figure, String)>) -> (Figure, String) {
    let nothing = Figure {
        median: 0.0,
        spread: 0.0,
    };
    rates.fold((nothing, String::new()), |best, next| {
        if next.0.median > best.0.median {
            next
        } else {
            best
        }
    })
}
