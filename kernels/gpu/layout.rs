//! How the rows of a batch are divided among the blocks of threads of a GPU.

use crate::kernels::spec::Spec;
use crate::kernels::target::Gpu;

/// The largest number of rows of the kernels. The index of an entry in the arrays between the kernels then has at most
/// 31 bits.
pub(super) const LARGEST_BATCH: usize = 1 << 16;
/// The longest row of the kernels.
pub(super) const LARGEST_VOCAB: usize = 1 << 20;
/// The number of threads of a block of the second kernel.
pub(super) const THREADS: usize = 512;
/// The shapes of blocks of the first kernel, the largest slices first. A shape is the number of threads, the number of
/// logits that each thread has in registers, and the number of blocks that a multiprocessor can then run at the same
/// time. The first shape is only for rows that have more than [`LARGEST_SLICES`] slices with every other shape. The
/// shapes were chosen by measurements on an H100.
const SHAPES: [(usize, usize, usize); 4] = [(512, 32, 1), (256, 24, 4), (256, 16, 6), (512, 8, 3)];
/// The largest number of entries of a slice that the filter kernel keeps. It exceeds the largest number of slots of a
/// row, so the kernel usually need not select exactly k entries.
pub(super) const KEPT: usize = 256;
/// The largest number of slices of a row. It is limited because the second kernel has all entries of a row in
/// registers.
pub(super) const LARGEST_SLICES: usize = 64;
/// The number of bytes that a thread loads with one instruction.
const VECTOR_BYTES: usize = 16;

/// The division of a batch. A row consists of slices. One block of the filter kernel processes one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The number of threads of a block of the first kernel.
    pub(super) threads: usize,
    /// The number of logits per thread.
    pub(super) per_thread: usize,
    /// The number of consecutive logits that a thread loads with one instruction.
    pub(super) vector: usize,
    /// The number of slices of a row.
    pub(super) slices: usize,
    /// The number of blocks of the filter kernel that a multiprocessor can run at the same time.
    pub(super) resident_blocks: usize,
}

impl Layout {
    /// Chooses the shape with the largest slices that gives every multiprocessor two blocks, or else the shape with the
    /// smallest slices. Shapes that need more than [`LARGEST_SLICES`] slices are excluded.
    pub(super) fn new(spec: &Spec, gpu: &Gpu) -> Layout {
        let vector = vector_len(spec);
        let layout = |&(threads, per_thread, resident_blocks): &(usize, usize, usize)| {
            let slices = spec.vocab.div_ceil(threads * per_thread);
            Layout { threads, per_thread, vector, slices, resident_blocks }
        };
        let [for_long_rows, shapes @ ..] = &SHAPES;
        let is_possible = |layout: &Layout| layout.slices <= LARGEST_SLICES;
        let is_enough = |layout: &Layout| spec.batch * layout.slices >= 2 * gpu.multiprocessors;
        let possible = || shapes.iter().map(layout).filter(is_possible);
        possible().find(is_enough).or(possible().next_back()).unwrap_or_else(|| layout(for_long_rows))
    }

    /// The number of logits of a slice. The last slice of a row may have fewer.
    pub(super) fn slice_len(&self) -> usize {
        self.threads * self.per_thread
    }
}

/// The number of consecutive logits that a thread loads with one instruction.
pub(super) fn vector_len(spec: &Spec) -> usize {
    // The offset of a row is a multiple of `vocab`, and a load must be aligned to its size. So the number of
    // logits per load must divide `vocab`.
    let aligned = 1 << spec.vocab.trailing_zeros().min(8);
    (VECTOR_BYTES / spec.dtype.size()).min(aligned)
}
