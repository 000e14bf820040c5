// result[(ROW + i) WIDTH + COLUMN + j] = sum over s of partial[s, i, j], or that added to what is there
//
// The last stage of the inner products of two blocks of vectors where a kernel needs them; SUMS partial matrices of ROWS x COLUMNS are added in order.
//
// binding 0: result; 1: partial [SUMS, ROWS, COLUMNS].

override SUMS: u32 = 1u;
override ROWS: u32 = 1u;
override COLUMNS: u32 = 1u;
override ROW: u32 = 0u;
override COLUMN: u32 = 0u;
override WIDTH: u32 = 1u;
override ADDS: bool = false;

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> partial: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i >= ROWS * COLUMNS) {
        return;
    }
    let at = (ROW + i / COLUMNS) * WIDTH + COLUMN + i % COLUMNS;
    // Two levels, so that rounding errors grow with the square root of the number.
    var sum = 0.0;
    for (var first = 0u; first < SUMS; first += 64u) {
        var part = 0.0;
        for (var s = first; s < min(SUMS, first + 64u); s++) {
            part += partial[s * ROWS * COLUMNS + i];
        }
        sum += part;
    }
    if (ADDS) {
        sum += result[at];
    }
    result[at] = sum;
}
