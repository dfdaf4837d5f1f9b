//! A list of the entries at or above a bound, for blocks where a few percent of each row reach it.
//!
//! There are too many of these entries for [`survivors`](super::survivors). But a pass over the list costs only a
//! fraction of a pass over the rows. Each chunk has a few registers in the list, which form one stack per lane. The
//! list records the chunk of an entry, but not the place of the entry in the chunk.

use super::context::Context;
use super::keys::edge_below;
use super::lane_sort::{Largest, Network};
use super::layout::{CANDIDATE_CHUNKS, CANDIDATE_DEPTH};
use super::summaries::{cells_together, halves, load};
use crate::mlir::mosaic::{Elem, Memory, Space, Value, LANES, SUBLANES};

/// Half of a chunk can have this number of candidates per lane.
const DEPTH_OF_HALF: usize = 8;

/// The memory of the list.
pub(super) struct CandidateList {
    logits: Memory,
    weights: Memory,
}

impl CandidateList {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>) -> CandidateList {
        let width = cx.layout.list_registers() * LANES;
        CandidateList {
            logits: cx.k.scratch(Elem::F32, &[SUBLANES, width], Space::Vmem),
            weights: cx.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem),
        }
    }

    /// Fills the list in one pass. Returns a scalar: whether a lane had more candidates than space. No row of the block
    /// may contain a NaN.
    ///
    /// Each half of a chunk contributes the largest entries of each lane. The two lists of a lane together can be
    /// longer than its space in the list. Then the smallest entries are removed.
    pub(super) fn fill(&self, cx: &Context<'_>, threshold: Value) -> Value {
        let (k, layout) = (cx.k, cx.layout);
        let edge = edge_below(k, threshold);
        let none = k.splat(k.f32(f32::NEG_INFINITY));
        // The last iteration over the list can include chunks after the end of the rows.
        for register in layout.chunks * CANDIDATE_DEPTH..layout.list_registers() {
            k.store(&self.logits, k.i32((register * LANES) as i32), none);
        }
        let lost = cx.logits.pass("fill the candidate list", &[none], |chunk, number, state| {
            let ([first, second], mut lost) = largest_of_halves(cx, chunk);
            lost.push(state[0]);
            let common = (first.len() + second.len()).saturating_sub(CANDIDATE_DEPTH);
            let [kept, other] = [&first, &second].map(|list| list.split_at(list.len() - common));
            let mut listed = [kept.0, other.0].concat();
            for (&a, &b) in kept.1.iter().zip(other.1.iter().rev()) {
                listed.push(k.fmax(a, b));
                lost.push(k.fmin(a, b));
            }
            listed.resize(CANDIDATE_DEPTH, none);
            let out = k.registers(&self.logits, k.mul(number, k.i32(CANDIDATE_DEPTH as i32)), CANDIDATE_DEPTH);
            for (level, &x) in listed.iter().enumerate() {
                k.store(&out, k.i32((level * LANES) as i32), k.choose(k.above(x, edge), x, none));
            }
            vec![lost.into_iter().reduce(|a, b| k.fmax(a, b)).expect("the state is not empty")]
        });
        k.any(k.above(lost[0], edge))
    }

    /// Makes one pass over the list. `each` receives the logits and the weights of some chunks, the number of the first
    /// chunk, and the number of chunks.
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

/// Returns the largest entries of each lane in each half of a chunk, in descending order. Also returns registers of
/// entries that are not among them. In each lane, the largest of these is the largest entry that is not among them.
fn largest_of_halves(cx: &Context<'_>, chunk: &Memory) -> ([Vec<Value>; 2], Vec<Value>) {
    let k = cx.k;
    let network = Network { max: |a, b| k.fmax(a, b), min: |a, b| k.fmin(a, b) };
    let together = cells_together(cx);
    let registers: Vec<Value> = (0..cx.layout.chunk)
        .step_by(together)
        .map(|register| load(cx, chunk, k.i32((register * LANES) as i32)))
        .collect();
    let (first, second) = registers.split_at(registers.len() / 2);
    let largest = |half: &[Value]| network.largest(half, DEPTH_OF_HALF);
    let mut lost = Vec::new();
    let mut lists = [Vec::new(), Vec::new()];
    if together == 2 {
        // The two halves of the packed registers are two halves of the chunk.
        let Largest { sorted, lost: removed } = largest(&registers);
        for register in sorted {
            lists.iter_mut().zip(halves(cx, register)).for_each(|(list, half)| list.push(half));
        }
        lost.extend(removed.map(|removed| halves(cx, removed)).into_iter().flatten());
    } else {
        for (list, half) in lists.iter_mut().zip([first, second]) {
            let Largest { sorted, lost: removed } = largest(half);
            *list = sorted;
            lost.extend(removed);
        }
    }
    (lists, lost)
}
