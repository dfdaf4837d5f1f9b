//! The layout of a block of rows in the memory of a core. It depends on the shape and the size of VMEM.

use crate::batch::LARGEST_VOCAB;
use crate::dtype::Dtype;
use crate::kernels::spec::{Path, Spec};
use crate::kernels::target::Chip;
use crate::mlir::mosaic::{Grid, LANES, SUBLANES};

/// The number of registers that one iteration of a loop over rows processes. It is large enough to amortize the fixed
/// cost of an iteration.
pub(super) const CHUNK: usize = 64;
/// The number of registers of a cell, if there is space. It is small so that two survivors rarely share a cell.
const CELL: usize = 8;
/// The number of survivors that fit one lane, by the binary logarithm of the number of stripes. A row of 128 survivors
/// has one per lane on average, if it has one stripe.
const DEPTHS: [usize; 4] = [8, 6, 4, 4];
/// The number of survivors that fit one lane after the survivors are spread more evenly over the lanes, by the binary
/// logarithm of the number of stripes. It applies if top-k keeps at most [`FEW`] entries, or if stripes receive copies.
const SLOTS: [usize; 4] = [5, 4, 3, 2];
/// The number of survivors that fit one lane after all stripes of a row have received copies of all survivors of the
/// row. The second number applies if top-k keeps at most [`FEW`] entries.
const COPIES: [usize; 2] = [7, 6];
/// The least number of stripes of a row that receive copies. If there are fewer, copies take more time than they save.
const LEAST_STRIPES_OF_COPIES: usize = 4;
/// The largest number of slots (`max_k`) for which [`SLOTS`] applies without copies, and for which the second number of
/// [`COPIES`] applies.
const FEW: usize = 64;
/// The number of group registers of a full batch. One iteration of a pass over the groups processes one batch.
const GROUPS_IN_BATCH: usize = 64;
/// In rows of several stripes, a shorter chunk is used if chunks of the usual length would add more than one part in
/// this number to the length of a row.
const LONGEST_PADDING: usize = 16;
/// A block is copied from HBM in this number of pieces. Work on the first piece begins before the last one arrives.
const PIECES: usize = 8;
/// The VMEM for the windows of the small operands and for spilled registers, in bytes.
const RESERVED: usize = 3 << 20;
/// The size of a register in bytes.
const REGISTER_BYTES: usize = SUBLANES * LANES * 4;
/// The largest number of entries of a stripe if each chunk has its own sum. The sums of a stripe are in the lanes of
/// one register. Longer rows have several stripes.
const LONGEST_STRIPE: usize = LANES * CHUNK * LANES;
/// The number of chunks per sum in rows that are too long for eight stripes of [`LONGEST_STRIPE`] entries.
const CHUNKS_PER_LONG_SUM: usize = 2;
// A row of the largest vocabulary fits eight stripes.
const _: () = assert!(LARGEST_VOCAB <= SUBLANES * LONGEST_STRIPE * CHUNKS_PER_LONG_SUM);

/// The number of candidates that fit one lane of a chunk in the candidate list.
pub(super) const CANDIDATE_DEPTH: usize = 5;
/// The number of additional candidates per lane that the candidate list has space for, in all chunks together.
pub(super) const MORE_CANDIDATES: usize = 7;
/// The number of chunks of the candidate list that one iteration processes.
pub(super) const CANDIDATE_CHUNKS: usize = 8;

/// The location of the logits while a kernel processes a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Residence {
    /// The operand of the kernel is in VMEM. This is for a single block whose rows have several stripes. The program
    /// writes the stripes before the kernel starts. libtpu can place them in VMEM.
    Window,
    /// The whole block is in VMEM. With two buffers, the next block is copied to the second buffer during the work on
    /// this block.
    Resident {
        /// The number of buffers: one or two.
        buffers: usize,
    },
    /// The block stays in HBM. Every pass streams it through two buffers of one chunk.
    Streamed,
}

