// Neighbouring floats of a vector as they are stored, and as they are computed with: four. floats_wide.wgsl has the same for eight, for
// drivers on which a storage load is a loop over lanes; src/kernels/cg.rs chooses. What is there for both: `Floats()` for zeros, sums,
// differences and multiples by operators, `inner` and `times`.

alias Stored = vec4<f32>;
alias Floats = vec4<f32>;

fn floats(x: Stored) -> Floats {
    return x;
}

fn stored(x: Floats) -> Stored {
    return x;
}

// The inner product.
fn inner(a: Floats, b: Floats) -> f32 {
    return dot(a, b);
}

// Element by element.
fn times(a: Floats, b: Floats) -> Floats {
    return a * b;
}
