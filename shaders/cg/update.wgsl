// x <- x + alpha p;  r <- r + alpha (q + shift p);  partial sums of (r.z, r.r, x.(r + g)) with the new x and r, z = M^-1 r
//
// Returns at once when the solve has stopped. 14 flops and 36 bytes per element.
// binding 0: state; 1: partial [4 workgroups]; 2: x [4 COUNT]; 3: r; 4: p; 5: q; 6: g; 7: inverse of the preconditioner.
//#include cg/state.wgsl

override COUNT: u32 = 1u;
override PRECONDITIONED: bool = false;

@group(0) @binding(0) var<storage, read> state: State;
@group(0) @binding(1) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> r: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> p: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> inverse: array<vec4<f32>>;

var<workgroup> sums: array<vec4<f32>, 64>;
var<workgroup> stopped: u32;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    // Read by one invocation and handed to all, so that the barriers below are uniform.
    if (local.x == 0u) {
        stopped = state.stop;
    }
    if (workgroupUniformLoad(&stopped) != 0u) {
        return;
    }
    let alpha = state.alpha;
    var sum = vec4<f32>();
    for (var i = group.x * 64u + local.x; i < COUNT; i += groups.x * 64u) {
        let pi = p[i];
        let xi = x[i] + alpha * pi;
        let ri = r[i] + alpha * (q[i] + state.shift * pi);
        var zi = ri;
        if (PRECONDITIONED) {
            zi = inverse[i] * ri;
        }
        x[i] = xi;
        r[i] = ri;
        sum += vec4<f32>(dot(ri, zi), dot(ri, ri), dot(xi, ri + g[i]), 0.0);
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
