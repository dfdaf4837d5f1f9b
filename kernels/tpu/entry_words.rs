//! Stores an entry of a bf16 row in one word, so that a stack of entries needs one field instead of two.
//!
//! The upper half of a word contains the bits of the logit. The lower half contains the number of the register in the
//! stripe. The word does not contain the lane of the entry, because [`unpacked`] computes it from the lane of the word.

use super::context::Context;
use super::lane_stack::{empty_stack, LaneStack, SurvivorStack};
use crate::dtype::Dtype;
use crate::mlir::mosaic::{Value, LANES};
use crate::semantics::arith::Arith;

/// The bits of the float 2³⁰. The last bit of its mantissa has the value [`LANES`]. So if a place is added to this
/// float, the lower half of the bits of the sum contains the number of the register of the place.
const PLACES: i32 = 0x4e80_0000;
const _: () = assert!(f32::from_bits(PLACES as u32) == (LANES << 23) as f32);
/// The word that stands for no entry. It has the upper half of −inf. This is never the word of an entry, because −inf
/// is never pushed.
const NO_ENTRY: i32 = 0xff80_0000_u32 as i32 ^ PLACES;
const LOWER: i32 = 0xffff;

/// A stack of words.
pub(super) type WordStack = LaneStack<1>;

/// Whether the entries of a kernel are in words.
pub(super) fn fits(cx: &Context<'_>) -> bool {
    cx.spec.dtype == Dtype::Bf16 && cx.layout.padded() <= LOWER as usize + 1
}

pub(super) fn empty_words(cx: &Context<'_>) -> WordStack {
    WordStack::empty(cx.layout.depth, [cx.k.splat(cx.k.i32(NO_ENTRY))])
}

/// Returns the word of a logit, or [`NO_ENTRY`] where `survives` is false. `place` is the place in group register
/// `group` of chunk `chunk`, in the form of [`Prefilter::place`](super::prefilter::Prefilter).
pub(super) fn word(
    cx: &Context<'_>,
    survives: Value,
    logit: Value,
    [chunk, group]: [Value; 2],
    place: Value,
) -> Value {
    let (k, layout) = (cx.k, cx.layout);
    let first = k.mul(chunk, k.i32(layout.chunk as i32));
    let first = if layout.packed { k.add(first, group) } else { first };
    let start = k.from_bits(k.splat(k.add(first, k.i32(PLACES))));
    let word = k.xor(k.bits(logit), k.bits(k.fadd(place, start)));
    k.choose(survives, word, k.i32(NO_ENTRY))
}

/// Whether a word contains an entry.
pub(super) fn is_entry(cx: &Context<'_>, word: Value) -> Value {
    cx.k.ne(word, cx.k.i32(NO_ENTRY))
}

/// Returns the entries of a stack of words. Each word was rotated: if its entry is from group register `g`, the word is
/// `g` lanes after the lane of the entry.
pub(super) fn unpacked(cx: &Context<'_>, words: &WordStack) -> SurvivorStack {
    let k = cx.k;
    let mut stack = empty_stack(k, words.depth());
    let [empty_value, empty_index] = stack.level(0);
    for level in 0..words.depth() {
        let [word] = words.level(level);
        let is_entry = is_entry(cx, word);
        let value = k.from_bits(k.and(k.xor(word, k.i32(PLACES)), k.i32(!LOWER)));
        let register = k.and(word, k.i32(LOWER));
        let lane = k.and(k.sub(k.lane(), group_of(cx, register)), k.i32(LANES as i32 - 1));
        let index = k.add(k.shl(register, LANES.trailing_zeros()), cx.in_stripe(lane));
        stack.fields[0][level] = k.choose(is_entry, value, empty_value);
        stack.fields[1][level] = k.choose(is_entry, k.to_float(index), empty_index);
    }
    stack.overflow = k.choose(is_entry(cx, words.overflow), k.f32(0.0), empty_index);
    stack
}

/// Returns the number of the group register that summarizes a register of the stripe.
fn group_of(cx: &Context<'_>, register: Value) -> Value {
    let (k, layout) = (cx.k, cx.layout);
    // If a stripe has several chunks, their length is a power of two.
    let shift = layout.chunk.trailing_zeros();
    let chunk = if layout.chunks == 1 {
        k.splat(k.i32(0))
    } else {
        k.shift_right_zero(register, k.i32(shift as i32))
    };
    match (layout.groups_in_chunk(), layout.packed) {
        (1, _) => chunk,
        (_, true) => k.add(k.shl(chunk, 1), k.and(register, k.i32(1))),
        (_, false) => k.shift_right_zero(register, k.i32(layout.group().trailing_zeros() as i32)),
    }
}
