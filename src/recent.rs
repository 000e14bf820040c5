//! What is kept as long as there is memory for it, and whoever it was made for.

use std::sync::Weak;

/// Bytes that what is kept may take, by default.
pub(crate) const BUDGET: u64 = 1 << 30;
/// Items that are kept at most, by default: recordings take host memory that is hard to count.
const MOST: usize = 64;
/// Host memory that is counted for each item beside its buffers: recordings with their bind groups.
const RECORDINGS: u64 = 1 << 16;

/// Items that were used recently, each made for a vector whose life is told by a weak reference: it goes with the vector, and what was not
/// asked for the longest goes first, once all take more than a budget of bytes or are more than a number.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    /// The one asked for last comes last.
    kept: Vec<Kept<T>>,
    budget: u64,
    most: usize,
    /// Whether somebody else holds an item, so that nothing would be gained by forgetting it.
    held: fn(&T) -> bool,
}

#[derive(Debug)]
struct Kept<T> {
    item: T,
    bytes: u64,
    owner: Weak<()>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self::with_budget(BUDGET)
    }
}

impl<T> Recent<T> {
    /// With a budget of bytes; what was asked for last stays even where it is larger.
    pub(crate) fn with_budget(bytes: u64) -> Self {
        Self {
            kept: Vec::new(),
            budget: bytes,
            most: MOST,
            held: |_| false,
        }
    }

    /// Keeps what somebody else holds.
    pub(crate) fn with_held(self, held: fn(&T) -> bool) -> Self {
        Self { held, ..self }
    }

    /// With room for this number of items.
    pub(crate) fn with_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// The item that is so, or a new one for a vector that takes `bytes`.
    pub(crate) fn find_or<E>(
        &mut self,
        is: impl FnMut(&T) -> bool,
        (owner, bytes): (Weak<()>, u64),
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<&mut T, E> {
        if !self.bring(is) {
            self.keep(make()?, (owner, bytes));
        }
        let last = self.kept.len() - 1;
        Ok(&mut self.kept[last].item)
    }

    /// The item that is so.
    pub(crate) fn find(&mut self, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let found = self.bring(is);
        let last = self.kept.last_mut().filter(|_| found);
        last.map(|kept| &mut kept.item)
    }

    /// The item asked for last.
    pub(crate) fn last(&mut self) -> Option<&mut T> {
        self.kept.last_mut().map(|kept| &mut kept.item)
    }

    /// Moves an item to the end; whether it is there.
    fn bring(&mut self, mut is: impl FnMut(&T) -> bool) -> bool {
        self.sweep();
        let Some(place) = self.kept.iter().position(|kept| is(&kept.item)) else {
            return false;
        };
        self.kept[place..].rotate_left(1);
        true
    }

    /// Forgets what was made for vectors that are gone.
    pub(crate) fn sweep(&mut self) {
        self.kept.retain(|kept| kept.owner.strong_count() > 0);
    }

    /// Keeps one more. What it holds of its vector must not count as a handle, see [`Vector::uncounted`](crate::vector::Vector).
    pub(crate) fn keep(&mut self, item: T, (owner, bytes): (Weak<()>, u64)) {
        self.kept.push(Kept {
            item,
            bytes: bytes.saturating_add(RECORDINGS),
            owner,
        });
        while self.kept.len() > self.most || self.bytes() > self.budget {
            let others = &self.kept[..self.kept.len() - 1];
            let Some(oldest) = others.iter().position(|kept| !(self.held)(&kept.item)) else {
                break;
            };
            self.kept.remove(oldest);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    fn bytes(&self) -> u64 {
        self.kept
            .iter()
            .fold(0, |sum, kept| sum.saturating_add(kept.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{RECORDINGS, Recent};

    fn find(recent: &mut Recent<u32>, wanted: u32, owner: &Arc<()>) -> bool {
        let mut made = false;
        let make = || {
            made = true;
            Ok::<u32, ()>(wanted)
        };
        let owner = Arc::downgrade(owner);
        let found = recent.find_or(|&item| item == wanted, (owner, 10), make);
        assert_eq!(found, Ok(&mut { wanted }));
        made
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut recent = Recent::with_budget(3 * RECORDINGS + 30);
        let owner = Arc::default();
        assert!((0..3).all(|i| find(&mut recent, i, &owner)));
        assert!(!find(&mut recent, 0, &owner));
        assert!(find(&mut recent, 3, &owner));
        assert!(recent.find(|&item| item == 1).is_none());
        assert!(recent.find(|&item| item == 0).is_some());
        recent.keep(9, (Arc::downgrade(&owner), u64::MAX));
        assert!(
            recent.find(|&item| item == 9).is_some() && recent.find(|&item| item == 0).is_none()
        );
    }

    #[test]
    fn no_more_than_a_number_stay() {
        let mut recent = Recent::default().with_most(3);
        let owner = Arc::default();
        assert!((0..4).all(|i| find(&mut recent, i, &owner)));
        assert!(recent.find(|&item| item == 0).is_none());
        assert!((1..4).all(|i| !find(&mut recent, i, &owner)));
    }

    #[test]
    fn what_somebody_holds_stays() {
        let mut recent = Recent::default().with_most(2).with_held(|&item| item < 2);
        let owner = Arc::default();
        assert!((0..5).all(|i| find(&mut recent, i, &owner)));
        assert!([0, 1, 4].iter().all(|&i| !find(&mut recent, i, &owner)));
        assert!(recent.find(|&item| item == 2 || item == 3).is_none());
    }

    #[test]
    fn what_was_made_for_something_goes_with_it() {
        let mut recent = Recent::default();
        let (first, second) = (Arc::default(), Arc::default());
        assert!(find(&mut recent, 1, &first) && find(&mut recent, 2, &second));
        drop(first);
        assert!(!find(&mut recent, 2, &second));
        assert_eq!(recent.kept.len(), 1);
        assert!(find(&mut recent, 1, &second));
    }
}
