//! A list of the entries at or above a bound, where they are some hundredths of a row: too many for the survivors' way,
//! few enough that passes over them cost a fraction of passes over the row.
//!
//! Each chunk has a few registers of its own, a stack in every lane. Entries lose their places, but not their chunk.

use super::context::Block;
use super::threshold_search::just_below;
use crate::mlir::mosaic::{Elem, Kernel, Memory, Space, Value, LANES, SUBLANES};

/// Registers that go through a short stack first, which is cheaper to insert into.
const FEW: usize = 16;
/// Entries that a lane of it has room for.
const SHORT: usize = 6;

/// Memory of the list.
pub(super) struct List {
    logits: Memory,
    weights: Memory,
}

impl List {
    /// Entries that a lane of a chunk has room for.
    pub(super) const DEPTH: usize = 12;
    /// Chunks of a turn: as many registers together as a turn needs to be worth its while.
    const CHUNKS: usize = 4;

    fn chunks(b: &Block<'_>) -> usize {
        b.layout.chunks.next_multiple_of(List::CHUNKS)
    }

    /// Bytes of the memory that a list takes for rows of so many chunks.
    pub(super) fn bytes(chunks: usize) -> usize {
        2 * chunks.next_multiple_of(List::CHUNKS) * List::DEPTH * SUBLANES * LANES * 4
    }

    pub(super) fn new(b: &Block<'_>) -> List {
        let width = List::chunks(b) * List::DEPTH * LANES;
        List {
            logits: b.k.scratch(Elem::F32, &[SUBLANES, width], Space::Vmem),
            weights: b.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem),
        }
    }

    /// Fills the list in one pass. Whether a lane had more than room: a scalar.
    pub(super) fn fill(&self, b: &Block<'_>, threshold: Value) -> Value {
        let k = b.k;
        let below = just_below(k, threshold);
        let none = k.splat(k.f32(f32::NEG_INFINITY));
        for register in b.layout.chunks * List::DEPTH..List::chunks(b) * List::DEPTH {
            k.store(&self.logits, k.i32((register * LANES) as i32), none);
        }
        let overflow = b.rows.pass("list of what is above the bound", &[none], |chunk, number, state| {
            let mut stack = Levels::empty(k, List::DEPTH);
            let mut lost = state[0];
            for first in (0..b.layout.chunk).step_by(FEW) {
                let mut short = Levels::empty(k, SHORT);
                for register in first..b.layout.chunk.min(first + FEW) {
                    let x = k.load(chunk, k.i32((register * LANES) as i32));
                    short.insert(k, k.above(x, below), x);
                }
                for &x in &short.levels {
                    stack.insert(k, k.above(x, none), x);
                }
                lost = k.fmax(lost, short.lost);
            }
            let out = k.registers(&self.logits, k.mul(number, k.i32(List::DEPTH as i32)), List::DEPTH);
            for (level, &x) in stack.levels.iter().enumerate() {
                k.store(&out, k.i32((level * LANES) as i32), x);
            }
            vec![k.fmax(lost, stack.lost)]
        });
        k.any(k.above(overflow[0], none))
    }

    /// One pass; `each` sees the logits and the weights of some chunks, the number of the first, and how many they are.
    pub(super) fn pass(
        &self,
        b: &Block<'_>,
        label: &str,
        start: &[Value],
        each: impl Fn(&Memory, &Memory, Value, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let k = b.k;
        let turns = List::chunks(b) / List::CHUNKS;
        k.for_each_of(label, k.i32(turns as i32), start, |turn, state| {
            let chunk = k.mul(turn, k.i32(List::CHUNKS as i32));
            let at = k.mul(chunk, k.i32(List::DEPTH as i32));
            let [logits, weights] =
                [&self.logits, &self.weights].map(|m| k.registers(m, at, List::CHUNKS * List::DEPTH));
            each(&logits, &weights, chunk, List::CHUNKS, state)
        })
    }
}

/// A stack in every lane, the last that came on top; −inf where there is nothing.
struct Levels {
    levels: Vec<Value>,
    /// What there was no room for.
    lost: Value,
}

impl Levels {
    fn empty(k: &Kernel, depth: usize) -> Levels {
        let none = k.splat(k.f32(f32::NEG_INFINITY));
        Levels { levels: vec![none; depth], lost: none }
    }

    fn insert(&mut self, k: &Kernel, mask: Value, x: Value) {
        let depth = self.levels.len();
        self.lost = k.choose(mask, self.levels[depth - 1], self.lost);
        for level in (1..depth).rev() {
            self.levels[level] = k.choose(mask, self.levels[level - 1], self.levels[level]);
        }
        self.levels[0] = k.choose(mask, x, self.levels[0]);
    }
}
