// partial sums of p.(q + shift p), where q = C p
//
// binding 0: state; 1: partial [4 workgroups], of which the first of four is used; 2: p [4 COUNT]; 3: q. 4 flops and 8 bytes per element.
//#include cg/state.wgsl

override COUNT: u32 = 1u;

@group(0) @binding(0) var<storage, read> state: State;
@group(0) @binding(1) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> p: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> q: array<vec4<f32>>;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    var sum = 0.0;
    for (var i = group.x * 64u + local.x; i < COUNT; i += groups.x * 64u) {
        sum += dot(p[i], q[i] + state.shift * p[i]);
    }
    sums[local.x] = sum;
    workgroupBarrier();
    for (var width = 32u; width > 0u; width /= 2u) {
        if (local.x < width) {
            sums[local.x] += sums[local.x + width];
        }
        workgroupBarrier();
    }
    if (local.x == 0u) {
        partials[group.x] = vec4<f32>(sums[0], 0.0, 0.0, 0.0);
    }
}
