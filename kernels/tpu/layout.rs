//! How a block of rows lies in a core's memory: decided once, from the shape and the size of VMEM.

use super::candidate_list::List;
use crate::dtype::Dtype;
use crate::kernels::{Chip, Path, Spec};
use crate::mlir::mosaic::{LANES, SUBLANES};

/// Registers that one turn of a loop over rows works on: enough to hide what a turn costs by itself.
const CHUNK: usize = 64;
/// Registers of a cell, where there is room: few, so that rarely two survivors share one.
const CELL: usize = 8;
/// Survivors that a lane has room for: a row of 128 survivors has one a lane on average.
const DEPTH: usize = 8;
/// Pieces in which a block is copied from HBM, so that work on the first begins before the last has come.
const PIECES: usize = 8;
/// VMEM for the windows of the small operands and for spilled registers.
const RESERVED: usize = 3 << 20;
/// Longest row that chunk sums, one a lane, cover.
pub(super) const LARGEST_VOCAB: usize = LANES * CHUNK * LANES;

/// Where the logits are while a block is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Residence {
    /// All of a block's rows in VMEM; of two buffers, the second takes the next block meanwhile.
    Resident {
        /// One or two.
        buffers: usize,
    },
    /// In HBM; every pass streams them through two chunks.
    Streamed,
}

/// Sizes, in registers of `8 x 128` entries unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Blocks of eight rows.
    pub(super) blocks: usize,
    /// Registers of a row in HBM.
    pub(super) registers: usize,
    /// Registers of a chunk.
    pub(super) chunk: usize,
    /// Chunks of a row; the last may reach past its end.
    pub(super) chunks: usize,
    /// Chunks of a piece that is copied at once.
    pub(super) piece: usize,
    /// Registers of a cell.
    pub(super) cell: usize,
    /// Where the logits are.
    pub(super) residence: Residence,
    /// Weights are kept in VMEM between passes; computed again in each otherwise.
    pub(super) keep_weights: bool,
    /// Survivors that a lane has room for.
    pub(super) depth: usize,
    /// There is a list, for rows between few survivors and all of a row.
    pub(super) list: bool,
    /// VMEM that the kernel needs, in bytes.
    needs: usize,
    /// VMEM that it may have.
    pub(super) vmem: usize,
}

impl Layout {
    /// The roomiest layout that fits the chip.
    pub(super) fn new(spec: &Spec, chip: &Chip) -> Layout {
        // The compiler keeps some for itself.
        let vmem = chip.vmem_bytes / 8 * 7;
        let registers = spec.vocab.div_ceil(LANES);
        let chunk = registers.next_multiple_of(CELL).min(CHUNK);
        let chunks = registers.div_ceil(chunk);
        let arbitrary = spec.path == Path::Arbitrary;
        let layout = |residence, keep_weights, cell, list| {
            let element = if spec.dtype == Dtype::Bf16 { 2 } else { 4 };
            let register = SUBLANES * LANES * 4;
            let row = chunks * chunk * register;
            let logits = match residence {
                Residence::Resident { buffers } => buffers * row / 4 * element,
                Residence::Streamed => 3 * chunk * register,
            };
            let weights = if keep_weights { row } else { 0 };
            let cells = 3 * row / cell;
            let focus = chunk * register;
            let listed = if list { List::bytes(chunks) } else { 0 };
            Layout {
                blocks: spec.batch.div_ceil(SUBLANES),
                registers,
                chunk,
                chunks,
                piece: chunks.div_ceil(PIECES),
                cell,
                residence,
                keep_weights,
                depth: DEPTH,
                list,
                needs: logits + weights + cells + focus + listed + RESERVED,
                vmem,
            }
        };
        let buffers = if spec.batch > SUBLANES { 2 } else { 1 };
        let resident = |buffers| Residence::Resident { buffers };
        // A list spares passes, weights spare computing in them, small cells spare looking again.
        let choices = [
            layout(resident(buffers), true, CELL, arbitrary),
            layout(resident(1), true, CELL, arbitrary),
            layout(resident(1), true, chunk, arbitrary),
            layout(resident(1), false, CELL, arbitrary),
            layout(resident(1), false, chunk, arbitrary),
            layout(Residence::Streamed, false, CELL, arbitrary),
            layout(Residence::Streamed, false, chunk, arbitrary),
            layout(Residence::Streamed, false, CELL, false),
        ];
        let fits = |layout: &&Layout| layout.needs <= vmem;
        *choices.iter().find(fits).unwrap_or(&layout(Residence::Streamed, false, chunk, false))
    }

    /// Registers of a row with all of its last chunk.
    pub(super) fn padded(&self) -> usize {
        self.chunks * self.chunk
    }

    /// Cells of a row.
    pub(super) fn cells(&self) -> usize {
        self.padded() / self.cell
    }

    /// Pieces of a row.
    pub(super) fn pieces(&self) -> usize {
        self.chunks.div_ceil(self.piece)
    }
}
