//! How an invocation adds up the terms of a product: in chunks, so that rounding errors do not grow with their number.

use crate::kernels::loops::CHUNK;

/// Chunks whose sums are added up before those are added up in turn.
const CHUNKS: usize = 16;
/// Terms of the second and, at most, of the third level: more are divided into [parts](super::split). A product of `K` terms then has
/// chains of 64, 16, 16 and `K / 16,384` additions. For 100,000 equal terms the error was 5e-7 (factors of 0.1) and at most 1.1e-6 (200
/// other factors), for absolute values of normal numbers 2e-7 (largest of 70); with one chain it was 6.7e-4, 1.4e-3 and some 1e-6. Chunks
/// of 128 terms take 2 to 4 % less time in the largest tiles of subgroups on llvmpipe, 32 x 64, for errors of 9.5e-7 and 2e-6.
const SECOND: usize = CHUNK * CHUNKS;
pub(super) const MOST_TERMS: usize = SECOND * CHUNKS;

/// The terms of a product, as an invocation goes through them.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) k: usize,
    /// Terms of a step.
    pub(super) step: usize,
    /// Terms that are added to each other before an accumulator is: 4 where a step multiplies matrices, whose chunks are that much longer.
    pub(super) together: usize,
}

impl Terms {
    /// Terms of an iteration of each loop around the innermost one.
    fn spans(self) -> Vec<usize> {
        [SECOND, CHUNK]
            .map(|additions| additions * self.together)
            .into_iter()
            .filter(|&span| span < self.k)
            .collect()
    }

    /// Iterations of these loops with `inner` more in each step.
    pub(super) fn iterations(self, inner: usize) -> usize {
        let outer = self.spans().into_iter().map(|span| self.k.div_ceil(span));
        self.k.div_ceil(self.step) * (1 + inner) + outer.sum::<usize>()
    }
}

/// The text around one step from term `k` on, which adds to `accumulators` of one WGSL type. One level, where there is no more than a
/// chunk, is a plain loop.
///
/// Loops end with their tests. Drivers that run lanes under a mask, as llvmpipe does, go through the rest of a loop's body after a `break`
/// with all lanes off: with tests at the start every chunk of 16 steps took the time of 17, and a product of one chunk that of a step more.
pub(super) struct Levels {
    /// Declarations and the heads of the loops.
    pub(super) open: String,
    /// The ends of the loops, where accumulators go to those of the next level.
    pub(super) close: String,
}

impl Levels {
    /// `count` is the number of terms in WGSL. `once` is an expression for 1 that compilers do not know to be 1, in kernels whose steps they
    /// must not write out; else empty.
    pub(super) fn new(
        terms: Terms,
        count: &str,
        accumulators: &[String],
        kind: &str,
        once: &str,
    ) -> Self {
        let step = terms.step;
        let spans = terms.spans();
        let mut close = String::new();
        let mut start = "0u".to_string();
        let mut end = "terms".to_string();
        let mut open = format!("    let terms = {count};\n");
        for (depth, &span) in spans.iter().enumerate() {
            for name in accumulators {
                open += &format!("    var {name}_{depth} = {kind}();\n");
            }
            let first = format!("first_{depth}");
            open += &format!("    var {first} = {start};\n    loop {{\n");
            let mut level = String::new();
            for name in accumulators {
                let inner = if depth + 1 == spans.len() {
                    name.clone()
                } else {
                    format!("{name}_{}", depth + 1)
                };
                level += &format!("    {name}_{depth} += {inner};\n");
            }
            level +=
                &format!("    {first} += {span}u;\n    if {first} >= {end} {{ break; }}\n    }}\n");
            close.insert_str(0, &level);
            end = format!("min({first} + {span}u, terms)");
            start = first;
        }
        if !spans.is_empty() {
            for name in accumulators {
                // Those of a chunk, which hide those of the whole kernel from the step.
                open += &format!("    var {name} = {kind}();\n");
                close += &format!("    {name} = {name}_0;\n");
            }
        }
        let end = if once.is_empty() {
            end
        } else {
            format!("({end}) * {once}")
        };
        open += &format!("    var k = {start};\n    loop {{");
        close.insert_str(
            0,
            &format!("    k += {step}u;\n    if k >= {end} {{ break; }}\n    }}\n"),
        );
        Self { open, close }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, MOST_TERMS, SECOND, Terms};
    use crate::kernels::loops::LONGEST_LOOP;

    fn iterations(k: usize, step: usize, together: usize, inner: usize) -> usize {
        Terms { k, step, together }.iterations(inner)
    }

    #[test]
    fn the_longest_products_of_every_family_are_short_loops() {
        assert_eq!(iterations(CHUNK, 4, 1, 0), 16);
        assert_eq!(iterations(SECOND, 4, 1, 0), 256 + 16);
        assert_eq!(iterations(SECOND, 4, 4, 0), 256 + 4);
        // Steps of 16 terms with a loop over them, as in shared.wgsl, and of four.
        assert_eq!(iterations(MOST_TERMS, 16, 1, 16), 1024 * 17 + 256 + 16);
        assert!(iterations(MOST_TERMS, 16, 1, 16) <= LONGEST_LOOP);
        assert!(iterations(MOST_TERMS, 4, 1, 0) + 512 <= LONGEST_LOOP);
    }
}
