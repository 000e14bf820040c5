// Sums over the rows of each group, for each feature i:
//
//   result[PITCH g + i] = scale_g sum_n w_n c_n x_ni + L2 at_i
//
//   KIND 0, gradient:                   c_n = l'_n
//   KIND 1, product with the Hessian:   c_n = l''_n (x_n . v)
//   KIND 2, diagonal of the empirical Fisher matrix:  c_n = l'_n^2 x_ni
//
// binding 0: x, [rows, FEATURES]; 1: (y_n, w_n); 2: scales of the groups; 3: state of the rows at theta; 4: the same at v, of which x_n . v is read;
// 5: theta or v; 6: result. One invocation a feature and group: neighbours read neighbouring numbers. Bound to it are seven storage buffers of the eight
// that WebGPU grants at least.

override ROWS_OF_GROUP: u32 = 1u;
override GROUPS: u32 = 1u;
override FEATURES: u32 = 1u;
override PITCH: u32 = 64u;
override KIND: u32 = 0u;
override L2: f32 = 0.0;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> examples: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read> state: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> along: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> at: array<f32>;
@group(0) @binding(6) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let index = id.x + id.y * grid.x * 64u;
    let i = index % FEATURES;
    let g = index / FEATURES;
    if (g >= GROUPS) {
        return;
    }
    var sum = 0.0;
    for (var n = g * ROWS_OF_GROUP; n < (g + 1u) * ROWS_OF_GROUP; n++) {
        let feature = x[n * FEATURES + i];
        var c = state[n].z;
        if (KIND == 1u) {
            c = state[n].w * along[n].x;
        } else if (KIND == 2u) {
            c = c * c * feature;
        }
        sum += examples[n].y * c * feature;
    }
    result[PITCH * g + i] = scales[g] * sum + L2 * at[i];
}
