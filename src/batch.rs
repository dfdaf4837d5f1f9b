//! A batch to sample: logits and the checked parameters of their rows.

use crate::dtype::Logits;
use crate::error::Error;
use crate::memory;
use crate::semantics::params::{check_row, RowParams};
use crate::semantics::{philox, sizes};

/// The largest vocabulary. With a longer row, the total of the weights could exceed
/// 2^[`TOTAL_BITS`](sizes::TOTAL_BITS).
pub const LARGEST_VOCAB: usize = 1 << sizes::VOCAB_BITS;

/// Checks the number of elements per row.
pub fn check_vocab(vocab: usize) -> Result<(), Error> {
    if vocab == 0 || vocab > LARGEST_VOCAB {
        return Err(Error::named_argument(
            "vocab",
            format!("vocab is {vocab}; it must be 1 to {LARGEST_VOCAB}"),
        ));
    }
    Ok(())
}

/// Options of a sampling call, for all of its rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallOptions {
    /// If true, top-k keeps exactly k entries, and the lower index wins a tie at the threshold. If false, top-k keeps
    /// all entries that tie with the threshold.
    pub stable: bool,
    /// The value of `topk_logits_unsorted` for entries that top-k removed. It must not be NaN.
    pub replace_val: f32,
}

impl CallOptions {
    /// Checks the replace value.
    pub fn check(&self) -> Result<(), Error> {
        if self.replace_val.is_nan() {
            return Err(Error::named_argument(
                "replace_val",
                "replace_val is NaN; it must be a number or an infinity",
            ));
        }
        Ok(())
    }
}

impl Default for CallOptions {
    fn default() -> Self {
        CallOptions { stable: true, replace_val: -1e12 }
    }
}

/// The parameter arrays of a batch, one element per row. `None` means that every row has the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowArguments<'a> {
    /// Top-k. Default: off.
    pub k: Option<&'a [i32]>,
    /// Top-p. Default: 1, off.
    pub p: Option<&'a [f32]>,
    /// Min-p. Default: 0, off.
    pub min_p: Option<&'a [f32]>,
    /// Temperature. Default: 1.
    pub temperature: Option<&'a [f32]>,
    /// The source of the random words.
    pub random: RandomSource<'a>,
}

/// The sampling parameters of one row, before they are checked. The default value turns every filter off, and has
/// temperature 1, seed 0 and offset 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowSettings {
    /// Top-k; 0 or less turns it off.
    pub top_k: i32,
    /// Top-p; 1 or more turns it off.
    pub top_p: f32,
    /// Min-p; 0 or less turns it off.
    pub min_p: f32,
    /// The temperature, finite and at least 0. Below 1e-5 the row is greedy.
    pub temperature: f32,
    /// The seed of the row's random words: the key of Philox.
    pub seed: u64,
    /// The offset of the row's random words: the counter of Philox. A call on the device adds its step to the offset.
    pub offset: u64,
}

impl Default for RowSettings {
    fn default() -> Self {
        RowSettings { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0, seed: 0, offset: 0 }
    }
}

impl RowSettings {
    /// Returns the parameters of the row with index `row`, or an error if they are impossible.
    pub(crate) fn params(&self, row: usize, words: [u32; 4], vocab: usize) -> Result<RowParams, Error> {
        let RowSettings { top_k, top_p, min_p, temperature, .. } = *self;
        check_row(top_p, min_p, temperature).map_err(|(name, value, right)| {
            Error::row_argument(name, row, format!("{name}[{row}] is {value:?}; it must be {right}"))
        })?;
        Ok(RowParams::new(top_k, top_p, min_p, temperature, words, vocab))
    }
}

/// The source of the 128-bit random number of each row.
#[derive(Clone, Copy, Debug)]
pub enum RandomSource<'a> {
    /// Four words per row, the most significant first.
    Words(&'a [u32]),
    /// The random words are Philox4x32-10 of one seed and one offset per row. `None` means 0 in every row.
    Seeds {
        /// The key.
        seed: Option<&'a [u64]>,
        /// The counter.
        offset: Option<&'a [u64]>,
    },
}

