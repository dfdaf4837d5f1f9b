//! Checks that need a TPU (docs/hardware-checklist.md). Without CHECK, this command runs all of them:
//!
//! ```text
//! cargo test --release --test hardware [CHECK] -- --nocapture --test-threads=1
//! ```
//!
//! The plugin is `NUCLEUS_TPU_PLUGIN`, or the libtpu of `make plugins` on a host with a TPU. On any other host each
//! check prints that it is skipped. A test there runs the checks of single operations on the interpreter.

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::probes::*;
use common::tpu::{problem_of, spec};
use common::*;
use nucleus::backend::pjrt::program_dir::{ProgramDir, System};
use nucleus::compile_ahead::{compile_ahead, AheadOptions};
use nucleus::dtype::Dtype;
use nucleus::kernels::{emit, pack_params, Path as Way, Spec, Target, Wanted};
use nucleus::pjrt::{host_has_tpu, Buffer, Client, CompileOptions, ElementType, Executable, Plugin};
use nucleus::plan::{CallShape, Entry, LogitsPlace};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use rand::prelude::*;

/// A process can have only one TPU client at a time.
static DEVICE: Mutex<()> = Mutex::new(());

/// The plugin, if there is a TPU. Otherwise prints the reason for skipping the check.
fn tpu(check: &str) -> Option<(PathBuf, MutexGuard<'static, ()>)> {
    let path = match std::env::var_os("NUCLEUS_TPU_PLUGIN").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None if host_has_tpu() => Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins/libtpu.so"),
        None => {
            println!("{check}: skipped, this host has no TPU and NUCLEUS_TPU_PLUGIN is not set");
            return None;
        }
    };
    assert!(path.is_file(), "{} is missing", path.display());
    Some((path, DEVICE.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn sampler(plugin: PathBuf) -> Sampler {
    let options = SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin),
        cache_capacity: 512,
        ..SamplerOptions::default()
    };
    Sampler::new(&options).unwrap()
}

/// Compares every array with the built-in backend, for rows of the given kinds.
fn compare_kinds(check: &str, kinds: &[RowKind]) {
    let Some((plugin, _device)) = tpu(check) else { return };
    let (device, reference) = (sampler(plugin), builtin(0));
    let mut rng = StdRng::seed_from_u64(1);
    let mut values = 0;
    for (path, entry) in [(Way::Bounded(128), Entry::Bounded), (Way::Arbitrary, Entry::Arbitrary)] {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            for vocab in [1000, 32_000] {
                let spec = spec(path, 16, vocab, dtype, true);
                let rows = kinds.iter().copied().cycle().take(16).collect();
                let problem = problem_of(&spec, rows, &mut rng);
                let ask = if entry == Entry::Bounded { EVERYTHING } else { FULL_WIDTH };
                let (got, want) =
                    (sample(&device, entry, &problem, ask), sample(&reference, entry, &problem, ask));
                assert_same(&problem, &got, &want, check);
                values += compare(&problem, &got, &want).values;
            }
        }
    }
    println!("{check}: {values} values agree");
}

#[test]
fn agreement() {
    let Some((plugin, _device)) = tpu("agreement") else { return };
    let (device, reference) = (sampler(plugin), builtin(0));
    let mut rng = StdRng::seed_from_u64(2);
    let mut values = 0;
    for shape in shapes() {
        let problem = shape.problem(&mut rng);
        let (got, want) = (
            sample(&device, shape.entry, &problem, shape.ask),
            sample(&reference, shape.entry, &problem, shape.ask),
        );
        assert_same(&problem, &got, &want, &format!("{shape:?}"));
        values += compare(&problem, &got, &want).values;
    }
    println!("agreement: {values} values agree, on {} kinds of rows", ROW_KINDS.len());
}

#[test]
fn rows_of_subnormals() {
    compare_kinds("rows_of_subnormals", &[RowKind::Subnormal, RowKind::NegativeZero]);
}

/// The kernel detects NaNs through maxima, which must return NaN if an operand is NaN.
#[test]
fn rows_with_nans() {
    compare_kinds("rows_with_nans", &[RowKind::SomeNan, RowKind::AllNan, RowKind::Normal]);
}

