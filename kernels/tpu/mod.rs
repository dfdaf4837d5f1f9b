//! Kernels for TPU cores, in Mosaic, each inside the StableHLO program that PJRT compiles.
//!
//! A kernel works on blocks of eight rows, one a grid step. It returns what a row's outcome is and the thresholds that
//! make up the wide arrays; those are written by StableHLO around it, from the thresholds, since they are nothing but
//! one read and one write of memory. So the kernel is the same for plain and debug calls but for what it must know.

mod arbitrary;
mod bounded;
mod candidate_list;
mod context;
mod dispatch;
mod layout;
mod passes;
mod prefilter;
mod sampling;
mod stream;
mod survivors;
mod threshold_search;

use super::stablehlo::rows::Row;
use super::stablehlo::sampling::weights;
use super::stablehlo::search::TopK;
use super::{Chip, Path, Spec, RESULTS};
use crate::dtype::Dtype;
use crate::mlir::mosaic::{self, Kernel, LANES, SUBLANES};
use crate::mlir::stablehlo::{Elem, Hlo, Value};
use crate::semantics::arith::Arith;
use crate::semantics::clean::order_key;
use context::Block;
use dispatch::Stages;
use layout::Layout;
use stream::Rows;
use survivors::Slices;

/// Lanes of a kernel's results, after the [`ResultRow`](super::ResultRow)s.
#[derive(Clone, Copy)]
enum Lane {
    MaxKey = RESULTS as isize,
    Threshold,
    LastTie,
    LeastWeight,
}

/// Whether there is a TPU kernel for a spec; the portable program serves the others.
pub fn supports(spec: &Spec) -> bool {
    let slots = match spec.path {
        Path::Bounded(max_k) => max_k,
        Path::Arbitrary => 1,
    };
    slots <= LANES && spec.vocab <= layout::LARGEST_VOCAB
}

/// The type that a kernel reads logits in: it has no instructions for f16.
fn kernel_elem(dtype: Dtype) -> mosaic::Elem {
    match dtype {
        Dtype::Bf16 => mosaic::Elem::Bf16,
        Dtype::F32 | Dtype::F16 => mosaic::Elem::F32,
    }
}

/// A spec's kernel and how it lies in memory.
fn build(spec: &Spec, chip: &Chip) -> (Kernel, Layout) {
    let layout = Layout::new(spec, chip);
    let kernel = Kernel::new();
    {
        let k = &kernel;
        let params = k.window(mosaic::Elem::I32, LANES);
        let rows = [layout.blocks * SUBLANES, layout.registers * LANES];
        let logits = k.in_hbm(kernel_elem(spec.dtype), &rows);
        let results = k.window(mosaic::Elem::I32, LANES);
        let slices = spec.wanted.slices.then(|| {
            let window = || k.window(mosaic::Elem::I32, LANES);
            Slices { indices: window(), keys: window(), weights: window() }
        });
        let block = &Block { k, spec: *spec, layout, rows: Rows::new(k, layout, logits), params };
        let stages = &Stages::new(block, slices);
        let (summary, outcome) = match spec.path {
            Path::Bounded(_) => bounded::kernel(block, stages),
            Path::Arbitrary => arbitrary::kernel(block, stages),
        };
        stages.write(block, &results, &summary, &outcome);
    }
    (kernel, layout)
}

/// The kernel as people read it.
pub fn kernel_text(spec: &Spec, chip: &Chip) -> String {
    let (kernel, layout) = build(spec, chip);
    kernel.plain_text(&spec.name(), layout.blocks)
}

/// The text of the program for a spec.
pub fn emit(spec: &Spec, chip: &Chip) -> String {
    let (kernel, layout) = build(spec, chip);
    let h = &Hlo::new();
    let (logits, params) = Row::arguments(h, spec);
    let rows = layout.blocks * SUBLANES;
    let (missing_rows, missing_lanes) = (rows - spec.batch, layout.registers * LANES - spec.vocab);

    // Rows and lanes that are not there hold no candidate.
    let read = match spec.dtype {
        Dtype::F16 => h.bitcast(Row::bits(h, spec.dtype, logits).1, Elem::F32),
        Dtype::F32 | Dtype::Bf16 => logits,
    };
    let least = if spec.dtype == Dtype::Bf16 { "0xFF80" } else { "0xFF800000" };
    let read = h.pad(h.pad(read, 0, 0, missing_rows, least), 1, 0, missing_lanes, least);
    let columns = h.dims(params)[1];
    let given = h.pad(h.pad(params, 0, 0, missing_rows, "0"), 1, 0, LANES - columns, "0");

    let outputs = if spec.wanted.slices { 4 } else { 1 };
    let types = vec![(Elem::I32, vec![rows, LANES]); outputs];
    let config = config(&kernel.stable_text(&spec.name(), layout.blocks), layout.vmem);
    let called = h.custom_call("tpu_custom_call", &config, &[given, read], &types);

    let lane = |number: usize| h.reshape(lanes(h, spec, called[0], number, number + 1), &[spec.batch]);
    let mut results = vec![h.transpose(lanes(h, spec, called[0], 0, RESULTS))];
    let max_key = lane(Lane::MaxKey as usize);
    if spec.wanted.topk_logits || spec.wanted.weights {
        let row = Row::new(h, spec, logits, params, Some(max_key));
        let top_k =
            TopK { threshold: lane(Lane::Threshold as usize), last_tie: lane(Lane::LastTie as usize) };
        let kept = top_k.mask(h, row.keys);
        if spec.wanted.topk_logits {
            results.push(row.masked_logits(h, kept));
        }
        if spec.wanted.weights {
            let index = h.iota(&[spec.batch, spec.vocab], 1);
            let is_greedy = h.eq(index, lane(super::ResultRow::Greedy as usize));
            let wide = weights(h, &row, row.keys, kept, is_greedy);
            let low = h.lt(wide, lane(Lane::LeastWeight as usize));
            results.push(h.select(low, h.int(0), wide));
        }
    }
    if let (true, Path::Bounded(max_k)) = (spec.wanted.slices, spec.path) {
        let slots = max_k.min(spec.vocab);
        let [indices, keys, weights] = [1, 2, 3].map(|i| lanes(h, spec, called[i], 0, slots));
        let row = Row::new(h, spec, logits, params, Some(max_key));
        let used = h.not(h.lt(indices, h.int(0)));
        // Cleaned values are of the logits' type, or +inf there: rounding is exact.
        let values = h.bitcast(order_key(h, keys), Elem::F32);
        let bits = match spec.dtype {
            Dtype::F32 => h.bitcast(values, Elem::I32),
            Dtype::Bf16 => h.convert(h.bitcast(h.convert(values, Elem::Bf16), Elem::U16), Elem::I32),
            Dtype::F16 => h.convert(h.bitcast(h.convert(values, Elem::F16), Elem::U16), Elem::I32),
        };
        results.push(indices);
        results.push(row.replace_masked(h, used, bits));
        results.push(weights);
    }
    h.finish(&spec.name(), &results)
}

/// Lanes `from..to` of a kernel's result, of the rows that are there.
fn lanes(h: &Hlo, spec: &Spec, result: Value, from: usize, to: usize) -> Value {
    h.slice(h.slice(result, 0, 0, spec.batch), 1, from, to)
}

/// What `tpu_custom_call` reads beside its operands.
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
