//! The sizes of weights and of their sums. Two constants, `WEIGHT_BITS` and `VOCAB_BITS`, determine all of them.

/// The weight of a row's maximum is 2 to this power.
pub const WEIGHT_BITS: u32 = 28;
/// The largest number of entries in a row is 2 to this power.
pub const VOCAB_BITS: u32 = 24;
/// The total of the weights of a row is at most 2 to this power. An f64 represents every total exactly.
pub const TOTAL_BITS: u32 = WEIGHT_BITS + VOCAB_BITS;
/// The number of weights whose sum always fits an unsigned 32-bit integer.
pub const SUMMABLE: usize = (u32::MAX >> WEIGHT_BITS) as usize;
