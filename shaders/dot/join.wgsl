// C[b, m, n] = f(sum over s of partial[s, b, m, n])
//
// Last kernel of a product whose terms are divided into parts, each a product of its own: for few results with many terms, where one
// workgroup per tile would leave most of a GPU idle, and for more terms than one invocation may add up. PARTS of equal length come first,
// then, if there is one, a shorter one. They are added in order, so that the bits repeat, 32 of them and then these sums; what is
// elementwise in the product is done here. One invocation makes four neighbouring columns of a row. PARTS B M N flops; reads 4 PARTS B M N
// bytes, writes 4 B M N.
//
// binding 0: C [B, M, N]; 1: partial [PARTS, B, M, N]; 2: rest [B, M, N], or anything without one.

//<constants
fn M() -> u32 { return 4u; }
const N: u32 = 4u;
const BATCH: u32 = 1u;
const PARTS: u32 = 2u;
const HAS_REST: bool = false;
@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read> rest: array<f32>;
//>

//<load
fn load(at: u32) -> vec4<f32> {
    return vec4<f32>(partial[at]);
}
fn load_rest(at: u32) -> vec4<f32> {
    return vec4<f32>(rest[at]);
}
//>

//<store
fn store(batch: u32, row: u32, column: u32, inner: vec4<f32>) {
    result[(batch * M() + row) * N + column] = inner.x;
}
//>

const TOGETHER: u32 = 32u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    let across = (N + 3u) / 4u;
    if (i >= BATCH * M() * across) {
        return;
    }
    // Of all matrices of the batch.
    let row = i / across;
    let column = 4u * (i % across);
    var sum = vec4<f32>();
    for (var first = 0u; first < PARTS; first += TOGETHER) {
        var few = vec4<f32>();
        for (var s = first; s < min(PARTS, first + TOGETHER); s++) {
            few += load((s * BATCH * M() + row) * N + column);
        }
        sum += few;
    }
    if (HAS_REST) {
        sum += load_rest(row * N + column);
    }
    store(row / M(), row % M(), column, sum);
}
