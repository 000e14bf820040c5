// result[i] = the sum of 2 PAIRS vectors after 4 rounds[0] steps a <- a m + c of each
//
// The most that the adapter can multiply and add: chains of dependent steps that are independent of each other, in registers, with nothing
// to load. Which number of chains is best depends on how long a step takes and how many registers there are, so several are tried, and both
// ways to write a step: some drivers make a slow function call of fma. m < 1, so that the numbers stay near c / (1 - m); it differs between
// invocations, so that nothing can be computed beforehand. 64 PAIRS flops and no bytes per invocation and round. Workgroups of 64: that
// fills the subgroups of every adapter.
//
// binding 0: result [invocations]; 1: rounds [1].

override PAIRS: u32 = 4u;
override FUSED: bool = true;

@group(0) @binding(0) var<storage, read_write> result: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> rounds: array<u32>;

struct Pair {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn advance(pair: Pair, m: f32, c: f32) -> Pair {
    if (FUSED) {
        return Pair(fma(pair.a, vec4<f32>(m), vec4<f32>(c)), fma(pair.b, vec4<f32>(m), vec4<f32>(c)));
    }
    return Pair(pair.a * m + c, pair.b * m + c);
}

fn start(number: u32) -> Pair {
    let x = f32(number);
    return Pair(vec4<f32>(x, x + 0.1, x + 0.2, x + 0.3), vec4<f32>(x + 0.5, x + 0.6, x + 0.7, x + 0.8));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let m = 0.5 + f32(id.x % 64u) / 256.0;
    let c = 0.25;
    var p0 = start(0u);
    var p1 = start(1u);
    var p2 = start(2u);
    var p3 = start(3u);
    var p4 = start(4u);
    var p5 = start(5u);
    var p6 = start(6u);
    var p7 = start(7u);
    let count = 4u * rounds[0];
    for (var i = 0u; i < count; i += 4u) {
        // Four steps per turn of the loop, in the order in which a processor without reordering wants them.
        p0 = advance(p0, m, c);
        if (PAIRS > 1u) { p1 = advance(p1, m, c); }
        if (PAIRS > 2u) { p2 = advance(p2, m, c); p3 = advance(p3, m, c); }
        if (PAIRS > 4u) { p4 = advance(p4, m, c); p5 = advance(p5, m, c); p6 = advance(p6, m, c); p7 = advance(p7, m, c); }

        p0 = advance(p0, m, c);
        if (PAIRS > 1u) { p1 = advance(p1, m, c); }
        if (PAIRS > 2u) { p2 = advance(p2, m, c); p3 = advance(p3, m, c); }
        if (PAIRS > 4u) { p4 = advance(p4, m, c); p5 = advance(p5, m, c); p6 = advance(p6, m, c); p7 = advance(p7, m, c); }

        p0 = advance(p0, m, c);
        if (PAIRS > 1u) { p1 = advance(p1, m, c); }
        if (PAIRS > 2u) { p2 = advance(p2, m, c); p3 = advance(p3, m, c); }
        if (PAIRS > 4u) { p4 = advance(p4, m, c); p5 = advance(p5, m, c); p6 = advance(p6, m, c); p7 = advance(p7, m, c); }

        p0 = advance(p0, m, c);
        if (PAIRS > 1u) { p1 = advance(p1, m, c); }
        if (PAIRS > 2u) { p2 = advance(p2, m, c); p3 = advance(p3, m, c); }
        if (PAIRS > 4u) { p4 = advance(p4, m, c); p5 = advance(p5, m, c); p6 = advance(p6, m, c); p7 = advance(p7, m, c); }
    }
    let low = (p0.a + p0.b) + (p1.a + p1.b) + (p2.a + p2.b) + (p3.a + p3.b);
    let high = (p4.a + p4.b) + (p5.a + p5.b) + (p6.a + p6.b) + (p7.a + p7.b);
    result[id.x] = low + high;
}
