// to = source where `control[FLAG]` is not 0, else as it was: the parameters of a recorded step, and what a method remembers of it.
//
// 4 bytes read and 4 written per element where it moves, nothing where it does not. binding 0: to [4 COUNT]; 1: source; 2: control.

override COUNT: u32 = 1u;
override FLAG: u32 = 0u;

@group(0) @binding(0) var<storage, read_write> to: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> control: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i < COUNT && control[FLAG] != 0u) {
        to[i] = source[i];
    }
}
