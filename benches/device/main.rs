//! Calls on logits on the device: one JSON object per line on standard output.
//!
//! `device_call/host_time` is the time until `nuc_sample_start` returns (`median_us`). The benchmark does not wait for
//! the end of the call in this time. `added_us` is the part of this time that the thread does not spend in the plugin's
//! function `PJRT_LoadedExecutable_Execute`: the work of the library, and all other calls of the plugin. `parts_us` has
//! the time of each of these calls. Reading the clock for each call takes time too, so the parts are only approximate.
//!
//! There are two baselines. Both use the program and the inputs of the call. The first baseline only calls
//! `PJRT_LoadedExecutable_Execute` (`execute_us`). In each round, the benchmark subtracts the time of this baseline
//! from the time of the call. `over_execute_us` is the median of these differences. It is the cost of the library for a
//! host that would otherwise call the plugin itself. The second baseline also starts a copy of the tokens to the host
//! (`execute_and_copy_us`), because every user of the tokens needs this copy. `until_tokens_us` is the time until the
//! tokens of a call are on the host. `execute_until_tokens_us` is the same time for the second baseline. The benchmark
//! takes the measurements in turn. Before each measurement, it does the same work once and waits for its end.
//!
//! The host thread sleeps while the program runs. With many rows, the program of a CPU plugin takes more than a
//! millisecond. Meanwhile, the program evicts the code and the data of the host thread from the caches of the cores.
//! The next start of a call is then several times slower, both in the plugin and in the library. `over_execute_us` also
//! depends on the threads of the program, which compete with the host thread for the cores. `added_us` does not depend
//! on these threads.
//!
//! `device_call/mixed` is the time from the start to the end of a call whose rows take both paths. The baseline is the
//! sum of the times of two calls. Each of these calls has the rows of one path.
//!
//! The plugin is `NUCLEUS_PJRT_PLUGIN`, or the CPU plugin of `make plugins`. `NUCLEUS_BENCH_CLIENT_OPTIONS` is a list
//! of boolean options of its client, for example `preallocate=false`.

mod c_calls;
mod plugin_calls;
mod timed_table;

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nucleus::backend::pjrt::device_call::DeviceWants;
use nucleus::backend::pjrt::device_parameters::DeviceParameters;
use nucleus::batch::{CallOptions, RowSettings};
use nucleus::dtype::Dtype;
use nucleus::kernels::{emit, pack_seeds, Path, Source, Spec, Target, Wanted, COLUMNS};
use nucleus::pjrt::{Buffer, Client, CompileOptions, ElementType, Executable, OptionValue};
use nucleus::plan::{Entry, DEFAULT_MAX_K};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use nucleus::semantics::params::RowParams;

use crate::c_calls::{CCall, CParameters, CSampler};
use crate::timed_table::Measured;

const HOST_TIME_ROUNDS: usize = 400;
const HOST_TIME_VOCAB: usize = 1000;
const MIXED_ROUNDS: usize = 30;
const MIXED_VOCAB: usize = 32_768;
const MIXED_ROWS: usize = 16;

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn sampler() -> Sampler {
    let plugin = std::env::var_os("NUCLEUS_PJRT_PLUGIN").map_or_else(
        || FilePath::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins/lammps-jax-pjrt-cpu.so"),
        PathBuf::from,
    );
    let options = std::env::var("NUCLEUS_BENCH_CLIENT_OPTIONS").unwrap_or_default();
    let client_options = options
        .split(',')
        .filter_map(|option| option.split_once('='))
        .map(|(name, value)| (name.to_owned(), OptionValue::Bool(value == "true")))
        .collect();
    let options = SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin),
        client_options,
        ..SamplerOptions::default()
    };
    Sampler::new(&options).unwrap_or_else(|error| panic!("{error}"))
}

fn upload<T: bytemuck::NoUninit>(
    client: &Arc<Client>,
    values: &[T],
    element: ElementType,
    dims: &[usize],
) -> Buffer {
    let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
    client.buffer_from_host(bytemuck::cast_slice(values), element, &dims, 0).expect("an upload")
}

fn upload_logits(client: &Arc<Client>, rows: usize, vocab: usize) -> Buffer {
    let logits: Vec<f32> = (0..rows * vocab).map(|i| (i * 7919 % 1013) as f32 * 0.01).collect();
    upload(client, &logits, ElementType::F32, &[rows, vocab])
}

