//! A row as a sequence of blocks, and the output space for entries that a pass collects from a block.

use std::ops::Range;

use fearless_simd::{f32x16, f32x4, i32x16, mask32x16, prelude::*, Simd};

use super::element::Element;
use super::lanes::{push, LANES};
use super::layout::{BIN, BLOCK};

/// A row divided into blocks. The last block is padded with −inf.
pub(super) struct Blocks<'a, E: Element> {
    whole: &'a [[E::Bits; BLOCK]],
    tail: [[E::Bits; BLOCK]; 1],
}

impl<'a, E: Element> Blocks<'a, E> {
    #[inline(always)]
    pub(super) fn new(row: &'a [E::Bits]) -> Self {
        let (whole, rest) = row.as_chunks::<BLOCK>();
        let mut tail = [E::NEG_INF; BLOCK];
        tail[..rest.len()].copy_from_slice(rest);
        Blocks { whole, tail: [tail] }
    }

    /// Returns the blocks of a range as two slices: the blocks that are in the row, and the padded last block if it is
    /// in the range. The range must not extend beyond the row.
    // A loop over two slices is faster than calls of `get`. With `get`, the code would select between the row and the
    // padded block for each vector.
    #[inline(always)]
    pub(super) fn range(&self, range: Range<usize>) -> [&[[E::Bits; BLOCK]]; 2] {
        let whole = self.whole.len();
        let in_row = &self.whole[range.start.min(whole)..range.end.min(whole)];
        [in_row, &self.tail[..usize::from(range.end > whole)]]
    }

    /// The block at `index`.
    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> &[E::Bits; BLOCK] {
        self.whole.get(index).unwrap_or(&self.tail[0])
    }
}

/// Whether an element of a block is at least `bound`, given the maxima of the block.
#[inline(always)]
pub(super) fn reaches<S: Simd>(simd: S, bin: &[f32; BIN], bound: f32) -> bool {
    f32x4::simd_from(simd, *bin).simd_ge(bound).any_true()
}

/// Runs a statement on each vector of a block in order: `for_vectors!(E, simd, block, x => …)`.
// This is a macro and not an iterator, because the compiler does not always inline std's iterator adapters into the
// `inline(always)` functions of this crate. An adapter that is not inlined is compiled without the selected instruction
// set. The loop is not unrolled, because the scalar and 128-bit levels would then take minutes to compile.
macro_rules! for_vectors {
    ($element:ty, $simd:expr, $block:expr, $x:ident => $body:expr) => {
        for pair in $block.as_chunks::<{ 2 * $crate::backend::builtin::lanes::LANES }>().0 {
            let [first, second] = <$element as $crate::backend::builtin::element::Element>::pair($simd, pair);
            {
                let $x = first;
                $body
            }
            {
                let $x = second;
                $body
            }
        }
    };
}
pub(super) use for_vectors;

/// A bit mask of the elements of a block that `test` accepts. Bit `i` stands for element `i`.
///
/// `test` is passed by value, because the compiler does not always inline a call through a reference to a closure. If
/// `test` is not inlined, it is compiled without the vector instructions. Then each of its operations is a call.
#[inline(always)]
pub(super) fn mask_of<S: Simd, E: Element>(
    simd: S,
    block: &[E::Bits; BLOCK],
    test: impl Fn(f32x16<S>) -> mask32x16<S> + Copy,
) -> u128 {
    // The parts of the mask are not stored in an array, because the processor stalls if it loads a wider integer than
    // it stored. No loop combines the parts, because long chains of 128-bit shifts by a variable are slow.
    let (pairs, _) = block.as_chunks::<{ 2 * LANES }>();
    let low = mask_of_pair::<S, E>(simd, &pairs[0], test) | mask_of_pair::<S, E>(simd, &pairs[1], test) << 32;
    let high =
        mask_of_pair::<S, E>(simd, &pairs[2], test) | mask_of_pair::<S, E>(simd, &pairs[3], test) << 32;
    u128::from(low) | u128::from(high) << 64
}

/// Like [`mask_of`], for two vectors instead of a block.
#[inline(always)]
pub(super) fn mask_of_pair<S: Simd, E: Element>(
    simd: S,
    pair: &[E::Bits; 2 * LANES],
    test: impl Fn(f32x16<S>) -> mask32x16<S> + Copy,
) -> u64 {
    let [first, second] = E::pair(simd, pair);
    test(first).to_bitmask() | test(second).to_bitmask() << LANES
}

/// The output space for entries that a pass collects from one block. One bounds check covers the whole block.
pub(super) struct BlockOutput<'a> {
    out: &'a mut [i32; BLOCK + LANES],
    len: usize,
}

impl<'a> BlockOutput<'a> {
    /// Creates an output that writes to `out[at..at + BLOCK + LANES]`.
    #[inline(always)]
    pub(super) fn new(out: &'a mut [i32], at: usize) -> Self {
        let out = (&mut out[at..at + BLOCK + LANES]).try_into().expect("as long as the slice");
        BlockOutput { out, len: 0 }
    }

    /// Appends the lanes that the mask selects. May be called at most once for each vector of a block.
    #[inline(always)]
    pub(super) fn push<S: Simd>(&mut self, values: i32x16<S>, mask: mask32x16<S>) {
        // `len` is below `BLOCK` here. The remainder operation shows this to the compiler, so the compiler omits a
        // bounds check.
        let at = self.len % BLOCK;
        self.len += push(&mut self.out[at..], 0, values, mask);
    }

    /// The number of appended entries.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }
}
