//! A list of the entries at or above a bound, for blocks where a few percent of each row reach it.
//!
//! There are too many of these entries for [`survivors`](super::survivors). But a pass over the list costs only a
//! fraction of a pass over the rows. Each chunk has a few registers in the list. They contain the largest entries of
//! each lane of the chunk. In some lanes of some chunks, more entries reach the bound. All these other entries share a
//! few registers at the end of the list. The list records the chunk of an entry, but not the place of the entry in the
//! chunk.

use super::context::Context;
use super::keys::edge_below;
use super::lane_sort::{Largest, Network};
use super::lane_stack::LaneStack;
use super::layout::{CANDIDATE_CHUNKS, CANDIDATE_DEPTH, MORE_CANDIDATES};
use super::summaries::{cells_together, halves, load};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::Arith;

/// Half of a chunk can have this number of candidates per lane.
const DEPTH_OF_HALF: usize = 8;
/// The number of the chunk in a place without a candidate.
const NO_CHUNK: i32 = -1;

/// The memory of the list.
pub(super) struct CandidateList {
    logits: Memory,
    weights: Memory,
    more: MoreCandidates,
}

/// The candidates that have no space among those of their chunk. They have one stack per lane.
pub(super) struct MoreCandidates {
    pub(super) logits: Memory,
    pub(super) weights: Memory,
    /// The numbers of the chunks of the candidates.
    chunks: Memory,
}

impl MoreCandidates {
    /// Returns the numbers of the chunks of a register of candidates.
    pub(super) fn chunks(&self, cx: &Context<'_>, register: usize) -> Value {
        cx.k.load(&self.chunks, cx.k.i32((register * LANES) as i32))
    }
}

impl CandidateList {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>) -> CandidateList {
        let memory = |elem, registers: usize| cx.k.scratch(elem, &[SUBLANES, registers * LANES], Space::Vmem);
        let registers = cx.layout.list_registers();
        CandidateList {
            logits: memory(Elem::F32, registers),
            weights: memory(Elem::I32, registers),
            more: MoreCandidates {
                logits: memory(Elem::F32, MORE_CANDIDATES),
                weights: memory(Elem::I32, MORE_CANDIDATES),
                chunks: memory(Elem::I32, MORE_CANDIDATES),
            },
        }
    }

    /// Fills the list in one pass. Returns a scalar: whether a lane had more candidates than space. No row of the block
    /// may contain a NaN.
    pub(super) fn fill(&self, cx: &Context<'_>, threshold: Value) -> Value {
        let (k, layout) = (cx.k, cx.layout);
        let edge = edge_below(k, threshold);
        let none = k.splat(k.f32(f32::NEG_INFINITY));
        let at = |register: usize| k.i32((register * LANES) as i32);
        // The last iteration over the list can include chunks after the end of the rows.
        for register in layout.chunks * CANDIDATE_DEPTH..layout.list_registers() {
            k.store(&self.logits, at(register), none);
        }
        let empty = LaneStack::empty(MORE_CANDIDATES, [none, k.splat(k.i32(NO_CHUNK))]);
        let start = [vec![none], empty.flat()].concat();
        let state = cx.logits.pass("fill the candidate list", &start, |chunk, number, state| {
            let ([first, second], mut lost) = largest_of_halves(cx, chunk);
            let (listed, others) = merged_halves(k, &first, &second, &mut lost);
            let out =
                k.registers(&self.logits, k.mul(number, k.i32(CANDIDATE_DEPTH as i32)), CANDIDATE_DEPTH);
            for (level, &x) in listed.iter().enumerate() {
                k.store(&out, at(level), k.choose(k.above(x, edge), x, none));
            }
            let mut more = LaneStack::<2>::from_flat(&state[1..]);
            for x in others {
                more.push_where(k, k.above(x, edge), [x, number]);
            }
            let lost = lost.into_iter().fold(state[0], |a, b| k.fmax(a, b));
            [vec![lost], more.flat()].concat()
        });
        let more = LaneStack::<2>::from_flat(&state[1..]);
        for level in 0..MORE_CANDIDATES {
            let [logit, chunk] = more.level(level);
            k.store(&self.more.logits, at(level), logit);
            k.store(&self.more.chunks, at(level), chunk);
        }
        k.any(k.either(k.above(state[0], edge), k.lt(k.i32(NO_CHUNK), more.overflow)))
    }

    /// Returns the candidates that have no space among those of their chunk.
    pub(super) fn more(&self) -> &MoreCandidates {
        &self.more
    }

    /// Makes one pass over the list, without [`more`](CandidateList::more). `each` receives the logits and the weights
    /// of some chunks, the number of the first chunk, and the number of chunks.
    pub(super) fn pass(
        &self,
        cx: &Context<'_>,
        label: &str,
        start: &[Value],
        each: impl Fn(&Memory, &Memory, Value, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        const REGISTERS: usize = CANDIDATE_CHUNKS * CANDIDATE_DEPTH;
        let k = cx.k;
        k.for_each_of(label, k.i32(cx.layout.list_iterations() as i32), start, |iteration, state| {
            let chunk = k.mul(iteration, k.i32(CANDIDATE_CHUNKS as i32));
            let at = k.mul(chunk, k.i32(CANDIDATE_DEPTH as i32));
            let [logits, weights] = [&self.logits, &self.weights].map(|m| k.registers(m, at, REGISTERS));
            each(&logits, &weights, chunk, CANDIDATE_CHUNKS, state)
        })
    }
}

