// C[b, m, n] = sum over k of A[b, m, k] B[b, k, n]: tiles in workgroup memory
//
// A workgroup computes a tile of 64 x 64 elements of C. Per step of 16 k its 256 invocations load a 64 x 16 tile of A and a 16 x 64 tile of
// B into workgroup memory, one vec4 of each per invocation, along whichever axis is contiguous. Then each invocation keeps 4 x 4 elements
// in registers: per k it reads four elements of A and four of B for sixteen multiply-adds.
//
// Made for GPUs, where workgroup memory is fast: global memory is read 64 times less often than by an invocation on its own.
// A is kept by k with a stride of 66: stores along k by neighbouring invocations (4 k x 8 rows of a half-warp) then fall into 32 different
// banks; with 64 they would share two. B is kept with a stride of 68, a multiple of four, so that compilers can join the four reads of a
// row. (Not as vec4: when B comes along k, invocations write single components, which some compilers do by rewriting the vector.) Both take
// 8576 bytes, below the 16 KiB that every WebGPU device has, so that a multiprocessor can hold several workgroups.
//
// Sums are taken in levels: 64 terms, 16 of those sums, and again 16 (no code where K is short); a longer K is divided into parts
// (join.wgsl). 2 B M N K flops; reads A N/64 times and B M/64 times, writes C once. binding 0: C [B, M, N]; binding 1: A; binding 2: B. 256
// invocations, 16 x 16 blocks of 4 x 4.

//<constants
fn M() -> u32 { return 4u; }
const N: u32 = 4u;
fn K() -> u32 { return 4u; }
const BATCH: u32 = 1u;
const LEFT_ALONG_K: bool = true;
const RIGHT_ALONG_K: bool = false;
@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> lhs: array<f32>;
@group(0) @binding(2) var<storage, read> rhs: array<f32>;
//>

const LEFT_STRIDE: u32 = 66u;
const RIGHT_STRIDE: u32 = 68u;
var<workgroup> left_tile: array<f32, 1056>;
var<workgroup> right_tile: array<f32, 1088>;

// Four elements of A at (i, j .. j+3), or of its transpose where LEFT_ALONG_K is false; four of B, or of its transpose where RIGHT_ALONG_K
// is true.
//<loads
fn left(batch: u32, i: u32, j: u32) -> vec4<f32> {
    return vec4<f32>();
}
fn right(batch: u32, i: u32, j: u32) -> vec4<f32> {
    return vec4<f32>();
}
//>

//<store
fn store(batch: u32, row: u32, column: u32, inner: vec4<f32>) {
    result[(batch * M() + row) * N + column] = inner.x;
}
//>

// Indices beyond an edge are those of the last element, or of the last four: such rows and columns are never stored, and such k are made
// zero.
fn last(size: u32) -> u32 {
    return (size - 1u) / 4u * 4u;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let across = (N + 63u) / 64u;
    let down = (M() + 63u) / 64u;
    let tile = group.x + group.y * groups.x;
    if (tile >= across * down * BATCH) {
        return;
    }
    let column = (tile % across) * 64u;
    let row = ((tile / across) % down) * 64u;
    let batch = tile / (across * down);
    // This invocation's vec4 of a tile: along k, four invocations share a row; along rows or columns, sixteen share a k.
    let slow = index / 4u;
    let fast = (index % 4u) * 4u;
    let wide_slow = index / 16u;
    let wide_fast = (index % 16u) * 4u;
    let x = index % 16u;
    let y = (index / 16u) * 4u;
    var c0 = vec4<f32>();
    var c1 = vec4<f32>();
    var c2 = vec4<f32>();
    var c3 = vec4<f32>();
    // The loop over k, in several levels where K is long (src/kernels/dot/levels.rs).
    // groups.z is 1, which compilers cannot know: they would write two steps (K up to 32) out in full, for 192 and more registers on AMD's
    // GPUs and spills on Intel's (docs/kernel-statistics.md).
    //<open
    var k = 0u;
    loop {
    //>
        if (LEFT_ALONG_K) {
            var a = left(batch, min(row + slow, M() - 1u), min(k + fast, last(K())));
            if (k + fast >= K()) {
                a = vec4<f32>();
            }
            left_tile[fast * LEFT_STRIDE + slow] = a.x;
            left_tile[(fast + 1u) * LEFT_STRIDE + slow] = a.y;
            left_tile[(fast + 2u) * LEFT_STRIDE + slow] = a.z;
            left_tile[(fast + 3u) * LEFT_STRIDE + slow] = a.w;
        } else {
            var a = left(batch, min(k + wide_slow, K() - 1u), min(row + wide_fast, last(M())));
            if (k + wide_slow >= K()) {
                a = vec4<f32>();
            }
            left_tile[wide_slow * LEFT_STRIDE + wide_fast] = a.x;
            left_tile[wide_slow * LEFT_STRIDE + wide_fast + 1u] = a.y;
            left_tile[wide_slow * LEFT_STRIDE + wide_fast + 2u] = a.z;
            left_tile[wide_slow * LEFT_STRIDE + wide_fast + 3u] = a.w;
        }
        if (RIGHT_ALONG_K) {
            let b = right(batch, min(column + slow, N - 1u), min(k + fast, last(K())));
            right_tile[fast * RIGHT_STRIDE + slow] = b.x;
            right_tile[(fast + 1u) * RIGHT_STRIDE + slow] = b.y;
            right_tile[(fast + 2u) * RIGHT_STRIDE + slow] = b.z;
            right_tile[(fast + 3u) * RIGHT_STRIDE + slow] = b.w;
        } else {
            let b = right(batch, min(k + wide_slow, K() - 1u), min(column + wide_fast, last(N)));
            right_tile[wide_slow * RIGHT_STRIDE + wide_fast] = b.x;
            right_tile[wide_slow * RIGHT_STRIDE + wide_fast + 1u] = b.y;
            right_tile[wide_slow * RIGHT_STRIDE + wide_fast + 2u] = b.z;
            right_tile[wide_slow * RIGHT_STRIDE + wide_fast + 3u] = b.w;
        }
        workgroupBarrier();
        for (var j = 0u; j < 16u; j++) {
            let at = j * RIGHT_STRIDE + 4u * x;
            let b = vec4<f32>(right_tile[at], right_tile[at + 1u], right_tile[at + 2u], right_tile[at + 3u]);
            let a = j * LEFT_STRIDE + y;
            c0 = fma(vec4<f32>(left_tile[a]), b, c0);
            c1 = fma(vec4<f32>(left_tile[a + 1u]), b, c1);
            c2 = fma(vec4<f32>(left_tile[a + 2u]), b, c2);
            c3 = fma(vec4<f32>(left_tile[a + 3u]), b, c3);
        }
        workgroupBarrier();
    //<close
        k += 16u;
        if (k >= K() * groups.z) {
            break;
        }
    }
    //>
    store(batch, row + y, column + 4u * x, c0);
    store(batch, row + y + 1u, column + 4u * x, c1);
    store(batch, row + y + 2u, column + 4u * x, c2);
    store(batch, row + y + 3u, column + 4u * x, c3);
}
