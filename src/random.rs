//! Philox 4x32-10: random numbers from a counter, the same on the host and on the GPU.
//!
//! Ten rounds of multiplication and exclusive-or turn a 128-bit counter and a 64-bit key into 128 random bits.
//! There is no state but the counter, so that any thread, on any machine, can compute any number of any stream
//! on its own, and a run is resumed by storing one integer.
//!
//! J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3".

use rand::TryRng;
use rand::rand_core::utils;
use std::convert::Infallible;

/// Rounds of Philox 4x32: the number its authors recommend, with a margin over the seven that pass BigCrush.
const ROUNDS: usize = 10;
/// Multipliers of the two products of a round, chosen by the authors for the fastest diffusion.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// Increments of the key from round to round: the golden ratio, and the square root of three less one.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The four random words that belong to `counter` under `key`.
///
/// ```
/// let words = osculant::random::philox4x32([0; 4], [0; 2]);
/// assert_eq!(words, [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
/// ```
#[must_use]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut words = counter;
    let mut key = key;
    for _ in 0..ROUNDS {
        let (high_0, low_0) = wide_product(MULTIPLIERS[0], words[0]);
        let (high_1, low_1) = wide_product(MULTIPLIERS[1], words[2]);
        words = [
            high_1 ^ words[1] ^ key[0],
            low_1,
            high_0 ^ words[3] ^ key[1],
            low_0,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    words
}

/// High and low half of the 64-bit product.
fn wide_product(a: u32, b: u32) -> (u32, u32) {
    halves(u64::from(a) * u64::from(b))
}

/// High and low half of a 64-bit word.
const fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// A sequence of random 32-bit words; one of 2^64 independent streams of a seed.
///
/// Word `i` of stream `s` under seed `k` is component `i mod 4` of
/// `philox4x32([b, b >> 32, s, s >> 32], [k, k >> 32])` with the block number `b = i / 4`, so a kernel finds the
/// same words without any state. The period is 2^64 words.
///
/// It implements `rand`'s [`Rng`](rand::Rng), so every distribution and shuffle of `rand` and `rand_distr` takes it.
/// It is not for cryptography.
///
/// Streams from 0 up are taken by the epochs of a data set ([`Epochs`](crate::data::Epochs)); another use of the
/// same seed should take a stream of 2^32 or more.
#[derive(Debug, Clone)]
pub struct Philox {
    seed: u64,
    stream: u64,
    /// Index of the next word.
    position: u64,
    /// The block that holds the next word; current unless the next word is the first of its block.
    block: [u32; 4],
}

impl Philox {
    /// Stream `stream` of seed `seed`, at its first word.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        Self {
            seed,
            stream,
            position: 0,
            block: [0; 4],
        }
    }

    /// Index of the next 32-bit word: the number of words drawn so far, if the position was never set.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to the word with index `position`, in constant time.
    pub fn set_position(&mut self, position: u64) {
        self.position = position;
        if !position.is_multiple_of(4) {
            self.block = self.block_at(position / 4);
        }
    }

    fn block_at(&self, block: u64) -> [u32; 4] {
        let (block_high, block_low) = halves(block);
        let (stream_high, stream_low) = halves(self.stream);
        let (seed_high, seed_low) = halves(self.seed);
        philox4x32(
            [block_low, block_high, stream_low, stream_high],
            [seed_low, seed_high],
        )
    }

    fn next_word(&mut self) -> u32 {
        let lane = (self.position % 4) as usize;
        if lane == 0 {
            self.block = self.block_at(self.position / 4);
        }
        self.position = self.position.wrapping_add(1);
        self.block[lane]
    }
}

impl TryRng for Philox {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next_word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        utils::next_u64_via_u32(self)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        utils::fill_bytes_via_next_word(bytes, || self.try_next_u32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::Rng;
    use rand_distr::{Distribution, StandardNormal};

    /// The known answers of the authors' library Random123 (`kat_vectors`, philox4x32 with 10 rounds).
    #[test]
    fn known_answers_of_random123() {
        let cases = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in cases {
            assert_eq!(philox4x32(counter, key), words);
        }
    }

    #[test]
    fn the_generator_counts_through_the_blocks_of_its_stream() {
        let (seed, stream) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        let mut random = Philox::new(seed, stream);
        for block in 0..3 {
            let counter = [block, 0, 0x7654_3210, 0xfedc_ba98];
            for word in philox4x32(counter, [0x89ab_cdef, 0x0123_4567]) {
                assert_eq!(random.next_u32(), word);
            }
        }
        assert_eq!(random.position(), 12);
    }

    #[test]
    fn the_block_number_carries_into_the_second_counter_word() {
        let mut random = Philox::new(7, 0);
        random.set_position(4 * ((1 << 32) + 5));
        assert_eq!(random.next_u32(), philox4x32([5, 1, 0, 0], [7, 0])[0]);
    }

    #[test]
    fn the_last_position_wraps_to_the_first() {
        let mut random = Philox::new(1, 2);
        random.set_position(u64::MAX);
        random.next_u32();
        assert_eq!(random.next_u64(), Philox::new(1, 2).next_u64());
    }

    #[test]
    fn seeds_and_streams_differ() {
        let first = |seed, stream| Philox::new(seed, stream).next_u64();
        let all = [
            first(0, 0),
            first(1, 0),
            first(0, 1),
            first(1 << 32, 0),
            first(0, 1 << 32),
        ];
        for (index, word) in all.iter().enumerate() {
            assert!(!all[..index].contains(word));
        }
    }

    /// 40,000 normal numbers: the mean has a standard error of 0.005, the variance of 0.0071; five of each are allowed.
    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let count = 40_000;
        let mut random = Philox::new(3, 4);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..count {
            let value: f64 = StandardNormal.sample(&mut random);
            sum += value;
            squares += value * value;
        }
        let mean = sum / f64::from(count);
        assert!(mean.abs() < 0.025, "mean {mean}");
        let variance = squares / f64::from(count) - mean * mean;
        assert!((variance - 1.0).abs() < 0.036, "variance {variance}");
    }

    proptest! {
        #[test]
        fn a_set_position_gives_the_words_from_there(
            seed: u64, stream: u64, skip in 0usize..40, length in 1usize..20,
        ) {
            let mut whole = Philox::new(seed, stream);
            for _ in 0..skip {
                whole.next_u32();
            }
            let mut resumed = Philox::new(seed, stream);
            resumed.set_position(whole.position());
            for _ in 0..length {
                prop_assert_eq!(whole.next_u32(), resumed.next_u32());
            }
        }

        #[test]
        fn bytes_are_the_words_in_little_endian(seed: u64, length in 0usize..40) {
            let mut bytes = vec![0; length];
            Philox::new(seed, 0).fill_bytes(&mut bytes);
            let mut random = Philox::new(seed, 0);
            for chunk in bytes.chunks(4) {
                prop_assert_eq!(chunk, &random.next_u32().to_le_bytes()[..chunk.len()]);
            }
        }
    }
}
