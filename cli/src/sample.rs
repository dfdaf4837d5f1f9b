//! The command `nucleus sample`: samples the rows of a file of logits.

use std::path::Path;
use std::time::Instant;

use nucleus::{Backend, Batch, DebugArrays, RowStatus, Sampler};
use serde_json::json;

use crate::arguments::Sample;
use crate::debug_file::{DebugFile, Values};
use crate::logits_file::LogitsFile;
use crate::{print_line, Result};

pub(crate) fn run(arguments: &Sample, json: bool) -> Result<()> {
    let file = LogitsFile::read(&arguments.logits, arguments.tensor.as_deref())?;
    let rows = file.rows;
    let top_k = per_row("--top-k", &arguments.top_k, rows)?;
    let top_p = per_row("--top-p", &arguments.top_p, rows)?;
    let min_p = per_row("--min-p", &arguments.min_p, rows)?;
    let temperature = per_row("--temperature", &arguments.temperature, rows)?;
    let seed = per_row("--seed", &arguments.seed, rows)?;
    let offset = per_row("--offset", &arguments.offset, rows)?;
    let batch = Batch::new(&file.logits, file.vocab)
        .map_err(|error| error.to_string())?
        .top_k(&top_k)
        .top_p(&top_p)
        .min_p(&min_p)
        .temperature(&temperature)
        .seed(&seed)
        .offset(&offset)
        .keep_ties(arguments.keep_ties)
        .replace_val(arguments.replace_val)
        .path(arguments.path.entry());

    // Without --plugin, the command uses the built-in backend even if NUCLEUS_PJRT_PLUGIN is set. The results are the
    // same, and a plugin needs seconds to compile the program.
    let mut options = Sampler::builder().backend(Backend::Builtin).max_k(arguments.max_k);
    if let Some(plugin) = &arguments.plugin {
        options = options.backend(Backend::Pjrt).plugin_path(plugin);
    }
    let sampler = options.build().map_err(|error| error.to_string())?;
    let begin = Instant::now();
    let (tokens, row_status, debug) = match arguments.debug {
        None => sampler.sample_with_status(&batch).map(|sampled| (sampled.tokens, sampled.row_status, None)),
        Some(_) => sampler
            .sample_debug(&batch)
            .map(|debug| (debug.tokens.clone(), debug.row_status.clone(), Some(debug))),
    }
    .map_err(|error| error.to_string())?;
    let elapsed = begin.elapsed();

    if let (Some(path), Some(arrays)) = (&arguments.debug, &debug) {
        write(path, arrays, file.vocab, arguments.max_k)
            .map_err(|message| format!("{} cannot be written: {message}", path.display()))?;
    }
    let (platform, description) = sampler.platform();
    if json {
        print_line(
            &json!({
                "rows": rows,
                "vocab": file.vocab,
                "dtype": file.logits.dtype().name(),
                "platform": platform,
                "platform_version": description,
                "microseconds": elapsed.as_secs_f64() * 1e6,
                "tokens": tokens,
                "row_status": row_status.iter().map(|status| status.bits()).collect::<Vec<_>>(),
            })
            .to_string(),
        )?;
    } else {
        for (row, (token, &status)) in tokens.iter().zip(&row_status).enumerate() {
            let words = words(status);
            let words = if words.is_empty() { words } else { format!("  ({words})") };
            print_line(&format!("{row:>6}  {token:>8}{words}"))?;
        }
    }
    if row_status.iter().any(|status| status.bad_parameter()) {
        // A call without statuses fails, and its error names the parameter and the row.
        sampler.sample(&batch).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Describes the status of a row. Returns an empty string for a normal row.
fn words(status: RowStatus) -> String {
    let words = [
        (status.no_candidate(), "no candidate"),
        (status.had_nan(), "had a NaN"),
        (status.had_inf(), "had a +inf"),
        (status.bad_parameter(), "impossible parameter"),
    ];
    let set: Vec<&str> = words.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word).collect();
    set.join(", ")
}

/// Returns one value for each row. If there is only one value, all rows have this value.
fn per_row<T: Copy>(flag: &str, values: &[T], rows: usize) -> Result<Vec<T>> {
    match values {
        [value] => Ok(vec![*value; rows]),
        values if values.len() == rows => Ok(values.to_vec()),
        values => Err(format!(
            "{flag} has {} values; it must have one, or one for each of the {rows} rows",
            values.len()
        )),
    }
}

/// Writes all arrays to an `.npz` file. Each array has the name of its field in `nuc_debug_arrays`.
fn write(path: &Path, arrays: &DebugArrays, vocab: usize, max_k: usize) -> Result<()> {
    let count = arrays.tokens.len();
    let (rows, wide) = (&[count][..], &[count, vocab][..]);
    let status: Vec<u32> = arrays.row_status.iter().map(|status| status.bits()).collect();
    let mut file = DebugFile::create(path)?;
    file.add("tokens", rows, Values::I32(&arrays.tokens))?;
    file.add("row_status", rows, Values::U32(&status))?;
    file.add("greedy_sampled", rows, Values::I32(&arrays.greedy_sampled))?;
    file.add("topk_logits_unsorted", wide, Values::Logits(&arrays.topk_logits_unsorted))?;
    let probs = &arrays.topk_topp_unnorm_probs_i32_unsorted;
    file.add("topk_topp_unnorm_probs_i32_unsorted", wide, Values::I32(probs))?;
    let [high, low] = [&arrays.random_unnorm_cdf_sampled_high, &arrays.random_unnorm_cdf_sampled_low];
    file.add("random_unnorm_cdf_sampled_high", rows, Values::U32(high))?;
    file.add("random_unnorm_cdf_sampled_low", rows, Values::U32(low))?;
    file.add("next_tokens", rows, Values::I32(&arrays.next_tokens))?;
    if let Some(slices) = &arrays.k_slices {
        let sliced = &[count, max_k][..];
        file.add("topk_indices_k", sliced, Values::I32(&slices.topk_indices_k))?;
        file.add("topk_logits_k", sliced, Values::Logits(&slices.topk_logits_k))?;
        file.add("topk_topp_unnorm_probs_i32_k", sliced, Values::I32(&slices.topk_topp_unnorm_probs_i32_k))?;
    }
    file.finish()
}
