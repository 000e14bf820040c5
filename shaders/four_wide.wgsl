// Four neighbouring floats of a vector, loaded and stored as two 64-bit integers: half as many loads where a load is a loop over lanes.
// Little-endian, as every GPU is.

alias Four = vec2<u64>;

fn floats(x: Four) -> vec4<f32> {
    return vec4<f32>(bitcast<f32>(u32(x.x)), bitcast<f32>(u32(x.x >> 32u)), bitcast<f32>(u32(x.y)), bitcast<f32>(u32(x.y >> 32u)));
}

fn stored(x: vec4<f32>) -> Four {
    let bits = bitcast<vec4<u32>>(x);
    return vec2<u64>(u64(bits.x) | (u64(bits.y) << 32u), u64(bits.z) | (u64(bits.w) << 32u));
}
