// result[i] = f(x_i, y_i) with f = exp, log, sin, cos, tanh, sqrt, 1 / sqrt, x / y for COUNT elements each
//
// The host has the same functions in f64 and counts the errors in units of the last place.
// binding 0: result [8 COUNT]; 1: points [8 COUNT]. Workgroups of 64; all invocations of one take the same function, since 64 divides
// COUNT.

const COUNT: u32 = 2048u;

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> points: array<vec2<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= arrayLength(&points)) {
        return;
    }
    let point = points[id.x];
    let x = point.x;
    var value = 0.0;
    switch id.x / COUNT {
        case 0u: { value = exp(x); }
        case 1u: { value = log(x); }
        case 2u: { value = sin(x); }
        case 3u: { value = cos(x); }
        case 4u: { value = tanh(x); }
        case 5u: { value = sqrt(x); }
        case 6u: { value = inverseSqrt(x); }
        default: { value = x / point.y; }
    }
    result[id.x] = value;
}
