//! The buffers that the passes over a row use. Later calls reuse them.

use bytemuck::Zeroable;

use super::row_kind::Sizes;
use crate::error::Error;
use crate::memory;

/// A scratch of up to this many bytes is not freed after small calls. This size is sufficient for every kind of row of
/// up to about a million elements.
const KEPT_BYTES: usize = 16 << 20;
/// A larger scratch is freed after this many consecutive calls that need less than a quarter of it.
const CALLS_BEFORE_SHRINKING: u32 = 64;

/// Buffers for one row at a time.
///
/// They grow to the size of the largest row. Their contents are never cleared. A scratch of more than 16 MiB is freed,
/// and allocated again with the required size, after 64 consecutive calls that needed less than a quarter of it.
#[derive(Debug, Default)]
pub struct Scratch {
    bins: Buffer<f32>,
    tops: Buffer<f32>,
    keys: Buffer<i32>,
    weights: Buffer<i32>,
    spare: Buffer<i32>,
    offsets: Buffer<u32>,
    counts: Buffer<u32>,
    indices: Buffer<i32>,
    pub(super) cleaned: Buffer<f32>,
    small_calls: u32,
}

/// The arrays of a [`Scratch`], with the lengths that a row needs.
pub(super) struct Workspace<'a> {
    /// Maxima of blocks.
    pub(super) bins: &'a mut [f32],
    /// Maxima of groups of blocks.
    pub(super) tops: &'a mut [f32],
    /// First the bits of the entries that a pass collected, later the order keys of these entries.
    pub(super) keys: &'a mut [i32],
    /// Weights that a pass collected, or sums of weights.
    pub(super) weights: &'a mut [i32],
    /// First the values that a threshold search narrows, later the indices of the collected entries. In a row without
    /// top-k and top-p: the sums of the weights of collected logits, per block.
    pub(super) spare: &'a mut [i32],
    /// For each block, the position of its first collected entry. If the block has none, the position at which the next
    /// entry of the page would be written.
    pub(super) offsets: &'a mut [u32],
    /// For each page of a row without top-k, the number of collected logits.
    pub(super) counts: &'a mut [u32],
    /// The indices of the entries that [`super::collect_few`] collected.
    pub(super) indices: &'a mut [i32],
}

impl Scratch {
    /// Allocates the memory for a call whose rows need at most `sizes`. Such a row then needs no further allocation.
    pub(super) fn prepare(&mut self, sizes: &Sizes) -> Result<(), Error> {
        let held = self.held_bytes();
        let is_small = held > KEPT_BYTES && sizes.bytes() < held / 4;
        self.small_calls = if is_small { self.small_calls + 1 } else { 0 };
        if self.small_calls >= CALLS_BEFORE_SHRINKING {
            *self = Scratch::default();
        }
        self.reserve(sizes)?;
        self.cleaned.reserve(sizes.cleaned)
    }

    /// The arrays for one row, with arbitrary contents.
    pub(super) fn workspace(&mut self, sizes: &Sizes) -> Result<Workspace<'_>, Error> {
        self.reserve(sizes)?;
        Ok(Workspace {
            bins: self.bins.take(sizes.bins),
            tops: self.tops.take(sizes.tops),
            keys: self.keys.take(sizes.keys),
            weights: self.weights.take(sizes.weights),
            spare: self.spare.take(sizes.spare),
            offsets: self.offsets.take(sizes.offsets),
            counts: self.counts.take(sizes.counts),
            indices: self.indices.take(sizes.indices),
        })
    }

    fn reserve(&mut self, sizes: &Sizes) -> Result<(), Error> {
        self.bins.reserve(sizes.bins)?;
        self.tops.reserve(sizes.tops)?;
        self.keys.reserve(sizes.keys)?;
        self.weights.reserve(sizes.weights)?;
        self.spare.reserve(sizes.spare)?;
        self.offsets.reserve(sizes.offsets)?;
        self.counts.reserve(sizes.counts)?;
        self.indices.reserve(sizes.indices)
    }

    fn held_bytes(&self) -> usize {
        let floats = self.bins.memory.len() + self.tops.memory.len() + self.cleaned.memory.len();
        let ints = self.keys.memory.len() + self.weights.memory.len() + self.spare.memory.len();
        let places = self.offsets.memory.len() + self.counts.memory.len() + self.indices.memory.len();
        (floats + ints + places) * size_of::<u32>()
    }
}

