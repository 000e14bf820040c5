// result[i] = (n, x_n), n the iterations that ran of loops of counts[i] = (first, second, outer, inner): one after the other, then one
// inside another
//
// Some drivers end loops early without a word. The number of iterations alone could be computed without a loop; x_(n+1) = 1664525 x_n +
// 1013904223, whose last value the host computes from n, cannot. binding 0: result [cases]; 1: counts [cases]. Workgroups of one
// invocation, so that each case ends by itself.

@group(0) @binding(0) var<storage, read_write> result: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> counts: array<vec4<u32>>;

fn step(state: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(state.x + 1u, state.y * 1664525u + 1013904223u);
}

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    if (id.x >= arrayLength(&counts)) {
        return;
    }
    let count = counts[id.x];
    var state = vec2<u32>(0u, 0u);
    for (var i = 0u; i < count.x; i += 1u) {
        state = step(state);
    }
    for (var i = 0u; i < count.y; i += 1u) {
        state = step(state);
    }
    for (var i = 0u; i < count.z; i += 1u) {
        for (var j = 0u; j < count.w; j += 1u) {
            state = step(state);
        }
    }
    result[id.x] = state;
}
