//! A block of threads that reads a slice of a row.

use super::division::Division;
use crate::kernels::gpu::block::Block;
use crate::kernels::gpu::logits::SliceLogits;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Ptx, Wide};

/// A block of threads, its slice, and the parameters of its row.
pub(super) struct SliceBlock<'k> {
    pub(super) block: Block<'k>,
    pub(super) row: Int,
    pub(super) parameters: Parameters<'k>,
    spec: &'k Spec,
    division: &'k Division,
    logits: Wide,
    slice: Int,
}

impl<'k> SliceBlock<'k> {
    /// Declares the logits and the parameters as the next arguments of the kernel.
    pub(super) fn arguments(k: &'k Ptx, spec: &'k Spec, division: &'k Division) -> SliceBlock<'k> {
        let [logits, parameters] = [(); 2].map(|()| k.argument());
        let block = Block::new(k);
        let (row, slice) = k.divide(k.block(), division.slices);
        let parameters = Parameters::new(k, parameters, row);
        SliceBlock { block, row, parameters, spec, division, logits, slice }
    }

    /// Calls `body` with the logits of each tile of the slice, in a loop.
    pub(super) fn for_each_tile(&self, body: impl FnOnce(SliceLogits<'k>)) {
        let (k, division) = (self.block.k, self.division);
        let row = self.parameters.row_of_logits(self.spec);
        division.for_each_tile(k, self.slice, |tile| {
            body(SliceLogits::load(k, (self.spec, &division.tile), self.logits, (row, tile)));
        });
    }
}
