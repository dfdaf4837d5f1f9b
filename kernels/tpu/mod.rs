//! Kernels for TPU cores, in Mosaic. Each kernel is part of a StableHLO program that PJRT compiles.
//!
//! A kernel processes one block of rows per grid step. A block usually has eight rows. It has one, two or four rows if
//! the batch is small, or if the rows have more than 2²⁰ entries. Then each row has several sublanes, called its
//! stripes. The kernel returns the outcome and the thresholds of each row. The StableHLO around the kernel computes the
//! wide arrays from the thresholds. It reads the logits once and writes each wide array once.
//!
//! Imports point in one direction. `a ← b` means that `b` imports `a`.
//!
//! ```text
//! layout ← stream ← context ← prefilter ← gather ← survivors ← dispatch ← bounded, arbitrary ← this file
//! context ← sampling ← multi_pass ← dispatch
//! context ← summaries ← prefilter, gather
//! prefilter, sampling ← total_bounds ← survivors
//! context ← interpolation ← prefilter, passes, multi_pass
//! context, summaries ← candidate_list ← passes ← multi_pass
//! context ← k_slices ← survivors, multi_pass, compaction
//! sampling ← compaction ← dispatch
//! context, prefilter ← results ← this file
//! context ← entry_words ← gather
//! keys ← lane_sums ← threshold_search
//! short_division ← sampling
//! ```
//!
//! Every file can import `keys`, `lane_sums`, `lane_sort`, `lane_stack` and `threshold_search`.

mod arbitrary;
mod bounded;
mod candidate_list;
mod compaction;
mod context;
mod dispatch;
mod entry_words;
mod gather;
mod interpolation;
mod k_slices;
mod keys;
mod lane_sort;
mod lane_stack;
mod lane_sums;
mod layout;
mod multi_pass;
mod passes;
mod prefilter;
mod results;
mod sampling;
mod short_division;
mod stream;
mod summaries;
mod survivors;
mod threshold_search;
mod total_bounds;

use super::program_arrays::{ResultRow, COLUMNS, RESULTS};
use super::spec::Spec;
use super::stablehlo::inputs::{self, Inputs};
use super::stablehlo::search::TopK;
use super::stablehlo::wide_outputs::{full_width, k_slices, Thresholds};
use super::target::Chip;
use crate::batch::LARGEST_VOCAB;
use crate::dtype::Dtype;
use crate::mlir::mosaic::{self, Kernel, LANES, SUBLANES};
use crate::mlir::stablehlo::{CallConfig, Elem, Hlo, Value};
use context::Context;
use dispatch::Stages;
use k_slices::{width_of_slices, KSlices};
use layout::{Layout, Residence};
use results::Lane;
use stream::LogitStream;

/// The largest number of slots of the bounded path. It limits the VMEM of the windows for the k-slices.
pub const LARGEST_SLOTS: usize = 8 * LANES;

/// Whether there is a TPU kernel for a spec. Other specs run the portable program.
pub fn supports(spec: &Spec) -> bool {
    spec.slots() <= LARGEST_SLOTS && spec.vocab <= LARGEST_VOCAB
}

/// Returns the limits of [`supports`], as text for messages.
pub(super) fn limits() -> String {
    format!("at most {LARGEST_SLOTS} slots (max_k) and {LARGEST_VOCAB} elements per row")
}

/// Returns the number of cores that process the rows of a batch. All cores process the same number of blocks of rows.
pub fn cores(spec: &Spec, chip: &Chip) -> usize {
    layout::blocks_and_cores(spec, chip).1
}

/// Returns the text of the kernel for readers.
pub fn kernel_text(spec: &Spec, chip: &Chip) -> String {
    let (kernel, layout) = build(spec, chip);
    kernel.plain_text(&spec.name(), layout.grid())
}

/// Like [`kernel_text`], with comments that name the place in the source of the emitter that adds each operation.
pub fn kernel_text_with_sources(spec: &Spec, chip: &Chip) -> String {
    let (kernel, layout) = build(spec, chip);
    kernel.text_with_sources(&spec.name(), layout.grid())
}

