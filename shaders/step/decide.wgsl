// What a recorded step of Newton-CG decides from a solve and its judge, in one invocation: the twin of src/optim/decision.rs, damping.rs
// and newton_cg/trust_region.rs, in f32. It comes after the last candidate and before take.wgsl.
//
//     promised = a g.v + a^2/2 (2 (model - g.v) - shift |v|^2)
//     ratio    = (change -+ error) / promised, an interval
//
// Damped (TRUSTS false): of the candidates theta + a_k v, a_0 > a_1 > .., the first one whose loss falls by ARMIJO a_k g.v, where v leads
// downhill. The damping falls by DECREASE above a ratio of 3/4 and grows by GROW below 1/4, and stays where the error of the change decides.
// With a trust region the first candidate is taken above a ratio of 1/10; the radius is quartered below 1/4, and doubled above 3/4 where the
// region stopped the solve. A refused step counts as a bad one; a stationary one moves nothing and teaches nothing; where the loss or the
// gradient is not finite nothing changes at all.
//
// 25 words written, some 40 read. binding 0: state of the solve; 1: base = [loss, ..]; 2: results = [loss, change, error, ..] of each
// candidate, 64 apart; 3: control; 4: sums = [g.v, g.g, v.v] of each; 5: coefficients = [1, a_k] of each.
//#include finite.wgsl
//#include cg/state.wgsl
//#include step/control.wgsl

const FLOOR: f32 = 1e-10;

override CANDIDATES: u32 = 1u;
override TRUSTS: bool = false;
override ARMIJO: f32 = 0.01;
override MOST_RADIUS: f32 = 100.0;
override LEAST_RADIUS: f32 = 1e-12;

@group(0) @binding(1) var<storage, read> base: array<f32>;
@group(0) @binding(2) var<storage, read> results: array<f32>;
@group(0) @binding(4) var<storage, read> sums: array<f32>;
@group(0) @binding(5) var<storage, read> coefficients: array<f32>;

fn next_radius(grade: u32) -> f32 {
    let at_the_boundary = control.stop == BOUNDARY || control.stop == NEGATIVE_CURVATURE;
    var radius = control.radius;
    if (grade == 2u && at_the_boundary) {
        radius = min(2.0 * radius, MOST_RADIUS);
    } else if (grade == 0u) {
        radius = 0.25 * radius;
    }
    return clamp(radius, LEAST_RADIUS, 1e12);
}

// What is the next damping, or radius, at both ends of the ratio; where they differ, it stays.
fn learn(least: u32, most: u32) {
    if (TRUSTS) {
        let next = next_radius(least);
        control.radius = select(control.radius, next, next == next_radius(most));
    } else {
        control.damping = judged_damping(control.damping, least, most);
        control.floored = max(control.damping, FLOOR);
    }
}

@compute @workgroup_size(1)
fn main() {
    let scale = unit();
    let solved = state.next;
    control.one = 1.0;
    control.stop = solved.stop;
    control.iterations = solved.iterations;
    control.damping_used = control.damping;
    control.radius_used = control.radius;
    control.loss_before = base[0];
    control.gradient_norm = scale * sqrt(solved.gg);
    control.candidate = 0u;
    control.factor = coefficients[1];
    control.loss = results[0];
    control.change = results[1];
    control.error = results[2];
    control.slope = sums[0];
    control.square = sums[2];
    control.promised = 0.0;
    if (!is_finite(base[0])) {
        finish(LOSS_NOT_FINITE);
        return;
    }
    if (state.largest >= INFINITE_BITS || !is_finite(solved.gg)) {
        finish(GRADIENT_NOT_FINITE);
        return;
    }
    if (solved.stop == NOT_FINITE && solved.iterations == 0u) {
        learn(0u, 0u);
        finish(REFUSED);
        return;
    }
    let still = solved.iterations == 0u && control.square == 0.0;
    if (solved.gg == 0.0 || still || control.factor == 0.0) {
        finish(STATIONARY);
        return;
    }
    var found = TRUSTS;
    // A slope that is no number is not downhill.
    let downhill = control.slope < 0.0;
    let fall = select(0.0, control.slope, downhill);
    for (var k = 0u; k < CANDIDATES && !found; k++) {
        let a = coefficients[2u * k + 1u];
        let loss = results[64u * k];
        let change = results[64u * k + 1u];
        let error = results[64u * k + 2u];
        let known = is_finite(loss) && is_finite(change) && is_finite(error);
        // Uphill a step is taken whole where the loss does not rise, or not at all.
        if (known && (k == 0u || downhill) && change - error <= (ARMIJO * a) * fall) {
            found = true;
            control.candidate = k;
            control.factor = a;
            control.loss = loss;
            control.change = change;
            control.error = error;
        }
    }
    let a = control.factor;
    let shift = select(control.damping, 0.0, TRUSTS);
    let model = state.phi[solved.iterations] * scale * scale;
    let curvature = 2.0 * (model - control.slope) - shift * control.square;
    control.promised = a * control.slope + 0.5 * a * a * curvature;
    let possible = found && is_finite(control.loss) && is_finite(control.change) && is_finite(control.square);
    // A model that promises no fall has nothing to be right about.
    let judged = control.promised < 0.0 && is_finite(control.promised);
    let one = (control.change - control.error) / control.promised;
    let other = (control.change + control.error) / control.promised;
    let enough = max(one, other) > 0.1;
    if (!possible || (TRUSTS && !(judged && enough))) {
        learn(0u, 0u);
        finish(REFUSED);
        return;
    }
    if (judged) {
        learn(grade(one), grade(other));
    } else {
        learn(0u, 0u);
    }
    finish(TAKEN);
}
