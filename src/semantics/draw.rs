//! The draw: a 128-bit random number modulo the total of the kept weights.

use super::arith::{Arith, LongDivision, WideArith};
use super::sizes::WEIGHT_BITS;
use super::weights::MAX_WEIGHT;

const NUMBER_BITS: u32 = 128;

/// The number of bits of the largest digit that [`remainder_by_digits`] supports. With it, the total is at most
/// 2^(64 − 28). The first remainder is one digit, and must be less than the divisor, which is at least [`MAX_WEIGHT`].
pub const LARGEST_DIGIT_BITS: u32 = WEIGHT_BITS;

/// `U mod total`, or 0 if `total` is 0. `words` contains the 128 bits of U, the most significant word first. `total` is
/// 0, or the sum of weights that include the weight of the maximum. So a total that is not 0 is at least [`MAX_WEIGHT`]
/// and at most 2^[`TOTAL_BITS`](super::sizes::TOTAL_BITS).
///
/// A long division with digits of [`LongDivision::DIGIT_BITS`] bits. Every intermediate result fits 64 bits.
#[inline(always)]
pub fn remainder<A: LongDivision>(a: A, words: [A::Int; 4], total: A::Wide) -> A::Wide {
    remainder_by_digits(a, words, total, A::DIGIT_BITS)
}

/// Like [`remainder`], with digits of `digit_bits` bits. `digit_bits` is at most [`LARGEST_DIGIT_BITS`], and the total
/// is at most 2^(64 − `digit_bits`). Larger digits need fewer steps.
#[inline(always)]
pub fn remainder_by_digits<A: LongDivision>(
    a: A,
    words: [A::Int; 4],
    total: A::Wide,
    digit_bits: u32,
) -> A::Wide {
    let nothing = a.weq(total, a.wide(0));
    let divisor = a.wselect(nothing, a.wide(MAX_WEIGHT as u64), total);
    // The first digit is shorter if 128 is not a multiple of `digit_bits`. The divisor is at least 2²⁸, so the first
    // digit is less than the divisor. Therefore, the first digit is also the first remainder.
    let first = (NUMBER_BITS - 1) % digit_bits + 1;
    let mut end = NUMBER_BITS - first;
    let mut rest = digit(a, words, end, first);
    while end > 0 {
        end -= digit_bits;
        rest = a.wrem_next(rest, digit(a, words, end, digit_bits), digit_bits, divisor);
    }
    a.wselect(nothing, a.wide(0), rest)
}

/// Like [`remainder`], for a row in which only the maximum is kept. The result is `U mod MAX_WEIGHT`, or 0 if the row
/// has no candidate.
#[inline(always)]
pub fn remainder_of_maximum<A: Arith>(a: A, words: [A::Int; 4], no_candidate: A::Mask) -> A::Int {
    const { assert!(MAX_WEIGHT & (MAX_WEIGHT - 1) == 0) };
    let low = a.and(words[3], a.int(MAX_WEIGHT - 1));
    a.select(no_candidate, a.int(0), low)
}

/// Bits `from..from + length` of the number in `words`. Bit 0 is the least significant one.
#[inline(always)]
pub fn digit<A: WideArith>(a: A, words: [A::Int; 4], from: u32, length: u32) -> A::Wide {
    let word = |bit: u32| a.widen(words[3 - (bit / 32) as usize]);
    let (shift, last) = (from % 32, from + length - 1);
    let mut bits = if shift == 0 { word(from) } else { a.wshr(word(from), a.wide(u64::from(shift))) };
    if last / 32 > from / 32 {
        bits = a.wor(bits, a.wshl(word(last), 32 - shift));
    }
    a.wand(bits, a.wide((1 << length) - 1))
}

/// Asserts that a function returns `number` mod `total`, or 0 if `total` is 0. The function receives the words of the
/// number and the total.
#[cfg(test)]
pub(crate) fn check_remainder(function: impl Fn([i32; 4], u64) -> u64, number: u128, total: u64) {
    let words = [96, 64, 32, 0].map(|from| (number >> from) as u32 as i32);
    let expected = if total == 0 { 0 } else { (number % u128::from(total)) as u64 };
    assert_eq!(function(words, total), expected, "{number} mod {total}");
}