/// Sizes, in registers of `8 x 128` entries unless stated otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// The number of blocks. It is a multiple of `cores`.
    pub(super) blocks: usize,
    /// The number of cores that process the blocks. All cores process the same number of blocks, and the blocks of a
    /// core are consecutive.
    pub(super) cores: usize,
    /// The number of rows of a block. If it is less than eight, each row has several stripes. A stripe contains
    /// consecutive entries of a row. The index of its first entry is a multiple of [`stripe`](Layout::stripe). In the
    /// comments of the other fields, "row" means a stripe.
    pub(super) rows: usize,
    /// The number of registers of a row in HBM.
    pub(super) registers: usize,
    /// The number of registers of a chunk.
    pub(super) chunk: usize,
    /// The number of chunks of a row. The last chunk may extend past the end of the row.
    pub(super) chunks: usize,
    /// The number of consecutive chunks that share one sum. `chunks` is a multiple of this number.
    pub(super) chunks_per_sum: usize,
    /// The number of chunks of a piece. One copy transfers a piece.
    pub(super) piece: usize,
    /// The number of registers of a cell.
    pub(super) cell: usize,
    /// Whether cells and groups are computed in packed registers. Without packing, each cell register and each group
    /// register summarizes consecutive registers. With packing, two consecutive cell registers summarize a run of
    /// `2 * cell` registers. The cell register with the even number summarizes the even registers of the run. The cell
    /// register with the odd number summarizes the odd registers. The two group registers of a chunk divide the chunk
    /// in the same way.
    pub(super) packed: bool,
    /// The location of the logits.
    pub(super) residence: Residence,
    /// Whether weights stay in VMEM between passes. Otherwise each pass computes them again.
    pub(super) keep_weights: bool,
    /// The number of survivors that fit one lane.
    pub(super) depth: usize,
    /// The number of survivors that fit one lane after the survivors are spread more evenly over the lanes. At most
    /// `depth`.
    pub(super) slots: usize,
    /// The number of survivors that fit one lane after all stripes of a row have received copies of all survivors of
    /// the row. It is `None` if the stripes receive no copies.
    pub(super) copies: Option<usize>,
    /// Whether there is a candidate list. It is for blocks whose survivors do not fit registers but fit a list.
    pub(super) candidate_list: bool,
    /// The VMEM that the kernel needs, in bytes.
    needs: usize,
    /// The VMEM that the kernel may use, in bytes.
    pub(super) vmem: usize,
}

impl Layout {
    /// Returns the fastest layout that fits the chip.
    pub(super) fn new(spec: &Spec, chip: &Chip) -> Layout {
        let vmem = usable_vmem(chip);
        let chunk = match SUBLANES / rows_of_block(spec) {
            1 => spec.vocab.div_ceil(LANES).next_multiple_of(CELL).min(CHUNK),
            stripes => chunk_of_stripes(spec.vocab.div_ceil(LANES * stripes)),
        };
        // If each core processes only one block, the core needs no buffer for a next block.
        let (blocks, cores) = blocks_and_cores(spec, chip);
        let buffers = if blocks > cores { 2 } else { 1 };
        let resident = |buffers| Residence::Resident { buffers };
        let with_list = !has_few_slots(spec);
        // A candidate list saves passes, kept weights save computation in passes, and small cells save repeated
        // searches.
        let with_window = (rows_of_block(spec) < SUBLANES && blocks == 1).then_some((
            Residence::Window,
            true,
            CELL,
            with_list,
        ));
        let choices = [
            (resident(buffers), true, CELL, with_list),
            (resident(1), true, CELL, with_list),
            (resident(1), true, chunk, with_list),
            (resident(1), false, CELL, with_list),
            (resident(1), false, chunk, with_list),
            (Residence::Streamed, false, CELL, with_list),
            (Residence::Streamed, false, chunk, with_list),
            (Residence::Streamed, false, CELL, false),
            (Residence::Streamed, false, chunk, false),
        ];
        let choices = with_window.into_iter().chain(choices);
        let layouts: Vec<Layout> = choices
            .map(|(residence, keep_weights, cell, candidate_list)| {
                let layout = Layout::with(spec, chip, chunk, residence, keep_weights, cell, candidate_list);
                let packed = chip.packs_bf16 && spec.dtype == Dtype::Bf16 && chunk % (2 * cell) == 0;
                let few = matches!(spec.path, Path::Bounded(slots) if slots <= FEW);
                let has_copies = layout.stripes() >= LEAST_STRIPES_OF_COPIES;
                let copies = has_copies.then_some(COPIES[usize::from(few)]);
                let slots = match few || has_copies {
                    true => SLOTS[layout.stripes().trailing_zeros() as usize],
                    false => layout.depth,
                };
                Layout { packed, slots, copies, ..layout }
            })
            .collect();
        *layouts.iter().find(|layout| layout.needs <= vmem).unwrap_or(&layouts[layouts.len() - 1])
    }

