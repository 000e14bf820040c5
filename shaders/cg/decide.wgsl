// The scalars of an iteration, in one workgroup: adds the partial sums of the kernel before, then decides.
//
// STAGE 0, after start:      phi(x0), r.z; stops at once when there is nothing to do.
// STAGE 1, after curvature:  step length alpha = r.z / p.(C + shift) p. Negative curvature and the boundary of the trust region end the solve:
//                            without a region x stays; with one, x moves along p to the boundary (Steihaug 1983; norms by recurrence as in
//                            Conn, Gould, Toint 2000, section 7.5.1).
// STAGE 2, after update:     phi(x), beta; the stopping tests: |r| <= tolerance |g|; relative progress of phi over k = max(min_window, i/10)
//                            iterations below k times its tolerance, for phi < 0 (Martens 2010, section 4.4); the cap on iterations.
//
// binding 0: state; 1: partial [4 GROUPS].
//#include cg/state.wgsl

override GROUPS: u32 = 1u;
override STAGE: u32 = 0u;

const PROGRESS: u32 = 1u;
const RESIDUAL: u32 = 2u;
const NEGATIVE_CURVATURE: u32 = 3u;
const BOUNDARY: u32 = 4u;
const MAX_ITERATIONS: u32 = 5u;
const NOT_FINITE: u32 = 6u;

@group(0) @binding(0) var<storage, read_write> state: State;
@group(0) @binding(1) var<storage, read> partials: array<vec4<f32>>;

var<workgroup> sums: array<vec4<f32>, 64>;

fn start(sum: vec4<f32>) {
    state.iterations = 0u;
    state.pending = 0u;
    state.stop = 0u;
    state.rz = sum.x;
    state.rr = sum.y;
    state.gg = sum.w;
    state.xx = 0.0;
    state.xp = 0.0;
    state.pp = sum.x;
    state.phi[0] = 0.5 * sum.z;
    if (!is_finite(sum.x) || !is_finite(sum.y) || !is_finite(sum.w)) {
        state.stop = NOT_FINITE;
    } else if (sum.y <= state.residual_tolerance * state.residual_tolerance * sum.w) {
        state.stop = RESIDUAL;
    }
}

fn step_length(curvature: f32) {
    state.curvature = curvature;
    if (!is_finite(curvature)) {
        state.stop = NOT_FINITE;
        state.alpha = 0.0;
        return;
    }
    let region = state.radius > 0.0;
    var alpha = 0.0;
    if (curvature > 0.0) {
        alpha = state.rz / curvature;
    }
    let reach = state.xx + alpha * (2.0 * state.xp + alpha * state.pp);
    if (region && (curvature <= 0.0 || reach >= state.radius * state.radius)) {
        // The positive root of |x + t p| = radius.
        let gap = max(state.radius * state.radius - state.xx, 0.0);
        let root = sqrt(state.xp * state.xp + state.pp * gap);
        alpha = gap / (state.xp + root);
        state.pending = select(BOUNDARY, NEGATIVE_CURVATURE, curvature <= 0.0);
    } else if (curvature <= 0.0) {
        state.stop = NEGATIVE_CURVATURE;
    }
    // x that overflows could not be taken back after the update.
    if (!is_finite(alpha) || !is_finite(state.xx + alpha * (2.0 * state.xp + alpha * state.pp))) {
        state.stop = NOT_FINITE;
        alpha = 0.0;
    }
    state.alpha = alpha;
}

fn finish(sum: vec4<f32>) {
    let i = state.iterations + 1u;
    let phi = 0.5 * sum.z;
    if (!is_finite(sum.x) || !is_finite(phi)) {
        state.stop = NOT_FINITE;
        return;
    }
    let alpha = state.alpha;
    let beta = sum.x / state.rz;
    state.xx = state.xx + alpha * (2.0 * state.xp + alpha * state.pp);
    state.xp = beta * (state.xp + alpha * state.pp);
    state.pp = sum.x + beta * beta * state.pp;
    state.iterations = i;
    state.phi[i] = phi;
    state.beta = beta;
    state.rz = sum.x;
    state.rr = sum.y;
    let window = max(state.min_window, i / 10u);
    if (state.pending != 0u) {
        state.stop = state.pending;
    } else if (sum.y <= state.residual_tolerance * state.residual_tolerance * state.gg) {
        state.stop = RESIDUAL;
    } else if (i > window && phi < 0.0 && state.phi[i - window] - phi < -phi * f32(window) * state.progress_tolerance) {
        state.stop = PROGRESS;
    } else if (i >= state.max_iterations) {
        state.stop = MAX_ITERATIONS;
    }
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_id) local: vec3<u32>) {
    var sum = vec4<f32>();
    for (var w = local.x; w < GROUPS; w += 64u) {
        sum += partials[w];
    }
    sums[local.x] = sum;
    workgroupBarrier();
    for (var width = 32u; width > 0u; width /= 2u) {
        if (local.x < width) {
            sums[local.x] += sums[local.x + width];
        }
        workgroupBarrier();
    }
    if (local.x != 0u) {
        return;
    }
    if (STAGE == 0u) {
        start(sums[0]);
    } else if (state.stop == 0u) {
        if (STAGE == 1u) {
            step_length(sums[0].x);
        } else {
            finish(sums[0]);
        }
    }
}
