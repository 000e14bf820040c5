// result[i] = s, e, e', p, q, q', r for (a, b, c) = numbers[i]: a sum and a product with their rounding errors, and a b + c
//
//     s = a + b     e  = (a - (s - (s - a))) + (b - (s - a))      two-sum (Knuth 1969)
//                   e' = b - (s - a)                              fast two-sum (Dekker 1971), |a| >= |b|
//     p = a b       q  by splitting both factors                  two-product (Dekker 1971, with Veltkamp's splitting)
//                   q' = fma(a, b, -p)
//     r = a b + c
//
// A compiler that treats floats as real numbers makes zeros of e, e' and q; one that contracts makes r a fused multiply-add.
// binding 0: result [numbers, 7]; 1: numbers, (a, b, c, 0). Workgroups of 64, which fill the subgroups of every adapter.

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(1) var<storage, read> numbers: array<vec4<f32>>;

// The upper 12 bits of x.
fn upper(x: f32) -> f32 {
    let scaled = 4097.0 * x;
    return scaled - (scaled - x);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= arrayLength(&numbers)) {
        return;
    }
    let a = numbers[id.x].x;
    let b = numbers[id.x].y;
    let c = numbers[id.x].z;
    let s = a + b;
    let part = s - a;
    let p = a * b;
    let a_upper = upper(a);
    let a_lower = a - a_upper;
    let b_upper = upper(b);
    let b_lower = b - b_upper;
    let at = 7u * id.x;
    result[at] = s;
    result[at + 1u] = (a - (s - part)) + (b - part);
    result[at + 2u] = b - part;
    result[at + 3u] = p;
    result[at + 4u] = a_lower * b_lower - (((p - a_upper * b_upper) - a_lower * b_upper) - a_upper * b_lower);
    result[at + 5u] = fma(a, b, -p);
    result[at + 6u] = a * b + c;
}
