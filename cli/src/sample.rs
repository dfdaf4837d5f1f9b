//! The command `nucleus sample`: samples the rows of a file of logits.

use std::path::Path;
use std::time::Instant;

use nucleus::batch::{Batch, CallOptions, RandomSource, RowArguments};
use nucleus::dtype::{Dtype, LogitsMut};
use nucleus::outputs::{Outputs, RowArrays, ROW_BAD_PARAMETER, ROW_HAD_INF, ROW_HAD_NAN, ROW_NO_CANDIDATE};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use serde_json::json;

use crate::arguments::Sample;
use crate::debug_file::{DebugFile, Values};
use crate::logits_file::LogitsFile;
use crate::{print_line, Result};

/// The bits of a row's status, with their meanings.
const STATUSES: [(u32, &str); 4] = [
    (ROW_NO_CANDIDATE, "no candidate"),
    (ROW_HAD_NAN, "had a NaN"),
    (ROW_HAD_INF, "had a +inf"),
    (ROW_BAD_PARAMETER, "impossible parameter"),
];

pub(crate) fn run(arguments: &Sample, json: bool) -> Result<()> {
    let file = LogitsFile::read(&arguments.logits, arguments.tensor.as_deref())?;
    let (rows, vocab) = (file.rows, file.vocab);
    let top_k = per_row("--top-k", &arguments.top_k, rows)?;
    let top_p = per_row("--top-p", &arguments.top_p, rows)?;
    let min_p = per_row("--min-p", &arguments.min_p, rows)?;
    let temperature = per_row("--temperature", &arguments.temperature, rows)?;
    let seed = per_row("--seed", &arguments.seed, rows)?;
    let offset = per_row("--offset", &arguments.offset, rows)?;
    let batch = Batch::new(
        file.logits(),
        rows,
        vocab,
        0,
        &RowArguments {
            k: top_k.as_deref(),
            p: top_p.as_deref(),
            min_p: min_p.as_deref(),
            temperature: temperature.as_deref(),
            random: RandomSource::Seeds { seed: seed.as_deref(), offset: offset.as_deref() },
        },
        CallOptions { stable: !arguments.keep_ties, replace_val: arguments.replace_val },
    )
    .map_err(|error| error.to_string())?;

    let sampler = Sampler::new(&SamplerOptions {
        // NUCLEUS_PJRT_PLUGIN does not select the backend here: the results are the same, and compiling takes seconds.
        backend: if arguments.plugin.is_some() { BackendChoice::Pjrt } else { BackendChoice::Builtin },
        plugin: arguments.plugin.clone(),
        max_k: arguments.max_k,
        ..SamplerOptions::default()
    })
    .map_err(|error| error.to_string())?;

    let mut arrays =
        Arrays::new(file.logits().dtype(), rows, vocab, slots(arguments), arguments.debug.is_some());
    let begin = Instant::now();
    sampler
        .sample(arguments.path.entry(), &batch, &mut arrays.outputs())
        .map_err(|error| error.to_string())?;
    let elapsed = begin.elapsed();

    if let Some(path) = &arguments.debug {
        arrays.write(path).map_err(|message| format!("{}: {message}", path.display()))?;
    }
    let (platform, description, _) = sampler.platform();
    if json {
        return print_line(
            &json!({
                "rows": rows,
                "vocab": vocab,
                "dtype": arrays.dtype_name(),
                "platform": platform,
                "platform_version": description,
                "microseconds": elapsed.as_secs_f64() * 1e6,
                "tokens": arrays.tokens,
                "row_status": arrays.row_status,
            })
            .to_string(),
        );
    }
    for (row, (token, &status)) in arrays.tokens.iter().zip(&arrays.row_status).enumerate() {
        let words: Vec<&str> =
            STATUSES.into_iter().filter(|(bit, _)| status & bit != 0).map(|(_, word)| word).collect();
        let words = if words.is_empty() { String::new() } else { format!("  ({})", words.join(", ")) };
        print_line(&format!("{row:>6}  {token:>8}{words}"))?;
    }
    Ok(())
}

/// The number of slots of the k-slices, or 0 if the call has none. Only the bounded path has them.
fn slots(arguments: &Sample) -> usize {
    match arguments.debug.is_some() && arguments.path.is_bounded() {
        true => arguments.max_k,
        false => 0,
    }
}

/// Repeats a single value for each row. `None` if the user gave no value.
fn per_row<T: Copy>(flag: &str, values: &[T], rows: usize) -> Result<Option<Vec<T>>> {
    match values {
        [] => Ok(None),
        [value] => Ok(Some(vec![*value; rows])),
        values if values.len() == rows => Ok(Some(values.to_vec())),
        values => Err(format!(
            "{flag} has {} values; it must have one, or one for each of the {rows} rows",
            values.len()
        )),
    }
}

/// Logits that a call writes.
enum LogitsArray {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F16(Vec<u16>),
}

