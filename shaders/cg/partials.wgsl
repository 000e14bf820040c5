// Sums over the partial sums of GROUPS workgroups, [8 GROUPS], in the same order in every workgroup; invocation 0 alone has the result. One
// barrier.
//#include cg/sums.wgsl

override GROUPS: u32 = 1u;

@group(0) @binding(1) var<storage, read_write> partials: array<vec4<f32>>;

fn over_partials(local: u32) -> Sums {
    if (local < FEW) {
        var sum = Sums();
        for (var k = local; k < GROUPS; k += FEW) {
            sum.a += partials[2u * k];
            sum.b += partials[2u * k + 1u].xy;
        }
        few_a[local] = sum.a;
        few_b[local] = sum.b;
    }
    workgroupBarrier();
    return over_few(local);
}
