//! A list of the entries at or above a bound, for blocks where a few percent of each row reach it.
//!
//! There are too many of these entries for [`survivors`](super::survivors). But a pass over the list costs only a
//! fraction of a pass over the rows. Each chunk has a few registers in the list, which form one stack per lane. The
//! list records the chunk of an entry, but not the place of the entry in the chunk.

use super::context::Context;
use super::keys::edge_below;
use super::lane_stack::LaneStack;
use super::layout::{CANDIDATE_CHUNKS, CANDIDATE_DEPTH};
use crate::mlir::mosaic::{Elem, Memory, Space, Value, LANES, SUBLANES};

/// The number of registers whose entries first go to a short stack, because an insertion into it is cheaper.
const REGISTERS_PER_SHORT_STACK: usize = 32;
/// The number of levels of a short stack.
const SHORT: usize = 8;

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

    /// Fills the list in one pass. Returns a scalar: whether a lane had more candidates than space.
    pub(super) fn fill(&self, cx: &Context<'_>, threshold: Value) -> Value {
        let (k, layout) = (cx.k, cx.layout);
        let edge = edge_below(k, threshold);
        let none = k.splat(k.f32(f32::NEG_INFINITY));
        // The last iteration over the list can include chunks after the end of the rows.
        for register in layout.chunks * CANDIDATE_DEPTH..layout.list_registers() {
            k.store(&self.logits, k.i32((register * LANES) as i32), none);
        }
        let overflow = cx.logits.pass("fill the candidate list", &[none], |chunk, number, state| {
            let mut stack = LaneStack::empty(CANDIDATE_DEPTH, [none]);
            let mut lost = state[0];
            for first in (0..layout.chunk).step_by(REGISTERS_PER_SHORT_STACK) {
                let mut short = LaneStack::empty(SHORT, [none]);
                for register in first..layout.chunk.min(first + REGISTERS_PER_SHORT_STACK) {
                    let x = k.load(chunk, k.i32((register * LANES) as i32));
                    short.push_where(k, k.above(x, edge), [x]);
                }
                lost = k.fmax(lost, short.overflow);
                if first == 0 {
                    stack.fields[0][..SHORT].copy_from_slice(&short.fields[0]);
                    continue;
                }
                stack.append(k, &short, |x| k.above(x, none));
            }
            let at = k.mul(number, k.i32(CANDIDATE_DEPTH as i32));
            let out = k.registers(&self.logits, at, CANDIDATE_DEPTH);
            for level in 0..CANDIDATE_DEPTH {
                k.store(&out, k.i32((level * LANES) as i32), stack.level(level)[0]);
            }
            vec![k.fmax(lost, stack.overflow)]
        });
        k.any(k.above(overflow[0], none))
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
