// result[i] = a[i] x[i] + b[i] y[i], for COUNT numbers
//
// binding 0: result; 1: [a, b]; 2: x; 3: y.

override COUNT: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) {
        result[id.x] = weights[id.x] * x[id.x] + weights[COUNT + id.x] * y[id.x];
    }
}
