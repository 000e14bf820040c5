// result[FIRST + (0, 1, 2)] = sum over w < GROUPS of partial[3 w + (0, 1, 2)]
//
// Second stage of inner_products.wgsl, for the workgroups of all segments; one workgroup, a tree in fixed order. 12 bytes per workgroup.
//
// binding 0: result; 1: partial [3 GROUPS].

override GROUPS: u32 = 1u;
override FIRST: u32 = 0u;

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> partials: array<f32>;

var<workgroup> sums: array<vec3<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_id) local: vec3<u32>) {
    var sum = vec3<f32>();
    for (var w = local.x; w < GROUPS; w += 64u) {
        sum += vec3<f32>(partials[3u * w], partials[3u * w + 1u], partials[3u * w + 2u]);
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
        result[FIRST] = sums[0].x;
        result[FIRST + 1u] = sums[0].y;
        result[FIRST + 2u] = sums[0].z;
    }
}
