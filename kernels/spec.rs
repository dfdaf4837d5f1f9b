//! The specification of a program.

use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;
pub use crate::outputs::Wanted;

/// The algorithm of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Path {
    /// Accepts any k up to the vocabulary. Searches thresholds over the whole row.
    Arbitrary,
    /// Accepts every k up to this number of slots. Filters the row to a few entries.
    Bounded(usize),
}

/// Where a program finds the rows that it samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// The logits are an array of exactly these rows, `[batch, vocab]`. The parameters contain the random words.
    #[default]
    Batch,
    /// The logits are a buffer of the caller, `[rows, vocab]`. The parameters contain seeds and offsets
    /// ([`pack_seeds`](super::pack_seeds)). Two more operands are scalars whose sum is the step. The program adds the
    /// step to the offsets. It also returns the tokens as a separate array. If the caller donates the logits, a wide
    /// array of the same size can use the memory of the logits.
    Buffer {
        /// The number of rows of the buffer.
        rows: usize,
        /// Whether the buffer has a middle dimension of length 1: `[rows, 1, vocab]`.
        singleton: bool,
        /// Whether the program samples all rows of the buffer in their order. Then `batch` equals `rows`. Otherwise
        /// [`Column::Row`](super::Column::Row) contains the index in the buffer of each row of the program.
        in_order: bool,
    },
}

/// Everything that determines the text of a program.
///
/// k, p, temperature, seeds and the replace value are inputs of the program, so other values need no new program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// The algorithm.
    pub path: Path,
    /// The number of rows, a bucket size.
    pub batch: usize,
    /// The number of elements per row.
    pub vocab: usize,
    /// The type of the logits.
    pub dtype: Dtype,
    /// Whether top-k keeps only the ties with the lowest indices. Otherwise it keeps every tie at its threshold.
    pub stable: bool,
    /// The wide arrays that the program returns.
    pub wanted: Wanted,
    /// Where the program finds the rows.
    #[serde(default)]
    pub source: Source,
}

impl Spec {
    /// Returns the name of the module. Logs use it too. It includes every field.
    pub fn name(&self) -> String {
        let path = match self.path {
            Path::Arbitrary => "arbitrary".to_owned(),
            Path::Bounded(max_k) => format!("bounded{max_k}"),
        };
        let dtype = self.dtype.name();
        let flags = [
            (!self.stable, "_unstable"),
            (self.wanted.topk_logits, "_logits"),
            (self.wanted.weights, "_weights"),
            (self.wanted.slices, "_slices"),
        ];
        let flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
        let source = match self.source {
            Source::Batch => String::new(),
            Source::Buffer { rows, singleton, in_order } => {
                let (singleton, in_order) =
                    (if singleton { "x1" } else { "" }, if in_order { "" } else { "_gathered" });
                format!("_of{rows}{singleton}{in_order}")
            }
        };
        format!("nucleus_{path}_{}x{}_{dtype}{flags}{source}", self.batch, self.vocab)
    }

    /// Whether the program returns the tokens as a separate array, after the numbers of the rows.
    pub fn returns_tokens(&self) -> bool {
        matches!(self.source, Source::Buffer { .. })
    }

    /// Returns the number of arrays that the program returns.
    pub fn num_outputs(&self) -> usize {
        let wanted = self.wanted;
        1 + usize::from(self.returns_tokens())
            + usize::from(wanted.topk_logits)
            + usize::from(wanted.weights)
            + 3 * usize::from(wanted.slices)
    }

    /// Returns the number of slots that a row can fill on the bounded path. This is the width of the k-slices. The
    /// result is 0 on the arbitrary path.
    pub fn slots(&self) -> usize {
        match self.path {
            Path::Bounded(max_k) => max_k.min(self.vocab),
            Path::Arbitrary => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_never_exceed_the_vocabulary() {
        let slots = |path| {
            let (dtype, wanted) = (Dtype::F32, Wanted::default());
            Spec { path, batch: 1, vocab: 100, dtype, stable: true, wanted, source: Source::Batch }.slots()
        };
        assert_eq!([Path::Bounded(64), Path::Bounded(128), Path::Arbitrary].map(slots), [64, 100, 0]);
    }
}
