//! How the rows of a batch are divided among the blocks of threads of a GPU.

use crate::dtype::Dtype;
use crate::kernels::spec::Spec;
use crate::kernels::target::Gpu;

/// The number of threads of a block.
pub(super) const THREADS: usize = 512;
/// The numbers of logits per thread that the filter kernel can have. All logits of a thread are in registers.
const PER_THREAD: [usize; 3] = [32, 16, 8];
/// The largest number of entries of a slice that the filter kernel keeps. It is more than the number of slots of a row,
/// so that the kernel need not select exactly.
pub(super) const KEPT: usize = 256;
/// The number of bytes that a thread loads with one instruction.
const VECTOR_BYTES: usize = 16;

/// The division of a batch. A row consists of slices. One block of the filter kernel processes one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The number of logits per thread.
    pub(super) per_thread: usize,
    /// The number of consecutive logits that a thread loads with one instruction.
    pub(super) vector: usize,
    /// The number of slices of a row.
    pub(super) slices: usize,
}

impl Layout {
    /// Chooses the largest slices for which there are two blocks per multiprocessor, or the smallest slices.
    pub(super) fn new(spec: &Spec, gpu: &Gpu) -> Layout {
        let slices = |per_thread| spec.vocab.div_ceil(THREADS * per_thread);
        let is_enough = |&per_thread: &usize| spec.batch * slices(per_thread) >= 2 * gpu.multiprocessors;
        let per_thread = PER_THREAD.into_iter().find(is_enough).unwrap_or(PER_THREAD[PER_THREAD.len() - 1]);
        // A row starts at a multiple of its length.
        let aligned = 1 << spec.vocab.trailing_zeros().min(8);
        let vector = (VECTOR_BYTES / element_bytes(spec.dtype)).min(aligned);
        Layout { per_thread, vector, slices: slices(per_thread) }
    }

    /// The number of logits of a slice. The last slice of a row may have fewer.
    pub(super) fn slice_len(&self) -> usize {
        THREADS * self.per_thread
    }
}

/// The size of a logit.
pub(super) fn element_bytes(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 => 4,
        Dtype::Bf16 | Dtype::F16 => 2,
    }
}
