// One step of a first-order method; METHOD 0: SGD with momentum, 1: Adam and AdamW.
//
// SGD:   m <- beta1 m + h;   theta <- theta - rate (h + beta1 m) if nesterov else theta - rate m;    h = g / correction1
// Adam:  m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g^2
//        theta <- theta - rate (m / correction1) / (sqrt(v / correction2) + epsilon)
// First, for both: theta <- (1 - rate decay) theta  (decoupled weight decay, Loshchilov and Hutter 2019).
//
// Does nothing unless loss and |g|^2 are finite, tested by bit pattern, because WGSL lets a driver assume that no NaN exists; nor where the
// step might be so long that a parameter overflows: |step| <= 2 rate (|h| + |m|) for SGD, and rate (|g| + |m|) / (correction1 epsilon) for
// Adam. 28 bytes per element with Adam.
//
// binding 0: theta [4 COUNT]; 1: m; 2: v (Adam; with SGD a vector that is not touched); 3: g; 4: scalars = [rate, beta1, beta2, epsilon |
// correction1, correction2, decay, nesterov | loss, g.m, g.g, m.m], with m before the step. The scalars are uniform: so the kernel needs
// four storage buffers, which is what every device with compute shaders has. 64 invocations, which suits any device: the kernel waits for
// memory alone.
//#include finite.wgsl

override COUNT: u32 = 1u;
override METHOD: u32 = 0u;

@group(0) @binding(0) var<storage, read_write> theta: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> scalars: array<vec4<f32>, 3>;

const LONGEST_STEP: f32 = 1e37;

fn is_short() -> bool {
    let squares = scalars[2].zw;
    let correction = scalars[1].x;
    var reach = scalars[0].x * (sqrt(squares.x) / correction + sqrt(squares.y));
    if (METHOD == 1u) {
        reach = scalars[0].x * (sqrt(squares.x) + sqrt(squares.y)) / (scalars[0].w * correction);
    }
    return is_finite(reach) && reach < LONGEST_STEP;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    let found = scalars[2];
    if (i >= COUNT || !is_finite(found.x) || !is_finite(found.z) || !is_finite(found.w) || !is_short()) {
        return;
    }
    let rate = scalars[0].x;
    let beta1 = scalars[0].y;
    let epsilon = scalars[0].w;
    let corrections = scalars[1].xy;
    let decayed = (1.0 - rate * scalars[1].z) * theta[i];
    if (METHOD == 0u) {
        let slope = g[i] / corrections.x;
        let moment = beta1 * m[i] + slope;
        m[i] = moment;
        theta[i] = decayed - rate * select(moment, slope + beta1 * moment, scalars[1].w > 0.0);
    } else {
        let beta2 = scalars[0].z;
        let first = beta1 * m[i] + (1.0 - beta1) * g[i];
        let second = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i];
        m[i] = first;
        v[i] = second;
        theta[i] = decayed - rate * (first / corrections.x) / (sqrt(second / corrections.y) + epsilon);
    }
}