/// A machine that runs probes. A probe is a kernel with one operation.
enum Machine {
    Tpu(Arc<Client>),
    Interpreter(PathBuf),
}

impl Machine {
    /// The bits of the results of a probe.
    fn bits(&self, probe: Probe, a: &[f32], b: &[f32]) -> Vec<u32> {
        let text = probe.text();
        let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect::<Vec<u8>>();
        let mut out = vec![0u8; PROBE * 4];
        match self {
            Machine::Tpu(client) => {
                let options = CompileOptions::for_device(client.devices()[0].id());
                let dims = [PROBE_ROWS as i64, 128];
                let upload = |x| client.buffer_from_host(&bytes(x), ElementType::F32, &dims, 0).unwrap();
                let outputs =
                    client.compile(&text, &options).unwrap().execute(&[&upload(a), &upload(b)]).unwrap();
                out = outputs[0].to_host().unwrap();
            }
            Machine::Interpreter(directory) => {
                let root = Path::new(env!("CARGO_MANIFEST_DIR"));
                fs::create_dir_all(directory).unwrap();
                fs::write(directory.join("probe.mlir"), text).unwrap();
                fs::write(directory.join("a"), bytes(a)).unwrap();
                fs::write(directory.join("b"), bytes(b)).unwrap();
                let done = Command::new(root.join(".cache/interpreter/bin/python"))
                    .args([
                        "-m",
                        "interpreter",
                        "run",
                        "probe.mlir",
                        "--inputs",
                        "a",
                        "b",
                        "--outputs",
                        "out",
                    ])
                    .env("PYTHONPATH", root.join("tests"))
                    .current_dir(directory)
                    .output()
                    .unwrap();
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                out = fs::read(directory.join("out/0.bin")).unwrap();
            }
        }
        out.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
    }

    fn floats(&self, probe: Probe, a: &[f32], b: &[f32]) -> Vec<f32> {
        self.bits(probe, a, b).into_iter().map(f32::from_bits).collect()
    }
}

/// Random floats with exponents in the given range.
fn floats(exponents: std::ops::Range<i32>, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..PROBE)
        .map(|_| rng.random_range(1.0..2.0f32) * 2f32.powi(rng.random_range(exponents.clone())))
        .collect()
}

/// The long division of the draw estimates a quotient with a reciprocal, and corrects the estimate in integers. The
/// result is exact if the error of the reciprocal is at most this limit.
fn judge_division(machine: &Machine) {
    let (one, b) = (vec![1.0; PROBE], floats(0..48, 1));
    let got = machine.floats(QUOTIENT, &one, &b);
    let error = |(&got, &b): (&f32, &f32)| (f64::from(got) * f64::from(b) - 1.0).abs();
    let largest = got.iter().zip(&b).map(error).fold(0.0, f64::max);
    println!("the largest relative error of 1/b is 2^{:.2}", largest.log2());
    assert!(largest < 2f64.powi(-21), "{largest:e}");
}

fn judge_conversion(machine: &Machine) {
    let a = floats(-2..31, 2);
    let got = machine.bits(FLOOR, &a, &a);
    let wrong = got.iter().zip(&a).filter(|&(&got, &a)| got as i32 != a as i32).count();
    println!("{wrong} of {PROBE} floats are not converted to their floor");
    assert_eq!(wrong, 0);
}

/// The contract depends on the rounding of these float operations.
fn judge_rounding(machine: &Machine) {
    let (a, b) = (floats(-20..20, 3), floats(-20..20, 4));
    for (name, probe, want) in [
        ("subtractions", DIFFERENCE, (|a, b| a - b) as fn(f32, f32) -> f32),
        ("products", PRODUCT, |a, b| a * b),
        ("products of a difference", DIFFERENCE_TIMES, |a, b| (a - b) * b),
        ("products plus an addend", PRODUCT_PLUS, |a, b| a * b + b),
    ] {
        let got = machine.floats(probe, &a, &b);
        let wrong = (0..PROBE).filter(|&i| got[i].to_bits() != want(a[i], b[i]).to_bits()).count();
        println!("{wrong} of {PROBE} {name} are not rounded as IEEE 754 requires");
        assert_eq!(wrong, 0, "{name}");
    }
}

