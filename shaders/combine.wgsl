// out = a x + b y
//
// with a = coefficients[SLOT] and b = coefficients[SLOT + 1]. 3 flops and 12 bytes per element; every invocation makes PER vec4s, 64 apart,
// so that the coefficients are read once for all of them. `out` must lie in another buffer than x and y, which may be the same.
//
// binding 0: out [4 COUNT]; 1: x; 2: y; 3: coefficients.
//#include four.wgsl

override COUNT: u32 = 1u;
override SLOT: u32 = 0u;

const PER: u32 = 4u;

@group(0) @binding(0) var<storage, read_write> result: array<Four>;
@group(0) @binding(1) var<storage, read> x: array<Four>;
@group(0) @binding(2) var<storage, read> y: array<Four>;
@group(0) @binding(3) var<storage, read> coefficients: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let a = coefficients[SLOT];
    let b = coefficients[SLOT + 1u];
    let first = (group.x + group.y * groups.x) * 64u * PER + local.x;
    for (var k = 0u; k < PER; k++) {
        let i = first + 64u * k;
        if (i < COUNT) {
            result[i] = stored(a * floats(x[i]) + b * floats(y[i]));
        }
    }
}
