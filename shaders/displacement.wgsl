// Lengths for a central difference of gradients along v, from sums = (v.theta, v.v, theta.theta):
//
//     h = LENGTH (1 + |theta|)^(1/3)                    length of the displacement
//     coefficients = [1, h / |v| | 1, -h / |v| | |v| / 2h, -|v| / 2h]
//
// for theta + e v, theta - e v, and (g+ - g-) / 2e. Where v is zero, or not finite, the last two are 0 / NaN as v is. One invocation; 12
// bytes read, 24 written. binding 0: coefficients [6]; 1: sums [3].

override LENGTH: f32 = 0.0039;

@group(0) @binding(0) var<storage, read_write> coefficients: array<f32>;
@group(0) @binding(1) var<storage, read> sums: array<f32>;

@compute @workgroup_size(1)
fn main() {
    let length = sqrt(sums[1]);
    let h = LENGTH * pow(1.0 + sqrt(sums[2]), 1.0 / 3.0);
    var e = 0.0;
    var slope = 0.0;
    if (length != 0.0) {
        e = h / length;
        slope = length / (2.0 * h);
    }
    coefficients[0] = 1.0;
    coefficients[1] = e;
    coefficients[2] = 1.0;
    coefficients[3] = -e;
    coefficients[4] = slope;
    coefficients[5] = -slope;
}
