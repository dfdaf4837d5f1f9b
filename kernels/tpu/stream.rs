//! A block's logits: how they come from HBM, and the passes over them.

use super::layout::{Layout, Residence};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::Arith;

/// Eight rows of logits.
pub(super) struct Rows<'a> {
    k: &'a Kernel,
    layout: Layout,
    /// All rows, in HBM.
    hbm: Memory,
    /// `[buffers, 8, n]`: whole blocks, or the two chunks that streaming goes through.
    buffers: Memory,
    /// One chunk to look something up in, where rows are streamed.
    aside: Option<Memory>,
    /// One semaphore for every copy that may be under way.
    arrived: Memory,
}

impl<'a> Rows<'a> {
    /// Declares the memory.
    pub(super) fn new(k: &'a Kernel, layout: Layout, hbm: Memory) -> Rows<'a> {
        let (count, width, copies) = match layout.residence {
            Residence::Resident { buffers } => (buffers, layout.padded(), buffers * layout.pieces()),
            Residence::Streamed => (2, layout.chunk, 3),
        };
        let buffers = k.scratch(hbm.elem(), &[count, SUBLANES, width * LANES], Space::Vmem);
        let aside = (layout.residence == Residence::Streamed)
            .then(|| k.scratch(hbm.elem(), &[SUBLANES, layout.chunk * LANES], Space::Vmem));
        let arrived = k.scratch(Elem::DmaSemaphore, &[copies], Space::Semaphore);
        Rows { k, layout, hbm, buffers, aside, arrived }
    }

    fn buffer_of(&self, step: Value) -> Value {
        match self.layout.residence {
            Residence::Resident { buffers: 2 } => self.k.and(step, self.k.i32(1)),
            _ => self.k.i32(0),
        }
    }

    /// The block's rows in VMEM, `[8, n]`.
    fn resident(&self) -> Memory {
        self.k.element(&self.buffers, self.buffer_of(self.k.step()))
    }

    /// `count` registers of block `step` from register `at` on, in HBM.
    fn in_hbm(&self, step: Value, at: Value, count: usize) -> Memory {
        let k = self.k;
        let row = k.multiple(k.mul(step, k.i32(SUBLANES as i32)), SUBLANES);
        let lane = k.multiple(k.mul(at, k.i32(LANES as i32)), LANES);
        k.slice(&self.hbm, &[row, lane], &[SUBLANES, count * LANES])
    }

    /// The copy of one piece: from, to, its semaphore. The last may be shorter than the others.
    fn piece(&self, step: Value, piece: Value, last: bool) -> [Memory; 3] {
        let (k, layout) = (self.k, self.layout);
        let long = layout.piece * layout.chunk;
        let count = if last { layout.registers - (layout.pieces() - 1) * long } else { long };
        let at = k.mul(piece, k.i32(long as i32));
        let buffer = self.buffer_of(step);
        let to = k.registers(&k.element(&self.buffers, buffer), at, count);
        let flag = k.add(k.mul(buffer, k.i32(layout.pieces() as i32)), piece);
        [self.in_hbm(step, at, count), to, k.element(&self.arrived, flag)]
    }

    /// Does `each` for every piece but the last, and for the last.
    fn for_pieces(&self, label: &str, each: impl Fn(Value, bool)) {
        let (k, whole) = (self.k, self.layout.pieces() - 1);
        if whole > 0 {
            k.for_each(label, k.i32(whole as i32), [], |piece, []| {
                each(piece, false);
                []
            });
        }
        each(k.i32(whole as i32), true);
    }

    fn fetch(&self, label: &str, step: Value) {
        self.for_pieces(label, |piece, last| {
            let [from, to, semaphore] = self.piece(step, piece, last);
            self.k.start_copy(&from, &to, &semaphore);
        });
    }

    /// Starts to bring this block, unless the block before did, and the next.
    pub(super) fn begin(&self) {
        let (k, layout) = (self.k, self.layout);
        let Residence::Resident { buffers } = layout.residence else { return };
        let first = k.eq(k.step(), k.i32(0));
        if layout.padded() > layout.registers {
            // What lies past a row's end is no candidate, in every pass.
            k.when("fill what lies past the end of the rows", first, || {
                for buffer in 0..buffers {
                    let rows = k.element(&self.buffers, k.i32(buffer as i32));
                    for register in layout.registers..layout.padded() {
                        k.store(&rows, k.i32((register * LANES) as i32), k.negative_infinity(rows.elem()));
                    }
                }
            });
        }
        if buffers == 1 {
            return self.fetch("bring the block", k.step());
        }
        k.when("bring the first block", first, || self.fetch("piece by piece", k.i32(0)));
        let next = k.add(k.step(), k.i32(1));
        let more = k.lt(next, k.i32(layout.blocks as i32));
        k.when("bring the next block", more, || self.fetch("piece by piece", next));
    }

    /// One pass over the block as it arrives: `each` sees a chunk's registers and its number.
    pub(super) fn first_pass(
        &self,
        label: &str,
        start: &[Value],
        each: impl Fn(&Memory, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (k, layout) = (self.k, self.layout);
        if layout.residence == Residence::Streamed {
            return self.pass(label, start, each);
        }
        let rows = self.resident();
        let piece = |piece: Value, last: bool, state: &[Value]| {
            let [from, to, semaphore] = self.piece(k.step(), piece, last);
            k.wait_copy(&from, &to, &semaphore);
            let count =
                if last { layout.chunks - (layout.pieces() - 1) * layout.piece } else { layout.piece };
            // Several chunks a turn: its beginning and end keep the core half idle.
            let together = [4, 2, 1].into_iter().find(|n| count % n == 0).unwrap_or(1);
            k.for_each_of(label, k.i32((count / together) as i32), state, |i, state| {
                let first = k.add(k.mul(piece, k.i32(layout.piece as i32)), k.mul(i, k.i32(together as i32)));
                (0..together).fold(state.to_vec(), |state, next| {
                    let chunk = k.add(first, k.i32(next as i32));
                    let at = k.mul(chunk, k.i32(layout.chunk as i32));
                    each(&k.registers(&rows, at, layout.chunk), chunk, &state)
                })
            })
        };
        let whole = layout.pieces() - 1;
        let mut state = start.to_vec();
        if whole > 0 {
            state = k.for_each_of("pieces as they arrive", k.i32(whole as i32), &state, |i, state| {
                piece(i, false, state)
            });
        }
        piece(k.i32(whole as i32), true, &state)
    }

    /// One pass over the block, which has arrived.
    pub(super) fn pass(
        &self,
        label: &str,
        start: &[Value],
        each: impl Fn(&Memory, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let each = |rows: &Memory, chunk: Value, _: usize, state: &[Value]| each(rows, chunk, state);
        self.pass_by(label, 1, start, each)
    }

    /// [`pass`](Rows::pass) by up to `together` chunks a turn, of which `each` sees how many they are: a short body
    /// gains by more of it.
    pub(super) fn pass_by(
        &self,
        label: &str,
        together: usize,
        start: &[Value],
        each: impl Fn(&Memory, Value, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (k, layout) = (self.k, self.layout);
        if layout.residence == Residence::Streamed {
            return self.streamed_pass(label, start, |rows, chunk, state| each(rows, chunk, 1, state));
        }
        let rows = self.resident();
        let together = if layout.chunks % together == 0 { together } else { 1 };
        k.for_each_of(label, k.i32((layout.chunks / together) as i32), start, |turn, state| {
            let chunk = k.mul(turn, k.i32(together as i32));
            let at = k.mul(chunk, k.i32(layout.chunk as i32));
            each(&k.registers(&rows, at, together * layout.chunk), chunk, together, state)
        })
    }

    /// Copies chunk `chunk` into `to`, of which `count` registers are in HBM: started or awaited by `act`.
    fn chunk_copy(&self, chunk: Value, to: &Memory, flag: Value, act: impl Fn(&Memory, &Memory, &Memory)) {
        let (k, layout) = (self.k, self.layout);
        let semaphore = k.element(&self.arrived, flag);
        let at = k.mul(chunk, k.i32(layout.chunk as i32));
        let short = layout.registers - (layout.chunks - 1) * layout.chunk;
        let copy = |count: usize| {
            let from = self.in_hbm(k.step(), at, count);
            act(&from, &k.registers(to, k.i32(0), count), &semaphore);
        };
        if short == layout.chunk {
            return copy(short);
        }
        let last = k.eq(chunk, k.i32(layout.chunks as i32 - 1));
        k.if_else(
            "the last chunk is short",
            last,
            || {
                copy(short);
                Vec::new()
            },
            || {
                copy(layout.chunk);
                Vec::new()
            },
        );
    }

    fn fill_short(&self, chunk: Value, rows: &Memory) {
        let (k, layout) = (self.k, self.layout);
        let short = layout.registers - (layout.chunks - 1) * layout.chunk;
        if short < layout.chunk {
            let last = k.eq(chunk, k.i32(layout.chunks as i32 - 1));
            k.when("fill what lies past the end of the rows", last, || {
                for register in short..layout.chunk {
                    k.store(rows, k.i32((register * LANES) as i32), k.negative_infinity(rows.elem()));
                }
            });
        }
    }

    fn streamed_pass(
        &self,
        label: &str,
        start: &[Value],
        each: impl Fn(&Memory, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (k, layout) = (self.k, self.layout);
        let start_copy = |chunk: Value| {
            let buffer = k.and(chunk, k.i32(1));
            let to = k.element(&self.buffers, buffer);
            self.chunk_copy(chunk, &to, buffer, |from, to, semaphore| k.start_copy(from, to, semaphore));
        };
        start_copy(k.i32(0));
        k.for_each_of(label, k.i32(layout.chunks as i32), start, |chunk, state| {
            let next = k.add(chunk, k.i32(1));
            k.when("bring the next chunk", k.lt(next, k.i32(layout.chunks as i32)), || start_copy(next));
            let buffer = k.and(chunk, k.i32(1));
            let rows = k.element(&self.buffers, buffer);
            self.chunk_copy(chunk, &rows, buffer, |from, to, semaphore| k.wait_copy(from, to, semaphore));
            self.fill_short(chunk, &rows);
            each(&k.registers(&rows, k.i32(0), layout.chunk), chunk, state)
        })
    }

    /// `count` registers from register `at` on, all of one chunk, to be looked at once.
    pub(super) fn look_up(&self, at: Value, count: usize) -> Memory {
        let (k, layout) = (self.k, self.layout);
        let Some(aside) = &self.aside else { return k.registers(&self.resident(), at, count) };
        let shift = layout.chunk.trailing_zeros();
        let (chunk, within) = if layout.chunk.is_power_of_two() {
            (k.shr(at, shift), k.and(at, k.i32(layout.chunk as i32 - 1)))
        } else {
            // A row of one chunk.
            (k.i32(0), at)
        };
        let flag = k.i32(2);
        self.chunk_copy(chunk, aside, flag, |from, to, semaphore| k.start_copy(from, to, semaphore));
        self.chunk_copy(chunk, aside, flag, |from, to, semaphore| k.wait_copy(from, to, semaphore));
        self.fill_short(chunk, aside);
        k.registers(aside, within, count)
    }
}
