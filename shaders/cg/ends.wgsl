// The scalars at the two ends of a run of iterations, in one workgroup: adds the partial sums of up to 256 workgroups.
//
// CLOSE false, after start.wgsl: a new state with phi(x0).
// CLOSE true, after the sums of long.wgsl: r.r of the last iterate, and the stop that follows from it. A small residual goes before
// the cap on iterations and the lack of progress.
//
// binding 0: state; 1: partial [8 GROUPS].
//#include cg/state.wgsl
//#include cg/sums.wgsl
//#include cg/partials.wgsl

override CLOSE: bool = false;


@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_id) local: vec3<u32>) {
    let sum = over_partials(local.x).a;
    if (local.x != 0u) {
        return;
    }
    if (CLOSE) {
        let rr = sum.z;
        let stop = state.next.stop;
        let open = stop == 0u || stop == PROGRESS || stop == MAX_ITERATIONS;
        if (!is_finite(rr)) {
            state.next.stop = select(stop, NOT_FINITE, open);
            return;
        }
        state.next.rr = rr;
        state.next.stop = select(stop, RESIDUAL, open && is_small(rr, state.next.gg));
    } else {
        var first = Scalars();
        first.rr = sum.x;
        first.gg = sum.z;
        first.phi = 0.5 * sum.y;
        state.next = first;
        state.phi[0] = first.phi;
    }
}
