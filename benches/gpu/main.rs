//! The time of sampling on a GPU, for logits that are on the device: one JSON object per line on standard output.
//!
//! A measured program calls the function of `nucleus emit --embed` many times. The benchmark measures two programs with
//! different numbers of calls. The time per call is the difference of their times, divided by the difference of their
//! numbers of calls. So the time that the host needs to launch a program is not part of the figure. The host needs 1.5
//! to 4.6 µs for each argument and its result. Therefore both programs have the same numbers of arguments and results.
//!
//! The calls read several arrays in turn, at least 160 MB together, so that the L2 cache of the device does not contain
//! the logits. The benchmark uses at most 40 arrays. Therefore the arrays of 1×128256 have at most 21 MB together, and
//! the cache of a large GPU can contain them. Before a measurement, the benchmark compares the tokens of some calls
//! with those of the built-in backend.
//!
//! The variable `NUCLEUS_PJRT_PLUGIN` names the plugin. Without it, or without kernels for its device, nothing is
//! measured. Arguments that do not start with `-` select figures by name, as in `benches/cpu.rs`.
//! `benches/gpu/peers.py` measures other samplers on the same shapes.

#[path = "../../tests/common/model_rows.rs"]
mod model_rows;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use half::bf16;
use model_rows::model_row;
use nucleus::backend::builtin::BuiltinBackend;
use nucleus::batch::{Batch, CallOptions};
use nucleus::dtype::{Dtype, Logits};
use nucleus::kernels::{embed, pack_seeds, Path, Source, Spec, Target, Wanted, COLUMNS, RESULTS};
use nucleus::outputs::Outputs;
use nucleus::pjrt::{Buffer, Client, CompileOptions, ElementType, OptionValue};
use nucleus::plan::DEFAULT_MAX_K;
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Normal};

/// A case of the benchmark: the parameters of every row, and the contents of the rows.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    path: Path,
    k: i32,
    p: f32,
    temperature: f32,
    fill: Fill,
}

/// The contents of rows.
#[derive(Clone, Copy)]
enum Fill {
    /// Normal logits with standard deviation 3.
    Normal,
    /// Logits like those of language models: see [`model_rows`].
    Model,
    /// All logits are equal.
    Constant,
    /// The logits alternate between two values.
    TwoValues,
    /// One logit is larger than the others. The others are equal.
    OneHot,
    /// All logits except ten are −inf.
    Masked,
}

const BOUNDED: Path = Path::Bounded(DEFAULT_MAX_K);

const fn case(name: &'static str, path: Path, k: i32, p: f32, temperature: f32, fill: Fill) -> Case {
    Case { name, path, k, p, temperature, fill }
}

const CASES: [Case; 21] = [
    case("k64", BOUNDED, 64, 0.95, 1.0, Fill::Normal),
    case("k64_model", BOUNDED, 64, 0.95, 1.0, Fill::Model),
    case("k64_constant", BOUNDED, 64, 0.95, 1.0, Fill::Constant),
    case("k64_two_values", BOUNDED, 64, 0.95, 1.0, Fill::TwoValues),
    case("k64_one_hot", BOUNDED, 64, 0.95, 1.0, Fill::OneHot),
    case("k64_masked", BOUNDED, 64, 0.95, 1.0, Fill::Masked),
    case("k128", BOUNDED, 128, 0.95, 1.0, Fill::Normal),
    case("k1000", Path::Arbitrary, 1000, 0.95, 1.0, Fill::Normal),
    case("k5000", Path::Arbitrary, 5000, 0.95, 1.0, Fill::Normal),
    case("k5000_constant", Path::Arbitrary, 5000, 0.95, 1.0, Fill::Constant),
    case("k5000_two_values", Path::Arbitrary, 5000, 0.95, 1.0, Fill::TwoValues),
    case("k10000", Path::Arbitrary, 10_000, 0.95, 1.0, Fill::Normal),
    case("top_p_alone", Path::Arbitrary, 0, 0.95, 1.0, Fill::Normal),
    case("top_p_model", Path::Arbitrary, 0, 0.95, 1.0, Fill::Model),
    case("top_p_constant", Path::Arbitrary, 0, 0.95, 1.0, Fill::Constant),
    case("top_p_two_values", Path::Arbitrary, 0, 0.95, 1.0, Fill::TwoValues),
    case("top_p_masked", Path::Arbitrary, 0, 0.95, 1.0, Fill::Masked),
    case("plain", Path::Arbitrary, 0, 1.0, 1.0, Fill::Normal),
    case("plain_model", Path::Arbitrary, 0, 1.0, 1.0, Fill::Model),
    case("greedy", BOUNDED, 1, 1.0, 0.0, Fill::Normal),
    case("greedy_arbitrary", Path::Arbitrary, 0, 1.0, 0.0, Fill::Normal),
];
const SHAPES: [(usize, usize); 4] = [(1, 128_256), (16, 262_144), (128, 128_256), (128, 262_144)];
/// The least size of all arrays together, in bytes. [`LARGEST_NUM_ARRAYS`] can make the size smaller.
const ROTATED_BYTES: usize = 160 << 20;
/// The largest number of arrays.
const LARGEST_NUM_ARRAYS: usize = 40;
/// The numbers of calls of the two programs.
const CALLS: [usize; 2] = [20, 60];
/// A program returns the tokens of this number of its calls.
const RETURNED: usize = 4;
/// The number of runs of a program. The shortest run counts, because the host can only make a run longer.
const RUNS: usize = 40;

