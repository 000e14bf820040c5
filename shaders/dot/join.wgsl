// C[m, n] = f(sum over s of partial[s, m, n])
//
// Second half of a product whose terms are split into PARTS: for few results with many terms, where one workgroup per tile would leave most of a GPU
// idle. The parts are added in order, so that the bits repeat; what is elementwise in the product is done here. One invocation makes four neighbouring
// columns of a row. PARTS M N flops; reads 4 PARTS M N bytes, writes 4 M N.
//
// binding 0: C [M, N]; 1: partial [PARTS, M, N].

//<constants
const M: u32 = 4u;
const N: u32 = 4u;
const PARTS: u32 = 2u;
@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
//>

//<load
fn load(at: u32) -> vec4<f32> {
    return vec4<f32>(partial[at]);
}
//>

//<store
fn store(batch: u32, row: u32, column: u32, inner: vec4<f32>) {
    result[row * N + column] = inner.x;
}
//>

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    let across = (N + 3u) / 4u;
    if (i >= M * across) {
        return;
    }
    let row = i / across;
    let column = 4u * (i % across);
    var sum = vec4<f32>();
    for (var s = 0u; s < PARTS; s++) {
        sum += load((s * M + row) * N + column);
    }
    store(0u, row, column, sum);
}
