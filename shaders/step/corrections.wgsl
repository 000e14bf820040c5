// Corrections of Adam's moments for the step after those that were counted on the device: row min(steps, last) of a table whose row n has
// 1 - beta1^(n + 1) and 1 - beta2^(n + 1), computed in f64, up to the first row of ones.
//
// 8 bytes read and written. binding 0: scalars, see first_order.wgsl; 1: the table; 2: control, whose word STEPS counts.

override STEPS: u32 = 0u;

@group(0) @binding(0) var<storage, read_write> scalars: array<f32>;
@group(0) @binding(1) var<storage, read> rows: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> control: array<u32>;

@compute @workgroup_size(1)
fn main() {
    let row = rows[min(control[STEPS], arrayLength(&rows) - 1u)];
    scalars[4] = row.x;
    scalars[5] = row.y;
}
