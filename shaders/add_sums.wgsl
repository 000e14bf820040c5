// result[(ROW + i) WIDTH + COLUMN + j] = sum over s of partial[s, i, j], or that added to what is there
//
// The last stage of the inner products of two blocks of vectors where a kernel needs them; SUMS partial matrices of ROWS x COLUMNS are
// added in an order that depends on nothing else. LANES invocations share an element: 1, or 64, a workgroup, where the sums are more than
// one invocation adds up in two levels. SUMS ROWS COLUMNS flops, 4 bytes each.
//
// binding 0: result; 1: partial [SUMS, ROWS, COLUMNS].

override SUMS: u32 = 1u;
override ROWS: u32 = 1u;
override COLUMNS: u32 = 1u;
override ROW: u32 = 0u;
override COLUMN: u32 = 0u;
override WIDTH: u32 = 1u;
override ADDS: bool = false;
override LANES: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> partial: array<f32>;

var<workgroup> shares: array<f32, 64>;

// Every LANES-th sum from `lane` on, in two levels, so that rounding errors do not grow with their number.
fn share(i: u32, lane: u32) -> f32 {
    var total = 0.0;
    for (var first = lane; first < SUMS; first += 64u * LANES) {
        var few = 0.0;
        for (var s = first; s < min(SUMS, first + 64u * LANES); s += LANES) {
            few += partial[s * ROWS * COLUMNS + i];
        }
        total += few;
    }
    return total;
}

fn store(i: u32, sum: f32) {
    let at = (ROW + i / COLUMNS) * WIDTH + COLUMN + i % COLUMNS;
    if (ADDS) {
        result[at] += sum;
    } else {
        result[at] = sum;
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let number = group.x + group.y * groups.x;
    if (LANES == 1u) {
        let i = number * 64u + local.x;
        if (i < ROWS * COLUMNS) {
            store(i, share(i, 0u));
        }
        return;
    }
    // The same for the whole workgroup, so that the barriers below are uniform.
    let i = min(number, ROWS * COLUMNS - 1u);
    shares[local.x] = share(i, local.x);
    workgroupBarrier();
    for (var width = 32u; width > 0u; width /= 2u) {
        if (local.x < width) {
            shares[local.x] += shares[local.x + width];
        }
        workgroupBarrier();
    }
    if (local.x == 0u && number < ROWS * COLUMNS) {
        store(i, shares[0]);
    }
}
