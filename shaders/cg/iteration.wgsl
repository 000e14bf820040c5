// An iteration of preconditioned conjugate gradients after its product q = C p. With q' = q + shift p and z = M^-1 r:
//
//     sums      (p.q', p.r, r.r, r.z), (z.q', q'.M^-1 q')
//     alpha     -p.r / p.q', the minimiser along p whatever p is
//     x += alpha p;   r += alpha q'
//     beta      r.z of the new r / r.z;   for long vectors the numerator is predicted: r.z + 2 alpha z.q' + alpha^2 q'.M^-1 q'
//     p         -M^-1 r + beta p
//
// A short vector is summed a second time, over the new r, which one workgroup can do within the kernel. For long ones the prediction saves that
// reduction, so that the whole is one reduction and one pass. All sums are taken anew from the vectors in each iteration, so
// an error of the predicted numerator does not accumulate: it makes directions a little less conjugate, no more. Where cancellation leaves
// nothing of it but noise (below NOISE of its terms) beta = 0 disturbs less: the direction then starts anew.
//
// Stops, in this order. On the sums: a number that is not finite; |r| <= tolerance |g|, of the true r, hence one product later than it could be known;
// negative curvature or the boundary of the trust region: without a region x stays; with one, x moves along p to the boundary (Steihaug
// 1983; norms by recurrence as in Conn, Gould, Toint 2000, section 7.5.1). After the step: relative progress of phi over k = max(min_window, i/10)
// iterations below k times its tolerance, for phi < 0 (Martens 2010, section 4.4); the cap on iterations. x never moves to where phi, its norm or the
// predicted numerator are not finite. phi changes by alpha p.r + alpha^2/2 p.q'.
//
// HALF 0: everything, in one workgroup, for short vectors.   HALF 1: the sums, by up to 256 workgroups.
// HALF 2: every workgroup adds their partial sums, in the same order, and decides; then each moves its part.   ALWAYS: HALF 1 sums even
// after the stop.
//
// No race: in HALF 2 all workgroups read state.now and the settings, and one invocation writes state.next; in HALF 1 all read state.next.stop, and one
// invocation copies next to now; in HALF 0 only invocation 0 touches now, next and phi, and hands them on in workgroup memory. phi[i] is written in
// iteration i, which reads no phi later than i - 1. So no dispatch reads what another of its invocations writes, and between
// dispatches everything written is visible. Elements of vectors are touched by one invocation each.
//
// binding 0: state; 1: partial [8 workgroups]; 2: x [4 COUNT]; 3: r; 4: p; 5: q; 6: inverse of the preconditioner (read with PRECONDITIONED only).
// Workgroups of 256: the most that WebGPU lets a kernel count on, and as many as there can be partial sums.
// Sums: 14 flops and 12 bytes per element (21 and 16 preconditioned); step: 8 flops and 28 bytes (9 and 32).
//#include cg/state.wgsl
//#include cg/sums.wgsl

override COUNT: u32 = 1u;
override GROUPS: u32 = 1u;
override HALF: u32 = 0u;
override ALWAYS: bool = false;
override PRECONDITIONED: bool = false;

const NOISE: f32 = 1e-6;

@group(0) @binding(1) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> r: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> p: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> inverse: array<vec4<f32>>;

var<workgroup> before: Scalars;
var<workgroup> phi_then: f32;

// What the sums decide.
struct Decision {
    moves: bool,
    turns: bool,      // p becomes the next direction
    alpha: f32,
    beta: f32,
    next: Scalars,
}

fn window(i: u32) -> u32 {
    return max(state.min_window, i / 10u);
}