fn parameters(sampler: &Sampler, vocab: usize, top_k: &[i32]) -> DeviceParameters {
    let parameters =
        sampler.device_parameters(top_k.len(), vocab, Dtype::F32, CallOptions::default()).expect("memory");
    for (row, &top_k) in top_k.iter().enumerate() {
        let settings = RowSettings { top_k, top_p: 0.95, ..RowSettings::default() };
        parameters.set(row, &settings).expect("a row");
    }
    parameters
}

fn main() {
    let sampler = sampler();
    let client = sampler.client().expect("a plugin");
    let c_sampler = CSampler::new(client);
    for rows in [1, 8, 64] {
        println!("{}", host_time(client, &c_sampler, rows));
    }
    println!("{}", mixed(&sampler));
}

/// The ways to run the program of one path.
#[derive(Clone, Copy)]
enum Kind {
    /// `PJRT_LoadedExecutable_Execute`.
    Execute,
    /// The same, and `PJRT_Buffer_ToHostBuffer` for the tokens.
    ExecuteAndCopy,
    /// `nuc_sample_start`.
    Call,
}

const KINDS: [Kind; 3] = [Kind::Execute, Kind::ExecuteAndCopy, Kind::Call];

/// The work that a measurement of `host_time` has started.
enum Running {
    Program(plugin_calls::Run),
    Call(CCall),
}

/// Starts the program of one batch.
struct Starter<'a> {
    logits: &'a Buffer,
    program: plugin_calls::Program<'a>,
    parameters: CParameters<'a>,
    step: u64,
    tokens: Vec<i32>,
}

impl Starter<'_> {
    fn start(&mut self, kind: Kind) -> Running {
        match kind {
            Kind::Execute => Running::Program(self.program.execute()),
            Kind::ExecuteAndCopy => Running::Program(self.program.execute_and_copy_tokens()),
            Kind::Call => {
                self.step += 1;
                Running::Call(self.parameters.start(self.logits, self.step))
            }
        }
    }

    /// Waits for the end of the program, and for the tokens if `Kind` copies them.
    fn wait(&mut self, running: &Running) {
        match running {
            Running::Program(run) => run.wait(),
            Running::Call(call) => call.read(&mut self.tokens),
        }
    }

    /// Runs the program once. The library and the baselines use different compiled programs, so this happens before
    /// each measurement. Then the program that is measured is also the program that ran last.
    fn run(&mut self, kind: Kind) {
        let running = self.start(kind);
        self.wait(&running);
    }
}

fn host_time(client: &Arc<Client>, sampler: &CSampler, rows: usize) -> serde_json::Value {
    let logits = upload_logits(client, rows, HOST_TIME_VOCAB);
    let program = plugin_calls::Program::new(client, program(client, rows), operands(client, rows), &logits);
    let parameters = sampler.parameters(rows, HOST_TIME_VOCAB);
    let mut starter = Starter { logits: &logits, program, parameters, step: 0, tokens: vec![0; rows] };
    let mut starts = KINDS.map(|_| Vec::with_capacity(HOST_TIME_ROUNDS));
    let mut totals = KINDS.map(|_| Vec::with_capacity(HOST_TIME_ROUNDS));
    let mut added = Vec::with_capacity(HOST_TIME_ROUNDS);
    let mut parts = BTreeMap::<&str, Vec<Duration>>::new();
    for _ in 0..HOST_TIME_ROUNDS {
        for ((kind, starts), totals) in KINDS.into_iter().zip(&mut starts).zip(&mut totals) {
            starter.run(kind);
            let at = Instant::now();
            let running = starter.start(kind);
            starts.push(at.elapsed());
            starter.wait(&running);
            totals.push(at.elapsed());
        }
        starter.run(Kind::Call);
        let measured = timed_table::record(Measured::Execute, || starter.start(Kind::Call));
        added.push(measured.time_outside());
        starter.wait(&measured.result);
        drop(measured);
        starter.run(Kind::Call);
        let measured = timed_table::record(Measured::All, || starter.start(Kind::Call));
        parts.entry("the library").or_default().push(measured.time_outside());
        for &(function, time) in &measured.calls {
            parts.entry(timed_table::name(function)).or_default().push(time);
        }
    }
    let [execute, _, call] = &starts;
    let microseconds = |time: &Duration| time.as_secs_f64() * 1e6;
    let mut over_execute: Vec<f64> =
        call.iter().zip(execute).map(|(call, execute)| microseconds(call) - microseconds(execute)).collect();
    over_execute.sort_unstable_by(f64::total_cmp);
    // The report has only the functions that most starts call, because it describes a usual start.
    parts.retain(|_, times| times.len() > HOST_TIME_ROUNDS / 2);
    let parts: BTreeMap<_, _> =
        parts.into_iter().map(|(name, mut times)| (name, rounded(median(&mut times)))).collect();
    let [execute, with_copy, call] = starts.each_mut().map(|times| median(times));
    let [_, total_with_copy, total] = totals.each_mut().map(|times| median(times));
    serde_json::json!({
        "name": format!("device_call/host_time/{rows}x{HOST_TIME_VOCAB}"),
        "platform": client.platform_name(),
        "batch": rows,
        "vocab": HOST_TIME_VOCAB,
        "median_us": rounded(call),
        "added_us": rounded(median(&mut added)),
        "execute_us": rounded(execute),
        "over_execute_us": rounded(over_execute[over_execute.len() / 2]),
        "execute_and_copy_us": rounded(with_copy),
        "until_tokens_us": rounded(total),
        "execute_until_tokens_us": rounded(total_with_copy),
        "parts_us": parts,
        "baseline": "the plugin's Execute in the same call",
    })
}

