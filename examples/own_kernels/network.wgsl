// Loss and gradient of a network 64 - 24 - 10: tanh, softmax, cross-entropy. One binding group for all kernels.
const ROWS = 256u;
const IN = 64u;
const HIDDEN = 24u;
const OUT = 10u;

// Parameters, and their gradient, one tensor after another: W1 [IN, HIDDEN], b1, W2 [HIDDEN, OUT], b2.
const B1 = IN * HIDDEN;
const W2 = B1 + HIDDEN;
const B2 = W2 + HIDDEN * OUT;
const ALL = B2 + OUT;

@group(0) @binding(0) var<storage, read> images: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(4) var<storage, read_write> loss: array<f32>;
// Of each row: hidden values, slopes of the loss with respect to the sums before tanh, and to the logits; and the loss.
@group(0) @binding(5) var<storage, read_write> scratch: array<f32>;

const SLOPES = ROWS * HIDDEN;
const DELTA = 2u * ROWS * HIDDEN;
const LOSSES = DELTA + ROWS * OUT;

@compute @workgroup_size(64)
fn rows(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.x;
    if (n >= ROWS) {
        return;
    }
    for (var j = 0u; j < HIDDEN; j++) {
        var sum = parameters[B1 + j];
        for (var i = 0u; i < IN; i++) {
            sum += images[n * IN + i] * parameters[i * HIDDEN + j];
        }
        scratch[n * HIDDEN + j] = tanh(sum);
    }
    var logits: array<f32, OUT>;
    var largest = -1e30;
    for (var k = 0u; k < OUT; k++) {
        var sum = parameters[B2 + k];
        for (var j = 0u; j < HIDDEN; j++) {
            sum += scratch[n * HIDDEN + j] * parameters[W2 + j * OUT + k];
        }
        logits[k] = sum;
        largest = max(largest, sum);
    }
    var total = 0.0;
    for (var k = 0u; k < OUT; k++) {
        total += exp(logits[k] - largest);
    }
    let label = labels[n];
    scratch[LOSSES + n] = log(total) + largest - logits[label];
    for (var k = 0u; k < OUT; k++) {
        let p = exp(logits[k] - largest) / total;
        scratch[DELTA + n * OUT + k] = (p - f32(k == label)) / f32(ROWS);
    }
    for (var j = 0u; j < HIDDEN; j++) {
        var sum = 0.0;
        for (var k = 0u; k < OUT; k++) {
            sum += scratch[DELTA + n * OUT + k] * parameters[W2 + j * OUT + k];
        }
        let h = scratch[n * HIDDEN + j];
        scratch[SLOPES + n * HIDDEN + j] = sum * (1.0 - h * h);
    }
}

@compute @workgroup_size(64)
fn columns(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.x;
    if (at >= ALL) {
        return;
    }
    var sum = 0.0;
    for (var n = 0u; n < ROWS; n++) {
        if (at < B1) {
            sum += images[n * IN + at / HIDDEN] * scratch[SLOPES + n * HIDDEN + at % HIDDEN];
        } else if (at < W2) {
            sum += scratch[SLOPES + n * HIDDEN + at - B1];
        } else if (at < B2) {
            sum += scratch[n * HIDDEN + (at - W2) / OUT] * scratch[DELTA + n * OUT + (at - W2) % OUT];
        } else {
            sum += scratch[DELTA + n * OUT + at - B2];
        }
    }
    gradient[at] = sum;
    if (at == 0u) {
        var mean = 0.0;
        for (var n = 0u; n < ROWS; n++) {
            mean += scratch[LOSSES + n];
        }
        loss[0] = mean / f32(ROWS);
    }
}

@compute @workgroup_size(64)
fn descend(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < ALL) {
        parameters[id.x] -= 0.5 * gradient[id.x];
    }
}