/// The kernels add a distance to 2²³ + 2¹⁹, which must round it to the nearest integer. Half of the distances in this
/// test are halfway between two integers.
fn judge_rounding_by_addition(machine: &Machine) {
    let mut rng = StdRng::seed_from_u64(7);
    let a: Vec<f32> = (0..PROBE)
        .map(|i| match i % 2 {
            0 => rng.random_range(0..1 << 22) as f32 + 0.5,
            _ => rng.random_range(0.0..7.7e6),
        })
        .collect();
    let got = machine.bits(SUM, &a, &[8_912_896.0; PROBE]);
    let rounded = |a: f32| 0x4b08_0000 + a.round_ties_even() as u32;
    let wrong = (0..PROBE).filter(|&i| got[i] != rounded(a[i])).count();
    println!("{wrong} of {PROBE} sums are not rounded to the nearest even integer");
    assert_eq!(wrong, 0);
}

/// A maximum must be NaN if either operand is. The kernel detects rows with a NaN in this way.
fn judge_maxima(machine: &Machine) {
    let (mut a, mut b) = (floats(-20..20, 5), floats(-20..20, 6));
    let nan = |i: usize| f32::from_bits(if i.is_multiple_of(2) { 0x7fc0_0000 } else { 0xffc0_0001 });
    for i in 0..PROBE {
        match i % 8 {
            0 => a[i] = nan(i / 8),
            1 => b[i] = nan(i / 8),
            _ => {}
        }
    }
    let got = machine.floats(MAXIMUM, &a, &b);
    let hidden = (0..PROBE).filter(|&i| i % 8 < 2 && !got[i].is_nan()).count();
    let wrong = (0..PROBE).filter(|&i| i % 8 >= 2 && got[i] != a[i].max(b[i])).count();
    println!("maxima hide {hidden} of {} NaNs, and {wrong} other maxima are wrong", PROBE / 4);
    assert_eq!((hidden, wrong), (0, 0));
}

/// Both results are correct. Add the result to docs/hardware-checklist.md.
fn show_subnormals(machine: &Machine) {
    let a: Vec<f32> = (0..PROBE).map(|i| f32::from_bits(1 + i as u32 * 1021)).collect();
    let got = machine.floats(PRODUCT, &a, &vec![1.0; PROBE]);
    let kept = (0..PROBE).filter(|&i| got[i].to_bits() == a[i].to_bits()).count();
    let flushed = got.iter().filter(|x| x.to_bits() == 0).count();
    println!("of {PROBE} subnormals, a product with 1 keeps {kept} and flushes {flushed} to zero");
    assert_eq!(kept + flushed, PROBE, "a subnormal is neither kept nor flushed");
}

/// Runs the judge of an operation on the TPU.
fn on_tpu(check: &str, judge: fn(&Machine)) {
    let Some((plugin, _device)) = tpu(check) else { return };
    judge(&Machine::Tpu(Client::create(Plugin::load(&plugin).unwrap(), &[]).unwrap()));
}

#[test]
fn division_estimates() {
    on_tpu("division_estimates", judge_division);
}

#[test]
fn floats_to_integers() {
    on_tpu("floats_to_integers", judge_conversion);
}

#[test]
fn rounding() {
    on_tpu("rounding", judge_rounding);
}

#[test]
fn rounding_by_addition() {
    on_tpu("rounding_by_addition", judge_rounding_by_addition);
}

#[test]
fn nans_through_maxima() {
    on_tpu("nans_through_maxima", judge_maxima);
}

#[test]
fn subnormals() {
    on_tpu("subnormals", show_subnormals);
}

