// gather:      out[i, d] = table[index[i], d]             (0 where the index is out of range)
// scatter_add: out[r, d] = sum over i with index[i] = r of values[i, d], in order of i
//
// One invocation makes one element of the result; 64 of them in a workgroup, where neighbours read neighbouring elements of a row. scatter_add walks all indices for each row, COUNT * ROWS * WIDTH reads: no atomics, the same bits
// every time.
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
//>

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    let row = i / WIDTH;
    let column = i % WIDTH;
    if (SCATTER) {
        if (row >= ROWS) {
            return;
        }
        var total = 0.0;
        for (var j = 0u; j < COUNT; j += 1u) {
            if (index[j] == row) {
                total += source[j * WIDTH + column];
            }
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
