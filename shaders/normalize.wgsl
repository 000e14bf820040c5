// y = x / |x|, with sums[0] = |x|^2; zeros where that is zero or not a number
//
// 8 bytes per element.
//
// binding 0: y [4 COUNT]; 1: x [4 COUNT]; 2: sums.

override COUNT: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> sums: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i >= COUNT) {
        return;
    }
    let square = sums[0];
    y[i] = select(vec4<f32>(0.0), x[i] * inverseSqrt(square), square > 0.0);
}
