// What row n makes of a vector v: z = x_n . v, and the loss of the row with its derivatives by z, where v are the parameters.
//
//   state[n] = (z, l, l', l'')     l = log(1 + exp z) - y z     l' = p - y     l'' = p (1 - p)     p = 1 / (1 + exp -z)
//
// binding 0: x, [ROWS, FEATURES]; 1: (y_n, w_n); 2: v; 3: state.
// 64 invocations, each of which reads a row: simple rather than fast, because neighbours read numbers that lie apart.

override ROWS: u32 = 1u;
override FEATURES: u32 = 1u;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> examples: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> state: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let n = id.x + id.y * grid.x * 64u;
    if (n >= ROWS) {
        return;
    }
    var z = 0.0;
    for (var i = 0u; i < FEATURES; i++) {
        z += x[n * FEATURES + i] * v[i];
    }
    let y = examples[n].x;
    // exp of a negative number: neither end overflows.
    let e = exp(-abs(z));
    let p = select(e, 1.0, z >= 0.0) / (1.0 + e);
    state[n] = vec4<f32>(z, max(z, 0.0) + log(1.0 + e) - y * z, p - y, e / ((1.0 + e) * (1.0 + e)));
}
