// Whether a number is finite, by its bits: WGSL lets a driver assume that there are no others.
fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}
