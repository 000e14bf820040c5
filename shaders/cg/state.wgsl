// The state of a conjugate gradient solve, shared by the kernels in this folder; the host face is src/kernels/cg.rs.
//
// Solves (C + shift) x = -g. With the residual r = (C + shift) x + g, which is the gradient of the model
//     phi(x) = x.g + x.(C + shift) x / 2 = x.(r + g) / 2.

// What an iteration changes.
struct Scalars {
    stop: u32,            // 0: running; else the reason, see Stop in src/linalg/conjugate_gradients.rs
    iterations: u32,
    rr: f32,              // r.r, as summed last
    gg: f32,
    curvature: f32,       // p.(C + shift) p
    xx: f32,              // |x|^2 and x.p in the norm of the preconditioner, by recurrence
    xp: f32,
    tail: f32,            // |p|^2 in that norm, less r.z with z = M^-1 r
    phi: f32,
}

struct State {
    max_iterations: u32,
    min_window: u32,          // smallest number of iterations over which progress is measured
    shift: f32,
    residual_tolerance: f32,  // stop when |r| <= tolerance |g|
    progress_tolerance: f32,  // stop when the relative progress over k iterations is below k times this
    radius: f32,              // of the trust region; 0: none
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

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

// |r| <= tolerance |g|
fn is_small(rr: f32, gg: f32) -> bool {
    return rr <= state.residual_tolerance * state.residual_tolerance * gg;
}
