// r = C x + shift x + g;  p = -M^-1 r;  partial sums of (r.z, r.r, x.(r + g), g.g)
//
// First kernel of a solve. With WARM, x is given and q = C x; else x = 0 is written and q is not read.
// binding 0: state; 1: partial [4 workgroups]; 2: x [4 COUNT]; 3: r; 4: p; 5: q; 6: g; 7: inverse of the diagonal preconditioner (read with
// PRECONDITIONED only).
//#include cg/state.wgsl

override COUNT: u32 = 1u;
override WARM: bool = false;
override PRECONDITIONED: bool = false;

@group(0) @binding(0) var<storage, read> state: State;
@group(0) @binding(1) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> r: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> p: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> inverse: array<vec4<f32>>;

var<workgroup> sums: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    var sum = vec4<f32>();
    for (var i = group.x * 64u + local.x; i < COUNT; i += groups.x * 64u) {
        let gi = g[i];
        var xi = vec4<f32>();
        var ri = gi;
        if (WARM) {
            xi = x[i];
            ri = q[i] + state.shift * xi + gi;
        } else {
            x[i] = xi;
        }
        var zi = ri;
        if (PRECONDITIONED) {
            zi = inverse[i] * ri;
        }
        r[i] = ri;
        p[i] = -zi;
        sum += vec4<f32>(dot(ri, zi), dot(ri, ri), dot(xi, ri + gi), dot(gi, gi));
    }
    sums[local.x] = sum;
    workgroupBarrier();
    for (var width = 32u; width > 0u; width /= 2u) {
        if (local.x < width) {
            sums[local.x] += sums[local.x + width];
        }
        workgroupBarrier();
    }
    if (local.x == 0u) {
        partials[group.x] = sums[0];
    }
}
