// inverse = (diagonal + lambda)^-exponent
//
// The Jacobi preconditioner of Newton-CG (Martens 2010 takes exponent 3/4). settings = [lambda, exponent].
// binding 0: inverse [4 COUNT]; 1: diagonal; 2: settings.

override COUNT: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> inverse: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> diagonal: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> settings: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i < COUNT) {
        inverse[i] = pow(max(diagonal[i], vec4<f32>()) + settings[0], vec4<f32>(-settings[1]));
    }
}
