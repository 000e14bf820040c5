// Lengths for a central difference of gradients along v, from sums = (v.theta, v.v, theta.theta):
//
//     h = LENGTH (1 + |theta|)^(1/3)                    length of the displacement
//     e = the power of two at or below h / |v|
//     coefficients = [1, e | 1, -e | 1 / 2e, -1 / 2e]
//
// for theta + e v, theta - e v, and (g+ - g-) / 2e, where a power of two makes the products with gradients exact: equal ones cancel, also
// where a driver fuses a product with a sum. Where the square of |v| is zero in f32, e and 1 / 2e are 0. One invocation; 12
// bytes read, 24 written. binding 0: coefficients [6]; 1: sums [3].

override LENGTH: f32 = 0.0056;

@group(0) @binding(0) var<storage, read_write> coefficients: array<f32>;
@group(0) @binding(1) var<storage, read> sums: array<f32>;

@compute @workgroup_size(1)
fn main() {
    let length = sqrt(sums[1]);
    let h = LENGTH * pow(1.0 + sqrt(sums[2]), 1.0 / 3.0);
    var e = 0.0;
    var slope = 0.0;
    if (length != 0.0) {
        let bits = clamp(bitcast<u32>(h / length) & 0x7f800000u, 0x00800000u, 0x7e800000u);
        e = bitcast<f32>(bits);
        slope = 0.5 * bitcast<f32>(0x7f000000u - bits);
    }
    coefficients[0] = 1.0;
    coefficients[1] = e;
    coefficients[2] = 1.0;
    coefficients[3] = -e;
    coefficients[4] = slope;
    coefficients[5] = -slope;
}
