// What the host knows of a step of low-rank saddle-free Newton before it runs; shared by weights.wgsl and accept.wgsl.

// Named as in src/kernels/step.rs.
struct Spectrum {
    alpha: f32,           // step length in the captured space, and beyond it
    beta: f32,
    damping: f32,
    least: f32,           // what the damping is not below
    count: u32,           // eigenvalues in use
    values: array<f32>,
}
