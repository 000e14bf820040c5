// r = (C x + shift x + g) / scale;  p = -M^-1 r;  partial sums of (r.r, x.(r + g), g.g), with g / scale for g there
//
// Second kernel of a solve, after largest.wgsl, which the scale comes from; ends.wgsl follows. With WARM, x is given and q = C x; else x =
// 0 is written and q is not read. Where g is zero the solution is zero, whatever x was. Up to 256 workgroups for each segment of the
// vectors, with its own place among the partial sums. 19 flops and 28 bytes per element. binding 0: state; 1: partial [8 workgroups]; 2: x
// [COUNT Floats]; 3: r; 4: p; 5: q; 6: g; 7: inverse of the diagonal preconditioner (read with PRECONDITIONED only).
//#include cg/floats.wgsl
//#include finite.wgsl
//#include cg/state.wgsl
//#include cg/sums.wgsl

override COUNT: u32 = 1u;
override WARM: bool = false;
override PRECONDITIONED: bool = false;

@group(0) @binding(1) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<Stored>;
@group(0) @binding(3) var<storage, read_write> r: array<Stored>;
@group(0) @binding(4) var<storage, read_write> p: array<Stored>;
@group(0) @binding(5) var<storage, read> q: array<Stored>;
@group(0) @binding(6) var<storage, read> g: array<Stored>;
@group(0) @binding(7) var<storage, read> inverse: array<Stored>;

var<workgroup> shift: f32;
var<workgroup> down: f32;
var<workgroup> warm: u32;

@compute @workgroup_size(LANES)
fn main(
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    if (local.x == 0u) {
        shift = state.shift;
        down = inverse_power(unit());
        warm = u32(WARM && state.largest != 0u);
    }
    workgroupBarrier();
    let added = shift;
    let factor = down;
    let continues = warm != 0u;
    var term = Sums();
    let each = (COUNT + groups.x - 1u) / groups.x;
    let end = min(COUNT, (group.x + 1u) * each);
    for (var run = group.x * each + local.x; run < end; run += RUN * LANES) {
        var part = Sums();
        let rest = min(end, run + RUN * LANES);
        for (var i = run; i < rest; i += LANES) {
            let gi = floats(g[i]);
            var xi = Floats();
            var ri = gi;
            if (continues) {
                xi = floats(x[i]);
                ri = floats(q[i]) + added * xi + gi;
            } else {
                x[i] = stored(xi);
            }
            ri = factor * ri;
            var zi = ri;
            if (PRECONDITIONED) {
                zi = times(floats(inverse[i]), ri);
            }
            r[i] = stored(ri);
            p[i] = stored(-1.0 * zi);
            let unit_gradient = factor * gi;
            part.a += vec4<f32>(inner(ri, ri), inner(xi, ri + unit_gradient), inner(unit_gradient, unit_gradient), 0.0);
        }
        term.a += part.a;
    }
    let sum = over_workgroup(term, local.x);
    if (local.x == 0u) {
        partials[2u * group.x] = sum.a;
        partials[2u * group.x + 1u] = vec4<f32>();
    }
}
