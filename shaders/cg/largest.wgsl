// words[AT] = max(words[AT], bits of the largest |x_i|)
//
// Bits of numbers that are not negative have the numbers' order; infinities and then what is not a number come last, so one word tells
// also whether all are finite. A maximum does not depend on the order, so the bits repeat. The word must have been set to zero before.
//
// Workgroups of 64, each with a share of neighbours of at most COUNT / workgroups vec4s; one atomic per workgroup in storage. 4 bytes per
// element.
//
// binding 0: words; 1: x [4 COUNT].
//#include four.wgsl

override COUNT: u32 = 1u;
override AT: u32 = 0u;

@group(0) @binding(0) var<storage, read_write> words: array<atomic<u32>>;
@group(0) @binding(1) var<storage, read> x: array<Four>;

var<workgroup> top: atomic<u32>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    if (local.x == 0u) {
        atomicStore(&top, 0u);
    }
    workgroupBarrier();
    let each = (COUNT + groups.x - 1u) / groups.x;
    let end = min(COUNT, (group.x + 1u) * each);
    var most = vec4<u32>();
    for (var i = group.x * each + local.x; i < end; i += 64u) {
        most = max(most, bitcast<vec4<u32>>(floats(x[i])) & vec4<u32>(0x7fffffffu));
    }
    atomicMax(&top, max(max(most.x, most.y), max(most.z, most.w)));
    workgroupBarrier();
    if (local.x == 0u) {
        atomicMax(&words[AT], atomicLoad(&top));
    }
}
