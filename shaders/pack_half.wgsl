// packed[i] = halves of SCALE x[2 i] and SCALE x[2 i + 1], for COUNT words
//
// SCALE, a power of two, keeps the elements of a unit vector among the normal half floats. 6 bytes per element.
//
// binding 0: packed [COUNT]; 1: x [2 COUNT].

override COUNT: u32 = 1u;
override SCALE: f32 = 1.0;

@group(0) @binding(0) var<storage, read_write> packed: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec2<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i < COUNT) {
        packed[i] = pack2x16float(SCALE * x[i]);
    }
}
