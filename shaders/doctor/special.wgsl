// result[i] = the bits of expression i of NaN, infinities and very small numbers
//
// WGSL lets drivers assume that there are no NaN and no infinities, and flush subnormal numbers to zero: this shows what a driver makes of
// them. The numbers come from a buffer, so that no compiler knows them. Comparisons are written as 0 or 1. binding 0: result [25]; 1: x [9]
// = NaN, inf, 0, 1, 1e-40, 2^-126, 100, 3e38, -1. One invocation: nothing here takes time.

@group(0) @binding(0) var<storage, read_write> result: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;

fn put(index: u32, value: f32) {
    result[index] = bitcast<u32>(value);
}

@compute @workgroup_size(1)
fn main() {
    let nan = x[0];
    let infinity = x[1];
    let zero = x[2];
    let one = x[3];
    let subnormal = x[4];
    let smallest = x[5];
    let hundred = x[6];
    let large = x[7];
    let minus_one = x[8];
    put(0u, select(0.0, 1.0, (bitcast<u32>(nan) & 0x7fffffffu) > 0x7f800000u));
    put(1u, select(0.0, 1.0, nan == nan));
    put(2u, select(0.0, 1.0, nan != nan));
    put(3u, select(0.0, 1.0, nan < one));
    put(4u, max(nan, zero));
    put(5u, min(nan, zero));
    put(6u, clamp(nan, zero, one));
    put(7u, nan + one);
    put(8u, nan * zero);
    put(9u, zero / zero);
    put(10u, one / zero);
    put(11u, infinity - infinity);
    put(12u, infinity * zero);
    put(13u, large * hundred);
    put(14u, exp(hundred));
    put(15u, exp(minus_one * hundred * hundred));
    put(16u, log(zero));
    put(17u, log(minus_one));
    put(18u, sqrt(minus_one));
    put(19u, tanh(hundred));
    put(20u, tanh(nan));
    put(21u, exp(nan));
    put(22u, sin(nan));
    put(23u, subnormal * one);
    put(24u, smallest * 0.5);
}
