// An iteration of preconditioned conjugate gradients after its product q = C p, for vectors that need several workgroups. With q' = q +
// shift p and z = M^-1 r:
//
//     sums      (p.q', p.r, r.r, r.z), (z.q', q'.M^-1 q')
//     alpha     -p.r / p.q', the minimiser along p whatever p is
//     x += scale alpha p;   r += alpha q'
//     beta      r.z of the new r / r.z, whose numerator is predicted: r.z + 2 alpha z.q' + alpha^2 q'.M^-1 q'
//     p         -M^-1 r + beta p
//
// The prediction saves a reduction, so that the whole is one reduction and one pass. All sums are taken anew from the vectors in each
// iteration, so an error of the predicted numerator does not accumulate: it makes directions a little less conjugate, no more. Where
// cancellation leaves nothing of it but noise (below NOISE of its terms) beta = 0 disturbs less: the direction then starts anew. q'.M^-1 q'
// is summed of lift q'.
//
// HALF 1: the sums, by up to 256 workgroups.   HALF 2: every workgroup adds their partial sums, in the same order, and decides; then each
// moves its part.   ALWAYS: HALF 1 sums even after the stop.
//
// Vectors that are longer than a binding come in segments of COUNT `Floats`, and each half runs once for each: HALF 1 with the segment's
// own place among the partial sums, HALF 2 with those of all segments. So each segment decides anew, from the same numbers.
//
// No race: in HALF 2 all workgroups read state.now and the settings, and one invocation writes state.next; in HALF 1 all read
// state.next.stop, and one invocation copies next to now. phi[i] is written in iteration i, which reads no phi later than i - 1. So no
// dispatch reads what another of its invocations writes, and between dispatches everything written is visible. Further segments write the
// same numbers again. Elements of vectors are touched by one invocation each.
//
// binding 0: state; 1: partial [8 workgroups], in HALF 2 [8 GROUPS]; 2: x [COUNT Floats]; 3: r; 4: p; 5: q; 6: inverse of the
// preconditioner (read with PRECONDITIONED only). Sums: 14 flops and 12 bytes per element (21 and 16 preconditioned); step: 8 flops and 28
// bytes (9 and 32).
//#include cg/floats.wgsl
//#include finite.wgsl
//#include cg/state.wgsl
//#include cg/sums.wgsl
//#include cg/partials.wgsl
//#include cg/decision.wgsl

override COUNT: u32 = 1u;
override HALF: u32 = 1u;
override ALWAYS: bool = false;
override PRECONDITIONED: bool = false;

@group(0) @binding(2) var<storage, read_write> x: array<Stored>;
@group(0) @binding(3) var<storage, read_write> r: array<Stored>;
@group(0) @binding(4) var<storage, read_write> p: array<Stored>;
@group(0) @binding(5) var<storage, read> q: array<Stored>;
@group(0) @binding(6) var<storage, read> inverse: array<Stored>;

var<workgroup> end: u32;
var<workgroup> shift: f32;
var<workgroup> lift: f32;
var<workgroup> alpha: f32;
var<workgroup> along: f32;
var<workgroup> beta: f32;
var<workgroup> turns: u32;

fn preconditioned(i: u32, v: Floats) -> Floats {
    if (PRECONDITIONED) {
        return times(floats(inverse[i]), v);
    }
    return v;
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
    let share = min(COUNT, (group.x + 1u) * each);
    if (HALF == 1u) {
        if (local.x == 0u) {
            shift = state.shift;
            lift = state.next.lift;
            end = select(share, 0u, !ALWAYS && state.next.stop != 0u);
        }
        workgroupBarrier();
        let added = shift;
        let lifted = lift;
        let stop = end;
        var term = Sums();
        for (var run = first; run < stop; run += RUN * LANES) {
            var part = Sums();
            let rest = min(stop, run + RUN * LANES);
            for (var i = run; i < rest; i += LANES) {
                let pi = floats(p[i]);
                let ri = floats(r[i]);
                let qi = floats(q[i]) + added * pi;
                let zi = preconditioned(i, ri);
                let wi = lifted * qi;
                part.a += vec4<f32>(inner(pi, qi), inner(pi, ri), inner(ri, ri), inner(ri, zi));
                part.b += vec2<f32>(inner(zi, qi), inner(wi, preconditioned(i, wi)));
            }
            term.a += part.a;
            term.b += part.b;
        }
        let sum = over_workgroup(term, local.x);
        if (local.x == 0u) {
            partials[2u * group.x] = sum.a;
            partials[2u * group.x + 1u] = vec4<f32>(sum.b, 0.0, 0.0);
            if (group.x == 0u) {
                state.now = state.next;
            }
        }
        return;
    }
    let sum = over_partials(local.x);
    if (local.x == 0u) {
        let before = state.now;
        let decision = decide(before, sum, state.phi[earlier(before.iterations + 1u)]);
        alpha = decision.alpha;
        along = decision.along;
        beta = decision.beta;
        shift = state.shift;
        end = select(0u, share, decision.moves);
        turns = u32(decision.turns);
        if (group.x == 0u) {
            state.next = decision.next;
            if (decision.moves) {
                state.phi[decision.next.iterations] = decision.next.phi;
            }
        }
    }
    workgroupBarrier();
    let added = shift;
    let step = alpha;
    let distance = along;
    let kept = beta;
    let turned = turns != 0u;
    let stop = end;
    for (var i = first; i < stop; i += LANES) {
        let pi = floats(p[i]);
        let ri = floats(r[i]) + step * (floats(q[i]) + added * pi);
        x[i] = stored(floats(x[i]) + distance * pi);
        r[i] = stored(ri);
        if (turned) {
            p[i] = stored(kept * pi - preconditioned(i, ri));
        }
    }
}
