// p <- -z + beta p,  z = M^-1 r
//
// Does nothing when the solve has stopped. 3 flops and 16 bytes per element.
// binding 0: state; 1: p [4 COUNT]; 2: r; 3: inverse of the preconditioner.
//#include cg/state.wgsl

override COUNT: u32 = 1u;
override PRECONDITIONED: bool = false;

@group(0) @binding(0) var<storage, read> state: State;
@group(0) @binding(1) var<storage, read_write> p: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> r: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> inverse: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i >= COUNT || state.stop != 0u) {
        return;
    }
    var z = r[i];
    if (PRECONDITIONED) {
        z = inverse[i] * z;
    }
    p[i] = state.beta * p[i] - z;
}
