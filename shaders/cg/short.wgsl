// An iteration of preconditioned conjugate gradients after its product q = C p, for vectors that one workgroup manages. With q' = q + shift
// p and z = M^-1 r:
//
//     sums      (p.q', p.r, r.r, r.z)
//     alpha     -p.r / p.q', the minimiser along p whatever p is
//     x += scale alpha p;   r += alpha q'
//     beta      r.z of the new r / r.z
//     p         -M^-1 r + beta p
//
// Every invocation keeps its PER vec4s of p, r and q' in registers, so that each is read once: 16 bytes read and 12 written per element (20
// and 12 preconditioned), 14 flops. Invocation 0 alone touches the state, and hands on in workgroup memory what the others need, so nothing
// races.
//
// binding 0: state; 1: x [4 COUNT]; 2: r; 3: p; 4: q; 5: inverse of the preconditioner (read with PRECONDITIONED only).
//#include four.wgsl
//#include cg/state.wgsl
//#include cg/sums.wgsl
//#include cg/decision.wgsl

//<per
const PER: u32 = 4u;
//>

override COUNT: u32 = 1u;
override PRECONDITIONED: bool = false;

@group(0) @binding(1) var<storage, read_write> x: array<Four>;
@group(0) @binding(2) var<storage, read_write> r: array<Four>;
@group(0) @binding(3) var<storage, read_write> p: array<Four>;
@group(0) @binding(4) var<storage, read> q: array<Four>;
@group(0) @binding(5) var<storage, read> inverse: array<Four>;

var<workgroup> shift: f32;
var<workgroup> alpha: f32;
var<workgroup> along: f32;
var<workgroup> beta: f32;
var<workgroup> moves: u32;
var<workgroup> turns: u32;

fn preconditioned(i: u32, v: vec4<f32>) -> vec4<f32> {
    if (PRECONDITIONED) {
        return floats(inverse[i]) * v;
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
    var ps: array<vec4<f32>, PER>;
    var rs: array<vec4<f32>, PER>;
    var qs: array<vec4<f32>, PER>;
    var term = Sums();
    for (var k = 0u; k < PER; k++) {
        let i = local + k * LANES;
        if (i < COUNT) {
            let pi = floats(p[i]);
            let ri = floats(r[i]);
            let qi = floats(q[i]) + shift * pi;
            term.a += vec4<f32>(dot(pi, qi), dot(pi, ri), dot(ri, ri), dot(ri, preconditioned(i, ri)));
            ps[k] = pi;
            rs[k] = ri;
            qs[k] = qi;
        }
    }
    let sum = over_workgroup(term, local);
    var decision: Decision;
    var before: Scalars;
    if (local == 0u) {
        before = state.next;
        decision = decide(before, sum, state.phi[earlier(before.iterations + 1u)]);
        alpha = decision.alpha;
        along = decision.along;
        moves = u32(decision.moves);
        turns = u32(decision.turns);
    }
    workgroupBarrier();
    var after = Sums();
    if (moves != 0u) {
        for (var k = 0u; k < PER; k++) {
            let i = local + k * LANES;
            if (i < COUNT) {
                let ri = rs[k] + alpha * qs[k];
                x[i] = stored(floats(x[i]) + along * ps[k]);
                r[i] = stored(ri);
                let zi = preconditioned(i, ri);
                after.a.w += dot(ri, zi);
                rs[k] = zi;
            }
        }
    }
    after = over_workgroup(after, local);
    if (local == 0u) {
        if (decision.turns) {
            turn(&decision, before, sum.a.w, after.a.w);
        }
        beta = decision.beta;
        state.next = decision.next;
        if (decision.moves) {
            state.phi[decision.next.iterations] = decision.next.phi;
        }
    }
    workgroupBarrier();
    if (turns != 0u) {
        for (var k = 0u; k < PER; k++) {
            let i = local + k * LANES;
            if (i < COUNT) {
                p[i] = stored(beta * ps[k] - rs[k]);
            }
        }
    }
}