impl RandomSource<'_> {
    /// Checks that a caller does not set both sources. `words` says whether the caller sets the words.
    /// `seed_or_offset` says whether the caller sets the seed or the offset.
    pub(crate) fn check_only_one(words: bool, seed_or_offset: bool) -> Result<(), Error> {
        match words && seed_or_offset {
            true => Err(Error::named_argument(
                "random_words",
                "random_words is set, and seed or offset too; set only random_words, or only seed and offset",
            )),
            false => Ok(()),
        }
    }
}

impl Default for RandomSource<'_> {
    fn default() -> Self {
        RandomSource::Seeds { seed: None, offset: None }
    }
}

impl RowArguments<'_> {
    /// Checks the lengths of the arrays.
    fn check_lengths(&self, num_rows: usize) -> Result<(), Error> {
        let (words, seed, offset) = match self.random {
            RandomSource::Words(words) => (Some(words.len()), None, None),
            RandomSource::Seeds { seed, offset } => (None, seed.map(<[_]>::len), offset.map(<[_]>::len)),
        };
        let lengths = [
            ("top_k", self.k.map(<[_]>::len), 1),
            ("top_p", self.p.map(<[_]>::len), 1),
            ("min_p", self.min_p.map(<[_]>::len), 1),
            ("temperature", self.temperature.map(<[_]>::len), 1),
            ("random_words", words, 4),
            ("seed", seed, 1),
            ("offset", offset, 1),
        ];
        for (name, length, per_row) in lengths {
            let wanted = num_rows.saturating_mul(per_row);
            if let Some(length) = length.filter(|&length| length != wanted) {
                return Err(Error::named_argument(
                    name,
                    format!("{name} has {length} elements; a batch of {num_rows} rows needs {wanted}"),
                ));
            }
        }
        Ok(())
    }

    /// Returns the settings of a row. The seed and the offset are 0 if the caller passes random words.
    pub(crate) fn settings(&self, row: usize) -> RowSettings {
        let defaults = RowSettings::default();
        let (seed, offset) = match self.random {
            RandomSource::Words(_) => (None, None),
            RandomSource::Seeds { seed, offset } => (seed, offset),
        };
        RowSettings {
            top_k: at(self.k, row, defaults.top_k),
            top_p: at(self.p, row, defaults.top_p),
            min_p: at(self.min_p, row, defaults.min_p),
            temperature: at(self.temperature, row, defaults.temperature),
            seed: at(seed, row, defaults.seed),
            offset: at(offset, row, defaults.offset),
        }
    }

    /// The parameters of a row, or the error if they are impossible.
    fn params(&self, row: usize, vocab: usize) -> Result<RowParams, Error> {
        let settings = self.settings(row);
        let words = match self.random {
            RandomSource::Words(words) => std::array::from_fn(|i| words[row * 4 + i]),
            RandomSource::Seeds { .. } => philox::random_words(settings.seed, settings.offset),
        };
        settings.params(row, words, vocab)
    }
}

fn at<T: Copy>(array: Option<&[T]>, row: usize, default: T) -> T {
    array.map_or(default, |array| array[row])
}

/// Logits and the parameters of their rows. All arguments were checked. Rows with impossible parameters are listed.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    logits: Logits<'a>,
    vocab: usize,
    row_stride: usize,
    rows: Vec<RowParams>,
    bad_rows: BadRows,
    options: CallOptions,
}

/// The rows of a batch that cannot be sampled because a parameter is impossible.
#[derive(Clone, Debug, Default)]
pub(crate) struct BadRows {
    /// The indices of the rows, ascending.
    rows: Vec<usize>,
    /// The error of the first of these rows. `None` if there are no such rows.
    error: Option<Error>,
}

impl BadRows {
    /// Adds a row. Its index must be greater than that of every row added before. `num_rows` is the number of rows of
    /// the batch.
    pub(crate) fn add(
        &mut self,
        row: usize,
        num_rows: usize,
        error: impl FnOnce() -> Error,
    ) -> Result<(), Error> {
        if self.error.is_none() {
            self.rows = memory::with_capacity(num_rows - row, "the list of rows with impossible parameters")?;
            self.error = Some(error());
        }
        self.rows.push(row);
        Ok(())
    }

