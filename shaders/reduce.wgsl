// out[o] = sum or max over r of f(in_1[..o, r..], ..)
//
// A reduction with the elementwise chain before it fused into the loop. LANES invocations of a workgroup share one result: 1 where there are many
// results or few terms, else 64. Each adds up every LANES-th term, in chunks; the lanes are added in fixed order, so that the bits repeat.
// OUTPUTS results of TERMS terms each; reads each operand once per term.
//
// binding 0: the result, contiguous or in rows at a pitch (`place`). bindings 1..: operands.
//#include functions.wgsl

//<bindings
@group(0) @binding(0) var<storage, read_write> result: array<T>;
const OUTPUTS: u32 = 1u;
const TERMS: u32 = 1u;
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

// Every `stride`-th term from `first` on, in chunks of 64, so that rounding errors grow with 64 + TERMS / (64 stride) and not with TERMS.
fn chunks(o: u32, first: u32, stride: u32) -> T {
    var total = start();
    for (var chunk = first; chunk < TERMS; chunk += 64u * stride) {
        var part = start();
        for (var r = chunk; r < min(TERMS, chunk + 64u * stride); r += stride) {
            part = combine(part, term(o, r));
        }
        total = combine(total, part);
    }
    return total;
}

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let group_index = group.x + group.y * groups.x;
    if (LANES == 1u) {
        let o = group_index * 64u + local.x;
        if (o < OUTPUTS) {
            store(place(o), finish(o, chunks(o, 0u, 1u)));
        }
    } else {
        // The same for the whole workgroup, so that the barriers below are uniform.
        let o = min(group_index, OUTPUTS - 1u);
        partial[local.x] = chunks(o, local.x, 64u);
        workgroupBarrier();
        // Two levels of eight: fewer barriers than halving six times.
        if (local.x < 8u) {
            var total = partial[8u * local.x];
            for (var i = 1u; i < 8u; i += 1u) {
                total = combine(total, partial[8u * local.x + i]);
            }
            partial[8u * local.x] = total;
        }
        workgroupBarrier();
        if (local.x == 0u && group_index < OUTPUTS) {
            var total = partial[0];
            for (var i = 8u; i < 64u; i += 8u) {
                total = combine(total, partial[i]);
            }
            store(place(o), finish(o, total));
        }
    }
}
