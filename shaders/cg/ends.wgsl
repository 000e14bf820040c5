// The scalars at the two ends of a run of iterations, in one workgroup: adds the partial sums of up to 256 workgroups for each segment of
// the vectors.
//
// CLOSE false, after start.wgsl: a new state with phi(x0). A gradient of zeros is a stationary point, where a solve ends before it begins;
// one that is not finite, or has no normal number in it, ends it, too. CLOSE true, after the sums of long.wgsl: r.r of the last iterate. A
// small residual goes before the cap on iterations and the lack of progress; a solve that goes on finds it itself, in its next iteration,
// so that nothing depends on where runs end.
//
// binding 0: state; 1: partial [8 GROUPS].
//#include finite.wgsl
//#include cg/state.wgsl
//#include cg/sums.wgsl
//#include cg/partials.wgsl

override CLOSE: bool = false;

const SMALLEST_NORMAL: u32 = 0x00800000u;
const INFINITY: u32 = 0x7f800000u;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_id) local: vec3<u32>) {
    let sum = over_partials(local.x).a;
    if (local.x != 0u) {
        return;
    }
    if (CLOSE) {
        let rr = sum.z;
        let stop = state.next.stop;
        let open = stop == PROGRESS || stop == MAX_ITERATIONS;
        if (!is_finite(rr)) {
            state.next.stop = select(stop, NOT_FINITE, open);
            return;
        }
        state.next.rr = rr;
        state.next.stop = select(stop, RESIDUAL, open && is_small(rr, state.next.gg));
    } else {
        var first = Scalars();
        if (state.largest == 0u) {
            first.stop = RESIDUAL;
        } else if (state.largest < SMALLEST_NORMAL || state.largest >= INFINITY) {
            first.stop = NOT_FINITE;
        }
        let down = inverse_power(unit());
        first.rr = sum.x;
        first.gg = sum.z;
        first.phi = 0.5 * down * sum.y;
        first.lift = first_lift();
        state.next = first;
        state.phi[0] = first.phi;
    }
}

// Before a step length is known: the geometric mean of 1 and of what makes x as large as 1, but no more than the shift allows.
fn first_lift() -> f32 {
    let exponent = i32(bitcast<u32>(unit()) >> 23u) - 127;
    let lift = bitcast<f32>(u32(127 - (exponent >> 1u)) << 23u);
    if (state.shift > 0.0) {
        return min(lift, inverse_power(power_of_two(state.shift)));
    }
    return lift;
}
