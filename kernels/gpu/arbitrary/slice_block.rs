//! A block of threads that reads a slice of a row.

use super::division::Division;
use crate::kernels::gpu::block::Block;
use crate::kernels::gpu::logits::SliceLogits;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Ptx, Wide};
use crate::semantics::arith::Arith;

/// A block of threads, its slice, and the parameters of its row.
pub(super) struct SliceBlock<'k> {
    pub(super) block: Block<'k>,
    pub(super) row: Int,
    /// The number of the slice among all slices of the batch.
    pub(super) number: Int,
    /// The number in the row of the chunk of this warp.
    pub(super) chunk: Int,
    pub(super) parameters: Parameters<'k>,
    spec: &'k Spec,
    division: &'k Division,
    logits: Wide,
}

impl<'k> SliceBlock<'k> {
    /// Declares the logits and the parameters as the next arguments of the kernel. With `reversed`, the first blocks
    /// process the last slices.
    pub(super) fn arguments(
        k: &'k Ptx,
        spec: &'k Spec,
        division: &'k Division,
        reversed: bool,
    ) -> SliceBlock<'k> {
        let [logits, parameters] = [(); 2].map(|()| k.argument());
        let block = Block::new(k);
        let last = k.int((spec.batch * division.slices - 1) as i32);
        let number = if reversed { k.sub(last, k.block()) } else { k.block() };
        let (row, slice) = k.divide(number, division.slices);
        let parameters = Parameters::new(k, parameters, row);
        let chunk = division.chunk(k, slice);
        SliceBlock { block, row, number, chunk, parameters, spec, division, logits }
    }

    /// The number of this warp's chunk among all chunks of the batch.
    pub(super) fn chunk_number(&self) -> Int {
        self.block.k.element(self.row, self.division.chunks(), self.chunk)
    }

    /// Calls `body` with the logits of each tile of this warp's chunk, in a loop.
    pub(super) fn for_each_tile(&self, body: impl FnOnce(SliceLogits<'k>)) {
        let k = self.block.k;
        let row = self.parameters.row_of_logits(self.spec);
        self.division.for_each_tile(k, self.chunk, |run| {
            body(SliceLogits::load_run(k, self.spec, self.logits, row, run));
        });
    }
}
