// partial[3 w + (0, 1, 2)] = sum over the elements of workgroup w of (x y, x x, y y)
//
// First stage of three inner products in one pass over two vectors, or over one segment of them, which has its own place among the
// partial sums; sum_partials.wgsl adds the workgroups of all. Each workgroup adds its share of neighbouring vec4s, every invocation every
// 64-th of them in chunks of 64, then a tree in fixed order, so that the bits repeat. At 10^8 elements, 256 workgroups, that is a chain of
// 3 + 64 + 24 + 6 additions, and 4 + 6 in the second stage, 4 more for each further segment: for n additions of numbers of one sign an
// error below n 2^-24 = 6e-6, and a tenth of that where the terms are not all equal. 6 flops and 8 bytes per element.
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
    var sum = vec3<f32>();
    let each = (COUNT + groups.x - 1u) / groups.x;
    let end = min(COUNT, (group.x + 1u) * each);
    for (var first = group.x * each + local.x; first < end; first += 4096u) {
        var few = vec3<f32>();
        for (var i = first; i < min(end, first + 4096u); i += 64u) {
            let a = floats(x[i]);
            let b = floats(y[i]);
            few += vec3<f32>(dot(a, b), dot(a, a), dot(b, b));
        }
        sum += few;
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
        partials[3u * group.x] = sums[0].x;
        partials[3u * group.x + 1u] = sums[0].y;
        partials[3u * group.x + 2u] = sums[0].z;
    }
}
