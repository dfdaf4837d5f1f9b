//! A block of threads that reads a slice of a row.

use super::division::Division;
use crate::kernels::gpu::block::Block;
use crate::kernels::gpu::logits::SliceLogits;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx, Reuse, Variable, Wide};
use crate::semantics::arith::Arith;

/// A block of threads, its slice, and the parameters of its row.
pub(super) struct SliceBlock<'k> {
    pub(super) block: Block<'k>,
    pub(super) row: Int,
    /// The number of the slice in the row.
    pub(super) slice: Int,
    /// The number of the slice among all slices of the batch.
    pub(super) number: Int,
    /// The number in the row of the chunk of this warp.
    pub(super) chunk: Int,
    pub(super) parameters: Parameters<'k>,
    pub(super) spec: &'k Spec,
    pub(super) division: &'k Division,
    logits: Wide,
    /// The parameters of all rows.
    all_parameters: Wide,
    /// Whether the L2 cache should keep the next tiles for the second pass: 0 or 1. This field is `None` in the second
    /// pass, and if the cache has space for all slices.
    keeps: Option<Variable>,
}

/// The two kernels that read the logits of all slices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    First,
    Second,
}

impl<'k> SliceBlock<'k> {
    /// Declares the logits and the parameters as the next arguments of the kernel.
    pub(super) fn arguments(
        k: &'k Ptx,
        spec: &'k Spec,
        division: &'k Division,
        pass: Pass,
    ) -> SliceBlock<'k> {
        let [logits, all_parameters] = [(); 2].map(|()| k.argument());
        let block = Block::new(k);
        let slices = spec.batch * division.slices;
        let number = match pass {
            Pass::First => k.block(),
            // The second pass begins with the slices that the L2 cache keeps.
            Pass::Second => k.sub(k.int((slices - 1) as i32), k.block()),
        };
        let (row, slice) = k.divide(number, division.slices);
        let parameters = Parameters::new(k, all_parameters, row);
        let chunk = division.chunk(k, slice);
        // If the cache has space for all slices, it keeps them anyway.
        let can_keep = pass == Pass::First && division.cached_slices < slices;
        let keeps = can_keep.then(|| k.variable(k.int(0)));
        SliceBlock {
            block,
            row,
            slice,
            number,
            chunk,
            parameters,
            spec,
            division,
            logits,
            all_parameters,
            keeps,
        }
    }

    /// If the mask is true and the slice is one of the last slices, the L2 cache keeps the following tiles of this
    /// slice for the second pass. The cache has no space for the other slices.
    pub(super) fn keep_following_tiles_if(&self, mask: Mask) {
        let k = self.block.k;
        let Some(keeps) = self.keeps else { return };
        let first = self.spec.batch * self.division.slices - self.division.cached_slices;
        let is_last = k.le(k.int(first as i32), self.number);
        k.set(keeps, k.select(k.both(mask, is_last), k.int(1), k.int(0)));
    }

    /// The number of this warp's chunk among all chunks of the batch.
    pub(super) fn chunk_number(&self) -> Int {
        self.block.k.element(self.row, self.division.chunks(), self.chunk)
    }

    /// Loads the parameters of another row.
    pub(super) fn parameters_of(&self, row: Int) -> Parameters<'k> {
        Parameters::load(self.block.k, self.all_parameters, row)
    }

    /// Calls `body` with the logits of each tile of a chunk of another row, in a loop. `row` is the number of the row
    /// in the array of logits.
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
        let k = self.block.k;
        let row = self.parameters.row_of_logits(self.spec);
        self.division.for_each_tile(k, self.chunk, |run| {
            let reuse = self.keeps.map_or(Reuse::Never, |keeps| Reuse::LaterIf(k.eq(k.get(keeps), k.int(1))));
            body(SliceLogits::load_reused(k, self.spec, (self.logits, row), run, reuse));
        });
    }
}