    fn with(
        spec: &Spec,
        chip: &Chip,
        chunk: usize,
        residence: Residence,
        keep_weights: bool,
        cell: usize,
        candidate_list: bool,
    ) -> Layout {
        let (rows, vmem) = (rows_of_block(spec), usable_vmem(chip));
        let (blocks, cores) = blocks_and_cores(spec, chip);
        let stripes = SUBLANES / rows;
        let registers = spec.vocab.div_ceil(LANES * stripes);
        let chunks = registers.div_ceil(chunk);
        let chunks_per_sum = if chunks > LANES { CHUNKS_PER_LONG_SUM } else { 1 };
        let chunks = chunks.next_multiple_of(chunks_per_sum);
        // Padding after the end of a stripe would be between entries of the row, so the program pads the last stripes.
        let registers = if stripes > 1 { chunks * chunk } else { registers };
        let element = if spec.dtype == Dtype::Bf16 { 2 } else { 4 };
        let row = chunks * chunk * REGISTER_BYTES;
        let logits = match residence {
            // libtpu may keep the operand outside of the memory of the kernel and copy it.
            Residence::Window => 2 * row / 4 * element,
            Residence::Resident { buffers } => buffers * row / 4 * element,
            Residence::Streamed => 3 * chunk * REGISTER_BYTES,
        };
        let weights = if keep_weights { row } else { 0 };
        let groups = 3 * row / (chunk / 2);
        let cells = groups + if has_few_slots(spec) { 0 } else { row / cell };
        let focus = chunks_per_sum * chunk * REGISTER_BYTES;
        let list = 2 * list_registers(chunks) + 3 * MORE_CANDIDATES;
        let list = if candidate_list { list * REGISTER_BYTES } else { 0 };
        let depth = DEPTHS[stripes.trailing_zeros() as usize];
        let needs = logits + weights + cells + focus + list + RESERVED;
        Layout {
            blocks,
            cores,
            rows,
            registers,
            chunk,
            chunks,
            chunks_per_sum,
            piece: chunks.div_ceil(PIECES),
            cell,
            packed: false,
            residence,
            keep_weights,
            depth,
            slots: depth,
            copies: None,
            candidate_list,
            needs,
            vmem: if residence == Residence::Window { needs - logits / 2 } else { vmem },
        }
    }

    /// Returns the number of group registers of a full batch.
    pub(super) fn groups_in_batch(&self) -> usize {
        GROUPS_IN_BATCH.min(self.groups())
    }

    /// Returns the number of batches. The last one can extend past the end of the row.
    pub(super) fn batches(&self) -> usize {
        self.groups().div_ceil(self.groups_in_batch())
    }

    /// Returns the number of registers of the chunks that share one sum.
    pub(super) fn summed(&self) -> usize {
        self.chunks_per_sum * self.chunk
    }

    /// Returns the number of sums of chunks of a row.
    pub(super) fn sums(&self) -> usize {
        self.chunks / self.chunks_per_sum
    }

    /// Returns the grid of the kernel: one step for each block.
    pub(super) fn grid(&self) -> Grid {
        Grid { steps: self.blocks, cores: self.cores }
    }

    /// Returns the number of registers of all chunks of a row.
    pub(super) fn padded(&self) -> usize {
        self.chunks * self.chunk
    }

    /// Returns the number of entries of a stripe.
    pub(super) fn stripe(&self) -> usize {
        self.padded() * LANES
    }

    /// Returns the number of stripes of a row.
    pub(super) fn stripes(&self) -> usize {
        SUBLANES / self.rows
    }

    /// Returns the number of cell registers of a chunk.
    pub(super) fn cells_in_chunk(&self) -> usize {
        self.chunk / self.cell
    }

    /// Returns the number of registers of a group.
    pub(super) fn group(&self) -> usize {
        self.chunk / self.groups_in_chunk()
    }

    /// Returns the number of group registers of a chunk.
    pub(super) fn groups_in_chunk(&self) -> usize {
        if self.packed || self.chunk == CHUNK {
            2
        } else {
            1
        }
    }

    /// Describes the registers of a chunk that group register `group` summarizes. Returns the number of the first of
    /// them in the chunk, and the distance from one of them to the next.
    pub(super) fn registers_of_group(&self, group: usize) -> (usize, usize) {
        match self.packed {
            true => (group, 2),
            false => (group * self.group(), 1),
        }
    }

