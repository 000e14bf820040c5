// partial[3 w + (0, 1, 2)] = sum over the elements of workgroup w of (x y, x x, y y)
//
// First stage of three inner products in one pass over two vectors; sum_partials.wgsl adds the workgroups. Each invocation adds every
// (64 workgroups)-th vec4, then a tree in fixed order: no term meets more than COUNT / (64 workgroups) others one after another, so the error
// grows with the square root of a few thousand even at 10^8 elements, and the bits repeat.
// 6 flops and 8 bytes per element.
//
// binding 0: partial [3 workgroups]; 1: x [4 COUNT]; 2: y.
//#include four.wgsl

override COUNT: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> partials: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<Four>;
@group(0) @binding(2) var<storage, read> y: array<Four>;

var<workgroup> sums: array<vec3<f32>, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    var xy = vec4<f32>();
    var xx = vec4<f32>();
    var yy = vec4<f32>();
    for (var i = group.x * 64u + local.x; i < COUNT; i += groups.x * 64u) {
        let a = floats(x[i]);
        let b = floats(y[i]);
        xy += a * b;
        xx += a * a;
        yy += b * b;
    }
    sums[local.x] = vec3<f32>(
        (xy.x + xy.y) + (xy.z + xy.w),
        (xx.x + xx.y) + (xx.z + xx.w),
        (yy.x + yy.y) + (yy.z + yy.w),
    );
    workgroupBarrier();
    for (var width = 32u; width > 0u; width /= 2u) {
        if (local.x < width) {
            sums[local.x] += sums[local.x + width];
        }
        workgroupBarrier();
    }
    if (local.x == 0u) {
        partials[3u * group.x] = sums[0].x;
        partials[3u * group.x + 1u] = sums[0].y;
        partials[3u * group.x + 2u] = sums[0].z;
    }
}