/// Merges the largest entries of the halves of a chunk. Both lists are in descending order. Returns the
/// [`CANDIDATE_DEPTH`] largest entries of each lane, and registers of other entries. Adds registers to `lost`: their
/// entries are in neither list.
fn merged_halves(
    k: &Kernel,
    first: &[Value],
    second: &[Value],
    lost: &mut Vec<Value>,
) -> (Vec<Value>, Vec<Value>) {
    let none = k.splat(k.f32(f32::NEG_INFINITY));
    // The largest entries of a lane are the maxima. Each maximum is computed from an entry of one half and from an
    // entry of the other half, in opposite order.
    let (mut listed, mut others) = (Vec::new(), Vec::new());
    for level in 0..CANDIDATE_DEPTH {
        match (first.get(level), second.get(CANDIDATE_DEPTH - 1 - level)) {
            (Some(&a), Some(&b)) => {
                listed.push(k.fmax(a, b));
                others.push(k.fmin(a, b));
            }
            (Some(&only), None) | (None, Some(&only)) => listed.push(only),
            (None, None) => listed.push(none),
        }
    }
    // An insertion takes more time than a maximum and a minimum. So two entries are inserted as one if they are rarely
    // both candidates.
    let mut joined = |a: Value, b: Value| {
        lost.push(k.fmin(a, b));
        k.fmax(a, b)
    };
    let [a, b] = [first, second].map(|half| half.get(CANDIDATE_DEPTH..).unwrap_or_default());
    for (number, (&a, &b)) in a.iter().zip(b).enumerate() {
        if number == 0 {
            others.push(joined(a, b));
            continue;
        }
        let [beside_a, beside_b] = [number - 1, CANDIDATE_DEPTH - number];
        others[beside_a] = joined(others[beside_a], a);
        others[beside_b] = joined(others[beside_b], b);
    }
    (listed, others)
}

/// Returns the largest entries of each lane in each half of a chunk, in descending order. Both lists have the same
/// length. Also returns registers of entries that are not in the lists. In each lane, one of them contains the largest
/// entry that is not in the lists.
fn largest_of_halves(cx: &Context<'_>, chunk: &Memory) -> ([Vec<Value>; 2], Vec<Value>) {
    let k = cx.k;
    let network = Network { max: |a, b| k.fmax(a, b), min: |a, b| k.fmin(a, b) };
    let together = cells_together(cx);
    let registers: Vec<Value> = (0..cx.layout.chunk)
        .step_by(together)
        .map(|register| load(cx, chunk, k.i32((register * LANES) as i32)))
        .collect();
    let (mut lists, mut lost) = ([Vec::new(), Vec::new()], Vec::new());
    if together == 2 {
        // Each half of a packed register belongs to another half of the chunk.
        let Largest { sorted, lost: removed } = network.largest(&registers, DEPTH_OF_HALF);
        for register in sorted {
            lists.iter_mut().zip(halves(cx, register)).for_each(|(list, half)| list.push(half));
        }
        lost.extend(removed.map(|removed| halves(cx, removed)).into_iter().flatten());
    } else {
        let (first, second) = registers.split_at(registers.len() / 2);
        for (list, half) in lists.iter_mut().zip([first, second]) {
            let Largest { sorted, lost: removed } = network.largest(half, DEPTH_OF_HALF);
            *list = sorted;
            lost.extend(removed);
        }
    }
    (lists, lost)
}
