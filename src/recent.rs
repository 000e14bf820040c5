//! What is kept as long as there is memory for it.

/// Bytes that what is kept may take, by default.
pub(crate) const BUDGET: u64 = 1 << 30;
/// Host memory that is counted for each item beside its buffers: recordings with their bind groups.
const RECORDINGS: u64 = 1 << 16;

/// Items that were used recently: what was not asked for the longest goes first, once all take more than a budget of bytes.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    /// The one asked for last comes last.
    kept: Vec<(T, u64)>,
    budget: u64,
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
        }
    }

    /// The item that is so, or a new one that takes `bytes`.
    pub(crate) fn find_or<E>(
        &mut self,
        is: impl FnMut(&T) -> bool,
        bytes: u64,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<&mut T, E> {
        if !self.bring(is) {
            self.keep(make()?, bytes);
        }
        let last = self.kept.len() - 1;
        Ok(&mut self.kept[last].0)
    }

    /// The item that is so.
    pub(crate) fn find(&mut self, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let found = self.bring(is);
        let last = self.kept.last_mut().filter(|_| found);
        last.map(|(item, _)| item)
    }

    /// The item asked for last.
    pub(crate) fn last(&mut self) -> Option<&mut T> {
        self.kept.last_mut().map(|(item, _)| item)
    }

    /// Moves an item to the end; whether it is there.
    fn bring(&mut self, mut is: impl FnMut(&T) -> bool) -> bool {
        let Some(place) = self.kept.iter().position(|(item, _)| is(item)) else {
            return false;
        };
        self.kept[place..].rotate_left(1);
        true
    }

    /// Keeps one more.
    pub(crate) fn keep(&mut self, item: T, bytes: u64) {
        self.kept.push((item, bytes.saturating_add(RECORDINGS)));
        while self.kept.len() > 1 && self.bytes() > self.budget {
            self.kept.remove(0);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    fn bytes(&self) -> u64 {
        self.kept
            .iter()
            .fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::{RECORDINGS, Recent};

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut recent = Recent::with_budget(3 * RECORDINGS + 30);
        let find = |recent: &mut Recent<u32>, wanted: u32| {
            let mut made = false;
            let found = recent.find_or(
                |&item| item == wanted,
                10,
                || {
                    made = true;
                    Ok::<u32, ()>(wanted)
                },
            );
            assert_eq!(found, Ok(&mut { wanted }));
            made
        };
        assert!((0..3).all(|i| find(&mut recent, i)));
        assert!(!find(&mut recent, 0));
        assert!(find(&mut recent, 3));
        assert!(recent.find(|&item| item == 1).is_none());
        assert!(recent.find(|&item| item == 0).is_some());
        recent.keep(9, u64::MAX);
        assert!(
            recent.find(|&item| item == 9).is_some() && recent.find(|&item| item == 0).is_none()
        );
    }
}