/// Returns the text of the program for a spec.
pub fn emit(spec: &Spec, chip: &Chip) -> String {
    let h = &Hlo::new();
    // Outputs that use the memory of an input were never tested on a TPU, so the logits are not donatable.
    let rows = inputs::operands(h, spec, false).rows_and_words(h, spec);
    let results = results(h, spec, chip, rows);
    let results = inputs::with_tokens(spec, results, |numbers| inputs::tokens(h, numbers));
    h.finish(&spec.name(), &results)
}

/// Adds the operations of the TPU algorithm, with its kernel, to a program. Returns the results. The arguments are
/// those of [`Operands::rows_and_words`](inputs::Operands::rows_and_words).
pub(super) fn results(h: &Hlo, spec: &Spec, chip: &Chip, (logits, params): (Value, Value)) -> Vec<Value> {
    let (kernel, layout) = build(spec, chip);
    let called = call_kernel(h, spec, &kernel, &layout, logits, params);

    let lane = |number: usize| h.reshape(lanes(h, spec, called[0], number, number + 1), &[spec.batch]);
    let mut results = vec![h.transpose(lanes(h, spec, called[0], 0, RESULTS))];
    let max_key = lane(Lane::MaxKey as usize);
    if spec.wanted.full_width() || spec.wanted.slices {
        let inputs = &Inputs::new(h, spec, logits, params, Some(max_key));
        if spec.wanted.full_width() {
            let threshold = lane(Lane::Threshold as usize);
            let thresholds = Thresholds {
                top_k: TopK { threshold, last_tie: lane(Lane::LastTie as usize) },
                greedy: lane(ResultRow::Greedy as usize),
                least_weight: lane(Lane::LeastWeight as usize),
            };
            results.extend(full_width(h, spec, inputs, &thresholds));
        }
        if spec.wanted.slices {
            let slices = [1, 2, 3].map(|i| lanes(h, spec, called[i], 0, spec.slots()));
            results.extend(k_slices(h, spec, inputs, slices));
        }
    }
    results
}

/// Returns the kernel of a spec and its layout.
fn build(spec: &Spec, chip: &Chip) -> (Kernel, Layout) {
    let layout = Layout::new(spec, chip);
    let kernel = Kernel::with_rows(layout.rows);
    {
        let k = &kernel;
        let params = k.window(mosaic::Elem::I32, LANES);
        let (elem, width) = (kernel_elem(spec.dtype), layout.registers * LANES);
        let logits = match layout.residence {
            Residence::Window => k.window(elem, width),
            _ => k.in_hbm(elem, &[layout.blocks * SUBLANES, width]),
        };
        let results = k.window(mosaic::Elem::I32, LANES);
        let slices = spec.wanted.slices.then(|| KSlices::new(k, spec.slots()));
        let logits = LogitStream::new(k, layout, logits);
        let cx = &Context { k, spec: *spec, layout, logits, params };
        let stages = &Stages::new(cx, slices);
        let (summary, outcome) = match layout::has_few_slots(spec) {
            true => bounded::kernel(cx, stages),
            false => arbitrary::kernel(cx, stages),
        };
        results::write(cx, &results, &summary, &outcome);
    }
    (kernel, layout)
}

/// Returns the type of the logits that a kernel reads. The core has no instructions for f16.
fn kernel_elem(dtype: Dtype) -> mosaic::Elem {
    match dtype {
        Dtype::Bf16 => mosaic::Elem::Bf16,
        Dtype::F32 | Dtype::F16 => mosaic::Elem::F32,
    }
}