impl LogitsArray {
    fn new(dtype: Dtype, len: usize) -> LogitsArray {
        match dtype {
            Dtype::F32 => LogitsArray::F32(vec![0.0; len]),
            Dtype::Bf16 => LogitsArray::Bf16(vec![0; len]),
            Dtype::F16 => LogitsArray::F16(vec![0; len]),
        }
    }

    fn as_mut(&mut self) -> LogitsMut<'_> {
        match self {
            LogitsArray::F32(elements) => LogitsMut::F32(elements),
            LogitsArray::Bf16(elements) => LogitsMut::Bf16(elements),
            LogitsArray::F16(elements) => LogitsMut::F16(elements),
        }
    }

    fn values(&self) -> Values<'_> {
        match self {
            LogitsArray::F32(elements) => Values::F32(elements),
            LogitsArray::Bf16(elements) => Values::Bf16(elements),
            LogitsArray::F16(elements) => Values::F16(elements),
        }
    }
}

/// The output arrays of a call. The debug arrays are empty if they are not wanted.
struct Arrays {
    rows: usize,
    vocab: usize,
    slots: usize,
    debug: bool,
    tokens: Vec<i32>,
    row_status: Vec<u32>,
    greedy_sampled: Vec<i32>,
    topk_logits: LogitsArray,
    weights: Vec<i32>,
    random_high: Vec<u32>,
    random_low: Vec<u32>,
    next_tokens: Vec<i32>,
    indices_k: Vec<i32>,
    topk_logits_k: LogitsArray,
    weights_k: Vec<i32>,
}

impl Arrays {
    fn new(dtype: Dtype, rows: usize, vocab: usize, slots: usize, debug: bool) -> Arrays {
        let (debug_rows, wide, sliced) = if debug { (rows, rows * vocab, rows * slots) } else { (0, 0, 0) };
        Arrays {
            rows,
            vocab,
            slots,
            debug,
            tokens: vec![0; rows],
            row_status: vec![0; rows],
            greedy_sampled: vec![0; debug_rows],
            topk_logits: LogitsArray::new(dtype, wide),
            weights: vec![0; wide],
            random_high: vec![0; debug_rows],
            random_low: vec![0; debug_rows],
            next_tokens: vec![0; debug_rows],
            indices_k: vec![0; sliced],
            topk_logits_k: LogitsArray::new(dtype, sliced),
            weights_k: vec![0; sliced],
        }
    }

    fn outputs(&mut self) -> Outputs<'_> {
        let mut outputs = Outputs {
            tokens: Some(&mut self.tokens),
            row_status: Some(&mut self.row_status),
            ..Outputs::default()
        };
        if self.debug {
            outputs.greedy_sampled = Some(&mut self.greedy_sampled);
            outputs.random_high = Some(&mut self.random_high);
            outputs.random_low = Some(&mut self.random_low);
            outputs.next_tokens = Some(&mut self.next_tokens);
            outputs.wide = RowArrays {
                topk_logits: Some(self.topk_logits.as_mut()),
                weights: Some(&mut self.weights),
                ..RowArrays::default()
            };
        }
        if self.slots > 0 {
            outputs.wide.indices_k = Some(&mut self.indices_k);
            outputs.wide.topk_logits_k = Some(self.topk_logits_k.as_mut());
            outputs.wide.weights_k = Some(&mut self.weights_k);
        }
        outputs
    }

    fn dtype_name(&self) -> &'static str {
        match self.topk_logits {
            LogitsArray::F32(_) => "f32",
            LogitsArray::Bf16(_) => "bf16",
            LogitsArray::F16(_) => "f16",
        }
    }

    /// Writes all arrays to an `.npz` file. Their names are those of the fields of `nuc_debug_arrays`.
    fn write(&self, path: &Path) -> Result<()> {
        let (rows, wide) = (&[self.rows][..], &[self.rows, self.vocab][..]);
        let mut file = DebugFile::create(path)?;
        file.add("tokens", rows, Values::I32(&self.tokens))?;
        file.add("row_status", rows, Values::U32(&self.row_status))?;
        file.add("greedy_sampled", rows, Values::I32(&self.greedy_sampled))?;
        file.add("topk_logits_unsorted", wide, self.topk_logits.values())?;
        file.add("topk_topp_unnorm_probs_i32_unsorted", wide, Values::I32(&self.weights))?;
        file.add("random_unnorm_cdf_sampled_high", rows, Values::U32(&self.random_high))?;
        file.add("random_unnorm_cdf_sampled_low", rows, Values::U32(&self.random_low))?;
        file.add("next_tokens", rows, Values::I32(&self.next_tokens))?;
        if self.slots > 0 {
            let sliced = &[self.rows, self.slots][..];
            file.add("topk_indices_k", sliced, Values::I32(&self.indices_k))?;
            file.add("topk_logits_k", sliced, self.topk_logits_k.values())?;
            file.add("topk_topp_unnorm_probs_i32_k", sliced, Values::I32(&self.weights_k))?;
        }
        file.finish()
    }
}
