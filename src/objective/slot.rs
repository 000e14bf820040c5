//! Places for batches on the device.

use crate::data::Role;

/// A place for one batch on the device. What is made for a slot and a number of rows computes with the batch of so many rows that was
/// loaded there last when it runs, so batches that are needed at the same time are in slots of their own, and whoever loads a slot anew has
/// submitted what was to see the batch before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// What the batch is for.
    pub role: Role,
    /// Among those of the same role.
    pub number: usize,
}

impl Slot {
    /// Slot `number` of a role.
    #[must_use]
    pub const fn new(role: Role, number: usize) -> Self {
        Self { role, number }
    }
}

impl Default for Slot {
    /// Of a batch that has all roles.
    fn default() -> Self {
        Self::new(Role::Directions, 0)
    }
}

/// What was loaded into a slot. Programs belong to the slot, the rows and the groups, and serve all batches of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Loaded {
    /// The slot.
    pub slot: Slot,
    /// Rows that programs run on, padding included.
    pub rows: usize,
    /// Examples among them, for counting work.
    pub examples: usize,
    /// Groups into which the rows are cut; 1 for a batch that is a whole.
    pub groups: usize,
}

impl Loaded {
    /// Whether programs made for the one serve the other.
    pub(crate) fn same_programs(&self, other: &Self) -> bool {
        (self.slot, self.rows, self.groups) == (other.slot, other.rows, other.groups)
    }
}
