//! The logits of a block: their copies from HBM, and the passes over them.

use super::layout::{Layout, Residence};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::Arith;

/// The label of the loops that copy one piece per iteration.
const COPY_PIECES: &str = "copy pieces";
/// The label of the branches that write −inf after the end of the rows.
const PAD_ROWS: &str = "pad the end of the rows";

/// A pass over a window of at most this number of chunks has no loop.
const UNROLLED_CHUNKS: usize = 8;

/// The logits of a block of rows.
pub(super) struct LogitStream<'a> {
    k: &'a Kernel,
    layout: Layout,
    /// All rows of the batch, in HBM. If the layout has a window, the block in VMEM.
    operand: Memory,
    /// The buffers, `[buffers, 8, n]`, unless the layout has a window. A buffer contains a whole block, or one chunk if
    /// rows are streamed.
    buffers: Option<Memory>,
    /// A buffer of one chunk for lookups, if rows are streamed.
    aside: Option<Memory>,
    /// One semaphore for every copy that can be in progress, unless the layout has a window.
    arrived: Option<Memory>,
}

impl<'a> LogitStream<'a> {
    /// Allocates the memory.
    pub(super) fn new(k: &'a Kernel, layout: Layout, operand: Memory) -> LogitStream<'a> {
        let (count, width, copies) = match layout.residence {
            Residence::Window => {
                return LogitStream { k, layout, operand, buffers: None, aside: None, arrived: None };
            }
            Residence::Resident { buffers } => (buffers, layout.padded(), buffers * layout.pieces()),
            Residence::Streamed => (2, layout.chunk, 3),
        };
        let buffers = k.scratch(operand.elem(), &[count, SUBLANES, width * LANES], Space::Vmem);
        let aside = (layout.residence == Residence::Streamed)
            .then(|| k.scratch(operand.elem(), &[SUBLANES, layout.chunk * LANES], Space::Vmem));
        let arrived = k.scratch(Elem::DmaSemaphore, &[copies], Space::Semaphore);
        LogitStream { k, layout, operand, buffers: Some(buffers), aside, arrived: Some(arrived) }
    }

    /// Returns a buffer.
    fn buffer(&self, number: Value) -> Memory {
        self.k.element(self.buffers.as_ref().expect("a layout without a window has buffers"), number)
    }

    /// Returns the semaphore of a copy.
    fn semaphore(&self, number: Value) -> Memory {
        self.k.element(self.arrived.as_ref().expect("a layout without a window has semaphores"), number)
    }

    /// Returns the buffer that contains the block of a grid step.
    fn buffer_of(&self, step: Value) -> Value {
        match self.layout.residence {
            Residence::Resident { buffers: 2 } => self.k.and(step, self.k.i32(1)),
            _ => self.k.i32(0),
        }
    }

    /// Returns the current block in VMEM, `[8, n]`.
    fn resident(&self) -> Memory {
        match self.layout.residence {
            Residence::Window => self.operand.clone(),
            _ => self.buffer(self.buffer_of(self.k.step())),
        }
    }

    /// Returns `count` registers of the block of a grid step in HBM, starting at register `at`.
    fn in_hbm(&self, step: Value, at: Value, count: usize) -> Memory {
        let k = self.k;
        let row = k.multiple(k.mul(step, k.i32(SUBLANES as i32)), SUBLANES);
        let lane = k.multiple(k.mul(at, k.i32(LANES as i32)), LANES);
        k.slice(&self.operand, &[row, lane], &[SUBLANES, count * LANES])
    }

    /// Returns the source, the destination and the semaphore for the copy of one piece. The last piece may be shorter
    /// than the others.
    fn piece(&self, step: Value, piece: Value, last: bool) -> [Memory; 3] {
        let (k, layout) = (self.k, self.layout);
        let long = layout.piece * layout.chunk;
        let count = if last { layout.registers - (layout.pieces() - 1) * long } else { long };
        let at = k.mul(piece, k.i32(long as i32));
        let buffer = self.buffer_of(step);
        let to = k.registers(&self.buffer(buffer), at, count);
        let flag = k.add(k.mul(buffer, k.i32(layout.pieces() as i32)), piece);
        [self.in_hbm(step, at, count), to, self.semaphore(flag)]
    }

    /// Starts the copies of all pieces of a block.
    fn start_copies(&self, label: &str, step: Value) {
        let k = self.k;
        let start = |piece: Value, last: bool| {
            let [from, to, semaphore] = self.piece(step, piece, last);
            k.start_copy(&from, &to, &semaphore);
        };
        let before_last = self.layout.pieces() - 1;
        if before_last > 0 {
            k.for_each(label, k.i32(before_last as i32), [], |piece, []| {
                start(piece, false);
                []
            });
        }
        start(k.i32(before_last as i32), true);
    }

    /// Starts the copies of this block, unless the previous step of this core has started them. Also starts the copies
    /// of this core's next block if there are two buffers.
    pub(super) fn begin(&self) {
        let (k, layout) = (self.k, self.layout);
        let Residence::Resident { buffers } = layout.residence else { return };
        let first = self.is_first_of_core(k.step());
        if layout.padded() > layout.registers {
            // Entries after the end of a row must not be candidates in any pass.
            k.when(PAD_ROWS, first, || {
                for buffer in 0..buffers {
                    let rows = self.buffer(k.i32(buffer as i32));
                    self.pad(&rows, layout.registers..layout.padded());
                }
            });
        }
        if buffers == 1 {
            return self.start_copies("copy the block", k.step());
        }
        // With one core, the first block is always block 0. If its number is a constant, the addresses of its copies
        // are constants too.
        let this = if layout.cores == 1 { k.i32(0) } else { k.step() };
        k.when("copy the first block", first, || self.start_copies(COPY_PIECES, this));
        let next = k.add(k.step(), k.i32(1));
        let more = match layout.cores {
            1 => k.lt(next, k.i32(layout.blocks as i32)),
            _ => k.not(k.either(k.eq(next, k.i32(layout.blocks as i32)), self.is_first_of_core(next))),
        };
        k.when("copy the next block", more, || self.start_copies(COPY_PIECES, next));
    }

    /// Returns whether a grid step is the first step of a core. All cores run the same number of steps, and the steps
    /// of a core are consecutive.
    fn is_first_of_core(&self, step: Value) -> Value {
        let (k, layout) = (self.k, self.layout);
        let first = |core: usize| k.eq(step, k.i32((core * (layout.blocks / layout.cores)) as i32));
        (1..layout.cores).fold(first(0), |either, core| k.either(either, first(core)))
    }

    /// Fills registers with −inf.
    fn pad(&self, rows: &Memory, registers: std::ops::Range<usize>) {
        let k = self.k;
        for register in registers {
            k.store(rows, k.i32((register * LANES) as i32), k.negative_infinity(rows.elem()));
        }
    }

    /// Makes one pass over the block while it arrives. `each` receives the registers of a chunk and the chunk's number.
    pub(super) fn first_pass(
        &self,
        label: &str,
        start: &[Value],
        each: impl Fn(&Memory, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (k, layout) = (self.k, self.layout);
        match layout.residence {
            Residence::Streamed => return self.pass(label, start, each),
            Residence::Window => {
                // A loop cannot overlap the end of an iteration with the start of the next one, so short rows have no
                // loop.
                let together = if layout.chunks <= UNROLLED_CHUNKS { layout.chunks } else { 4 };
                return self.pass_by(label, together, start, |rows, first, chunks, state| {
                    (0..chunks).fold(state.to_vec(), |state, next| {
                        let at = k.i32((next * layout.chunk) as i32);
                        let chunk = k.add(first, k.i32(next as i32));
                        each(&k.registers(rows, at, layout.chunk), chunk, &state)
                    })
                });
            }
            Residence::Resident { .. } => {}
        }
        let rows = self.resident();
        let piece = |piece: Value, last: bool, state: &[Value]| {
            let [from, to, semaphore] = self.piece(k.step(), piece, last);
            k.wait_copy(&from, &to, &semaphore);
            let count =
                if last { layout.chunks - (layout.pieces() - 1) * layout.piece } else { layout.piece };
            // Each iteration processes several chunks, because the core is half idle at the start and the end of an
            // iteration.
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
        let before_last = layout.pieces() - 1;
        let mut state = start.to_vec();
        if before_last > 0 {
            let count = k.i32(before_last as i32);
            state = k.for_each_of("pieces as they arrive", count, &state, |i, state| piece(i, false, state));
        }
        piece(k.i32(before_last as i32), true, &state)
    }

    /// Makes one pass over the block after it has arrived.
    pub(super) fn pass(
        &self,
        label: &str,
        start: &[Value],
        each: impl Fn(&Memory, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let each = |rows: &Memory, chunk: Value, _: usize, state: &[Value]| each(rows, chunk, state);
        self.pass_by(label, 1, start, each)
    }

    /// Like [`pass`](LogitStream::pass), but with up to `together` chunks per iteration. `each` also receives the
    /// number of chunks. A short loop body is faster with more chunks per iteration.
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
        let together = self.together(together);
        k.for_each_of(label, k.i32((layout.chunks / together) as i32), start, |iteration, state| {
            let chunk = k.mul(iteration, k.i32(together as i32));
            let at = k.mul(chunk, k.i32(layout.chunk as i32));
            each(&k.registers(&rows, at, together * layout.chunk), chunk, together, state)
        })
    }

    /// Returns the number of chunks that each iteration of a pass processes. `together` is the largest number that the
    /// pass allows.
    pub(super) fn together(&self, together: usize) -> usize {
        let streamed = self.layout.residence == Residence::Streamed;
        if !streamed && self.layout.chunks.is_multiple_of(together) {
            together
        } else {
            1
        }
    }

    /// Starts or awaits the copy of a chunk into `to`, depending on `act`. Copies only the registers that exist in
    /// HBM.
    fn chunk_copy(&self, chunk: Value, to: &Memory, flag: Value, act: impl Fn(&Memory, &Memory, &Memory)) {
        let (k, layout) = (self.k, self.layout);
        let semaphore = self.semaphore(flag);
        let at = k.mul(chunk, k.i32(layout.chunk as i32));
        let short = layout.registers - (layout.chunks - 1) * layout.chunk;
        let copy = |count: usize| {
            let from = self.in_hbm(k.step(), at, count);
            act(&from, &k.registers(to, k.i32(0), count), &semaphore);
            Vec::new()
        };
        if short == layout.chunk {
            copy(short);
            return;
        }
        let last = k.eq(chunk, k.i32(layout.chunks as i32 - 1));
        k.if_else("the last chunk is short", last, || copy(short), || copy(layout.chunk));
    }

    /// In the last chunk, writes −inf after the end of the row.
    fn pad_last_chunk(&self, chunk: Value, rows: &Memory) {
        let (k, layout) = (self.k, self.layout);
        let short = layout.registers - (layout.chunks - 1) * layout.chunk;
        if short < layout.chunk {
            let last = k.eq(chunk, k.i32(layout.chunks as i32 - 1));
            k.when(PAD_ROWS, last, || self.pad(rows, short..layout.chunk));
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
            let to = self.buffer(buffer);
            self.chunk_copy(chunk, &to, buffer, |from, to, semaphore| k.start_copy(from, to, semaphore));
        };
        start_copy(k.i32(0));
        k.for_each_of(label, k.i32(layout.chunks as i32), start, |chunk, state| {
            let next = k.add(chunk, k.i32(1));
            k.when("copy the next chunk", k.lt(next, k.i32(layout.chunks as i32)), || start_copy(next));
            let buffer = k.and(chunk, k.i32(1));
            let rows = self.buffer(buffer);
            self.chunk_copy(chunk, &rows, buffer, |from, to, semaphore| k.wait_copy(from, to, semaphore));
            self.pad_last_chunk(chunk, &rows);
            each(&k.registers(&rows, k.i32(0), layout.chunk), chunk, state)
        })
    }

    /// Returns `count` registers for a single lookup, starting at register `at`. They must all be in one chunk.
    pub(super) fn look_up(&self, at: Value, count: usize) -> Memory {
        let (k, layout) = (self.k, self.layout);
        let Some(aside) = &self.aside else { return k.registers(&self.resident(), at, count) };
        let shift = layout.chunk.trailing_zeros();
        let (chunk, within) = if layout.chunk.is_power_of_two() {
            (k.shr(at, shift), k.and(at, k.i32(layout.chunk as i32 - 1)))
        } else {
            // The row has only one chunk.
            (k.i32(0), at)
        };
        let flag = k.i32(2);
        self.chunk_copy(chunk, aside, flag, |from, to, semaphore| k.start_copy(from, to, semaphore));
        self.chunk_copy(chunk, aside, flag, |from, to, semaphore| k.wait_copy(from, to, semaphore));
        self.pad_last_chunk(chunk, aside);
        k.registers(aside, within, count)
    }
}
