//! Memory that rows are worked on in, kept from call to call.

use super::lanes::LANES;
use super::layout::{Part, BLOCK};

/// Buffers of one row at a time. They grow to the largest row seen and are never cleared.
#[derive(Debug, Default)]
pub struct Scratch {
    bins: Buffer<f32>,
    tops: Buffer<f32>,
    keys: Buffer<i32>,
    weights: Buffer<i32>,
    spare: Buffer<i32>,
    offsets: Buffer<u32>,
    pub(super) cleaned: Buffer<f32>,
}

/// [`Scratch`] cut to the size of a row.
pub(super) struct Workspace<'a> {
    /// Maxima of blocks.
    pub(super) bins: &'a mut [f32],
    /// Maxima of groups of blocks.
    pub(super) tops: &'a mut [f32],
    /// Order keys of the entries that a pass collected.
    pub(super) keys: &'a mut [i32],
    /// Weights of the entries that a pass collected.
    pub(super) weights: &'a mut [i32],
    /// What the searches narrow.
    pub(super) spare: &'a mut [i32],
    /// How many entries were collected before each block.
    pub(super) offsets: &'a mut [u32],
}

impl Scratch {
    pub(super) fn workspace(&mut self, row: &Part<'_>, parts: usize) -> Workspace<'_> {
        let layout = row.layout;
        let room = layout.blocks * BLOCK + parts * LANES;
        Workspace {
            bins: self.bins.take(layout.blocks * LANES),
            tops: self.tops.take(layout.groups() * LANES),
            keys: self.keys.take(room),
            weights: self.weights.take(room),
            spare: self.spare.take(room),
            offsets: self.offsets.take(layout.blocks),
        }
    }
}

/// A growing array that starts on a cache line, so that vectors in it do not straddle two.
#[derive(Debug, Default)]
pub(super) struct Buffer<T> {
    memory: Vec<T>,
}

impl<T: Copy + Default> Buffer<T> {
    /// The first `len` elements, with whatever they hold.
    pub(super) fn take(&mut self, len: usize) -> &mut [T] {
        const LINE: usize = 64;
        let room = len + LINE / size_of::<T>();
        if self.memory.len() < room {
            // A fresh array comes zeroed from the system without being touched, unlike a grown one.
            self.memory = vec![T::default(); room.next_power_of_two()];
        }
        let start = self.memory.as_ptr().align_offset(LINE).min(LINE / size_of::<T>());
        &mut self.memory[start..start + len]
    }
}
