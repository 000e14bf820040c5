// gather:      out[i, d] = table[index[i], d]             (0 where the index is out of range)
// scatter_add: out[r, d] = sum over i with index[i] = r of values[i, d], in order of i
//
// One invocation makes one element of the result; 64 of them in a workgroup, where neighbours read neighbouring elements of a row.
// scatter_add walks all indices for each row, COUNT * ROWS * WIDTH reads: no atomics, the same bits every time. It adds in chunks of 64
// indices, so that rounding errors do not grow with COUNT; more than 4,096 indices are divided into PARTS of EACH, whose results [PARTS,
// ROWS, WIDTH] a reduction adds up.
//
// binding 0: the result; binding 1: table [ROWS, WIDTH] or values [COUNT, WIDTH]; binding 2: index [COUNT].

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read> index: array<u32>;

//<constants
const SCATTER: bool = false;
const ROWS: u32 = 1u;
const WIDTH: u32 = 1u;
const COUNT: u32 = 1u;
const PARTS: u32 = 1u;
const EACH: u32 = 1u;
//>

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    let row = i / WIDTH;
    let column = i % WIDTH;
    if (SCATTER) {
        if (row >= ROWS * PARTS) {
            return;
        }
        let part = row / ROWS;
        let sought = row % ROWS;
        let end = min(COUNT, (part + 1u) * EACH);
        var total = 0.0;
        for (var first = part * EACH; first < end; first += 64u) {
            var few = 0.0;
            for (var j = first; j < min(end, first + 64u); j += 1u) {
                if (index[j] == sought) {
                    few += source[j * WIDTH + column];
                }
            }
            total += few;
        }
        result[i] = total;
    } else {
        if (row >= COUNT) {
            return;
        }
        let place = index[row];
        result[i] = select(0.0, source[min(place, ROWS - 1u) * WIDTH + column], place < ROWS);
    }
}
