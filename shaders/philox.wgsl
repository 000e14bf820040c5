// Philox 4x32-10, as in src/random.rs: four random words of a counter under a key.

// High and low half of a 64-bit product.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return vec2<u32>((a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u), a * b);
}

fn philox(counter: vec4<u32>, first_key: vec2<u32>) -> vec4<u32> {
    var words = counter;
    var key = first_key;
    for (var round = 0u; round < 10u; round++) {
        let one = wide_product(0xD2511F53u, words.x);
        let other = wide_product(0xCD9E8D57u, words.z);
        words = vec4<u32>(other.x ^ words.y ^ key.x, other.y, one.x ^ words.w ^ key.y, one.y);
        key += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return words;
}
