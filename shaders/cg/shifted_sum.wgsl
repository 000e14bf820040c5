// The residual of a companion at a first iterate x with the product q, and half of what its model there is made of:
//
//     r = q + shift x + g;   s = (r + g) / 2,   so that the model is x.s
//
// 12 bytes read and 8 written per element.
//
// binding 0: state; 1: r [4 COUNT]; 2: q; 3: x; 4: g; 5: s.
//#include finite.wgsl
//#include cg/state.wgsl

override COUNT: u32 = 1u;

@group(0) @binding(1) var<storage, read_write> r: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> s: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i < COUNT) {
        let gradient = g[i];
        let residual = q[i] + state.shift * x[i] + gradient;
        r[i] = residual;
        s[i] = 0.5 * (residual + gradient);
    }
}
