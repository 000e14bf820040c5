//! How an invocation adds up the terms of a product: in chunks, so that rounding errors do not grow with their number.

use crate::kernels::loops::CHUNK;

/// Chunks whose sums are added up before those are added up in turn.
const CHUNKS: usize = 16;
/// Terms of the second and, at most, of the third level: more are divided into [parts](super::split). A product of `K` terms then has chains of 64,
/// 16, 16 and `K / 16,384` additions. For 100,000 equal terms the error was 5e-7 (factors of 0.1) and at most 1.1e-6 (200 other factors), for absolute
/// values of normal numbers 3e-8; with one chain it was 6.7e-4, 1.4e-3 and 7e-6.
const SECOND: usize = CHUNK * CHUNKS;
pub(super) const MOST_TERMS: usize = SECOND * CHUNKS;

/// The text around one step of `step` terms from term `k` on, which adds to `accumulators` of one WGSL type. One level, where there is no more than a
/// chunk, is a plain loop.
pub(super) struct Levels {
    /// Declarations and the heads of the loops.
    pub(super) open: String,
    /// The ends of the loops, where accumulators go to those of the next level.
    pub(super) close: String,
}

impl Levels {
    /// `once` is an expression for 1 that compilers do not know to be 1, in kernels whose steps they must not write out; else empty.
    pub(super) fn new(
        k: usize,
        step: usize,
        accumulators: &[String],
        kind: &str,
        once: &str,
    ) -> Self {
        let spans = spans(k);
        let (mut open, mut close) = (String::new(), String::new());
        let mut start = "0u".to_string();
        let mut end = format!("{k}u");
        for (depth, &span) in spans.iter().enumerate() {
            for name in accumulators {
                open += &format!("    var {name}_{depth} = {kind}();\n");
            }
            let first = format!("first_{depth}");
            open += &format!(
                "    for (var {first} = {start}; {first} < {end}; {first} += {span}u) {{\n"
            );
            // Without a rest all spans end where they should.
            end = if k.is_multiple_of(span) {
                format!("{first} + {span}u")
            } else {
                format!("min({first} + {span}u, {k}u)")
            };
            start = first;
        }
        let once = if once.is_empty() {
            String::new()
        } else {
            format!(" * {once}")
        };
        let end = if spans.is_empty() {
            end
        } else {
            format!("({end})")
        };
        open += &format!("    for (var k = {start}; k < {end}{once}; k += {step}u) {{");
        close += "    }\n";
        for depth in (0..spans.len()).rev() {
            for name in accumulators {
                let inner = if depth + 1 == spans.len() {
                    name.clone()
                } else {
                    format!("{name}_{}", depth + 1)
                };
                close += &format!("    {name}_{depth} += {inner};\n    {inner} = {kind}();\n");
            }
            close += "    }\n";
        }
        if !spans.is_empty() {
            for name in accumulators {
                close += &format!("    {name} = {name}_0;\n");
            }
        }
        Self { open, close }
    }
}

/// Terms of an iteration of each loop around the innermost one.
fn spans(k: usize) -> &'static [usize] {
    if k <= CHUNK {
        &[]
    } else if k <= SECOND {
        &[CHUNK]
    } else {
        &[SECOND, CHUNK]
    }
}

/// Iterations of these loops with `inner` more in each step.
pub(super) fn iterations(k: usize, step: usize, inner: usize) -> usize {
    let outer = spans(k).iter().map(|&span| k.div_ceil(span));
    k.div_ceil(step) * (1 + inner) + outer.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, MOST_TERMS, SECOND, iterations};
    use crate::kernels::loops::LONGEST_LOOP;

    #[test]
    fn the_longest_products_of_every_family_are_short_loops() {
        assert_eq!(iterations(CHUNK, 4, 0), 16);
        assert_eq!(iterations(SECOND, 4, 0), 256 + 16);
        // Steps of 16 terms with a loop over them, as in shared.wgsl, and of four.
        assert_eq!(iterations(MOST_TERMS, 16, 16), 1024 * 17 + 256 + 16);
        assert!(iterations(MOST_TERMS, 16, 16) <= LONGEST_LOOP);
        assert!(iterations(MOST_TERMS, 4, 0) + 512 <= LONGEST_LOOP);
    }
}
