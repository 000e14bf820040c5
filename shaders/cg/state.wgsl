// The state of a conjugate gradient solve, shared by the kernels in this folder; the host face is src/kernels/cg.rs.
//
// Solves (C + shift) x = -g. With the residual r = (C + shift) x + g, which is the gradient of the model
//     phi(x) = x.g + x.(C + shift) x / 2 = x.(r + g) / 2.
//
// Residuals and directions are kept in units of a power of two, scale = 2^e with the largest |g_i| in 1..2 of it, so that sums of their
// squares and cubes stay inside f32 whatever the unit of the loss: r here is r / scale, p is made from it, and x alone is as it is. Then
// (C, shift, g) and 2^k (C, shift, g) give the same bits of x, since every operation commutes with a power of two.

// What an iteration changes.
struct Scalars {
    stop: u32,            // 0: running; else the reason, see Stop in src/linalg/conjugate_gradients.rs
    iterations: u32,
    rr: f32,              // r.r, as summed last, and g.g, in units of scale^2
    gg: f32,
    curvature: f32,       // p.(C + shift) p
    xx: f32,              // |x|^2 and x.p in the norm of the preconditioner, by recurrence
    xp: f32,
    tail: f32,            // |p|^2 in that norm, less r.z with z = M^-1 r
    phi: f32,             // in units of scale^2
    lift: f32,            // power of two near the step length: lift q is of the size of r, and can be squared
}

struct State {
    max_iterations: u32,
    min_window: u32,          // smallest number of iterations over which progress is measured
    shift: f32,
    residual_tolerance: f32,  // stop when |r| <= tolerance |g|
    progress_tolerance: f32,  // stop when the relative progress over k iterations is below k times this
    radius: f32,              // of the trust region; 0: none
    largest: u32,             // bits of the largest |g_i|, by largest.wgsl
    now: Scalars,             // what the second half of an iteration reads, see long.wgsl
    next: Scalars,            // what it leaves; the one that the host reads
    phi: array<f32>,          // model value before the first iteration and after each
}

const PROGRESS: u32 = 1u;
const RESIDUAL: u32 = 2u;
const NEGATIVE_CURVATURE: u32 = 3u;
const BOUNDARY: u32 = 4u;
const MAX_ITERATIONS: u32 = 5u;
const NOT_FINITE: u32 = 6u;

@group(0) @binding(0) var<storage, read_write> state: State;

// |r| <= tolerance |g|
fn is_small(rr: f32, gg: f32) -> bool {
    return rr <= state.residual_tolerance * state.residual_tolerance * gg;
}

// The power of two at or below a positive number, within 2^-126..2^126, so that its inverse is a normal number, too.
fn power_of_two(x: f32) -> f32 {
    return bitcast<f32>(clamp(bitcast<u32>(x) & 0x7f800000u, 0x00800000u, 0x7e800000u));
}

// 1 / x for such a power, without a division that may round.
fn inverse_power(x: f32) -> f32 {
    return bitcast<f32>(0x7f000000u - bitcast<u32>(x));
}

// The unit of residuals.
fn unit() -> f32 {
    return power_of_two(bitcast<f32>(state.largest));
}
