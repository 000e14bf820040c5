// result[row, i] = random, for ROWS rows of COUNT elements that lie PITCH apart: +-1 with equal odds, or standard normal numbers
//
// A test matrix for the randomized eigensolver. Numbers come from Philox 4x32-10 (src/random.rs): block b of stream s under a key, so that
// they depend on seed, tensor and row alone. GAUSSIAN false: one invocation makes 128 signs of a row, from the 128 bits of a block.
// GAUSSIAN true: four numbers of a row by Box and Muller. Writes 4 bytes per element.
//
// binding 0: result; 1: [seed low, seed high, stream low, stream high].
//#include philox.wgsl

override COUNT: u32 = 1u;
override ROWS: u32 = 1u;
override PITCH: u32 = 1u;
override FIRST: u32 = 0u;
override GAUSSIAN: bool = false;

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> settings: array<u32>;

// (0, 1]
fn unit(word: u32) -> f32 {
    return (f32(word >> 8u) + 1.0) / 16777216.0;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let per = select(128u, 4u, GAUSSIAN);
    let across = (COUNT + per - 1u) / per;
    let i = id.x + id.y * groups.x * 64u;
    if (i >= ROWS * across) {
        return;
    }
    let row = i / across;
    let block = i % across;
    // The row is part of the stream.
    let words = philox(vec4<u32>(block, FIRST, settings[2] + row, settings[3]), vec2<u32>(settings[0], settings[1]));
    if (GAUSSIAN) {
        let radius = sqrt(-2.0 * log(vec2<f32>(unit(words.x), unit(words.z))));
        let angle = 6.2831855 * vec2<f32>(unit(words.y), unit(words.w));
        let numbers = vec4<f32>(radius * cos(angle), radius * sin(angle));
        for (var k = 0u; k < 4u; k++) {
            let at = block * 4u + k;
            if (at < COUNT) {
                result[row * PITCH + at] = numbers[k];
            }
        }
        return;
    }
    for (var k = 0u; k < 128u; k++) {
        let at = block * 128u + k;
        if (at < COUNT) {
            let bit = (words[k / 32u] >> (k % 32u)) & 1u;
            result[row * PITCH + at] = f32(2 * i32(bit) - 1);
        }
    }
}
