// Four neighbouring floats of a vector as they are stored, and as they are computed with. four_wide.wgsl is the same for drivers on which a
// storage load is a loop over lanes; src/kernels/four.rs chooses.

alias Four = vec4<f32>;

fn floats(x: Four) -> vec4<f32> {
    return x;
}

fn stored(x: vec4<f32>) -> Four {
    return x;
}