// phi_earlier: phi at the other end of the window.
fn decide(s: Scalars, sum: Sums, phi_earlier: f32) -> Decision {
    let pq = sum.a.x;
    let pr = sum.a.y;
    let rr = sum.a.z;
    let rz = sum.a.w;
    var d = Decision(false, false, 0.0, 0.0, s);
    if (s.stop != 0u) {
        return d;
    }
    if (!is_finite(rr) || !is_finite(rz) || !is_finite(s.gg)) {
        d.next.stop = NOT_FINITE;
        return d;
    }
    d.next.rr = rr;
    if (is_small(rr, s.gg)) {
        d.next.stop = RESIDUAL;
        return d;
    }
    d.next.curvature = pq;
    if (!is_finite(pq) || !is_finite(pr)) {
        d.next.stop = NOT_FINITE;
        return d;
    }
    var alpha = 0.0;
    if (pq > 0.0) {
        alpha = -pr / pq;
    }
    let pp = rz + s.tail;
    let region = state.radius > 0.0;
    var reach = s.xx + alpha * (2.0 * s.xp + alpha * pp);
    var pending = 0u;
    if (region && (pq <= 0.0 || reach >= state.radius * state.radius)) {
        // The root of |x + t p| = radius on the side where the model falls.
        let side = select(1.0, -1.0, pr > 0.0);
        let gap = max(state.radius * state.radius - s.xx, 0.0);
        alpha = side * gap / (side * s.xp + sqrt(s.xp * s.xp + pp * gap));
        reach = s.xx + alpha * (2.0 * s.xp + alpha * pp);
        pending = select(BOUNDARY, NEGATIVE_CURVATURE, pq <= 0.0);
    } else if (pq <= 0.0) {
        d.next.stop = NEGATIVE_CURVATURE;
        return d;
    }
    let growth = alpha * alpha * sum.b.y;
    var predicted = rz + 2.0 * alpha * sum.b.x + growth;
    let phi = s.phi + alpha * (pr + 0.5 * alpha * pq);
    // x that overflows could not be taken back.
    if (!is_finite(alpha) || !is_finite(reach) || !is_finite(phi) || !is_finite(predicted)) {
        d.next.stop = NOT_FINITE;
        return d;
    }
    if (predicted < NOISE * (rz + growth)) {
        predicted = 0.0;
    }
    let beta = predicted / rz;
    let i = s.iterations + 1u;
    let k = window(i);
    if (pending != 0u) {
        d.next.stop = pending;
    } else if (!is_finite(beta)) {
        d.next.stop = NOT_FINITE;
    } else if (i > k && phi < 0.0 && phi_earlier - phi < -phi * f32(k) * state.progress_tolerance) {
        d.next.stop = PROGRESS;
    } else if (i >= state.max_iterations) {
        d.next.stop = MAX_ITERATIONS;
    }
    d.moves = true;
    d.turns = d.next.stop == 0u;
    d.alpha = alpha;
    d.next.iterations = i;
    d.next.phi = phi;
    d.next.xx = reach;
    turn(&d, s, rz, predicted);
    return d;
}

// The next direction, from r.z before and after the step.
fn turn(d: ptr<function, Decision>, s: Scalars, rz: f32, rz_after: f32) {
    let pp = rz + s.tail;
    let beta = rz_after / rz;
    (*d).beta = beta;
    (*d).next.xp = beta * (s.xp + (*d).alpha * pp);
    (*d).next.tail = beta * beta * pp;
}

fn preconditioned(i: u32, v: vec4<f32>) -> vec4<f32> {
    if (PRECONDITIONED) {
        return inverse[i] * v;
    }
    return v;
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let first = group.x * 256u + local.x;
    let stride = groups.x * 256u;
    if (local.x == 0u && HALF != 1u) {
        if (HALF == 0u) {
            before = state.next;
        } else {
            before = state.now;
        }
        let i = before.iterations + 1u;
        phi_then = state.phi[max(i, window(i)) - window(i)];
    }
    var term = Sums();
    if (HALF == 2u) {
        if (local.x < GROUPS) {
            term = Sums(partials[2u * local.x], partials[2u * local.x + 1u].xy);
        }
    } else {
        var end = COUNT;
        if (HALF == 1u && !ALWAYS) {
            end = select(COUNT, 0u, state.next.stop != 0u);
        }
        for (var i = first; i < end; i += stride) {
            let pi = p[i];
            let ri = r[i];
            let qi = q[i] + state.shift * pi;
            let zi = preconditioned(i, ri);
            let wi = preconditioned(i, qi);
            term.a += vec4<f32>(dot(pi, qi), dot(pi, ri), dot(ri, ri), dot(ri, zi));
            term.b += vec2<f32>(dot(zi, qi), dot(qi, wi));
        }
    }
    let sum = over_workgroup(term, local.x);
    if (HALF == 1u) {
        if (local.x == 0u) {
            partials[2u * group.x] = sum.a;
            partials[2u * group.x + 1u] = vec4<f32>(sum.b, 0.0, 0.0);
            if (group.x == 0u) {
                state.now = state.next;
            }
        }
        return;
    }
    var decision = decide(before, sum, phi_then);
    let alpha = decision.alpha;
    var after = Sums();
    if (decision.moves) {
        for (var i = first; i < COUNT; i += stride) {
            let pi = p[i];
            let ri = r[i] + alpha * (q[i] + state.shift * pi);
            x[i] += alpha * pi;
            r[i] = ri;
            if (HALF == 0u) {
                after.a.w += dot(ri, preconditioned(i, ri));
            } else if (decision.turns) {
                p[i] = decision.beta * pi - preconditioned(i, ri);
            }
        }
    }
    if (HALF == 0u) {
        // The first sums have been read by all.
        workgroupBarrier();
        after = over_workgroup(after, local.x);
        if (decision.turns) {
            turn(&decision, before, sum.a.w, after.a.w);
            for (var i = first; i < COUNT; i += stride) {
                p[i] = decision.beta * p[i] - preconditioned(i, r[i]);
            }
        }
    }
    if (first == 0u) {
        state.next = decision.next;
        if (decision.moves) {
            state.phi[decision.next.iterations] = decision.next.phi;
        }
    }
}
