//! The kernels, one file each, written per input shape for the device that runs them.
//!
//! What a kernel must agree on with every other is in `src/semantics`; here are only the loops, the memory
//! traffic and the searches of each target.

pub mod stablehlo;
mod target;
pub mod tpu;

pub use target::{Chip, Target};

use serde::{Deserialize, Serialize};

use crate::batch::CallOptions;
use crate::dtype::Dtype;
use crate::semantics::params::RowParams;
use crate::semantics::weights::FACTORS;

/// Which algorithm a kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Path {
    /// Any k up to the vocabulary, by searching thresholds over the whole row.
    Arbitrary,
    /// Every k at most this many slots, by dividing the row and filtering.
    Bounded(usize),
}

/// The wide arrays that a program returns besides the five numbers a row; each costs memory traffic, so they are
/// part of what a program is compiled for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// `topk_logits_unsorted`.
    pub topk_logits: bool,
    /// `topk_topp_unnorm_probs_i32_unsorted`.
    pub weights: bool,
    /// The bounded path's k-slices.
    pub slices: bool,
}

/// Everything that a program is written for. k, p, temperature, seeds and the replace value are inputs, so
/// changing them never compiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// The algorithm.
    pub path: Path,
    /// Rows, a bucket size.
    pub batch: usize,
    /// Elements of a row.
    pub vocab: usize,
    /// Of the logits.
    pub dtype: Dtype,
    /// Ties at the top-k threshold by lowest index; otherwise all stay.
    pub stable: bool,
    /// Wide outputs.
    pub wanted: Wanted,
}

impl Spec {
    /// A name for logs and for the module, made of what the program is written for.
    pub fn name(&self) -> String {
        let path = match self.path {
            Path::Arbitrary => "arbitrary".to_owned(),
            Path::Bounded(max_k) => format!("bounded{max_k}"),
        };
        let dtype = match self.dtype {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        };
        let flags = [
            (!self.stable, "_unstable"),
            (self.wanted.topk_logits, "_logits"),
            (self.wanted.weights, "_weights"),
            (self.wanted.slices, "_slices"),
        ];
        let flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
        format!("nucleus_{path}_{}x{}_{dtype}{flags}", self.batch, self.vocab)
    }
}

/// The text of the program for a spec: StableHLO, with the target's own kernels inside where it has them. Programs take
/// and return the same arrays whatever the target.
pub fn emit(spec: &Spec, target: &Target) -> String {
    match target {
        Target::Tpu(chip) if tpu::supports(spec) => tpu::emit(spec, chip),
        Target::Tpu(chip) => {
            log::warn!(
                "{} is larger than the kernels for {} are made for: it runs the portable program",
                spec.name(),
                chip.name
            );
            stablehlo::emit(spec)
        }
        Target::Portable => stablehlo::emit(spec),
    }
}

/// The kernel inside the program for a spec, as readable MLIR; `None` where the program is StableHLO alone.
pub fn kernel_text(spec: &Spec, target: &Target) -> Option<String> {
    match target {
        Target::Tpu(chip) if tpu::supports(spec) => Some(tpu::kernel_text(spec, chip)),
        Target::Portable | Target::Tpu(_) => None,
    }
}

/// Columns of the parameter array, `i32 [batch, COLUMNS]`.
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
    /// The first of [`FACTORS`], as bits; the others follow.
    Factors,
}

/// Width of the parameter array.
pub const COLUMNS: usize = Column::Factors as usize + FACTORS.len();

/// One row of the parameter array.
pub fn pack_params(row: &RowParams, options: CallOptions, dtype: Dtype) -> [i32; COLUMNS] {
    let words = row.words.map(|word| word as i32);
    let factors = FACTORS.map(|factor| factor.to_bits() as i32);
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
        factors[0],
        factors[1],
        factors[2],
    ]
}

/// Rows of the first output, `i32 [RESULTS, batch]`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum ResultRow {
    NextToken,
    Greedy,
    RandomHigh,
    RandomLow,
    Status,
}

/// Height of the first output.
pub const RESULTS: usize = ResultRow::Status as usize + 1;
