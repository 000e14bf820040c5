// Weights of RANK eigenvectors u_i in a step of low-rank saddle-free Newton, from eigenvalues l_i and gamma = max(damping, least):
//
//     d   = sum_i (a_i u_i.g + b_i u_i.s) u_i + f s        s: what is beyond the captured space, up to rounding errors
//     a_i = -alpha / (|l_i| + gamma)
//     b_i = a_i - f,  f = -beta / gamma                    without a base optimizer
//     b_i = -1,       f = 1                                with one (BASE), whose step s is: nothing of it in the captured space stays
//
// a_i = b_i = 0 for eigenvectors that are not in use. One kernel for steps of both kinds, so that their divisions round alike.
//
// 4 bytes read and 8 written for each eigenvector. binding 0: weights = [a | b]; 1: factors, of which the last is f; 2: the spectrum.
//#include step/spectrum.wgsl

override RANK: u32 = 1u;
override BASE: bool = false;

@group(0) @binding(0) var<storage, read_write> weights: array<f32>;
@group(0) @binding(1) var<storage, read_write> factors: array<f32>;
@group(0) @binding(2) var<storage, read> spectrum: Spectrum;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let damping = max(spectrum.damping, spectrum.least);
    let factor = select(-spectrum.beta / damping, 1.0, BASE);
    if (id.x == 0u) {
        factors[3] = factor;
    }
    if (id.x >= RANK) {
        return;
    }
    let captured = -spectrum.alpha / (abs(spectrum.values[id.x]) + damping);
    let used = id.x < spectrum.count;
    weights[id.x] = select(0.0, captured, used);
    weights[RANK + id.x] = select(0.0, select(captured - factor, -1.0, BASE), used);
}
