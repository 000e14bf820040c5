// What a recorded step knows from the one before and tells the host, and the rule of its damping: the twin of src/optim/damping.rs in f32.
// Shared by decide.wgsl and accept.wgsl.

// Named as in src/kernels/step.rs.
struct Control {
    damping: f32,         // of the next step
    radius: f32,
    floored: f32,         // max(damping, FLOOR), for the Fisher preconditioner
    steps: u32,           // that were taken, or stationary
    one: f32,             // coefficients of the chosen point: 1 and
    chosen: f32,          // its factor
    moves: u32,           // whether the parameters go there
    remembers: u32,       // whether a step was ever taken
    reverts: u32,         // whether what a method remembers goes back to where it was before the step
    // What it tells the host.
    outcome: u32,
    stop: u32,
    iterations: u32,
    candidate: u32,
    loss_before: f32,
    loss: f32,
    change: f32,
    error: f32,
    slope: f32,
    square: f32,
    gradient_norm: f32,
    promised: f32,
    damping_used: f32,
    radius_used: f32,
    factor: f32,
    length: f32,          // of a step in the captured space
}

const TAKEN: u32 = 1u;
const REFUSED: u32 = 2u;
const STATIONARY: u32 = 3u;
const LOSS_NOT_FINITE: u32 = 4u;
const GRADIENT_NOT_FINITE: u32 = 5u;
const STEP_NOT_FINITE: u32 = 6u;

const LARGEST_DAMPING: f32 = 1e15;
const INFINITE_BITS: u32 = 0x7f800000u;

override DECREASE: f32 = 0.6666667;
override GROW: f32 = 1.5;
override MINIMUM: f32 = 1e-8;

@group(0) @binding(3) var<storage, read_write> control: Control;

// 0: poor, 1: fair, 2: good; what is not a number is poor.
fn grade(ratio: f32) -> u32 {
    if ((bitcast<u32>(ratio) & 0x7fffffffu) > INFINITE_BITS) {
        return 0u;
    }
    return select(select(0u, 1u, ratio >= 0.25), 2u, ratio > 0.75);
}

// The next damping after one of a step with this grade.
fn next_damping(damping: f32, grade: u32) -> f32 {
    var next = damping;
    if (grade == 2u) {
        next = damping * DECREASE;
    } else if (grade == 0u) {
        next = damping * GROW;
    }
    return min(max(next, MINIMUM), LARGEST_DAMPING);
}

// The same of a ratio between two ends: where they differ in what follows, the damping stays.
fn judged_damping(damping: f32, least: u32, most: u32) -> f32 {
    let next = next_damping(damping, least);
    return select(damping, next, next == next_damping(damping, most));
}

fn finish(outcome: u32) {
    control.outcome = outcome;
    control.moves = u32(outcome == TAKEN);
    control.chosen = select(0.0, control.factor, outcome == TAKEN);
    let counts = outcome == TAKEN || outcome == STATIONARY;
    control.reverts = u32(!counts);
    control.steps += u32(counts);
    control.remembers = max(control.remembers, u32(outcome == TAKEN));
}
