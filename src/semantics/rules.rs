//! The rules that decide which entries survive, their weights, and what a row reports.
//!
//! Every backend and every kernel calls these functions. Only the reference implements the rules a second time, so
//! that the tests can compare the two.

use super::arith::Arith;
use super::clean::NEG_INF_KEY;
use super::weights::MAX_WEIGHT;

/// Row status bit: the row has no candidate, so its token is −1.
pub const ROW_NO_CANDIDATE: u32 = 1;
/// Row status bit: the row contains a NaN. A NaN counts as −inf.
pub const ROW_HAD_NAN: u32 = 2;
/// Row status bit: the row contains a +inf. A +inf counts as the largest finite f32.
pub const ROW_HAD_INF: u32 = 4;
/// Row status bit: a parameter of the row is impossible, so the row was not sampled and its token is −1. The host CPU
/// checks the parameters, so no sampling program sets this bit.
pub const ROW_BAD_PARAMETER: u32 = 8;
/// All row status bits that a sampling program can set.
pub const ROW_STATUS_BITS: u32 = ROW_NO_CANDIDATE | ROW_HAD_NAN | ROW_HAD_INF;

/// The value of the token and of `greedy_sampled` in a row without a candidate.
pub const NO_TOKEN: i32 = -1;

/// The least order key of a candidate.
pub const LEAST_CANDIDATE_KEY: i32 = NEG_INF_KEY + 1;

/// Whether an order key belongs to a candidate, that is, to a value above −inf.
#[inline(always)]
pub fn is_candidate<A: Arith>(a: A, key: A::Int) -> A::Mask {
    a.lt(a.int(NEG_INF_KEY), key)
}

/// Whether a row has no candidate. `max_key` is the order key of the row's maximum.
#[inline(always)]
pub fn has_no_candidate<A: Arith>(a: A, max_key: A::Int) -> A::Mask {
    a.eq(max_key, a.int(NEG_INF_KEY))
}

/// Whether top-k keeps an entry: its key is above the threshold, or equal to it at a position up to `last_tie`.
///
/// In other words: the entry is not after `(threshold, last_tie)` in the order (key descending, position ascending).
/// Keys may be any integers with the same order as the values. Positions are indices in the row, or any integers
/// with the same order.
#[inline(always)]
pub fn survives_top_k<A: Arith>(
    a: A,
    key: A::Int,
    position: A::Int,
    threshold: A::Int,
    last_tie: A::Int,
) -> A::Mask {
    let kept_tie = a.both(a.eq(key, threshold), a.le(position, last_tie));
    a.either(a.lt(threshold, key), kept_tie)
}

/// Whether an entry has a weight before top-p and min-p.
///
/// `survives`: top-k kept the entry, and the entry is a candidate. `sampled_row`: the row is not greedy. `is_greedy`:
/// the entry is the one at `greedy_sampled`. In a greedy row only that entry has a weight.
#[inline(always)]
pub fn has_weight<A: Arith>(a: A, survives: A::Mask, sampled_row: A::Mask, is_greedy: A::Mask) -> A::Mask {
    a.both(survives, a.either(sampled_row, is_greedy))
}

/// The weight of an entry before top-p and min-p. `sampled` is its weight by temperature.
///
/// In a greedy row the weight is that of the maximum, [`MAX_WEIGHT`]. The maximum has this weight at any temperature.
/// So a kernel that has computed the weights by temperature needs only [`has_weight`].
#[inline(always)]
pub fn row_weight<A: Arith>(
    a: A,
    survives: A::Mask,
    greedy_row: A::Mask,
    is_greedy: A::Mask,
    sampled: A::Int,
) -> A::Int {
    let weighs = has_weight(a, survives, a.not(greedy_row), is_greedy);
    a.select(weighs, a.select(greedy_row, a.int(MAX_WEIGHT), sampled), a.int(0))
}

/// Whether top-p keeps every weight of a row. `mantissa` is [`TopP::mantissa`](super::top_p::TopP::mantissa).
#[inline(always)]
pub fn top_p_is_off<A: Arith>(a: A, no_candidate: A::Mask, mantissa: A::Int) -> A::Mask {
    a.either(no_candidate, a.eq(mantissa, a.int(0)))
}