    /// The indices of the rows, ascending.
    pub(crate) fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// The error of the first of these rows. `None` if there are no such rows.
    pub(crate) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

impl<'a> Batch<'a> {
    /// Checks the caller's arguments and derives each row's parameters and random words.
    ///
    /// `logits` has `(num_rows − 1) · row_stride + vocab` elements. A `row_stride` of 0 means `vocab`.
    ///
    /// Errors: [`Error::InvalidArgument`], which names the argument, and [`Error::OutOfMemory`]. A row with impossible
    /// parameters is not an error here; [`Sampler::sample`](crate::sampler::Sampler::sample) decides about it.
    pub fn new(
        logits: Logits<'a>,
        num_rows: usize,
        vocab: usize,
        row_stride: usize,
        arguments: &RowArguments<'_>,
        options: CallOptions,
    ) -> Result<Batch<'a>, Error> {
        let row_stride = Batch::check_shape(logits, num_rows, vocab, row_stride, options)?;
        arguments.check_lengths(num_rows)?;
        let mut bad_rows = BadRows::default();
        let params = (0..num_rows).map(|row| {
            arguments.params(row, vocab).or_else(|error| {
                bad_rows.add(row, num_rows, || error)?;
                Ok(RowParams::skipped(vocab))
            })
        });
        let rows = memory::collected(num_rows, "the parameters of the rows", params)?;
        Ok(Batch { logits, vocab, row_stride, rows, bad_rows, options })
    }

    /// A batch of rows whose parameters were derived earlier, for the same vocabulary.
    pub fn from_params(
        logits: Logits<'a>,
        vocab: usize,
        row_stride: usize,
        rows: Vec<RowParams>,
        options: CallOptions,
    ) -> Result<Batch<'a>, Error> {
        let row_stride = Batch::check_shape(logits, rows.len(), vocab, row_stride, options)?;
        Ok(Batch { logits, vocab, row_stride, rows, bad_rows: BadRows::default(), options })
    }

    /// The same batch with another list of bad rows, whose parameters become [`RowParams::skipped`].
    pub(crate) fn with_bad_rows(&self, bad_rows: BadRows) -> Result<Batch<'a>, Error> {
        let params = self.rows.iter().copied().map(Ok);
        let mut rows: Vec<RowParams> = memory::collected(self.len(), "the parameters of the rows", params)?;
        for &row in bad_rows.rows() {
            rows[row] = RowParams::skipped(self.vocab);
        }
        Ok(Batch { rows, bad_rows, ..*self })
    }

    /// Checks all arguments except the parameters of the rows. Returns the row stride.
    pub(crate) fn check_shape(
        logits: Logits<'_>,
        num_rows: usize,
        vocab: usize,
        row_stride: usize,
        options: CallOptions,
    ) -> Result<usize, Error> {
        check_vocab(vocab)?;
        options.check()?;
        let row_stride = resolve_row_stride(row_stride, vocab)?;
        match num_elements(num_rows, vocab, row_stride) {
            Some(elements) if elements == logits.len() => Ok(row_stride),
            Some(elements) => Err(Error::named_argument("logits", format!(
                "logits has {} elements; {num_rows} rows of {vocab} at a row_stride of {row_stride} have {elements}",
                logits.len()
            ))),
            None => Err(Error::named_argument("logits", format!(
                "logits would be larger than the address space: {num_rows} rows at a row_stride of {row_stride}"
            ))),
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the batch has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The number of elements per row.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The logits of all rows: `(len − 1) · row_stride + vocab` elements.
    pub fn logits(&self) -> Logits<'a> {
        self.logits
    }

    /// The distance between the starts of two rows, in elements.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The parameters of the rows.
    pub fn rows(&self) -> &[RowParams] {
        &self.rows
    }

    /// The parameters of the rows, which the caller can change between two steps.
    pub fn rows_mut(&mut self) -> &mut [RowParams] {
        &mut self.rows
    }

    /// The rows with impossible parameters. Their entries in [`rows`](Batch::rows) are
    /// [`RowParams::skipped`].
    pub(crate) fn bad_rows(&self) -> &BadRows {
        &self.bad_rows
    }

    /// The options of the call.
    pub fn options(&self) -> CallOptions {
        self.options
    }

    /// The logits of one row.
    pub fn row(&self, row: usize) -> Logits<'a> {
        self.logits.slice(row * self.row_stride, self.vocab)
    }
}

