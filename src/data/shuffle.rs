//! Mini-batches whose rows any invocation of a kernel finds by itself.

use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::draw_rows::{self, Draw};
use crate::random::philox4x32;
use crate::{Error, Result};

/// Rounds of the network, as in `shaders/draw_rows.wgsl`.
const ROUNDS: u32 = 8;
/// Most steps of a walk, as there.
const WALK: usize = 128;
/// High word of the numbers of the streams that it draws from: `7 * 2^48` and the epoch.
const STREAM_HIGH: u32 = 7 << 16;

/// Mini-batches without replacement that can be drawn on the device: row `i` of batch `step` is computed from seed, step and `i` alone, by
/// equal integers here and there.
///
/// Epoch `e` is steps `e b` to `e b + b - 1` for the `b = rows / batch` batches that fit (rounded down); rows beyond them are left out,
/// others in each epoch. Within an epoch a row occurs at most once.
///
/// The shuffle of an epoch is a bijection of `0..2^B`, the smallest power of two that holds all rows: an alternating Feistel network of 8
/// rounds with halves of `B/2` bits (rounded down and up), whose round function is the first word of [Philox](philox4x32) block `(half,
/// round)` of stream `7 * 2^48 + e`. It is applied again to what is not below `rows` (cycle walking), which keeps it a bijection of
/// `0..rows`. The parts are well known; putting them together like this is our own construction, and not the order of
/// [`Epochs`](super::Epochs).
///
/// Guaranteed is that an epoch's rows are all different as long as no walk takes more than 128 steps: never more than `2^B - rows + 1`,
/// and of a step at most half of all numbers go on, so that the odds of a longer one are about `2^-128`. Not guaranteed are equal odds
/// for all orders of the rows: there are more of these than seeds and epochs; for 20,000 epochs of 10 rows, how often each row comes to
/// each place and after which other row does not differ measurably from equal odds (a test here).
///
/// ```
/// let shuffle = osculant::data::Shuffle::new(7, 3, 1)?;
/// let mut epoch = [shuffle.batch(0), shuffle.batch(1)].concat();
/// epoch.sort_unstable();
/// epoch.dedup();
/// assert_eq!(epoch.len(), 6);
/// # Ok::<(), osculant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shuffle {
    rows: u32,
    batch: u32,
    seed: u64,
    /// Bits of the two halves of a number.
    low: u32,
    high: u32,
}

impl Shuffle {
    /// Batches of `batch` out of `rows` rows.
    ///
    /// # Errors
    /// [`Error::Data`] when there are no rows, or more than `2^32 - 1`; [`Error::Option`] unless `batch` is between 1 and `rows`.
    pub fn new(rows: usize, batch: usize, seed: u64) -> Result<Self> {
        let count = u32::try_from(rows).ok().filter(|&rows| rows > 0);
        let Some(count) = count else {
            return Err(Error::Data {
                what: "shuffle".to_owned(),
                message: format!("batches are drawn from 1 to 4,294,967,295 rows, not from {rows}"),
            });
        };
        if batch == 0 || batch > rows {
            return Err(Error::Option {
                option: "batch".to_owned(),
                message: format!("a batch of {batch} out of {rows} rows; take 1 to {rows}"),
            });
        }
        let bits = u32::BITS - (count - 1).leading_zeros();
        Ok(Self {
            rows: count,
            batch: batch as u32,
            seed,
            low: bits / 2,
            high: bits - bits / 2,
        })
    }

    /// Batches in one epoch.
    #[must_use]
    pub fn batches_per_epoch(&self) -> usize {
        (self.rows / self.batch) as usize
    }

    /// The rows of a batch.
    #[must_use]
    pub fn batch(&self, step: u32) -> Vec<usize> {
        let batches = self.rows / self.batch;
        let first = step % batches * self.batch;
        let places = first..first + self.batch;
        places
            .map(|place| self.row(step / batches, place) as usize)
            .collect()
    }

    /// The row at a place of an epoch.
    fn row(&self, epoch: u32, place: u32) -> u32 {
        let mut row = place;
        for _ in 0..WALK {
            row = self.permuted(epoch, row);
            if row < self.rows {
                return row;
            }
        }
        place
    }

