// Sums over the LANES invocations of a workgroup, six, four or one, in fixed order: FEW invocations add every FEW-th number each, then
// invocation 0 adds theirs and alone has the result. Two barriers, or one where there are no more than FEW invocations; a barrier must be
// between two calls. Workgroup memory: 24 (LANES + FEW) bytes.
//
// An invocation adds its terms in runs of RUN, and then the runs: equal terms lose up to 7e-9 of the sum in each addition, and 10^8
// elements would be a chain of 1,526. No chain is longer than RUN up to segments of LANES RUN^2 workgroups `Floats`, which are 256 MiB
// with eight invocations and 64 workgroups in software, and eight such segments; and no loop nears the 65,535 iterations at which some
// drivers end it.

//<lanes
const LANES: u32 = 256u;
const FEW: u32 = 16u;
//>

const RUN: u32 = 128u;

struct Sums {
    a: vec4<f32>,
    b: vec2<f32>,
}

var<workgroup> all_a: array<vec4<f32>, LANES>;
var<workgroup> all_b: array<vec2<f32>, LANES>;
var<workgroup> few_a: array<vec4<f32>, FEW>;
var<workgroup> few_b: array<vec2<f32>, FEW>;

fn over_workgroup(term: Sums, local: u32) -> Sums {
    if (LANES == FEW) {
        few_a[local] = term.a;
        few_b[local] = term.b;
    } else {
        all_a[local] = term.a;
        all_b[local] = term.b;
        workgroupBarrier();
        if (local < FEW) {
            var sum = Sums();
            for (var k = local; k < LANES; k += FEW) {
                sum.a += all_a[k];
                sum.b += all_b[k];
            }
            few_a[local] = sum.a;
            few_b[local] = sum.b;
        }
    }
    workgroupBarrier();
    return over_few(local);
}

fn over_few(local: u32) -> Sums {
    var sum = Sums();
    if (local == 0u) {
        for (var k = 0u; k < FEW; k++) {
            sum.a += few_a[k];
            sum.b += few_b[k];
        }
    }
    return sum;
}

fn four_over_workgroup(term: vec4<f32>, local: u32) -> vec4<f32> {
    if (LANES == FEW) {
        few_a[local] = term;
    } else {
        all_a[local] = term;
        workgroupBarrier();
        if (local < FEW) {
            var sum = vec4<f32>();
            for (var k = local; k < LANES; k += FEW) {
                sum += all_a[k];
            }
            few_a[local] = sum;
        }
    }
    workgroupBarrier();
    var sum = vec4<f32>();
    if (local == 0u) {
        for (var k = 0u; k < FEW; k++) {
            sum += few_a[k];
        }
    }
    return sum;
}

fn one_over_workgroup(term: f32, local: u32) -> f32 {
    if (LANES == FEW) {
        few_b[local].x = term;
    } else {
        all_b[local].x = term;
        workgroupBarrier();
        if (local < FEW) {
            var sum = 0.0;
            for (var k = local; k < LANES; k += FEW) {
                sum += all_b[k].x;
            }
            few_b[local].x = sum;
        }
    }
    workgroupBarrier();
    var sum = 0.0;
    if (local == 0u) {
        for (var k = 0u; k < FEW; k++) {
            sum += few_b[k].x;
        }
    }
    return sum;
}
