// C[b, m, n] = sum over k of A[b, m, k] B[b, k, n]: one tile per subgroup, rows of the tile broadcast
//
// A subgroup of S lanes computes a tile of ROWS x (4 S VECTORS) elements. Per step of four k each element of A and B that the tile needs is
// loaded once, by one lane: a lane holds the 4 x 4 blocks of B of its own columns, and a share of the rows of A, which reach the others by
// subgroupBroadcast from a constant lane. Rows and the four k are unrolled, so a lane keeps ROWS x VECTORS vec4 accumulators.
//
// Made for drivers on which loads are dear and subgroup operations cheap: software rasterizers load lane by lane, and a vec4 load costs as
// much as tens of multiply-adds. ROWS + 4 S VECTORS loaded elements then buy ROWS x 4 S VECTORS multiply-adds. The price of a large tile is
// the length of the kernel, which compilers take more than linear time over. For products with few columns the two operands change places
// (C' = B' A'), so that the few columns are the unrolled rows and no lane idles; the face writes the accumulators back transposed.
//
// On the same drivers textures are read several times faster than buffers. With texture loads the host copies the operands to textures of
// four floats per texel first (4 bytes per element read and written), and `left` and `right` load texels.
//
// Sums are taken in levels: 64 terms, 16 of those sums, and again 16 (no code where K is short); a longer K is divided into parts
// (join.wgsl). 2 B M N K flops; reads A N/(4 S VECTORS) times and B M/ROWS times, writes C once. The subgroup size is a constant of the
// text: the kernel is only made for devices on which it cannot vary. binding 0: C [B, M, N]; binding 1: A; binding 2: B. A workgroup has
// SUBGROUPS subgroups, with neighbouring tiles: one where subgroups are small (software spreads workgroups over cores), else as many as
// make 128 invocations.

//<constants
fn M() -> u32 { return 4u; }
const N: u32 = 4u;
const BATCH: u32 = 1u;
fn K() -> u32 { return 4u; }
const SUBGROUP: u32 = 8u;
const SUBGROUPS: u32 = 1u;
const TILE_ROWS: u32 = 4u;
const TILE_COLUMNS: u32 = 32u;
fn TILES_DOWN() -> u32 { return 1u; }
fn TILES_ACROSS() -> u32 { return 1u; }
@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> lhs: array<f32>;
@group(0) @binding(2) var<storage, read> rhs: array<f32>;
//>

// `left`: rows of the tile along k, of one row (vec4) or of four (a column of the matrix each); column r of `right` is k = i + r at columns
// j .. j+3.
//<loads
fn left(batch: u32, i: u32, j: u32) -> vec4<f32> {
    return vec4<f32>();
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

@compute @workgroup_size(SUBGROUP * SUBGROUPS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let tile = (group.x + group.y * groups.x) * SUBGROUPS + subgroup;
    // Whole subgroups leave here.
    if (tile >= TILES_DOWN() * TILES_ACROSS() * BATCH) {
        return;
    }
    let column = (tile % TILES_ACROSS()) * TILE_COLUMNS;
    let row = ((tile / TILES_ACROSS()) % TILES_DOWN()) * TILE_ROWS;
    let batch = tile / (TILES_ACROSS() * TILES_DOWN());
    //<accumulators
    var c0_0 = vec4<f32>();
    //>
    // The loop over k, in several levels where K is long (src/kernels/dot/levels.rs).
    //<open
    var k = 0u;
    loop {
    //>
        //<step
        let a0 = left(batch, row + lane, k);
        let b0 = right(batch, k, column + 4u * lane);
        c0_0 = fma(vec4<f32>(subgroupBroadcast(a0.x, 0u)), b0[0], c0_0);
        //>
    //<close
        k += 4u;
        if (k >= K()) {
            break;
        }
    }
    //>
    //<results
    store(batch, row, column + 4u * lane, c0_0);
    //>
}
