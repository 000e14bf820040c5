// A step along the direction p of conjugate gradients that another quadratic chooses: with its product q' = C' p + shift p and residual r',
//
//     alpha'   -p.r' / p.q',   times max(0, 1 - variance / (p.r')^2) with SHRINKS;   0 unless p.q' > 0
//     x' += alpha' p;   r' += alpha' q'
//
// It runs after both products and before the iteration that changes p, and does nothing once the solve has stopped. 20 bytes read and 8 written per
// element, 5 flops. log[3 i ..] = (p.r', p.q', alpha') of iteration i.
//
// binding 0: state; 1: sums = (p.r', p.p, r'.r', p.C'p); 2: p [4 COUNT]; 3: C'p; 4: x'; 5: r'; 6: log; 7: variance of p.r'.
//#include cg/state.wgsl

override COUNT: u32 = 1u;
override SHRINKS: bool = false;

@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read> p: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> r: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> log: array<f32>;
@group(0) @binding(7) var<storage, read> variance: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i >= COUNT || state.next.stop != 0u) {
        return;
    }
    let shift = state.shift;
    let slope = sums[0];
    let curvature = sums[3] + shift * sums[1];
    var alpha = 0.0;
    if (curvature > 0.0) {
        alpha = -slope / curvature;
        if (SHRINKS) {
            alpha *= max(0.0, 1.0 - variance[0] / (slope * slope));
        }
    }
    if (!is_finite(alpha)) {
        alpha = 0.0;
    }
    x[i] += alpha * p[i];
    r[i] += alpha * (q[i] + shift * p[i]);
    if (i == 0u) {
        let at = 3u * state.next.iterations;
        log[at] = slope;
        log[at + 1u] = curvature;
        log[at + 2u] = alpha;
    }
}
