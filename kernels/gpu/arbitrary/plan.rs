//! The division of a batch among the blocks, and the groups of rows whose blocks share the work on plain draws.

use super::division::{Division, LARGEST_SLICES, THREADS};
use crate::kernels::spec::Spec;
use crate::kernels::target::Gpu;

/// The largest number of logits of a plain row that a thread holds in registers.
const LARGEST_HELD: usize = 32;

/// How the rows of a batch are divided.
pub(super) struct Plan {
    pub(super) division: Division,
    /// `None` if the blocks of a group cannot keep the logits of a row in registers.
    pub(super) group: Option<Group>,
}

/// Neighbouring rows. If all rows of a group are plain draws, the blocks of all their slices together process one row
/// after the other: see [`held`](super::held).
pub(super) struct Group {
    /// The number of rows.
    pub(super) rows: usize,
    /// How a row of the group is divided if all rows of the group are plain draws. A slice has one tile. A row has at
    /// most as many slices as the group has blocks.
    pub(super) division: Division,
}

impl Plan {
    pub(super) fn new(spec: &Spec, gpu: &Gpu) -> Plan {
        let division = Division::new(spec, gpu);
        let group = Group::new(spec, &division);
        Plan { division, group }
    }

    /// The number of records of the slices of a row. It is enough for both divisions.
    pub(super) fn records(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.division.slices).max(self.division.slices)
    }
}

impl Group {
    /// Chooses the least number of rows with which a thread can keep its logits of one row in registers.
    fn new(spec: &Spec, division: &Division) -> Option<Group> {
        // The number of logits of a thread is a multiple of 8, so each number of logits per load divides it.
        const STEP: usize = 8;
        let rows = division.per_slice().div_ceil(LARGEST_HELD);
        let per_thread = division.per_slice().div_ceil(rows).next_multiple_of(STEP);
        let slices = spec.vocab.div_ceil(THREADS * per_thread);
        let is_possible = rows <= spec.batch && slices <= LARGEST_SLICES;
        is_possible.then(|| Group { rows, division: Division::of_tiles(spec, per_thread) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::spec::{Path, Source, Wanted};

    fn plan(batch: usize, vocab: usize, multiprocessors: usize) -> Plan {
        let (dtype, wanted, source) = (Dtype::Bf16, Wanted::default(), Source::Batch);
        let spec = Spec { path: Path::Arbitrary, batch, vocab, dtype, stable: true, wanted, source };
        Plan::new(&spec, &Gpu { name: "test", multiprocessors })
    }

    #[test]
    fn the_blocks_of_a_group_cover_a_row() {
        for batch in [1, 3, 16, 100, 128, 4096] {
            for vocab in [1, 2048, 2049, 50_257, 100_000, 128_256, 200_000, 262_144, 1 << 20] {
                for multiprocessors in [1, 58, 132] {
                    let Plan { division, group } = plan(batch, vocab, multiprocessors);
                    let Some(Group { rows, division: held }) = group else { continue };
                    let len = held.slices * THREADS * held.per_slice();
                    assert!(len >= vocab && held.per_slice() <= LARGEST_HELD, "{batch} × {vocab}");
                    assert!(held.slices <= rows * division.slices && rows <= batch, "{batch} × {vocab}");
                }
            }
        }
    }

    #[test]
    fn groups_of_common_batches() {
        let group = |batch, vocab| {
            let group = plan(batch, vocab, 132).group;
            group.map(|group| (group.rows, group.division.slices, group.division.per_slice()))
        };
        assert_eq!(group(1, 128_256), Some((1, 63, 8)));
        assert_eq!(group(16, 262_144), Some((1, 32, 32)));
        assert_eq!(group(128, 128_256), Some((4, 16, 32)));
        assert_eq!(group(128, 262_144), Some((4, 32, 32)));
        // The blocks do not keep a row with more than 64 slices of 8,192 logits in registers.
        assert_eq!(group(128, 1 << 20), None);
    }
}
