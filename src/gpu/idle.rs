//! What is kept although nobody holds it, as long as there is room.

use std::collections::HashMap;
use std::sync::Arc;

/// Things by key: all that somebody holds, and of those that nobody does a number, those that were asked for last.
#[derive(Debug)]
pub(super) struct Idle<T> {
    kept: HashMap<String, (Arc<T>, u64)>,
    /// Counts what was asked for.
    clock: u64,
    /// Counts what was made.
    made: usize,
    most: usize,
}

impl<T> Idle<T> {
    /// With room for so many that nobody holds; now and then, until it is tidied up, for twice as many.
    pub(super) fn new(most: usize) -> Self {
        Self {
            kept: HashMap::new(),
            clock: 0,
            made: 0,
            most,
        }
    }

    /// The one of this key, if it is there.
    pub(super) fn get(&mut self, key: &str) -> Option<Arc<T>> {
        self.clock += 1;
        let (item, asked) = self.kept.get_mut(key)?;
        *asked = self.clock;
        Some(Arc::clone(item))
    }

    /// Keeps a new one; another one of this key that was there before stays in its place, and comes back.
    pub(super) fn keep(&mut self, key: String, item: Arc<T>) -> Arc<T> {
        self.clock += 1;
        self.made += usize::from(!self.kept.contains_key(&key));
        let kept = self.kept.entry(key).or_insert((item, self.clock));
        let item = Arc::clone(&kept.0);
        if self.kept.len() > 2 * self.most {
            self.tidy();
        }
        item
    }

    /// How many were made.
    pub(super) fn made(&self) -> usize {
        self.made
    }

    fn tidy(&mut self) {
        let idle = |(item, _): &(Arc<T>, u64)| Arc::strong_count(item) == 1;
        let asked = self
            .kept
            .values()
            .filter(|kept| idle(kept))
            .map(|kept| kept.1);
        let mut asked: Vec<u64> = asked.collect();
        asked.sort_unstable();
        let Some(oldest) = asked.iter().rev().nth(self.most) else {
            return;
        };
        self.kept.retain(|_, kept| !idle(kept) || kept.1 > *oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Idle;

    #[test]
    fn what_nobody_holds_and_asked_for_goes() {
        let mut idle = Idle::new(3);
        let held = idle.keep("held".into(), Arc::new(0));
        for number in 1..=5 {
            idle.keep(number.to_string(), Arc::new(number));
        }
        assert_eq!(idle.get("1").as_deref(), Some(&1));
        // The seventh is more than twice three: the three of no one that were asked for last stay.
        idle.keep("6".into(), Arc::new(6));
        let left = |idle: &mut Idle<i32>| {
            let keys = ["held", "1", "2", "3", "4", "5", "6"];
            keys.map(|key| idle.get(key).is_some())
        };
        let stay = [true, true, false, false, true, true, true];
        assert_eq!(left(&mut idle), stay);
        assert_eq!((*held, idle.made()), (0, 7));
        let again = idle.keep("1".into(), Arc::new(9));
        assert_eq!((*again, idle.made()), (1, 7));
    }
}
