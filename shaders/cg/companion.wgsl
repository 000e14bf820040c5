// A step along the direction p of conjugate gradients that another quadratic chooses: with its product q' = C' p + shift p and residual r',
//
//     alpha'   -p.r' / p.q',   times max(0, 1 - variance / (p.r')^2) with SHRINKS;   0 unless p.q' > 0
//     x' += alpha' p;   r' += alpha' q'
//
// It runs after the product and before the iteration that changes p, and does nothing once the solve has stopped.
//
// p is in units of the solve that it belongs to (see state.wgsl), and slopes, curvatures and steps are those along p as it is there; x' and
// r' are in their own.
//
// HALF 1: the sums (p.q', p.r'), by up to 256 workgroups.   HALF 2: every workgroup adds their partial sums, in the same order; then each
// moves its part. HALF 0: both, in one workgroup, for vectors that one manages. log[3 i ..] = (p.r', p.q', alpha') of iteration i. Segments
// of vectors as in long.wgsl.
//
// Sums: 6 flops and 12 bytes per element; step: 6 flops, 16 bytes read and 8 written.
//
// binding 0: state; 1: partial [8 workgroups], in HALF 2 [8 GROUPS]; 2: p [COUNT Floats]; 3: C'p; 4: x'; 5: r'; 6: log; 7: variance of
// p.g'.
//#include cg/floats.wgsl
//#include finite.wgsl
//#include cg/state.wgsl
//#include cg/sums.wgsl
//#include cg/partials.wgsl

override COUNT: u32 = 1u;
override HALF: u32 = 0u;
override SHRINKS: bool = false;

@group(0) @binding(2) var<storage, read> p: array<Stored>;
@group(0) @binding(3) var<storage, read> q: array<Stored>;
@group(0) @binding(4) var<storage, read_write> x: array<Stored>;
@group(0) @binding(5) var<storage, read_write> r: array<Stored>;
@group(0) @binding(6) var<storage, read_write> log: array<f32>;
@group(0) @binding(7) var<storage, read> variance: array<f32>;

var<workgroup> end: u32;
var<workgroup> shift: f32;
var<workgroup> alpha: f32;

fn length_along(slope: f32, curvature: f32) -> f32 {
    var length = 0.0;
    if (curvature > 0.0) {
        length = -slope / curvature;
        if (SHRINKS) {
            length *= max(0.0, 1.0 - variance[0] / slope / slope);
        }
    }
    return select(0.0, length, is_finite(length));
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    // The workgroup's share, of neighbours.
    let each = (COUNT + groups.x - 1u) / groups.x;
    let first = group.x * each + local.x;
    if (local.x == 0u) {
        shift = state.shift;
        end = select(min(COUNT, (group.x + 1u) * each), 0u, state.next.stop != 0u);
    }
    workgroupBarrier();
    let added = shift;
    let stop = end;
    var sum = Sums();
    if (HALF < 2u) {
        for (var run = first; run < stop; run += RUN * LANES) {
            var part = vec2<f32>();
            let rest = min(stop, run + RUN * LANES);
            for (var i = run; i < rest; i += LANES) {
                let pi = floats(p[i]);
                let qi = floats(q[i]) + added * pi;
                part += vec2<f32>(inner(pi, qi), inner(pi, floats(r[i])));
            }
            sum.b += part;
        }
        sum = over_workgroup(sum, local.x);
    } else {
        sum = over_partials(local.x);
    }
    if (HALF == 1u) {
        if (local.x == 0u) {
            partials[2u * group.x + 1u] = vec4<f32>(sum.b, 0.0, 0.0);
        }
        return;
    }
    if (local.x == 0u) {
        alpha = length_along(sum.b.y, sum.b.x);
        if (group.x == 0u && stop != 0u) {
            let at = 3u * state.next.iterations;
            log[at] = sum.b.y;
            log[at + 1u] = sum.b.x;
            log[at + 2u] = alpha;
        }
    }
    workgroupBarrier();
    let step = alpha;
    for (var i = first; i < stop; i += LANES) {
        let pi = floats(p[i]);
        x[i] = stored(floats(x[i]) + step * pi);
        r[i] = stored(floats(r[i]) + step * (floats(q[i]) + added * pi));
    }
}