impl Fill {
    fn row(self, row: &mut [f32], rng: &mut StdRng) {
        let normal = Normal::new(0.0_f32, 3.0).expect("a valid deviation");
        match self {
            Fill::Normal => row.fill_with(|| normal.sample(rng)),
            Fill::Model => row.copy_from_slice(&model_row(row.len(), rng)),
            Fill::Constant => row.fill(1.0),
            Fill::TwoValues => row.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 2) as f32),
            Fill::OneHot => {
                row.fill(0.0);
                row[rng.random_range(0..row.len())] = 100.0;
            }
            Fill::Masked => {
                row.fill(f32::NEG_INFINITY);
                (0..10).for_each(|_| row[rng.random_range(0..row.len())] = normal.sample(rng));
            }
        }
    }
}

/// An array of logits on the host and on the device.
struct Array {
    values: Values,
    buffer: Buffer,
}

enum Values {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl Values {
    fn logits(&self) -> Logits<'_> {
        match self {
            Values::F32(values) => Logits::F32(values),
            Values::Bf16(values) => Logits::Bf16(values),
        }
    }
}

fn arrays(client: &Arc<Client>, spec: &Spec, fill: Fill) -> Vec<Array> {
    let (elements, element) = (spec.batch * spec.vocab, spec.dtype.size());
    let count = ROTATED_BYTES.div_ceil(elements * element).min(LARGEST_NUM_ARRAYS);
    let mut rng = StdRng::seed_from_u64(1);
    // Generating all rows would take minutes. So eight rows are generated and then repeated.
    let mut rows = vec![0.0; 8 * spec.vocab];
    rows.chunks_mut(spec.vocab).for_each(|row| fill.row(row, &mut rng));
    let dims = [spec.batch as i64, spec.vocab as i64];
    let array = |first: usize| {
        let row = |number: usize| &rows[(first + number) % 8 * spec.vocab..][..spec.vocab];
        let values: Vec<f32> = (0..spec.batch).flat_map(row).copied().collect();
        let (values, bytes, ty) = match spec.dtype {
            Dtype::F32 => {
                (Values::F32(values.clone()), bytemuck::cast_slice(&values).to_vec(), ElementType::F32)
            }
            _ => {
                let narrow: Vec<u16> = values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
                let bytes = bytemuck::cast_slice(&narrow).to_vec();
                (Values::Bf16(narrow), bytes, ElementType::BF16)
            }
        };
        Array { values, buffer: client.buffer_from_host(&bytes, ty, &dims, 0).expect("an upload") }
    };
    (0..count).map(array).collect()
}

/// Returns a program with `calls` calls of the sampling function. Call `i` reads array `i % arrays` with the step `i`.
/// The program returns the tokens of the calls whose numbers [`returned`] returns.
fn program(spec: &Spec, target: &Target, arrays: usize, calls: usize) -> String {
    let element = if spec.dtype == Dtype::F32 { "f32" } else { "bf16" };
    let (batch, vocab) = (spec.batch, spec.vocab);
    let (logits, tokens) = (format!("tensor<{batch}x{vocab}x{element}>"), format!("tensor<{batch}xi32>"));
    let parameters = format!("tensor<{batch}x{COLUMNS}xi32>");
    let mut arguments: Vec<String> = (0..arrays).map(|i| format!("%l{i}: {logits}")).collect();
    arguments.push(format!("%parameters: {parameters}"));
    let results = [tokens.as_str(); RETURNED].join(", ");
    let mut text =
        format!("module @bench {{\nfunc.func public @main({}) -> ({results}) {{\n", arguments.join(", "));
    for i in 0..calls {
        let array = i % arrays;
        writeln!(
            text,
            "%s{i} = stablehlo.constant dense<{i}> : tensor<ui64>\n%t{i}, %n{i} = func.call @sample(%l{array}, \
             %parameters, %s{i}) : ({logits}, {parameters}, tensor<ui64>) -> ({tokens}, tensor<{RESULTS}x{batch}xi32>)"
        )
        .expect("a string grows");
    }
    let names: Vec<String> = returned(calls).map(|i| format!("%t{i}")).collect();
    writeln!(text, "return {} : {results}\n}}", names.join(", ")).expect("a string grows");
    // The calls of the kernels get a side effect. Otherwise, the compiler could remove calls whose tokens are not
    // returned, and merge calls with equal operands.
    let function = embed::emit(spec, target, "sample");
    let kept = function.replace("api_version = 2", "has_side_effect = true, api_version = 2");
    assert!(kept != function, "the program calls no kernels");
    text + &kept + "}\n"
}