/// Compiles the program that the library runs for `rows` rows of the bounded path.
fn program(client: &Arc<Client>, rows: usize) -> Arc<Executable> {
    let spec = Spec {
        path: Path::Bounded(DEFAULT_MAX_K),
        batch: rows,
        vocab: HOST_TIME_VOCAB,
        dtype: Dtype::F32,
        stable: true,
        wanted: Wanted::default(),
        source: Source::Buffer { rows, singleton: false, in_order: true },
    };
    let device = &client.devices()[0];
    let description = device.description();
    let target = Target::of(client.platform_name(), &description.kind, description.num_cores());
    let options = CompileOptions::for_device(device.id());
    client.compile(&emit(&spec, &target), &options).expect("it compiles")
}

/// Uploads the operands that follow the logits: the parameters, and the two parts of the step.
fn operands(client: &Arc<Client>, rows: usize) -> Vec<Buffer> {
    let row = RowParams::new(40, 0.95, 0.0, 1.0, [0; 4], HOST_TIME_VOCAB);
    let packed: Vec<i32> =
        (0..rows).flat_map(|_| pack_seeds(&row, 0, 0, CallOptions::default(), Dtype::F32)).collect();
    let step = || upload(client, &[0_u64], ElementType::U64, &[]);
    vec![upload(client, &packed, ElementType::S32, &[rows, COLUMNS]), step(), step()]
}

/// Measures a call whose rows take both paths, and two calls with the rows of one path each.
fn mixed(sampler: &Sampler) -> serde_json::Value {
    let client = sampler.client().expect("a plugin");
    let (half, vocab) = (MIXED_ROWS / 2, MIXED_VOCAB);
    let both: Vec<i32> = (0..MIXED_ROWS).map(|row| if row % 2 == 0 { 40 } else { 0 }).collect();
    let batches = [both, vec![40; half], vec![0; half]]
        .map(|top_k| (upload_logits(client, top_k.len(), vocab), parameters(sampler, vocab, &top_k)));
    let start = |(logits, parameters): &(Buffer, DeviceParameters), step: usize| {
        let wants = DeviceWants::default();
        sampler.start(Entry::Automatic, logits, parameters, step as u64, wants).expect("it starts")
    };
    for batch in &batches {
        start(batch, 0).wait(None).expect("it runs");
    }
    let mut times = [(); 3].map(|()| Vec::with_capacity(MIXED_ROUNDS));
    for round in 0..MIXED_ROUNDS {
        for (batch, times) in batches.iter().zip(&mut times) {
            let at = Instant::now();
            start(batch, round).wait(None).expect("it runs");
            times.push(at.elapsed());
        }
    }
    let [mixed, bounded, arbitrary] = times.each_mut().map(|times| median(times));
    serde_json::json!({
        "name": format!("device_call/mixed/{MIXED_ROWS}x{vocab}"),
        "platform": client.platform_name(),
        "batch": MIXED_ROWS,
        "vocab": vocab,
        "median_us": rounded(mixed),
        "bounded_us": rounded(bounded),
        "arbitrary_us": rounded(arbitrary),
        "ratio": rounded(mixed / (bounded + arbitrary)),
        "baseline": "the sum of a call with the rows of the bounded path and a call with the other rows",
    })
}
