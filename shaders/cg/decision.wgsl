// What an iteration does, from its sums; one invocation of a workgroup decides, and hands what the others need on in workgroup memory.
//
// Stops, in this order. On the sums: a number that is not finite; |r| <= tolerance |g|, of the true r, hence one product later than it
// could be known; negative curvature or the boundary of the trust region: without a region x stays; with one, x moves along p to the
// boundary (Steihaug 1983; norms by recurrence as in Conn, Gould, Toint 2000, section 7.5.1). After the step: relative progress of phi over
// k = max(min_window, i/10) iterations below k times its tolerance, for phi < 0 (Martens 2010, section 4.4); the cap on iterations. x never
// moves to where phi, its norm or the predicted numerator are not finite. phi changes by alpha p.r + alpha^2/2 p.q'.
//
// Every comparison here is one of numbers in the same units, so no decision depends on the unit of the loss.
//#include finite.wgsl
//#include cg/state.wgsl
//#include cg/sums.wgsl

const NOISE: f32 = 1e-6;

// What the sums decide.
struct Decision {
    moves: bool,
    turns: bool,      // p becomes the next direction
    alpha: f32,
    along: f32,       // scale alpha: x moves by so much of p
    beta: f32,
    next: Scalars,
}

fn window(i: u32) -> u32 {
    return max(state.min_window, i / 10u);
}

// Number of the iteration whose phi is at the other end of the window of iteration i.
fn earlier(i: u32) -> u32 {
    return max(i, window(i)) - window(i);
}

// phi_earlier: phi at the other end of the window.
fn decide(s: Scalars, sum: Sums, phi_earlier: f32) -> Decision {
    let pq = sum.a.x;
    let pr = sum.a.y;
    let rr = sum.a.z;
    let rz = sum.a.w;
    var d = Decision(false, false, 0.0, 0.0, 0.0, s);
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
    let scale = unit();
    var along = scale * alpha;
    let pp = rz + s.tail;
    let region = state.radius > 0.0;
    var reach = s.xx + along * (2.0 * s.xp + along * pp);
    var pending = 0u;
    if (region && (pq <= 0.0 || reach >= state.radius * state.radius)) {
        // The root of |x + t p| = radius on the side where the model falls.
        let side = select(1.0, -1.0, pr > 0.0);
        let gap = max(state.radius * state.radius - s.xx, 0.0);
        along = side * gap / (side * s.xp + sqrt(s.xp * s.xp + pp * gap));
        alpha = inverse_power(scale) * along;
        reach = s.xx + along * (2.0 * s.xp + along * pp);
        pending = select(BOUNDARY, NEGATIVE_CURVATURE, pq <= 0.0);
    } else if (pq <= 0.0) {
        d.next.stop = NEGATIVE_CURVATURE;
        return d;
    }
    // sum.b.y is of lift q'.
    let lowered = inverse_power(s.lift) * alpha;
    let growth = lowered * (lowered * sum.b.y);
    var predicted = rz + 2.0 * alpha * sum.b.x + growth;
    let phi = s.phi + alpha * (pr + 0.5 * alpha * pq);
    // x that overflows could not be taken back.
    if (!is_finite(alpha) || !is_finite(along) || !is_finite(reach) || !is_finite(phi) || !is_finite(predicted)) {
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
    d.along = along;
    d.next.iterations = i;
    d.next.phi = phi;
    d.next.xx = reach;
    d.next.lift = power_of_two(abs(alpha));
    turn(&d, s, rz, predicted);
    return d;
}

// The next direction, from r.z before and after the step.
fn turn(d: ptr<function, Decision>, s: Scalars, rz: f32, rz_after: f32) {
    let pp = rz + s.tail;
    let beta = rz_after / rz;
    (*d).beta = beta;
    (*d).next.xp = beta * (s.xp + (*d).along * pp);
    (*d).next.tail = beta * beta * pp;
}