/// Calls the kernel on operands padded to whole blocks and registers. Returns its results.
fn call_kernel(
    h: &Hlo,
    spec: &Spec,
    kernel: &Kernel,
    layout: &Layout,
    logits: Value,
    params: Value,
) -> Vec<Value> {
    let (rows, stripes) = (layout.blocks * SUBLANES, layout.stripes());
    let missing_rows = layout.blocks * layout.rows - spec.batch;
    let missing_lanes = stripes * layout.registers * LANES - spec.vocab;
    let read = match spec.dtype {
        Dtype::F16 => h.bitcast(inputs::bits(h, spec.dtype, logits).1, Elem::F32),
        Dtype::F32 | Dtype::Bf16 => logits,
    };
    // The rows and lanes of the padding contain no candidate.
    let neg_inf = if spec.dtype == Dtype::Bf16 { "0xFF80" } else { "0xFF800000" };
    let read = h.pad(h.pad(read, 0, 0, missing_rows, neg_inf), 1, 0, missing_lanes, neg_inf);
    let given = h.pad(h.pad(params, 0, 0, missing_rows, "0"), 1, 0, LANES - COLUMNS, "0");
    let (read, given) = match stripes {
        1 => (read, given),
        _ => in_stripes(h, layout, read, given),
    };

    let output = |width: usize| (Elem::I32, vec![rows, width]);
    let mut types = vec![output(LANES)];
    if spec.wanted.slices {
        types.extend(vec![output(width_of_slices(spec.slots())); 3]);
    }
    let config = config(&kernel.stable_text(&spec.name(), layout.grid()), layout.vmem);
    let results = h.custom_call("tpu_custom_call", &CallConfig::Text(config), &[given, read], &types);
    results.into_iter().map(|result| first_stripes(h, layout, result)).collect()
}

/// Rearranges the logits of whole blocks into stripes. Also repeats the parameters of a row in each of its stripes.
fn in_stripes(h: &Hlo, layout: &Layout, logits: Value, params: Value) -> (Value, Value) {
    let (stripes, width) = (layout.stripes(), layout.stripe());
    // The stripes of each block must be consecutive. So several blocks have their number as an additional first
    // dimension.
    let by_block = |value: Value, columns: usize| match layout.blocks {
        1 => value,
        blocks => h.reshape(value, &[blocks, layout.rows, columns]),
    };
    let row = usize::from(layout.blocks > 1);
    let joined = |parts: &[Value], columns: usize| {
        h.reshape(h.concatenate(parts, row), &[layout.blocks * SUBLANES, columns])
    };
    let rows = by_block(logits, stripes * width);
    let stripe = |s: usize| h.slice(rows, row + 1, s * width, (s + 1) * width);
    let parts: Vec<Value> = (0..stripes).map(stripe).collect();
    (joined(&parts, width), joined(&vec![by_block(params, LANES); stripes], LANES))
}

/// Returns the lanes `from..to` of a kernel's result, without the padding rows.
fn lanes(h: &Hlo, spec: &Spec, result: Value, from: usize, to: usize) -> Value {
    h.slice(h.slice(result, 0, 0, spec.batch), 1, from, to)
}

/// Removes the stripes after the first stripe of each row from a kernel's result. With one block, they stay: they are
/// after all first stripes, so [`lanes`] removes them.
fn first_stripes(h: &Hlo, layout: &Layout, result: Value) -> Value {
    if layout.stripes() == 1 || layout.blocks == 1 {
        return result;
    }
    let columns = h.dims(result)[1];
    let blocks = h.reshape(result, &[layout.blocks, SUBLANES, columns]);
    h.reshape(h.slice(blocks, 1, 0, layout.rows), &[layout.blocks * layout.rows, columns])
}

/// Returns the configuration of `tpu_custom_call`.
fn config(kernel: &str, vmem: usize) -> String {
    use base64::prelude::{Engine, BASE64_STANDARD};
    serde_json::json!({
        "custom_call_config": {
            "body": BASE64_STANDARD.encode(kernel),
            "serialization_format": 1,
            "needs_layout_passes": true,
        },
        "scoped_memory_configs": [{ "memory_space": 1, "offset": 0, "size": vmem }],
    })
    .to_string()
}
