// An iteration of preconditioned conjugate gradients after its product q = C p, for vectors that one workgroup manages. With q' = q + shift
// p and z = M^-1 r:
//
//     sums      (p.q', p.r, r.r, r.z)
//     alpha     -p.r / p.q', the minimiser along p whatever p is
//     x += scale alpha p;   r += alpha q'
//     beta      r.z of the new r / r.z
//     p         -M^-1 r + beta p
//
// Every invocation keeps its `Floats` of p, r and q' in registers, so that each is read once: 16 bytes read and 12 written per element (20
// and 12 preconditioned), 14 flops. The regions are what is done with one of each; the face repeats them, LANES further on every time, so
// that registers have names: arrays of them are memory where a compiler does not unroll the loops. Invocation 0 alone touches the state,
// and hands on in workgroup memory what the others need, so nothing races.
//
// binding 0: state; 1: x [COUNT Floats]; 2: r; 3: p; 4: q; 5: inverse of the preconditioner (read with PRECONDITIONED only).
//#include cg/floats.wgsl
//#include finite.wgsl
//#include cg/state.wgsl
//#include cg/sums.wgsl
//#include cg/decision.wgsl

override COUNT: u32 = 1u;
override PRECONDITIONED: bool = false;

@group(0) @binding(1) var<storage, read_write> x: array<Stored>;
@group(0) @binding(2) var<storage, read_write> r: array<Stored>;
@group(0) @binding(3) var<storage, read_write> p: array<Stored>;
@group(0) @binding(4) var<storage, read> q: array<Stored>;
@group(0) @binding(5) var<storage, read> inverse: array<Stored>;

var<workgroup> shift: f32;
var<workgroup> alpha: f32;
var<workgroup> along: f32;
var<workgroup> beta: f32;
var<workgroup> moves: u32;
var<workgroup> turns: u32;

fn preconditioned(i: u32, v: Floats) -> Floats {
    var z = v;
    if (PRECONDITIONED && i < COUNT) {
        z = times(floats(inverse[i]), v);
    }
    return z;
}

fn of_p(i: u32) -> Floats {
    var v = Floats();
    if (i < COUNT) {
        v = floats(p[i]);
    }
    return v;
}

fn of_q(i: u32) -> Floats {
    var v = Floats();
    if (i < COUNT) {
        v = floats(q[i]);
    }
    return v;
}

fn of_r(i: u32) -> Floats {
    var v = Floats();
    if (i < COUNT) {
        v = floats(r[i]);
    }
    return v;
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_id) id: vec3<u32>) {
    let local = id.x;
    if (local == 0u) {
        shift = state.shift;
    }
    workgroupBarrier();
    let added = shift;
    var term = vec4<f32>();
    //<sums
    let i_0 = local + 0u * LANES;
    let p_0 = of_p(i_0);
    let r_0 = of_r(i_0);
    let q_0 = of_q(i_0) + added * p_0;
    term += vec4<f32>(inner(p_0, q_0), inner(p_0, r_0), inner(r_0, r_0), inner(r_0, preconditioned(i_0, r_0)));
    //>
    let sum = four_over_workgroup(term, local);
    var decision: Decision;
    var before: Scalars;
    if (local == 0u) {
        before = state.next;
        decision = decide(before, Sums(sum, vec2<f32>()), state.phi[earlier(before.iterations + 1u)]);
        alpha = decision.alpha;
        along = decision.along;
        moves = u32(decision.moves);
        turns = u32(decision.turns);
    }
    workgroupBarrier();
    let step = alpha;
    let distance = along;
    let moved = select(0u, COUNT, moves != 0u);
    var after = 0.0;
    //<step
    let n_0 = r_0 + step * q_0;
    let z_0 = preconditioned(i_0, n_0);
    after += inner(n_0, z_0);
    if (i_0 < moved) {
        x[i_0] = stored(floats(x[i_0]) + distance * p_0);
        r[i_0] = stored(n_0);
    }
    //>
    after = one_over_workgroup(after, local);
    if (local == 0u) {
        if (decision.turns) {
            turn(&decision, before, sum.w, after);
        }
        beta = decision.beta;
        state.next = decision.next;
        if (decision.moves) {
            state.phi[decision.next.iterations] = decision.next.phi;
        }
    }
    workgroupBarrier();
    let kept = beta;
    let turned = select(0u, COUNT, turns != 0u);
    //<turn
    if (i_0 < turned) {
        p[i_0] = stored(kept * p_0 - z_0);
    }
    //>
}
