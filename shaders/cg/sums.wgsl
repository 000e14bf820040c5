// Six sums over the LANES invocations of a workgroup, in fixed order: sixteen invocations add every sixteenth number each, then invocation
// 0 adds those sixteen and alone has the result. Two barriers; a barrier must be between two calls. Workgroup memory: 24 (LANES + 16)
// bytes.
//
// An invocation adds its terms in runs of RUN, and then the runs: equal terms lose up to 7e-9 of the sum in each addition, and 10^8
// elements would be a chain of 1,526. No chain is longer than RUN up to segments of 64 RUN^2 MOST_GROUPS vec4s, and eight of them; and no
// loop nears the 65,535 iterations at which some drivers end it.

//<lanes
const LANES: u32 = 256u;
//>

const RUN: u32 = 128u;

struct Sums {
    a: vec4<f32>,
    b: vec2<f32>,
}

var<workgroup> all_a: array<vec4<f32>, LANES>;
var<workgroup> all_b: array<vec2<f32>, LANES>;
var<workgroup> few_a: array<vec4<f32>, 16>;
var<workgroup> few_b: array<vec2<f32>, 16>;

fn over_workgroup(term: Sums, local: u32) -> Sums {
    all_a[local] = term.a;
    all_b[local] = term.b;
    workgroupBarrier();
    if (local < 16u) {
        var sum = Sums();
        for (var k = local; k < LANES; k += 16u) {
            sum.a += all_a[k];
            sum.b += all_b[k];
        }
        few_a[local] = sum.a;
        few_b[local] = sum.b;
    }
    workgroupBarrier();
    return over_few(local);
}

fn over_few(local: u32) -> Sums {
    var sum = Sums();
    if (local == 0u) {
        for (var k = 0u; k < 16u; k++) {
            sum.a += few_a[k];
            sum.b += few_b[k];
        }
    }
    return sum;
}
