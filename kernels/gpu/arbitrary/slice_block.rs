//! A block of threads that reads a slice of a row.

use super::division::Division;
use crate::kernels::gpu::block::Block;
use crate::kernels::gpu::logits::SliceLogits;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Ptx, Reuse, Wide};
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
    reuse: Reuse,
}

/// The kernels that read all logits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    First,
    Second,
}

impl<'k> SliceBlock<'k> {
    /// Declares the logits and the parameters as the next arguments of the kernel.
    ///
    /// If the logits do not fit the L2 cache, the cache keeps only the last slices of the first pass. The second pass
    /// begins with them.
    pub(super) fn arguments(
        k: &'k Ptx,
        spec: &'k Spec,
        division: &'k Division,
        pass: Pass,
    ) -> SliceBlock<'k> {
        let [logits, parameters] = [(); 2].map(|()| k.argument());
        let block = Block::new(k);
        let slices = spec.batch * division.slices;
        let number = match pass {
            Pass::First => k.block(),
            Pass::Second => k.sub(k.int((slices - 1) as i32), k.block()),
        };
        let reuse = match pass {
            Pass::First if slices <= division.cached_slices => Reuse::Later,
            Pass::First => {
                let first = slices - division.cached_slices;
                Reuse::LaterIf(k.le(k.int(first as i32), number))
            }
            Pass::Second => Reuse::Never,
        };
        let (row, slice) = k.divide(number, division.slices);
        let parameters = Parameters::new(k, parameters, row);
        let chunk = division.chunk(k, slice);
        SliceBlock { block, row, number, chunk, parameters, spec, division, logits, reuse }
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
            body(SliceLogits::load_reused(k, self.spec, (self.logits, row), run, self.reuse));
        });
    }
}
