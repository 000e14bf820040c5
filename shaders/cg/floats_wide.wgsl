// As floats.wgsl, with eight floats that are loaded and stored as four 64-bit integers. On software adapters a load is a loop over the
// lanes of a vector, with a test and a check of the address for each; what it loads then adds little, least where two floats are one
// integer. Little-endian, as every GPU is.

alias Stored = vec4<u64>;
alias Floats = mat2x4<f32>;

fn floats(x: Stored) -> Floats {
    let low = vec4<u32>(u32(x.x), u32(x.y), u32(x.z), u32(x.w));
    let high = vec4<u32>(u32(x.x >> 32u), u32(x.y >> 32u), u32(x.z >> 32u), u32(x.w >> 32u));
    return Floats(bitcast<vec4<f32>>(low), bitcast<vec4<f32>>(high));
}

fn stored(x: Floats) -> Stored {
    let low = bitcast<vec4<u32>>(x[0]);
    let high = bitcast<vec4<u32>>(x[1]);
    return vec4<u64>(
        u64(low.x) | (u64(high.x) << 32u),
        u64(low.y) | (u64(high.y) << 32u),
        u64(low.z) | (u64(high.z) << 32u),
        u64(low.w) | (u64(high.w) << 32u),
    );
}

fn inner(a: Floats, b: Floats) -> f32 {
    return dot(a[0], b[0]) + dot(a[1], b[1]);
}

fn times(a: Floats, b: Floats) -> Floats {
    return Floats(a[0] * b[0], a[1] * b[1]);
}