/// A growing array that starts at a cache line boundary, so that no aligned vector in it crosses a boundary.
#[derive(Debug, Default)]
pub(super) struct Buffer<T> {
    memory: Vec<T>,
}

const CACHE_LINE: usize = 64;

impl<T: Copy + Zeroable> Buffer<T> {
    /// Allocates memory for `len` elements, unless there is enough.
    pub(super) fn reserve(&mut self, len: usize) -> Result<(), Error> {
        let space = len + CACHE_LINE / size_of::<T>();
        if len > 0 && self.memory.len() < space {
            // The old contents are not needed. Freeing them before the allocation lowers the peak memory use.
            self.memory = Vec::new();
            self.memory = memory::zeroed(space, "the built-in backend's scratch")?;
        }
        Ok(())
    }

    /// The first `len` elements, with arbitrary contents. The caller must have reserved them.
    pub(super) fn take(&mut self, len: usize) -> &mut [T] {
        if len == 0 {
            return &mut [];
        }
        let start = self.memory.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE / size_of::<T>());
        &mut self.memory[start..start + len]
    }
}

#[cfg(test)]
mod tests {
    use super::super::row_kind::RowKind;
    use super::*;

    fn sizes(kind: RowKind, vocab: usize, parts: usize) -> Sizes {
        kind.sizes(kind.layout(vocab), parts)
    }

    #[test]
    fn arrays_have_their_sizes_and_start_on_cache_lines() {
        let mut scratch = Scratch::default();
        for vocab in [1, 1000, 128_256, 5000] {
            let sizes = sizes(RowKind::TopK(64), vocab, 3);
            let work = scratch.workspace(&sizes).unwrap();
            assert_eq!((work.bins.len(), work.tops.len()), (sizes.bins, sizes.tops));
            assert_eq!((work.keys.len(), work.weights.len()), (sizes.keys, sizes.weights));
            assert_eq!((work.spare.len(), work.offsets.len()), (sizes.spare, sizes.offsets));
            assert_eq!(work.keys.as_ptr().align_offset(CACHE_LINE), 0);
        }
    }

    #[test]
    fn sizes_beyond_memory_are_errors() {
        let huge = Sizes { weights: usize::MAX / 16, ..Sizes::default() };
        let mut scratch = Scratch::default();
        assert!(matches!(scratch.prepare(&huge), Err(Error::OutOfMemory(_))));
        assert!(matches!(scratch.workspace(&huge), Err(Error::OutOfMemory(_))));
        scratch.prepare(&sizes(RowKind::TopP, 1000, 1)).unwrap();
    }

    #[test]
    fn a_huge_scratch_is_given_back_after_many_small_calls() {
        let (huge, small) = (sizes(RowKind::TopP, 1 << 24, 1), sizes(RowKind::TopP, 128_256, 1));
        let mut scratch = Scratch::default();
        scratch.prepare(&huge).unwrap();
        for _ in 1..CALLS_BEFORE_SHRINKING {
            scratch.prepare(&small).unwrap();
        }
        scratch.prepare(&huge).unwrap();
        for _ in 1..CALLS_BEFORE_SHRINKING {
            scratch.prepare(&small).unwrap();
            assert!(scratch.held_bytes() >= huge.bytes(), "given back too early");
        }
        scratch.prepare(&small).unwrap();
        assert!(scratch.held_bytes() < KEPT_BYTES);
    }

    #[test]
    fn a_scratch_of_common_size_is_kept() {
        let mut scratch = Scratch::default();
        scratch.prepare(&sizes(RowKind::TopK(64), 262_144, 1)).unwrap();
        let held = scratch.held_bytes();
        (0..1000).for_each(|_| scratch.prepare(&sizes(RowKind::Greedy, 1000, 1)).unwrap());
        assert_eq!(scratch.held_bytes(), held);
    }
}