/// The row stride in elements; the caller's 0 means dense rows.
pub fn resolve_row_stride(row_stride: usize, vocab: usize) -> Result<usize, Error> {
    match row_stride {
        0 => Ok(vocab),
        stride if stride < vocab => Err(Error::named_argument(
            "row_stride",
            format!("row_stride is {stride}; it must be 0 or at least vocab = {vocab}"),
        )),
        stride => Ok(stride),
    }
}

/// The number of elements of a logits array; `None` if it overflows.
pub fn num_elements(num_rows: usize, vocab: usize, row_stride: usize) -> Option<usize> {
    match num_rows {
        0 => Some(0),
        _ => (num_rows - 1).checked_mul(row_stride)?.checked_add(vocab),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 7] = [0.0; 7];

    fn batch(arguments: &RowArguments<'_>) -> Result<Vec<RowParams>, String> {
        let made = Batch::new(Logits::F32(&LOGITS), 2, 3, 4, arguments, CallOptions::default());
        made.map(|batch| batch.rows().to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_with_impossible_parameters_are_listed() {
        let temperature = [1.0, f32::NAN];
        let arguments = RowArguments { temperature: Some(&temperature), ..RowArguments::default() };
        let batch = Batch::new(Logits::F32(&LOGITS), 2, 3, 4, &arguments, CallOptions::default()).unwrap();
        assert_eq!(batch.bad_rows().rows(), [1]);
        assert_eq!(batch.rows()[1], RowParams::skipped(3));
        let Some(Error::InvalidArgument(wrong)) = batch.bad_rows().error() else { panic!("no error") };
        assert_eq!((wrong.argument, wrong.row), (Some("temperature"), Some(1)));
        assert!(wrong.message.contains("temperature[1] is NaN"), "{}", wrong.message);
    }

    #[test]
    fn rows_get_their_parameters() {
        let (k, seed) = ([2, 3], [5, 6]);
        let random = RandomSource::Seeds { seed: Some(&seed), offset: None };
        let rows = batch(&RowArguments { k: Some(&k), random, ..RowArguments::default() }).unwrap();
        assert_eq!((rows[0].k, rows[1].k), (2, 0));
        assert_eq!(rows[1].words, philox::random_words(6, 0));
        let words = [1, 2, 3, 4, 5, 6, 7, 8];
        let random = RandomSource::Words(&words);
        let rows = batch(&RowArguments { random, ..RowArguments::default() }).unwrap();
        assert_eq!(rows[1].words, [5, 6, 7, 8]);
    }

    #[test]
    fn wrong_arguments_are_named() {
        let message = |arguments: &RowArguments<'_>| batch(arguments).unwrap_err();
        let short = message(&RowArguments { p: Some(&[0.5]), ..RowArguments::default() });
        assert!(short.contains("top_p has 1 elements") && short.contains("needs 2"), "{short}");
        let words = RandomSource::Words(&[1, 2, 3, 4]);
        let short = message(&RowArguments { random: words, ..RowArguments::default() });
        assert!(short.contains("random_words has 4") && short.contains("needs 8"), "{short}");
        let shape = |rows, vocab, stride| {
            let arguments = RowArguments::default();
            Batch::new(Logits::F32(&LOGITS), rows, vocab, stride, &arguments, CallOptions::default())
                .unwrap_err()
                .to_string()
        };
        assert!(shape(2, 3, 2).contains("row_stride is 2"));
        assert!(shape(2, 0, 0).contains("vocab is 0"));
        assert!(shape(3, 3, 4).contains("logits has 7 elements"));
        assert!(shape(usize::MAX, 3, 4).contains("address space"));
    }
}
