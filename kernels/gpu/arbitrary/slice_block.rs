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
    /// The number of the slice in the row.
    pub(super) slice: Int,
    /// The number in the row of the chunk of this warp.
    pub(super) chunk: Int,
    pub(super) parameters: Parameters<'k>,
    pub(super) spec: &'k Spec,
    pub(super) division: &'k Division,
    logits: Wide,
    /// The parameters of all rows.
    all_parameters: Wide,
}

impl<'k> SliceBlock<'k> {
    /// Declares the logits and the parameters as the next arguments of the kernel.
    pub(super) fn arguments(k: &'k Ptx, spec: &'k Spec, division: &'k Division) -> SliceBlock<'k> {
        let [logits, all_parameters] = [(); 2].map(|()| k.argument());
        let block = Block::new(k);
        let (row, slice) = k.divide(k.block(), division.slices);
        let parameters = Parameters::new(k, all_parameters, row);
        let chunk = division.chunk(k, slice);
        SliceBlock { block, row, slice, chunk, parameters, spec, division, logits, all_parameters }
    }

    /// A block whose warps process chunks of a row. `chunk` is the number of the chunk of this warp. The warps of a
    /// block can process chunks of different slices. `logits` and `parameters` are the addresses of the two arrays.
    pub(super) fn of_chunk(
        k: &'k Ptx,
        spec: &'k Spec,
        division: &'k Division,
        [logits, parameters]: [Wide; 2],
        (row, chunk): (Int, Int),
    ) -> SliceBlock<'k> {
        let (block, slice) = (Block::new(k), division.slice_of(k, chunk));
        let all_parameters = parameters;
        let parameters = Parameters::new(k, all_parameters, row);
        SliceBlock { block, row, slice, chunk, parameters, spec, division, logits, all_parameters }
    }

    /// The number of this warp's chunk among all chunks of the batch.
    pub(super) fn chunk_number(&self) -> Int {
        self.block.k.element(self.row, self.division.chunks(), self.chunk)
    }

    /// Loads the parameters of a row.
    pub(super) fn parameters_of(&self, row: Int) -> Parameters<'k> {
        Parameters::load(self.block.k, self.all_parameters, row)
    }

    /// Calls `body` with the logits of each tile of a chunk of a row, in a loop. `row` is the number of the row in the
    /// array of logits.
    pub(super) fn for_each_tile_of(
        &self,
        division: &Division,
        chunk: Int,
        row: Int,
        body: impl FnOnce(SliceLogits<'k>),
    ) {
        let k = self.block.k;
        division.for_each_tile(k, chunk, |run| {
            body(SliceLogits::load_run(k, self.spec, self.logits, row, run));
        });
    }

    /// Calls `body` with the logits of each tile of this warp's chunk, in a loop.
    pub(super) fn for_each_tile(&self, body: impl FnOnce(SliceLogits<'k>)) {
        let row = self.parameters.row_of_logits(self.spec);
        self.for_each_tile_of(self.division, self.chunk, row, body);
    }
}