/// The least weight that survives both top-p and min-p. `top_p_threshold` is 0 where top-p is off.
#[inline(always)]
pub fn least_weight<A: Arith>(a: A, top_p_threshold: A::Int, min_weight: A::Int) -> A::Int {
    a.max(top_p_threshold, min_weight)
}

/// The weight if it is at least `least`, else 0.
#[inline(always)]
pub fn kept_weight<A: Arith>(a: A, weight: A::Int, least: A::Int) -> A::Int {
    a.select(a.lt(weight, least), a.int(0), weight)
}

/// The status bits of a row.
#[inline(always)]
pub fn row_status<A: Arith>(a: A, no_candidate: A::Mask, had_nan: A::Mask, had_inf: A::Mask) -> A::Int {
    let bit = |mask, bit: u32| a.select(mask, a.int(bit as i32), a.int(0));
    a.or(bit(no_candidate, ROW_NO_CANDIDATE), a.or(bit(had_nan, ROW_HAD_NAN), bit(had_inf, ROW_HAD_INF)))
}

/// The token that a row reports: `token`, or −1 if the row has no candidate.
#[inline(always)]
pub fn reported_token<A: Arith>(a: A, no_candidate: A::Mask, token: A::Int) -> A::Int {
    a.select(no_candidate, a.int(NO_TOKEN), token)
}

#[cfg(test)]
mod tests {
    use super::super::arith::Scalar;
    use super::super::weights::{quantize, weight};
    use super::*;

    #[test]
    fn ties_survive_up_to_the_last_one() {
        let survives = |key, position| survives_top_k(Scalar, key, position, 7, 3);
        assert!(survives(8, 100) && survives(7, 3) && survives(7, 0));
        assert!(!survives(7, 4) && !survives(6, 0));
    }

    #[test]
    fn a_greedy_row_has_one_weight() {
        assert_eq!(row_weight(Scalar, true, false, true, 5), 5);
        assert_eq!(row_weight(Scalar, true, true, true, 5), MAX_WEIGHT);
        assert_eq!(row_weight(Scalar, true, true, false, 5), 0);
        assert_eq!(row_weight(Scalar, false, true, true, 5), 0);
        // At any temperature, the maximum has the same weight as in a greedy row.
        assert_eq!(weight(Scalar, quantize(Scalar, 3.0, 3.0, 0.5)), MAX_WEIGHT);
    }

    #[test]
    fn candidates_are_above_negative_infinity() {
        assert!(is_candidate(Scalar, LEAST_CANDIDATE_KEY) && !is_candidate(Scalar, NEG_INF_KEY));
        assert!(has_no_candidate(Scalar, NEG_INF_KEY) && !has_no_candidate(Scalar, LEAST_CANDIDATE_KEY));
    }

    #[test]
    fn top_p_needs_a_mantissa_and_a_candidate() {
        let off = |no_candidate, mantissa| top_p_is_off(Scalar, no_candidate, mantissa);
        assert!(off(true, 1) && off(false, 0) && !off(false, 1));
    }

    #[test]
    fn the_larger_limit_decides() {
        assert_eq!((least_weight(Scalar, 3, 5), least_weight(Scalar, 5, 3)), (5, 5));
        assert_eq!((kept_weight(Scalar, 5, 5), kept_weight(Scalar, 4, 5)), (5, 0));
    }

    #[test]
    fn status_bits_are_independent() {
        assert_eq!(row_status(Scalar, false, false, false), 0);
        assert_eq!(row_status(Scalar, true, true, true) as u32, ROW_STATUS_BITS);
        let one_by_one = [(true, false, false), (false, true, false), (false, false, true)];
        let bits = one_by_one.map(|(candidate, nan, inf)| row_status(Scalar, candidate, nan, inf) as u32);
        assert_eq!(bits, [ROW_NO_CANDIDATE, ROW_HAD_NAN, ROW_HAD_INF]);
        assert_eq!((reported_token(Scalar, true, 4), reported_token(Scalar, false, 4)), (NO_TOKEN, 4));
    }
}
