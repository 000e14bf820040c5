// b[i] = a[i]
//
// The most that the adapter can read and write. A workgroup copies 64 PER neighbouring vec4s, 64 of them at a time; software adapters want
// few long workgroups, GPUs many, so several lengths are tried. 32 bytes per vec4.
//
// binding 0: b [4 COUNT]; 1: a [4 COUNT].
//#include four.wgsl

override COUNT: u32 = 1u;
override PER: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> b: array<Four>;
@group(0) @binding(1) var<storage, read> a: array<Four>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let first = (group.x + group.y * groups.x) * 64u * PER;
    let end = min(first + 64u * PER, COUNT);
    for (var i = first + local.x; i < end; i += 64u) {
        b[i] = a[i];
    }
}