/// Returns the numbers of the calls whose tokens a program with `calls` calls returns.
fn returned(calls: usize) -> impl Iterator<Item = usize> {
    (0..calls).step_by(calls / RETURNED)
}

/// Returns the tokens of the built-in backend for call `step`.
fn expected(spec: &Spec, case: Case, array: &Array, step: u64) -> Vec<i32> {
    let params = |row: usize| {
        let words = random_words(row as u64, step);
        RowParams::new(case.k, case.p, 0.0, case.temperature, words, spec.vocab)
    };
    let rows = (0..spec.batch).map(params).collect();
    let options = CallOptions::default();
    let batch =
        Batch::from_params(array.values.logits(), spec.vocab, spec.vocab, rows, options).expect("a batch");
    let mut tokens = vec![0; spec.batch];
    let mut outputs = Outputs { tokens: Some(&mut tokens), ..Outputs::default() };
    BuiltinBackend::new(0).sample(&batch, &mut outputs).expect("there is enough memory");
    tokens
}

/// Measures a case. Returns the time of a call in microseconds.
fn measure(client: &Arc<Client>, target: &Target, spec: &Spec, case: Case) -> f64 {
    let arrays = arrays(client, spec, case.fill);
    let row = RowParams::new(case.k, case.p, 0.0, case.temperature, [0; 4], spec.vocab);
    let packed: Vec<i32> = (0..spec.batch)
        .flat_map(|i| pack_seeds(&row, i as u64, 0, CallOptions::default(), spec.dtype))
        .collect();
    let dims = [spec.batch as i64, COLUMNS as i64];
    let packed = client
        .buffer_from_host(bytemuck::cast_slice(&packed), ElementType::S32, &dims, 0)
        .expect("an upload");
    let options = CompileOptions::for_device(client.devices()[0].id());
    let times = CALLS.map(|calls| {
        let text = program(spec, target, arrays.len(), calls);
        let program = client.compile(&text, &options).unwrap_or_else(|error| panic!("{error}"));
        let mut inputs: Vec<&Buffer> = arrays.iter().map(|array| &array.buffer).collect();
        inputs.push(&packed);
        let launch = program.launch(&inputs, None).expect("it runs");
        let outputs = launch.wait().expect("it runs");
        for (call, output) in returned(calls).zip(&outputs) {
            let tokens: Vec<i32> = output.to_host().expect("a download");
            let array = &arrays[call % arrays.len()];
            assert_eq!(tokens, expected(spec, case, array, call as u64), "{}, call {call}", case.name);
        }
        let run = |_| {
            let start = Instant::now();
            program.launch(&inputs, None).and_then(|launch| launch.wait()).expect("it runs");
            start.elapsed().as_secs_f64() * 1e6
        };
        (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
    });
    (times[1] - times[0]) / (CALLS[1] - CALLS[0]) as f64
}

fn main() {
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let Some(plugin) = std::env::var_os("NUCLEUS_PJRT_PLUGIN") else {
        eprintln!("gpu: skipped, because NUCLEUS_PJRT_PLUGIN names no plugin");
        return;
    };
    let options = SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(PathBuf::from(plugin)),
        client_options: vec![("preallocate".to_owned(), OptionValue::Bool(false))],
        ..SamplerOptions::default()
    };
    let sampler = Sampler::new(&options).unwrap_or_else(|error| panic!("{error}"));
    let client = sampler.client().expect("a plugin");
    let device = client.devices()[0].description();
    let target = Target::of(client.platform_name(), &device.kind, device.num_cores());
    if !matches!(target, Target::Gpu(_)) {
        eprintln!("gpu: skipped, because there are no kernels for this device: {}", device.kind);
        return;
    }
    for case in CASES {
        for (batch, vocab) in SHAPES {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let (wanted, source) = (Wanted::default(), Source::Batch);
                let spec = Spec { path: case.path, batch, vocab, dtype, stable: true, wanted, source };
                let dtype = format!("{dtype:?}").to_lowercase();
                let name = format!("gpu/{}/{dtype}/{batch}x{vocab}", case.name);
                if !chosen.is_empty() && !chosen.iter().any(|chosen| name.contains(chosen.as_str())) {
                    continue;
                }
                let micros = measure(client, &target, &spec, case);
                let line = serde_json::json!({
                    "name": name,
                    "device": device.kind,
                    "target": target.to_string(),
                    "batch": batch,
                    "vocab": vocab,
                    "dtype": dtype,
                    "case": case.name,
                    "device_us": (micros * 10.0).round() / 10.0,
                });
                println!("{line}");
            }
        }
    }
}
