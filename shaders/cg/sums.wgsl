// Six sums over the 256 invocations of a workgroup, in fixed order and with two barriers: sixteen invocations add sixteen numbers each, then every
// invocation adds those sixteen. 6.4 KiB of workgroup memory. A barrier must be between two calls.

struct Sums {
    a: vec4<f32>,
    b: vec2<f32>,
}

var<workgroup> all_a: array<vec4<f32>, 256>;
var<workgroup> all_b: array<vec2<f32>, 256>;
var<workgroup> few_a: array<vec4<f32>, 16>;
var<workgroup> few_b: array<vec2<f32>, 16>;

fn over_workgroup(term: Sums, local: u32) -> Sums {
    all_a[local] = term.a;
    all_b[local] = term.b;
    workgroupBarrier();
    if (local < 16u) {
        var sum = Sums();
        for (var k = local; k < 256u; k += 16u) {
            sum.a += all_a[k];
            sum.b += all_b[k];
        }
        few_a[local] = sum.a;
        few_b[local] = sum.b;
    }
    workgroupBarrier();
    var sum = Sums();
    for (var k = 0u; k < 16u; k++) {
        sum.a += few_a[k];
        sum.b += few_b[k];
    }
    return sum;
}
