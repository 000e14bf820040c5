// C[b, m, n] = sum over k of A[b, m, k] B[b, k, n]: each invocation on its own
//
// Batched matrix product without shared memory or subgroups; runs everywhere. Each invocation keeps BLOCKS blocks of 4 rows x 4 columns of
// C in registers and walks k four at a time: a 4 x 4 block of A (as four vectors along k) and one of B (as four vectors along n) are loaded
// per step, as vec4 where the layout is aligned. Operands are views: transposed, sliced and broadcast ones are read in place through their
// strides. Sums are taken in levels: 64 steps of four terms, 16 of those sums, and then these (no code where K is short); a longer K is
// divided into parts (join.wgsl). 2 B M N K flops; reads A N/4 times and B M/(4 BLOCKS) times (from cache), writes C once.
//
// binding 0: C [B, M, N]; binding 1: A; binding 2: B. 64 invocations: neighbours share the rows and take neighbouring columns.

//<constants
fn M() -> u32 { return 4u; }
const N: u32 = 4u;
fn K() -> u32 { return 4u; }
const BATCH: u32 = 1u;
const BLOCKS: u32 = 2u;
@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> lhs: array<f32>;
@group(0) @binding(2) var<storage, read> rhs: array<f32>;
//>

// Column r of `left` is row `i + r` of A at k = j .. j+3; column r of `right` is row k = i + r of B at columns j .. j+3.
//<loads
fn left(batch: u32, i: u32, j: u32) -> mat4x4<f32> {
    return mat4x4<f32>();
}
fn right(batch: u32, i: u32, j: u32) -> mat4x4<f32> {
    return mat4x4<f32>();
}
//>

//<store
fn store(batch: u32, row: u32, column: u32, inner: vec4<f32>) {
    result[(batch * M() + row) * N + column] = inner.x;
}
//>

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let columns = (N + 3u) / 4u;
    let rows = (M() + 4u * BLOCKS - 1u) / (4u * BLOCKS);
    let i = id.x + id.y * groups.x * 64u;
    if (i >= columns * rows * BATCH) {
        return;
    }
    let column = 4u * (i % columns);
    let row = 4u * BLOCKS * ((i / columns) % rows);
    let batch = i / (columns * rows);
    // A second block beyond the last row is the last block again; it is not stored.
    let second = min(row + 4u, (M() - 1u) / 4u * 4u);
    var c0 = mat4x4<f32>();
    var c1 = mat4x4<f32>();
    // The loop over k, in several levels where K is long (src/kernels/dot/levels.rs).
    //<open
    var k = 0u;
    loop {
    //>
        let b = right(batch, k, column);
        c0 += b * left(batch, row, k);
        if (BLOCKS == 2u) {
            c1 += b * left(batch, second, k);
        }
    //<close
        k += 4u;
        if (k >= K()) {
            break;
        }
    }
    //>
    store(batch, row, column, c0[0]);
    store(batch, row + 1u, column, c0[1]);
    store(batch, row + 2u, column, c0[2]);
    store(batch, row + 3u, column, c0[3]);
    if (BLOCKS == 2u) {
        store(batch, row + 4u, column, c1[0]);
        store(batch, row + 5u, column, c1[1]);
        store(batch, row + 6u, column, c1[2]);
        store(batch, row + 7u, column, c1[3]);
    }
}
