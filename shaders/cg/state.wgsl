// The state of a conjugate gradient solve, shared by the kernels in this folder; the host face is src/kernels/cg.rs.
//
// Solves (C + shift) x = -g. With the residual r = (C + shift) x + g, which is the gradient of the model
//     phi(x) = x.g + x.(C + shift) x / 2 = x.(r + g) / 2.

struct State {
    stop: u32,            // 0: running; else the reason, see Stop in src/linalg/conjugate_gradients.rs
    iterations: u32,
    pending: u32,         // reason to stop with after the step under way
    max_iterations: u32,
    shift: f32,
    residual_tolerance: f32,  // stop when |r| <= tolerance |g|
    progress_tolerance: f32,  // stop when the relative progress over k iterations is below k times this
    radius: f32,          // of the trust region; 0: none
    alpha: f32,
    beta: f32,
    rz: f32,              // r.z with z = M^-1 r
    rr: f32,
    gg: f32,
    curvature: f32,       // p.(C + shift) p
    xx: f32,              // |x|^2, x.p and |p|^2 in the norm of the preconditioner, by recurrence
    xp: f32,
    pp: f32,
    min_window: u32,      // smallest number of iterations over which progress is measured
    padding: vec2<u32>,
    phi: array<f32>,      // model value before the first iteration and after each
}

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}