    /// Returns the number of group registers of a row.
    pub(super) fn groups(&self) -> usize {
        self.chunks * self.groups_in_chunk()
    }

    /// Returns the number of cell registers of a row.
    pub(super) fn cells(&self) -> usize {
        self.padded() / self.cell
    }

    /// Returns the number of pieces of a row.
    pub(super) fn pieces(&self) -> usize {
        self.chunks.div_ceil(self.piece)
    }

    /// Returns the number of registers of a row in the candidate list, without [`MORE_CANDIDATES`].
    pub(super) fn list_registers(&self) -> usize {
        list_registers(self.chunks)
    }

    /// Returns the number of iterations of a pass over the candidate list.
    pub(super) fn list_iterations(&self) -> usize {
        self.list_registers() / (CANDIDATE_CHUNKS * CANDIDATE_DEPTH)
    }
}

/// Returns the VMEM that a kernel may use, in bytes. The compiler reserves a part of VMEM.
fn usable_vmem(chip: &Chip) -> usize {
    chip.vmem_bytes / 8 * 7
}

/// Returns the number of blocks, and the number of cores that process them.
pub(super) fn blocks_and_cores(spec: &Spec, chip: &Chip) -> (usize, usize) {
    let blocks = spec.batch.div_ceil(rows_of_block(spec));
    let cores = blocks.min(chip.tensor_cores);
    (blocks.next_multiple_of(cores), cores)
}

/// Whether a kernel is for the bounded path and has at most one slot per lane. In the rows of such a kernel, few
/// entries reach the bound. All other kernels use the algorithm for any k.
pub(super) fn has_few_slots(spec: &Spec) -> bool {
    matches!(spec.path, Path::Bounded(_)) && spec.slots() <= LANES
}

/// Returns the number of rows of a block. Small batches and long rows have blocks of 1, 2 or 4 rows.
fn rows_of_block(spec: &Spec) -> usize {
    let stripes = spec.vocab.div_ceil(LONGEST_STRIPE).next_power_of_two().min(SUBLANES);
    spec.batch.next_power_of_two().min(SUBLANES / stripes)
}

/// Returns the number of registers of a chunk in stripes with this number of registers. It is a power of two, because
/// indices are divided by the number of entries of a chunk.
fn chunk_of_stripes(registers: usize) -> usize {
    if registers <= CHUNK / 2 {
        return registers.next_power_of_two().max(CELL);
    }
    let padding = registers.next_multiple_of(CHUNK) - registers;
    if padding * LONGEST_PADDING > registers {
        CHUNK / 2
    } else {
        CHUNK
    }
}

/// Returns the number of registers of a row in the candidate list, without [`MORE_CANDIDATES`], for rows with this
/// number of chunks.
fn list_registers(chunks: usize) -> usize {
    chunks.next_multiple_of(CANDIDATE_CHUNKS) * CANDIDATE_DEPTH
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::spec::{Source, Wanted};
    use crate::kernels::target::Target;

    #[test]
    fn the_largest_programs_fit_every_chip() {
        let chips = Target::names().filter_map(|name| match Target::named(name) {
            Some(Target::Tpu(chip)) => Some(chip),
            _ => None,
        });
        let vocabs = [1 << 20, (1 << 20) + 1, (1 << 23) + 1, LARGEST_VOCAB - 1, LARGEST_VOCAB];
        for chip in chips {
            for vocab in vocabs {
                for (path, batch) in [(Path::Bounded(64), 1), (Path::Bounded(1024), 8), (Path::Arbitrary, 13)]
                {
                    for dtype in [Dtype::F32, Dtype::Bf16] {
                        let (wanted, source) = (Wanted::default(), Source::Batch);
                        let spec = Spec { path, batch, vocab, dtype, stable: true, wanted, source };
                        let layout = Layout::new(&spec, &chip);
                        let name = format!("{} on {}: {layout:?}", spec.name(), chip.name);
                        assert!(layout.needs <= usable_vmem(&chip), "{name}");
                        assert!(
                            layout.sums() <= LANES && layout.chunks == layout.sums() * layout.chunks_per_sum,
                            "{name}"
                        );
                        assert!(layout.blocks * layout.rows >= batch, "{name}");
                        assert!(layout.stripes() * layout.stripe() >= vocab, "{name}");
                    }
                }
            }
        }
    }
}
