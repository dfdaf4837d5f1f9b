//! How the rows of a batch are divided among the blocks of the kernels that read the logits.

use crate::kernels::gpu::layout::vector_len;
use crate::kernels::gpu::logits::Run;
use crate::kernels::spec::Spec;
use crate::kernels::target::Gpu;
use crate::ptx::{Int, Ptx, WARP};
use crate::semantics::arith::Arith;

/// The number of threads of a block of `scan`.
pub(super) const THREADS: usize = 256;
/// The number of chunks of a slice: one per warp.
const CHUNKS: usize = THREADS / WARP;
/// The number of blocks of `scan` that a multiprocessor can run at the same time.
pub(super) const RESIDENT_BLOCKS: usize = 4;
/// The number of logits that a thread has in registers: the first value in most batches, the second in batches with few
/// logits.
const PER_THREAD: [usize; 2] = [16, 8];
/// The largest number of slices of a row.
pub(super) const LARGEST_SLICES: usize = 64;
/// The largest number of chunks of a row.
pub(super) const LARGEST_CHUNKS: usize = LARGEST_SLICES * CHUNKS;
/// The largest number of logits of a chunk. In the search for one entry in a chunk, each thread has at most
/// eight logits.
pub(super) const LARGEST_CHUNK: usize = 1 << 12;

/// A row consists of slices. One block of `scan` processes one slice. A slice consists of chunks of consecutive logits.
/// One warp processes one chunk, tile by tile. A tile is in registers.
pub(super) struct Division {
    /// The number of logits of a tile in each thread.
    per_thread: usize,
    /// The number of consecutive logits that a thread loads with one instruction.
    pub(super) vector: usize,
    /// The number of tiles of a chunk.
    tiles: usize,
    /// The number of slices of a row.
    pub(super) slices: usize,
}

impl Division {
    /// Chooses slices of equal length. The number of blocks is about the number that the device can run at the same
    /// time, within the limits [`LARGEST_CHUNK`] and [`LARGEST_SLICES`].
    pub(super) fn new(spec: &Spec, gpu: &Gpu) -> Division {
        let tiles = |per_thread| spec.vocab.div_ceil(THREADS * per_thread);
        let blocks = RESIDENT_BLOCKS * gpu.multiprocessors;
        let is_enough = |&&per_thread: &&usize| spec.batch * tiles(per_thread) >= blocks;
        let per_thread = *PER_THREAD.iter().find(is_enough).unwrap_or(&PER_THREAD[1]);
        let tiles = tiles(per_thread);
        let tiles_per_chunk = (spec.batch * tiles)
            .div_ceil(blocks)
            .min(LARGEST_CHUNK / (WARP * per_thread))
            .max(tiles.div_ceil(LARGEST_SLICES));
        let slices = tiles.div_ceil(tiles_per_chunk);
        let vector = vector_len(spec);
        let division = Division { per_thread, vector, tiles: tiles_per_chunk, slices };
        assert!(division.chunk_len() <= LARGEST_CHUNK, "{} has too many elements per row", spec.name());
        division
    }

    /// Divides rows into slices of one tile.
    pub(super) fn of_tiles(spec: &Spec, per_thread: usize) -> Division {
        let slices = spec.vocab.div_ceil(THREADS * per_thread);
        Division { per_thread, vector: vector_len(spec), tiles: 1, slices }
    }

    /// The number of logits of a slice per thread.
    pub(super) fn per_slice(&self) -> usize {
        self.tiles * self.per_thread
    }

    /// The number of logits of a chunk. The last chunks of a row may have fewer.
    pub(super) fn chunk_len(&self) -> usize {
        self.tiles * self.tile_len()
    }

    /// The number of logits of a tile of one warp.
    fn tile_len(&self) -> usize {
        WARP * self.per_thread
    }

    /// The number of chunks of a row, including those beyond its end.
    pub(super) fn chunks(&self) -> usize {
        self.slices * CHUNKS
    }

    /// The number of the chunk of this warp. The chunks of a row are numbered from 0.
    pub(super) fn chunk(&self, k: &Ptx, slice: Int) -> Int {
        chunk_of_warp(k, slice, CHUNKS)
    }

    /// The slice that contains a chunk.
    pub(super) fn slice_of(&self, k: &Ptx, chunk: Int) -> Int {
        k.shr(chunk, CHUNKS.trailing_zeros())
    }

    /// Calls `body` with this thread's run of logits of each tile of a chunk, in a loop.
    pub(super) fn for_each_tile(&self, k: &Ptx, chunk: Int, body: impl FnOnce(Run)) {
        let vector = self.vector.min(self.per_thread);
        let start = k.add(k.mul(chunk, self.chunk_len()), k.mul(k.lane(), vector));
        let run = |first| Run { first, vector, count: self.per_thread / vector, stride: WARP * vector };
        if self.tiles == 1 {
            return body(run(start));
        }
        let end = k.int(self.chunk_len() as i32);
        k.for_range(k.int(0), end, self.tile_len(), |distance| body(run(k.add(start, distance))));
    }
}

/// The number of the chunk of this warp. The chunks of a row are numbered from 0. Each block of the row has `warps`
/// warps. `block` is the number of this block among the blocks of the row.
pub(super) fn chunk_of_warp(k: &Ptx, block: Int, warps: usize) -> Int {
    k.add(k.mul(block, warps), k.shr(k.thread(), WARP.trailing_zeros()))
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
                    let (slices, len) = (division.slices, CHUNKS * division.chunk_len());
                    assert!(slices <= LARGEST_SLICES, "{batch} × {vocab}");
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
