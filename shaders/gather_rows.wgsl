// result[i, :] = table[index[i], :]        (zeros where index[i] is no row of the table)
//
// Rows of a data set that is on the device, moved as they are: whether the words are floats or labels does not matter. A table that is
// larger than a binding is in pieces of whole rows, and the kernel runs once for each: it writes the rows that are in its piece, and the
// run for the first piece (which begins at row 0) those that are in none. So nothing outside a piece is ever read, whatever an index is.
//
// A row is WIDTH Words, of four words each where the number of columns allows it, and LANES invocations move it: each up to four Words,
// LANES apart, so that neighbours move neighbouring ones, and the index is read once for them. Workgroups of 64: there is nothing to
// share. COUNT LANES invocations in each run; all runs together read and write the bytes of the result once.
//
// binding 0: the result [COUNT, WIDTH]; 1: the piece [ROWS, WIDTH], rows FIRST and on of the table; 2: index [COUNT]; 3: a uniform with
// COUNT, FIRST, ROWS, and the rows of the whole table, so that all batch sizes share the kernel. LANES is a constant, so that the
// division folds.

//<words
alias Words = u32;
//>

override WIDTH: u32 = 1u;
override LANES: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> result: array<Words>;
@group(0) @binding(1) var<storage, read> piece: array<Words>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
@group(0) @binding(3) var<uniform> sizes: vec4<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    let at = i / LANES;
    if (at >= sizes.x) {
        return;
    }
    let row = index[at];
    // Below FIRST this wraps to a large number.
    let own = row - sizes.y;
    let here = own < sizes.z;
    let nowhere = sizes.y == 0u && row >= sizes.w;
    if (!here && !nowhere) {
        return;
    }
    for (var column = i % LANES; column < WIDTH; column += LANES) {
        var moved = Words();
        if (here) {
            moved = piece[own * WIDTH + column];
        }
        result[at * WIDTH + column] = moved;
    }
}
