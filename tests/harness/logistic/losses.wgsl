// result = (value, change, error), (value, change) = sum_n w_n (l_n, l_n - b_n) + L2/2 (|point|^2, (point - base).(point + base)), error = 8 u sqrt(sum_n (w_n l_n)^2)
//
// with the losses l_n of the rows at a point and b_n at a base.
//
// binding 0: (y_n, w_n); 1: state of the rows at the point; 2: at the base; 3: point; 4: base; 5: result.
// One workgroup of 64, the lanes of which are added by halving.

override ROWS: u32 = 1u;
override FEATURES: u32 = 1u;
override L2: f32 = 0.0;

@group(0) @binding(0) var<storage, read> examples: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> state: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> before: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> point: array<f32>;
@group(0) @binding(4) var<storage, read> base: array<f32>;
@group(0) @binding(5) var<storage, read_write> result: array<f32>;

var<workgroup> lanes: array<vec3<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sums = vec3<f32>();
    for (var n = lane; n < ROWS; n += 64u) {
        let w = examples[n].y;
        let value = w * state[n].y;
        sums += vec3<f32>(value, w * (state[n].y - before[n].y), value * value);
    }
    for (var i = lane; i < FEATURES; i += 64u) {
        sums += 0.5 * L2 * vec3<f32>(point[i] * point[i], (point[i] - base[i]) * (point[i] + base[i]), 0.0);
    }
    lanes[lane] = sums;
    for (var width = 32u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane < width) {
            lanes[lane] += lanes[lane + width];
        }
    }
    if (lane == 0u) {
        result[0] = lanes[0].x;
        result[1] = lanes[0].y;
        // Some half ulps of each loss, which do not depend on each other.
        result[2] = 8.0 * 5.9604645e-8 * sqrt(lanes[0].z);
    }
}
