// out[i] = f(in_1[..], in_2[..], ..)
//
// A fused chain of elementwise primitives and changes of index. One invocation makes one T: a vec4<f32> where every operand allows it,
// because loads, not arithmetic, are the cost (on software adapters every scalar load is a gather). Shapes and strides are written into the
// text as constants, so that divisions by sizes fold; how many there are in all is read (COUNT), so that batches of any size share the
// kernel. Reads each operand once per use, writes COUNT elements of T.
//
// binding 0: the result, contiguous or in rows at a pitch (`place`). bindings 1..: operands, and then a uniform with COUNT.
//#include functions.wgsl
// Workgroups of 64: a multiple of every subgroup size up to 64, small enough for every device.

//<bindings
@group(0) @binding(0) var<storage, read_write> result: array<T>;
fn COUNT() -> u32 { return 1u; }
fn place(i: u32) -> u32 { return i; }
//>

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i >= COUNT()) {
        return;
    }
    //<body
    let value = T(0.0);
    //>
    let at = place(i);
    //<store
    result[at] = value;
    //>
}