    /// The bijection of `0..2^B`.
    fn permuted(&self, epoch: u32, number: u32) -> u32 {
        let mask = |bits: u32| (1 << bits) - 1;
        let (mut low, mut high) = (number & mask(self.low), number >> self.low);
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let word = |half: u32, round: u32| philox4x32([half, round, epoch, STREAM_HIGH], key)[0];
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                high ^= word(low, round) & mask(self.high);
            } else {
                low ^= word(high, round) & mask(self.low);
            }
        }
        high << self.low | low
    }

    /// Records that `index` is filled with the rows of the batch whose number stands in the first element of `step`, a u32, when it is
    /// replayed: nothing goes through the host. `index` has an element for each row of a batch, and lies in another buffer than `step`.
    ///
    /// # Errors
    /// [`Error::Length`] for an `index` of another length; limits of the device.
    pub fn record(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        index: &Slice,
        step: &Slice,
    ) -> Result<()> {
        let draw = Draw {
            rows: self.rows,
            count: self.batch,
            bits: [self.low, self.high],
            seed: self.seed,
        };
        draw_rows::draw(gpu, recording, index, step, &draw)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(matches!(Shuffle::new(0, 1, 0), Err(Error::Data { .. })));
        assert!(matches!(
            Shuffle::new(1 << 32, 1, 0),
            Err(Error::Data { .. })
        ));
        for batch in [0, 6] {
            let error = Shuffle::new(5, batch, 0).unwrap_err();
            assert!(matches!(error, Error::Option { .. }), "{error}");
        }
    }

    #[test]
    fn an_epoch_has_every_row_once() {
        for rows in [1usize, 2, 3, 4, 5, 10, 64, 65, 1797, 70_000] {
            for (seed, epoch) in [(0, 0), (1, 0), (u64::MAX, u32::MAX)] {
                let shuffle = Shuffle::new(rows, rows, seed).unwrap();
                let mut seen = vec![false; rows];
                for row in shuffle.batch(epoch) {
                    assert!(!std::mem::replace(&mut seen[row], true), "{rows}: {row}");
                }
                assert!(seen.iter().all(|&seen| seen), "{rows}");
            }
        }
    }

    /// The longest walks that any number of rows up to 300 takes, in ten epochs: the limit of 128 is far away.
    #[test]
    fn walks_are_short() {
        let mut longest = 0;
        for rows in 1..300 {
            let shuffle = Shuffle::new(rows, rows, 7).unwrap();
            for (epoch, place) in (0..10).flat_map(|e| (0..rows as u32).map(move |p| (e, p))) {
                let (mut row, mut steps) = (shuffle.permuted(epoch, place), 1);
                while row >= shuffle.rows {
                    row = shuffle.permuted(epoch, row);
                    steps += 1;
                }
                assert_eq!(row, shuffle.row(epoch, place));
                longest = longest.max(steps);
            }
        }
        assert!((5..40).contains(&longest), "{longest}");
    }

    #[test]
    fn batches_of_an_epoch_are_cut_from_one_order() {
        let shuffle = |batch| Shuffle::new(10, batch, 3).unwrap();
        let whole = shuffle(10).batch(4);
        assert_eq!(shuffle(3).batches_per_epoch(), 3);
        let parts: Vec<usize> = (12..15).flat_map(|step| shuffle(3).batch(step)).collect();
        assert_eq!(parts, whole[..9]);
        assert_ne!(shuffle(10).batch(5), whole);
        assert_ne!(Shuffle::new(10, 10, 4).unwrap().batch(4), whole);
    }

    /// Pinned, so that a change that would make old runs irreproducible does not go unseen.
    #[test]
    fn the_order_is_pinned() {
        let batch = Shuffle::new(10, 10, 1).unwrap().batch(0);
        assert_eq!(batch, PINNED);
    }

    const PINNED: [usize; 10] = [7, 8, 6, 0, 1, 4, 2, 5, 9, 3];

    /// Counts of 20,000 epochs of 10 rows have a standard deviation of 42 around 2,000; of 200 of them the largest is 3.0 of these off on
    /// the average, and more than 5 once in ten thousand times.
    #[test]
    fn places_and_neighbours_have_equal_odds() {
        const ROWS: usize = 10;
        const EPOCHS: u32 = 20_000;
        let shuffle = Shuffle::new(ROWS, ROWS, 11).unwrap();
        let mut places = [[0u32; ROWS]; ROWS];
        let mut neighbours = [[0u32; ROWS]; ROWS];
        for epoch in 0..EPOCHS {
            let rows = shuffle.batch(epoch);
            for (place, &row) in rows.iter().enumerate() {
                places[place][row] += 1;
            }
            for pair in rows.windows(2) {
                neighbours[pair[0]][pair[1]] += 1;
            }
        }
        let all = places.iter().flatten();
        let each = EPOCHS / ROWS as u32;
        let worst = all.map(|&count| count.abs_diff(each)).max().unwrap();
        assert!(worst < 5 * 42, "{worst}: {places:?}");
        // Nine pairs in an epoch, ninety of them possible: the same mean.
        for (row, counts) in neighbours.iter().enumerate() {
            for (next, &count) in counts.iter().enumerate() {
                let off = count.abs_diff(if row == next { 0 } else { each });
                assert!(off < 5 * 42, "{row} {next}: {neighbours:?}");
            }
        }
    }
}
