// out[o] = sum or max over r of f(in_1[..o, r..], ..)
//
// A reduction with the elementwise chain before it fused into the loop. LANES invocations of a workgroup share one result: 1 where there
// are many results or few terms, else 64. Each adds up every LANES-th term, in chunks; the lanes are added in fixed order, so that the bits
// repeat. An invocation has at most 4,096 terms; where there are more, the terms are divided into PARTS of EACH terms, and the results
// [PARTS, OUTPUTS] are terms of a second reduction. OUTPUTS results of TERMS terms each; reads each operand once per term.
//
// binding 0: the result, contiguous or in rows at a pitch (`place`). bindings 1..: operands, and then a uniform with OUTPUTS, TERMS, PARTS
// and EACH, which batches of any size share.
//#include functions.wgsl

//<bindings
@group(0) @binding(0) var<storage, read_write> result: array<T>;
fn OUTPUTS() -> u32 { return 1u; }
fn TERMS() -> u32 { return 1u; }
fn PARTS() -> u32 { return 1u; }
fn EACH() -> u32 { return 1u; }
const PARTED: bool = false;
const LANES: u32 = 64u;
alias R = T;
fn place(i: u32) -> u32 { return i; }
//>

var<workgroup> partial: array<T, 64>;

//<combine
fn start() -> T { return T(0.0); }
fn combine(a: T, b: T) -> T { return a + b; }
fn finish(o: u32, a: T) -> R { return a; }
fn store(at: u32, value: R) { result[at] = value; }
//>

fn term(o: u32, r: u32) -> T {
    //<body
    let value = T(0.0);
    //>
    return value;
}

// Every `stride`-th term of a part from its term `first` on, in chunks of 64, so that rounding errors grow with 64 + EACH / (64 stride) and
// not with EACH.
fn chunks(o: u32, part: u32, first: u32, stride: u32) -> T {
    let end = min(TERMS(), (part + 1u) * EACH());
    var total = start();
    for (var chunk = part * EACH() + first; chunk < end; chunk += 64u * stride) {
        var few = start();
        for (var r = chunk; r < min(end, chunk + 64u * stride); r += stride) {
            few = combine(few, term(o, r));
        }
        total = combine(total, few);
    }
    return total;
}

// The part that result i is of; its output is i - part OUTPUTS.
fn part_of(i: u32) -> u32 {
    if (!PARTED) {
        return 0u;
    }
    return i / OUTPUTS();
}

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let group_index = group.x + group.y * groups.x;
    if (LANES == 1u) {
        let i = group_index * 64u + local.x;
        if (i < OUTPUTS() * PARTS()) {
            let part = part_of(i);
            let o = i - part * OUTPUTS();
            store(place(i), finish(o, chunks(o, part, 0u, 1u)));
        }
    } else {
        // The same for the whole workgroup, so that the barriers below are uniform.
        let i = min(group_index, OUTPUTS() * PARTS() - 1u);
        let part = part_of(i);
        let o = i - part * OUTPUTS();
        partial[local.x] = chunks(o, part, local.x, 64u);
        workgroupBarrier();
        // Two levels of eight: fewer barriers than halving six times.
        if (local.x < 8u) {
            var total = partial[8u * local.x];
            for (var lane = 1u; lane < 8u; lane += 1u) {
                total = combine(total, partial[8u * local.x + lane]);
            }
            partial[8u * local.x] = total;
        }
        workgroupBarrier();
        if (local.x == 0u && group_index < OUTPUTS() * PARTS()) {
            var total = partial[0];
            for (var lane = 8u; lane < 64u; lane += 8u) {
                total = combine(total, partial[lane]);
            }
            store(place(i), finish(o, total));
        }
    }
}
