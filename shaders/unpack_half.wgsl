// x[2 i], x[2 i + 1] = the halves of packed[i] over SCALE, for COUNT words
//
// The inverse of pack_half.wgsl. 6 bytes per element.
//
// binding 0: x [2 COUNT]; 1: packed [COUNT].

override COUNT: u32 = 1u;
override SCALE: f32 = 1.0;

@group(0) @binding(0) var<storage, read_write> x: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> packed: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i < COUNT) {
        x[i] = unpack2x16float(packed[i]) / SCALE;
    }
}