/// The judges must accept the interpreter, because its arithmetic is correct.
#[test]
fn judges_on_the_interpreter() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu_probes");
    let machine = Machine::Interpreter(directory.clone());
    for judge in [
        judge_division,
        judge_conversion,
        judge_rounding,
        judge_rounding_by_addition,
        judge_maxima,
        show_subnormals,
    ] {
        judge(&machine);
    }
    fs::remove_dir_all(directory).unwrap();
}

/// A program and its inputs on the device.
struct Loaded {
    executable: Arc<Executable>,
    inputs: [Buffer; 2],
}

impl Loaded {
    fn new(client: &Arc<Client>, target: &Target, spec: &Spec, k: i32, kind: RowKind) -> Loaded {
        let mut rng = StdRng::seed_from_u64(3);
        let mut problem = problem_of(spec, vec![kind; spec.batch], &mut rng);
        let words = nucleus::semantics::philox::random_words(1, 2);
        let row = nucleus::semantics::params::RowParams::new(k, 0.95, 0.0, 1.0, words, spec.vocab);
        problem.rows = vec![row; spec.batch];
        let options = CompileOptions::for_device(client.devices()[0].id());
        let executable = client.compile(&emit(spec, target), &options).unwrap();
        let (element, logits) = match spec.dtype {
            Dtype::F32 => (ElementType::F32, bytemuck::cast_slice(&problem.f32s)),
            Dtype::Bf16 => (ElementType::BF16, bytemuck::cast_slice(&problem.u16s)),
            Dtype::F16 => (ElementType::F16, bytemuck::cast_slice(&problem.u16s)),
        };
        let dims = |width: usize| [spec.batch as i64, width as i64];
        let params: Vec<i32> =
            problem.rows.iter().flat_map(|row| pack_params(row, problem.options, spec.dtype)).collect();
        let width = params.len() / spec.batch;
        let logits = client.buffer_from_host(logits, element, &dims(spec.vocab), 0).unwrap();
        let params = bytemuck::cast_slice(&params);
        let params = client.buffer_from_host(params, ElementType::S32, &dims(width), 0).unwrap();
        Loaded { executable, inputs: [logits, params] }
    }

    /// The device time of one run: the median of several rounds. A round starts many runs before it waits for the
    /// first, so that no run waits for the host.
    fn time(&self) -> Duration {
        const TOGETHER: u32 = 50;
        let [logits, params] = &self.inputs;
        let mut rounds: Vec<Duration> = (0..9)
            .map(|_| {
                let start = Instant::now();
                let inputs = [logits, params];
                let launches: Vec<_> =
                    (0..TOGETHER).map(|_| self.executable.launch(&inputs, None).unwrap()).collect();
                launches.into_iter().for_each(|launch| drop(launch.wait().unwrap()));
                start.elapsed() / TOGETHER
            })
            .collect();
        rounds.sort();
        rounds[rounds.len() / 2]
    }
}

fn client_and_target(plugin: &Path) -> (Arc<Client>, Target) {
    let client = Client::create(Plugin::load(plugin).unwrap(), &[]).unwrap();
    let target = System::of_client(&client, 0).unwrap().target();
    (client, target)
}

#[test]
fn times() {
    let Some((plugin, _device)) = tpu("times") else { return };
    let (client, target) = client_and_target(&plugin);
    println!("| rows | type | call | microseconds | HBM alone |\n| --- | --- | --- | --- | --- |");
    for batch in [8, 16, 128] {
        for dtype in [Dtype::Bf16, Dtype::F32] {
            for (name, path, k, kind) in [
                ("bounded, k = 64, random", Way::Bounded(64), 64, RowKind::Normal),
                ("bounded, k = 64, worst case", Way::Bounded(64), 64, RowKind::SourceWorstCase),
                ("any k, k = 5000", Way::Arbitrary, 5000, RowKind::Normal),
                ("top-p alone, random", Way::Arbitrary, 0, RowKind::Normal),
                ("top-p alone, peaked", Way::Arbitrary, 0, RowKind::Peaked),
            ] {
                let spec = spec(path, batch, 262_144, dtype, false);
                let time = Loaded::new(&client, &target, &spec, k, kind).time();
                let bytes = (batch * spec.vocab * dtype.size()) as f64;
                let memory = match target {
                    Target::Tpu(chip) => format!("{:.1}", bytes / chip.hbm_bytes_per_second as f64 * 1e6),
                    Target::Portable | Target::Gpu(_) => "not known".to_owned(),
                };
                println!("| {batch} | {dtype:?} | {name} | {:.1} | {memory} |", time.as_secs_f64() * 1e6);
                assert!(time > Duration::ZERO);
            }
        }
    }
}

