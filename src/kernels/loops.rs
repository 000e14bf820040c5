//! How long an invocation may loop.
//!
//! Every kernel says how many iterations its longest invocation makes, of all loops together and nested ones each time, as shapes or
//! constants give it. Longer work is divided: among more invocations, with partial results that another kernel adds up.

use crate::error::{Error, Result};

/// Most iterations of an invocation. Mesa's llvmpipe counts those of all loops of an invocation together and after 65,535 ends every loop,
/// without a word and with wrong results (`LP_MAX_TGSI_LOOP_ITERATIONS`). Half of that, so that a loop that a compiler writes or a face
/// forgets does no harm; long enough that starting an invocation costs nothing beside it.
pub(crate) const LONGEST_LOOP: usize = 32_768;

/// Terms that an invocation adds one after another before it adds their sums: the first of the levels of a long sum. With a chain of `n`
/// additions of equal numbers, whose errors all have one sign, a sum is off by up to `n 2^-24 / 3` of itself (an error of half a unit in
/// the last place each, integrated over the powers of two that the sum grows through), and by a third of that for most numbers. So `n =
/// 10^5` costs 2e-3 in the worst case, and three levels of about fifty 3e-6.
pub(crate) const CHUNK: usize = 64;

/// Terms that an invocation adds up in two levels; longer sums are shared by several.
pub(crate) const TWO_LEVELS: usize = CHUNK * CHUNK;

/// Iterations of a loop over `terms` within one over chunks of them.
pub(crate) fn in_chunks(terms: usize) -> usize {
    terms + terms.div_ceil(CHUNK)
}

/// Refuses a kernel whose invocations would loop too long.
pub(crate) fn check(label: &str, iterations: usize) -> Result<()> {
    if iterations <= LONGEST_LOOP {
        return Ok(());
    }
    Err(Error::OverLimit {
        what: format!("kernel '{label}', in iterations of one invocation,"),
        needed: iterations as u64,
        limit_name: "for loops that every driver finishes",
        limit: LONGEST_LOOP as u64,
        advice: "use a smaller batch or network, or add up parts of the data one after another",
    })
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_LOOP, check};

    #[test]
    fn longer_loops_are_refused_with_advice() {
        assert!(check("sum", LONGEST_LOOP).is_ok());
        let message = check("sum", LONGEST_LOOP + 1).map_err(|error| error.to_string());
        assert!(message.is_err_and(|m| m.contains("'sum'") && m.contains("smaller batch")));
    }
}
