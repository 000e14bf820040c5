// index[i] = shuffle_epoch(place)          epoch = step / (ROWS / COUNT),  place = (step mod (ROWS / COUNT)) COUNT + i
//
// The rows of mini-batch `step` out of ROWS rows, without replacement within an epoch. The shuffle is a bijection of 0..2^(LOW + HIGH), the
// smallest power of two that holds all rows, walked on until it lands on a row: an alternating Feistel network of 8 rounds, whose round
// function is a word of Philox under the seed. src/data/shuffle.rs says what is guaranteed, and is its twin with equal numbers.
//
// One invocation draws one row, 64 in a workgroup: there is nothing to share. A step of the walk is 8 Philox of 10 rounds; fewer than two
// are expected, and at most 128 are made, 11,392 iterations of all loops together. Writes 4 bytes for each row.
//
// binding 0: index [COUNT]; 1: step [1]; 2: [ROWS, COUNT, LOW, HIGH, seed low, seed high], with COUNT from 1 to ROWS.
//#include philox.wgsl

const ROUNDS: u32 = 8u;
const WALK: u32 = 128u;
// Streams from 7 * 2^48 on.
const STREAM_HIGH: u32 = 0x70000u;

@group(0) @binding(0) var<storage, read_write> index: array<u32>;
@group(0) @binding(1) var<storage, read> at_step: array<u32>;
@group(0) @binding(2) var<storage, read> settings: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    let rows = settings[0];
    let count = settings[1];
    if (i >= count) {
        return;
    }
    let batches = rows / count;
    let epoch = at_step[0] / batches;
    let place = (at_step[0] % batches) * count + i;
    let key = vec2<u32>(settings[4], settings[5]);
    let low_bits = settings[2];
    let low_mask = (1u << low_bits) - 1u;
    let high_mask = (1u << settings[3]) - 1u;

    var row = place;
    for (var walk = 0u; walk < WALK; walk++) {
        var low = row & low_mask;
        var high = row >> low_bits;
        for (var round = 0u; round < ROUNDS; round++) {
            let even = round % 2u == 0u;
            let word = philox(vec4<u32>(select(high, low, even), round, epoch, STREAM_HIGH), key).x;
            if (even) {
                high ^= word & high_mask;
            } else {
                low ^= word & low_mask;
            }
        }
        row = (high << low_bits) | low;
        if (row < rows) {
            break;
        }
    }
    index[i] = select(place, row, row < rows);
}
