// The variance of the slope along v of each group, which stands for a batch whose weights add up to W, with slopes s_n = l'_n (x_n . v):
//
//   result[64 g] = W^2 sum_n p_n^2 (s_n - s)^2 / (1 - sum_n p_n^2)     s = sum_n p_n s_n     p_n = w_n / sum_n w_n
//
// binding 0: (y_n, w_n); 1: scales of the groups, W / sum_n w_n; 2: state of the rows at theta; 3: at v; 4: result.
// One invocation a group: two passes over its rows.

override ROWS_OF_GROUP: u32 = 1u;
override GROUPS: u32 = 1u;

@group(0) @binding(0) var<storage, read> examples: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> scales: array<f32>;
@group(0) @binding(2) var<storage, read> state: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> along: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let g = id.x;
    if (g >= GROUPS) {
        return;
    }
    let end = (g + 1u) * ROWS_OF_GROUP;
    var total = 0.0;
    var mean = 0.0;
    for (var n = g * ROWS_OF_GROUP; n < end; n++) {
        total += examples[n].y;
        mean += examples[n].y * state[n].z * along[n].x;
    }
    mean /= total;
    var squares = 0.0;
    var rest = 1.0;
    for (var n = g * ROWS_OF_GROUP; n < end; n++) {
        let p = examples[n].y / total;
        let off = p * (state[n].z * along[n].x - mean);
        squares += off * off;
        rest -= p * p;
    }
    let sum = scales[g] * total;
    result[64u * g] = sum * sum * squares / rest;
}
