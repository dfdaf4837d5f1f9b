//! Philox4x32-10, the counter-based random number generator of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers:
//! As Easy as 1, 2, 3", SC'11.

use super::arith::{Scalar, WideArith};

/// Ten rounds of Philox4x32 on `counter`, the least significant word first, with `key`.
#[inline(always)]
pub fn philox4x32_10<A: WideArith>(a: A, counter: [A::Int; 4], key: [A::Int; 2]) -> [A::Int; 4] {
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
    let ([mut x0, mut x1, mut x2, mut x3], mut key) = (counter, key);
    for round in 0..10 {
        if round > 0 {
            key = [0, 1].map(|i| a.add(key[i], a.int(WEYL[i] as i32)));
        }
        let product = |x, i: usize| a.wmul(a.widen(x), a.wide(MULTIPLIERS[i]));
        let (first, second) = (product(x0, 0), product(x2, 1));
        let mixed = |high, x, i: usize| a.xor(a.xor(high, x), key[i]);
        [x0, x1, x2, x3] =
            [mixed(a.high(second), x1, 0), a.low(second), mixed(a.high(first), x3, 1), a.low(first)];
    }
    [x0, x1, x2, x3]
}

/// The four random words of a row. The key is the seed, and the counter is (offset, 0). Both have the least significant
/// word first, as in the reference implementation of the paper. The first output word is the most significant word of
/// U.
#[inline(always)]
pub fn random_words_of<A: WideArith>(a: A, seed: A::Wide, offset: A::Wide) -> [A::Int; 4] {
    let zero = a.int(0);
    philox4x32_10(a, [a.low(offset), a.high(offset), zero, zero], [a.low(seed), a.high(seed)])
}

/// [`random_words_of`] on the host CPU.
pub fn random_words(seed: u64, offset: u64) -> [u32; 4] {
    random_words_of(Scalar, seed, offset).map(|word| word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
        let words = philox4x32_10(Scalar, counter.map(|word| word as i32), key.map(|word| word as i32));
        words.map(|word| word as u32)
    }

    /// The known-answer vectors of the paper's reference implementation (kat_vectors).
    #[test]
    fn matches_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    /// Checks the order of the words: key = seed, counter = (offset, 0), low words first. The first vector is
    /// published. The others were computed with an independent implementation.
    #[test]
    fn seed_is_the_key_and_offset_the_low_half_of_the_counter() {
        assert_eq!(random_words(0, 0), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(random_words(0x1, 0x0), [0xe3e80670, 0xe50a0ebc, 0x95f222c0, 0xb615aa27]);
        assert_eq!(random_words(0x0, 0x1), [0xf8e4cca4, 0x5cb200db, 0xb1a574eb, 0x097eff67]);
        assert_eq!(
            random_words(0x123456789abcdef, 0xfedcba9876543210),
            [0x2c03a599, 0xd8a290fc, 0x4339955b, 0x8784c033]
        );
    }
}
