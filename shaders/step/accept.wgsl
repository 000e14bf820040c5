// What a recorded step of low-rank saddle-free Newton decides from its judge, in one invocation: the twin of the decisions in
// src/optim/engine.rs, lrsfn/propose.rs and damping.rs, in f32. It comes after the candidate theta + d and before take.wgsl.
//
//     promised = g.d + sum_i l_i (a_i u_i.g)^2 / 2,  a_i = -alpha / (|l_i| + gamma),  gamma = max(damping, least)
//     ratio    = (change -+ error) / promised, an interval
//
// With a damping that adapts (ADAPTS) a step is refused whose loss rises, or is not finite; the damping falls by DECREASE above a ratio of
// 3/4 and grows by GROW below 1/4, and stays where the error of the change decides; it is never below LEAST_DAMPING. A refused step counts
// as a bad one. With a fixed damping every step is taken whose numbers are finite. A stationary one, of no length, moves nothing and
// teaches nothing; where the loss or the gradient is not finite nothing changes at all.
//
// 4 r + 80 bytes read for r eigenvectors, 25 words written. binding 0: evidence = [loss | loss, change, error of the candidate | g.d, g.g,
// d.d | 0 | scalars of the base optimizer, see first_order.wgsl]; 1: the spectrum; 2: u_i.g; 3: control.
//#include finite.wgsl
//#include step/control.wgsl
//#include step/spectrum.wgsl

// What moves the parameters beyond the captured space: 0 the gradient, 1 SGD, 2 Adam.
override BASE: u32 = 0u;
override ADAPTS: bool = false;
override LEAST_DAMPING: f32 = 1e-8;

const LONGEST_STEP: f32 = 1e37;

@group(0) @binding(0) var<storage, read> evidence: array<f32>;
@group(0) @binding(1) var<storage, read> spectrum: Spectrum;
@group(0) @binding(2) var<storage, read> projections: array<f32>;

// Whether the base optimizer moved: as first_order.wgsl has it.
fn moved() -> bool {
    if (BASE == 0u) {
        return true;
    }
    var reach = evidence[8] * (sqrt(evidence[18]) + sqrt(evidence[19]));
    if (BASE == 2u) {
        reach = reach / (evidence[11] * evidence[12]);
    }
    return is_finite(evidence[18]) && is_finite(evidence[19]) && is_finite(reach) && reach < LONGEST_STEP;
}

fn curvature(damping: f32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < spectrum.count; i++) {
        let value = spectrum.values[i];
        let along = spectrum.alpha * projections[i] / (abs(value) + damping);
        sum += value * along * along;
    }
    return sum;
}

fn learn(damping: f32, least: u32, most: u32) {
    if (ADAPTS) {
        control.damping = max(judged_damping(damping, least, most), LEAST_DAMPING);
    }
}

@compute @workgroup_size(1)
fn main() {
    let damping = max(spectrum.damping, spectrum.least);
    control.damping_used = damping;
    control.length = spectrum.alpha;
    control.factor = 1.0;
    control.loss_before = evidence[0];
    control.loss = evidence[1];
    control.change = evidence[2];
    control.error = evidence[3];
    control.slope = evidence[4];
    control.square = evidence[6];
    control.gradient_norm = sqrt(evidence[5]);
    control.promised = 0.0;
    if (!is_finite(evidence[0])) {
        finish(LOSS_NOT_FINITE);
        return;
    }
    if (!is_finite(evidence[5])) {
        finish(GRADIENT_NOT_FINITE);
        return;
    }
    let moves = moved();
    let known = is_finite(control.loss) && is_finite(control.change);
    if (!ADAPTS && !(moves && known)) {
        finish(STEP_NOT_FINITE);
        return;
    }
    if (moves && control.square == 0.0) {
        finish(STATIONARY);
        return;
    }
    control.promised = control.slope + 0.5 * curvature(damping);
    let falls = is_finite(control.error) && control.change - control.error <= 0.0;
    if (!moves || !known || !is_finite(control.square) || (ADAPTS && !falls)) {
        learn(damping, 0u, 0u);
        finish(REFUSED);
        return;
    }
    // A model that promises no fall has nothing to be right about.
    if (control.promised < 0.0 && is_finite(control.promised)) {
        let one = (control.change - control.error) / control.promised;
        let other = (control.change + control.error) / control.promised;
        learn(damping, grade(one), grade(other));
    } else {
        learn(damping, 0u, 0u);
    }
    finish(TAKEN);
}
