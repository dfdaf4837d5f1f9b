//! The arrays that every program takes and returns, for any target.
//!
//! A program takes the logits `[batch, vocab]` and the parameters `i32 [batch, COLUMNS]`. It returns `i32 [RESULTS,
//! batch]`, followed by the wide arrays that [`Wanted`](super::spec::Wanted) selects, in the order of its fields. A
//! program returns wide logits as bits of their type, so no conversion can change them.

use crate::batch::CallOptions;
use crate::dtype::Dtype;
use crate::semantics::params::RowParams;

/// The columns of the parameter array, `i32 [batch, COLUMNS]`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Column {
    K,
    Greedy,
    Scale,
    TopPMantissa,
    TopPShift,
    MinWeight,
    Word0,
    Word1,
    Word2,
    Word3,
    Replace,
    Reach,
    /// The row of the caller's buffer; see [`Source::Buffer`](super::Source::Buffer).
    Row,
}

impl Column {
    /// The columns of the 128-bit random number, most significant word first.
    pub const WORDS: [Column; 4] = [Column::Word0, Column::Word1, Column::Word2, Column::Word3];
}

/// The width of the parameter array.
pub const COLUMNS: usize = Column::Row as usize + 1;

/// Returns one row of the parameter array.
pub fn pack_params(row: &RowParams, options: CallOptions, dtype: Dtype) -> [i32; COLUMNS] {
    let words = row.words.map(|word| word as i32);
    [
        row.k,
        i32::from(row.greedy),
        row.scale.to_bits() as i32,
        row.top_p.mantissa,
        row.top_p.shift,
        row.min_weight,
        words[0],
        words[1],
        words[2],
        words[3],
        dtype.round(options.replace_val) as i32,
        row.reach.to_bits() as i32,
        0,
    ]
}

/// Returns one row of the parameter array of [`embed`](super::embed), which has the seed and the offset in place of the
/// random words, low words first.
pub fn pack_seeds(
    row: &RowParams,
    seed: u64,
    offset: u64,
    options: CallOptions,
    dtype: Dtype,
) -> [i32; COLUMNS] {
    let words = [seed as u32, (seed >> 32) as u32, offset as u32, (offset >> 32) as u32];
    pack_params(&RowParams { words, ..*row }, options, dtype)
}

/// The rows of the first output, `i32 [RESULTS, batch]`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum ResultRow {
    NextToken,
    Greedy,
    RandomHigh,
    RandomLow,
    Status,
}

/// The height of the first output.
pub const RESULTS: usize = ResultRow::Status as usize + 1;