/// The next block is copied while the kernel processes a block. Therefore sixteen blocks in one call must take less
/// than sixteen times the time of one block. The fixed time of a call is subtracted.
#[test]
fn copies_beside_work() {
    let Some((plugin, _device)) = tpu("copies_beside_work") else { return };
    let (client, target) = client_and_target(&plugin);
    let time = |batch, vocab| {
        let spec = spec(Way::Bounded(64), batch, vocab, Dtype::Bf16, false);
        Loaded::new(&client, &target, &spec, 64, RowKind::Normal).time()
    };
    let (call, one, sixteen) = (time(8, 128), time(8, 262_144), time(128, 262_144));
    let block = one.saturating_sub(call);
    println!(
        "a call takes {call:?} and 8 rows {block:?} more; 128 rows take {sixteen:?}, a sixteenth of which is {:?}",
        sixteen / 16
    );
    assert!(sixteen < 16 * block, "copies do not overlap with work");
}

/// The shapes of slices that a host can be part of, as they appear in names of topologies.
const SHAPES: [&str; 17] = [
    "1x1", "1x2", "2x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16", "1x1x1", "2x1x1", "2x2x1",
    "2x2x2", "2x2x4", "2x4x4", "4x4x4",
];

/// A program that was compiled for a topology equal to this host's, without its TPU, runs on the first and the last
/// device.
#[test]
fn compiled_ahead() {
    let Some((path, _device)) = tpu("compiled_ahead") else { return };
    let plugin = Plugin::load(&path).unwrap();
    let client = Client::create(plugin.clone(), &[]).unwrap();
    let (here, devices) = (System::of_client(&client, 0).unwrap(), client.devices().len());
    drop(client);
    let target = here.target();
    let file = |system: &System| {
        let any = spec(Way::Arbitrary, 8, 128, Dtype::F32, false);
        ProgramDir::new(Path::new(""), system.clone(), target).file(&any.into(), "")
    };
    let found = SHAPES.iter().map(|shape| format!("{target}:{shape}")).find(|name| {
        let topology = plugin.topology(name, &[]);
        let system = topology.ok().and_then(|topology| System::of_topology(&plugin, &topology).ok());
        system.is_some_and(|system| file(&system) == file(&here))
    });
    let topology = found.unwrap_or_else(|| panic!("no topology matches this host: {here:#?}"));
    println!("compiling for {topology}");

    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu_compiled_ahead");
    let _ = fs::remove_dir_all(&directory);
    let calls = CallShape {
        entry: Entry::Automatic,
        batch: 16,
        vocab: 32_000,
        dtype: Dtype::Bf16,
        stable: true,
        wanted: Wanted::default(),
        logits: LogitsPlace::Host,
    };
    let options = AheadOptions {
        plugin: Some(path.clone()),
        topology: Some(topology),
        ..AheadOptions::new(directory.clone(), vec![16], calls)
    };
    assert_eq!(compile_ahead(&options, &|_| {}).unwrap().len(), 2);
    for device in [0, devices - 1] {
        let options = SamplerOptions {
            backend: BackendChoice::Pjrt,
            plugin: Some(path.clone()),
            device,
            program_dir: Some(directory.clone()),
            ..SamplerOptions::default()
        };
        println!("device {device}");
        let sampler = Sampler::new(&options).unwrap();
        answers_rightly(&sampler, 16, calls.vocab, 4);
        assert_eq!((sampler.stats().compiles, sampler.stats().loaded), (0, 2), "device {device}");
    }
    fs::remove_dir_all(&directory).unwrap();
    println!("programs compiled ahead were loaded on device 0 and device {}", devices - 1);
}
