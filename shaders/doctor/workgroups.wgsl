// result[g, i] = the sum over ROUNDS rounds of what invocation 255 - i of workgroup g left in workgroup memory, h(g, 255 - i, round),
// and in result[g, 256] the tree sum of all of the last round
//
//     h(g, i, r) = 2654435761 g + 40503 i + r,  modulo 2^32
//
// Reading the other end crosses subgroups, so that a barrier which does not wait shows.
// binding 0: result [workgroups, 257]. Workgroups of 256 invocations, the most that WebGPU promises.

const SIZE: u32 = 256u;
const ROUNDS: u32 = 16u;

@group(0) @binding(0) var<storage, read_write> result: array<u32>;

var<workgroup> values: array<u32, SIZE>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var sum = 0u;
    for (var round = 0u; round < ROUNDS; round += 1u) {
        workgroupBarrier();
        values[i] = 2654435761u * group.x + 40503u * i + round;
        workgroupBarrier();
        sum += values[SIZE - 1u - i];
    }
    for (var half = SIZE / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (i < half) {
            values[i] += values[i + half];
        }
    }
    let at = group.x * (SIZE + 1u);
    result[at + i] = sum;
    if (i == 0u) {
        result[at + SIZE] = values[0];
    }
}
