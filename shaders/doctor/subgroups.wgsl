// result[i] = what subgroup operations give invocation i of one workgroup, whose value is i
//
//     size, lane, the value of lane 0, the first value, the value of lane xor 1, the number of lanes
//
// Kernels of matrix products broadcast rows within a subgroup: a wrong lane would be a wrong matrix.
// binding 0: result [64, 6]. One workgroup of 64, which has several subgroups on most adapters.

@group(0) @binding(0) var<storage, read_write> result: array<u32>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let at = 6u * index;
    result[at] = size;
    result[at + 1u] = lane;
    result[at + 2u] = subgroupBroadcast(index, 0u);
    result[at + 3u] = subgroupBroadcastFirst(index);
    result[at + 4u] = subgroupShuffleXor(index, 1u);
    result[at + 5u] = subgroupAdd(1u);
}
