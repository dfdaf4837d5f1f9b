//! The batch of the Rust interface: logits, the parameters of their rows, and the options of the call.

use crate::api::Error;
use crate::batch::{self, CallOptions, RandomSource, RowArguments};
use crate::dtype::Logits;
use crate::error::Error as InternalError;
use crate::plan::Entry;

/// Logits `[num_rows, vocab]`, the sampling parameters of their rows, and the options of the call.
///
/// A batch borrows its arrays. Each parameter array has one element per row. Without an array, every row has the
/// default. The arrays are checked when the batch is sampled: an array of another length makes the call fail. An
/// impossible value can affect only its own row: see
/// [`Sampler::sample_with_status`](crate::Sampler::sample_with_status).
///
/// ```
/// use nucleus::{Batch, Sampler};
///
/// let sampler = Sampler::builder().num_threads(1).build()?;
/// // Two requests, a vocabulary of four tokens, bfloat16 logits.
/// let logits = [0.1, 2.0, -1.0, 1.9, 5.0, 0.0, 4.0, 0.0].map(nucleus::bf16::from_f32);
/// let batch = Batch::new(&logits, 4)?
///     .temperature(&[0.7, 0.0]) // The second row is greedy.
///     .top_k(&[3, 0])
///     .top_p(&[0.95, 1.0])
///     .seed(&[17, 18])
///     .offset(&[0, 0]); // The number of the step.
/// let tokens = sampler.sample(&batch)?;
/// assert!([0, 1, 3].contains(&tokens[0]) && tokens[1] == 0);
///
/// // A token is a function of its row, its parameters and its random words.
/// assert_eq!(sampler.sample(&batch)?, tokens);
/// # Ok::<(), nucleus::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Batch<'a> {
    pub(super) logits: Logits<'a>,
    pub(super) num_rows: usize,
    pub(super) vocab: usize,
    row_stride: usize,
    arguments: RowArguments<'a>,
    random_words: Option<&'a [[u32; 4]]>,
    seed: Option<&'a [u64]>,
    offset: Option<&'a [u64]>,
    options: CallOptions,
    pub(super) path: Entry,
}

impl<'a> Batch<'a> {
    /// A batch of dense rows: `logits` has `vocab` elements per row, and their number is the number of rows times
    /// `vocab`. The logits are a slice of `f32`, [`bf16`](crate::bf16) or [`f16`](crate::f16), or [`Logits`].
    ///
    /// Every value is allowed: NaN counts as −inf, and +inf as the largest finite f32. An empty slice is a batch
    /// without rows.
    ///
    /// Errors: [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if `vocab` is 0 or above 16,777,216, or if the
    /// length of `logits` is not a multiple of it.
    pub fn new(logits: impl Into<Logits<'a>>, vocab: usize) -> Result<Batch<'a>, Error> {
        let logits = logits.into();
        batch::check_vocab(vocab)?;
        if logits.len() % vocab != 0 {
            return Err(InternalError::named_argument(
                "logits",
                format!("logits has {} elements; it must have a multiple of vocab = {vocab}", logits.len()),
            )
            .into());
        }
        Batch::strided(logits, logits.len() / vocab, vocab, vocab)
    }

    /// A batch whose rows start `row_stride` elements apart. The elements between two rows are ignored. `logits` has
    /// `(num_rows − 1) · row_stride + vocab` elements, or none if `num_rows` is 0.
    ///
    /// Errors: [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the length is another one, if `row_stride` is
    /// below `vocab`, or if `vocab` is 0 or above 16,777,216.
    pub fn strided(
        logits: impl Into<Logits<'a>>,
        num_rows: usize,
        vocab: usize,
        row_stride: usize,
    ) -> Result<Batch<'a>, Error> {
        let (logits, options) = (logits.into(), CallOptions::default());
        let row_stride = batch::Batch::check_shape(logits, num_rows, vocab, row_stride, options)?;
        Ok(Batch {
            logits,
            num_rows,
            vocab,
            row_stride,
            arguments: RowArguments::default(),
            random_words: None,
            seed: None,
            offset: None,
            options,
            path: Entry::Automatic,
        })
    }

    /// Top-k: exactly k entries of the row survive; the lower index wins a tie. 0 or less, or at least `vocab`: off.
    /// Default: off.
    pub fn top_k(mut self, top_k: &'a [i32]) -> Self {
        self.arguments.k = Some(top_k);
        self
    }

    /// Top-p: entries survive in descending order of weight until the sum of their weights is at least p times the
    /// total of the entries that top-k kept. Ties with the last of them survive too. 1 or more: off. 0 or less: only
    /// the maximum and its ties survive. NaN is impossible. Default: off.
    pub fn top_p(mut self, top_p: &'a [f32]) -> Self {
        self.arguments.p = Some(top_p);
        self
    }

    /// Min-p: entries whose weight is at least min_p times the largest weight survive. 0 or less: off. A value above 1
    /// counts as 1. NaN is impossible. Default: off.
    pub fn min_p(mut self, min_p: &'a [f32]) -> Self {
        self.arguments.min_p = Some(min_p);
        self
    }

    /// The temperature, finite and at least 0; other values are impossible. Below 1e-5 the row is greedy: its token is
    /// the maximum. Default: 1.
    pub fn temperature(mut self, temperature: &'a [f32]) -> Self {
        self.arguments.temperature = Some(temperature);
        self
    }

    /// The seed of each row's random words, which are Philox4x32-10 with key = seed and counter = (offset, 0).
    /// Default: 0.
    pub fn seed(mut self, seed: &'a [u64]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The offset of each row's random words. The same seed and offset give the same words, so change the offset at
    /// every step, for example to the number of the step. Default: 0.
    pub fn offset(mut self, offset: &'a [u64]) -> Self {
        self.offset = Some(offset);
        self
    }

    /// One 128-bit random number per row as four words, the most significant word first. It replaces
    /// [`seed`](Batch::seed) and [`offset`](Batch::offset); a batch with both makes the call fail.
    pub fn random_words(mut self, random_words: &'a [[u32; 4]]) -> Self {
        self.random_words = Some(random_words);
        self
    }

    /// Whether top-k keeps every entry that ties with its threshold, which can be more than k. Default: no.
    pub fn keep_ties(mut self, keep_ties: bool) -> Self {
        self.options.stable = !keep_ties;
        self
    }

    /// The value of `topk_logits_unsorted` and `topk_logits_k` where top-k removed the entry, rounded to the type of
    /// the logits. It must not be NaN. Default: −1e12.
    pub fn replace_val(mut self, replace_val: f32) -> Self {
        self.options.replace_val = replace_val;
        self
    }

    /// The path of all rows. It does not change the results. Default: [`Path::Automatic`](crate::Path::Automatic),
    /// which selects a path for each row.
    pub fn path(mut self, path: Entry) -> Self {
        self.path = path;
        self
    }

    /// The number of rows.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// The number of elements per row.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Checks the arrays and derives the parameters of the rows.
    pub(super) fn checked(&self) -> Result<batch::Batch<'a>, InternalError> {
        let has_seed_or_offset = self.seed.is_some() || self.offset.is_some();
        RandomSource::check_only_one(self.random_words.is_some(), has_seed_or_offset)?;
        let random = match self.random_words {
            Some(words) => RandomSource::Words(words.as_flattened()),
            None => RandomSource::Seeds { seed: self.seed, offset: self.offset },
        };
        let arguments = RowArguments { random, ..self.arguments };
        batch::Batch::new(self.logits, self.num_rows, self.vocab, self.row_stride, &arguments, self.options)
    }
}
