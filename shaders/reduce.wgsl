// out[o] = sum or max over r of f(in_1[..o, r..], ..)
//
// A reduction with the elementwise chain before it fused into the loop. LANES invocations of a workgroup share one result: 1 where there are many
// results or few terms, else 64. Each adds up every LANES-th term; a tree in fixed order adds the lanes, so that the bits repeat.
// OUTPUTS results of TERMS terms each; reads each operand once per term.
//
// binding 0: the result, contiguous or in rows at a pitch (`place`). bindings 1..: operands.
//#include functions.wgsl

//<bindings
@group(0) @binding(0) var<storage, read_write> result: array<T>;
const OUTPUTS: u32 = 1u;
const TERMS: u32 = 1u;
const LANES: u32 = 64u;
const START: T = T(0.0);
alias R = T;
fn place(i: u32) -> u32 { return i; }
//>

var<workgroup> partial: array<T, 64>;

//<combine
fn combine(a: T, b: T) -> T { return a + b; }
fn finish(a: T) -> R { return a; }
//>

fn term(o: u32, r: u32) -> T {
    //<body
    let value = T(0.0);
    //>
    return value;
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
            var total = START;
            for (var r = 0u; r < TERMS; r += 1u) {
                total = combine(total, term(o, r));
            }
            result[place(o)] = finish(total);
        }
    } else {
        // The same for the whole workgroup, so that the barriers below are uniform.
        let o = min(group_index, OUTPUTS - 1u);
        var total = START;
        for (var r = local.x; r < TERMS; r += 64u) {
            total = combine(total, term(o, r));
        }
        partial[local.x] = total;
        workgroupBarrier();
        for (var width = 32u; width > 0u; width /= 2u) {
            if (local.x < width) {
                partial[local.x] = combine(partial[local.x], partial[local.x + width]);
            }
            workgroupBarrier();
        }
        if (local.x == 0u && group_index < OUTPUTS) {
            result[place(o)] = finish(partial[0]);
        }
    }
}
