//! Slices that are longer than one binding holds, in segments that it holds.
//!
//! A kernel over whole vectors runs once for each segment. Vectors of one length have segments of the same lengths, and what one binding
//! holds is one segment, itself.

use super::slice::Slice;

/// Where segments begin, in elements: where bindings may begin on every device, and so that they consist of whole vec4s.
const ALIGNMENT: usize = 64;

impl Slice {
    /// How many [segments](Self::segment) it has: one if it fits a binding.
    #[must_use]
    pub fn segments(&self) -> usize {
        if self.len() <= self.binding_elements() {
            return 1;
        }
        self.len().div_ceil(self.longest_segment())
    }

    /// Segment `number`, counted from 0: the slice itself if it fits a binding. All but the last are of one length, the largest multiple of
    /// 64 elements that a binding holds.
    ///
    /// Beyond the last there is the last one again.
    #[must_use]
    pub fn segment(&self, number: usize) -> Slice {
        let last = self.segments() - 1;
        if last == 0 {
            return self.clone();
        }
        let most = self.longest_segment();
        let start = number.min(last) * most;
        self.at(start..self.len().min(start + most))
    }

    /// Elements of all segments but the last, where there are several.
    pub(super) fn longest_segment(&self) -> usize {
        let unit = self.alignment().next_multiple_of(ALIGNMENT);
        (self.binding_elements() / unit * unit).max(unit)
    }
}
