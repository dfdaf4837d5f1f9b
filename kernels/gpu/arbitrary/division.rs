//! How the rows of a batch are divided among the blocks of the kernels that read the logits.

use crate::kernels::gpu::layout::{vector_len, Layout};
use crate::kernels::spec::Spec;
use crate::kernels::target::Gpu;
use crate::ptx::{Int, Ptx, WARP};
use crate::semantics::arith::Arith;

/// The number of threads of a block that processes a slice.
const THREADS: usize = 256;
/// The number of blocks that a multiprocessor can run at the same time.
const RESIDENT_BLOCKS: usize = 4;
/// The number of logits that a thread has in registers: the first value in most batches, the second in batches with few
/// logits.
const PER_THREAD: [usize; 2] = [16, 8];
/// The largest number of slices of a row.
const LARGEST_SLICES: usize = 64;
/// The largest number of logits of a slice. It has two reasons: the sums in shared memory must fit 32 bits, and the
/// draw has one thread for each element of a part of a slice.
pub(super) const LARGEST_SLICE: usize = 1 << 15;

/// A row consists of slices. One block processes one slice, tile by tile. A tile is in registers.
pub(super) struct Division {
    /// The shape of a tile.
    pub(super) tile: Layout,
    /// The number of tiles of a row.
    tiles: usize,
    /// The number of tiles of a slice. The last slice of a row may have fewer.
    tiles_per_slice: usize,
    /// The number of slices of a row.
    pub(super) slices: usize,
}

impl Division {
    /// Chooses slices of equal length. The number of blocks is about the number that the device can run at the same
    /// time, within the limits [`LARGEST_SLICE`] and [`LARGEST_SLICES`].
    pub(super) fn new(spec: &Spec, gpu: &Gpu) -> Division {
        let tiles = |per_thread| spec.vocab.div_ceil(THREADS * per_thread);
        let blocks = RESIDENT_BLOCKS * gpu.multiprocessors;
        let is_enough = |&&per_thread: &&usize| spec.batch * tiles(per_thread) >= blocks;
        let per_thread = *PER_THREAD.iter().find(is_enough).unwrap_or(&PER_THREAD[1]);
        let tiles = tiles(per_thread);
        let tile_len = THREADS * per_thread;
        let tiles_per_slice = (spec.batch * tiles)
            .div_ceil(blocks)
            .min(LARGEST_SLICE / tile_len)
            .max(tiles.div_ceil(LARGEST_SLICES));
        let slices = tiles.div_ceil(tiles_per_slice);
        let vector = vector_len(spec);
        let tile = Layout { threads: THREADS, per_thread, vector, slices, resident_blocks: RESIDENT_BLOCKS };
        let division = Division { tile, tiles, tiles_per_slice, slices };
        assert!(division.slice_len() <= LARGEST_SLICE, "{} has too many elements per row", spec.name());
        division
    }

    /// The number of logits of a slice. The last slice of a row may have fewer.
    pub(super) fn slice_len(&self) -> usize {
        self.tiles_per_slice * self.tile.slice_len()
    }

    /// The number of slices, rounded up to a multiple of the number of threads of a warp.
    pub(super) fn padded_slices(&self) -> usize {
        self.slices.next_multiple_of(WARP)
    }

    /// Returns an empty kernel for one block per slice.
    pub(super) fn kernel(&self) -> Ptx {
        Ptx::new(self.tile.threads, self.tile.resident_blocks)
    }

    /// Calls `body` with the number of each tile of a slice, in a loop.
    pub(super) fn for_each_tile(&self, k: &Ptx, slice: Int, body: impl FnOnce(Int)) {
        if self.tiles_per_slice == 1 {
            return body(slice);
        }
        let first = k.mul(slice, self.tiles_per_slice);
        let end = k.min(k.add(first, k.int(self.tiles_per_slice as i32)), k.int(self.tiles as i32));
        k.for_range(first, end, 1, body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::spec::{Path, Source, Wanted};

    fn division(batch: usize, vocab: usize, multiprocessors: usize) -> Division {
        let (dtype, wanted, source) = (Dtype::F32, Wanted::default(), Source::Batch);
        let spec = Spec { path: Path::Arbitrary, batch, vocab, dtype, stable: true, wanted, source };
        Division::new(&spec, &Gpu { name: "test", multiprocessors })
    }

    #[test]
    fn slices_cover_the_row_within_the_limits() {
        for batch in [1, 3, 16, 128, 4096] {
            for vocab in [1, 2048, 2049, 128_256, 262_144, 1 << 20] {
                for multiprocessors in [1, 58, 132] {
                    let division = division(batch, vocab, multiprocessors);
                    let (slices, len) = (division.slices, division.slice_len());
                    assert!(slices <= LARGEST_SLICES && len <= LARGEST_SLICE, "{batch} × {vocab}");
                    assert!(slices * len >= vocab && (slices - 1) * len < vocab, "{batch} × {vocab}");
                }
            }
        }
    }

    #[test]
    fn blocks_fill_the_device() {
        let slices = |batch, vocab| division(batch, vocab, 132).slices;
        assert_eq!([slices(1, 128_256), slices(16, 262_144), slices(128, 262_144)], [63, 32, 8]);
    }
}
