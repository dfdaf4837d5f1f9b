//! The draw: a 128-bit random number modulo the total of the kept weights.

use super::arith::WideArith;

/// `U mod total`, or 0 if `total` is 0. `words` are the 128 bits of U, the most significant word first; `total < 2^48`.
///
/// The division takes 16 bits at a time, so that the running remainder fits 64 bits.
#[inline(always)]
pub fn remainder<A: WideArith>(a: A, words: [A::Int; 4], total: A::Wide) -> A::Wide {
    let divisor = a.wselect(a.weq(total, a.wide(0)), a.wide(1), total);
    let mut rest = a.wide(0);
    for word in words {
        let word = a.widen(word);
        for half in [a.wshr(word, a.wide(16)), a.wand(word, a.wide(0xffff))] {
            rest = a.wrem_next(rest, half, divisor);
        }
    }
    rest
}
