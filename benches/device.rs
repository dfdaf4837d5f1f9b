//! Calls on logits on the device: one JSON object per line on standard output.
//!
//! `device_call/host_time` is the time until `Sampler::start` returns. The benchmark does not wait for the end of the
//! call in this time. There are two baselines with the same program and inputs. The first baseline is the plugin's
//! function `PJRT_LoadedExecutable_Execute`. The second one also starts a copy of the tokens to the host
//! (`PJRT_Buffer_ToHostBuffer`), because every user of the tokens needs this copy. The benchmark takes the three
//! measurements in turn. Before each measurement, it does the same work once and waits for its end.
//!
//! `device_call/mixed` is the time from the start to the end of a call whose rows take both paths. The baseline is the
//! sum of the times of two calls. Each of these calls has the rows of one path.
//!
//! The plugin is `NUCLEUS_PJRT_PLUGIN`, or the CPU plugin of `make plugins`. `NUCLEUS_BENCH_CLIENT_OPTIONS` is a list of
//! boolean options of its client, for example `preallocate=false`.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nucleus::backend::pjrt::device_call::{DeviceCall, DeviceWants};
use nucleus::backend::pjrt::device_parameters::DeviceParameters;
use nucleus::batch::{CallOptions, RowSettings};
use nucleus::dtype::Dtype;
use nucleus::kernels::{emit, pack_seeds, Path, Source, Spec, Target, Wanted, COLUMNS};
use nucleus::pjrt::{Buffer, Client, CompileOptions, ElementType, Executable, OptionValue};
use nucleus::plan::{Entry, DEFAULT_MAX_K};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use nucleus::semantics::params::RowParams;

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
    for rows in [1, 8, 64] {
        println!("{}", host_time(&sampler, rows));
    }
    println!("{}", mixed(&sampler));
}

fn host_time(sampler: &Sampler, rows: usize) -> serde_json::Value {
    let client = sampler.client().expect("a plugin");
    let logits = upload_logits(client, rows, HOST_TIME_VOCAB);
    let parameters = parameters(sampler, HOST_TIME_VOCAB, &vec![40; rows]);
    let program = plugin_calls::Program::new(client, program(client, rows), operands(client, rows), &logits);
    let mut times = [(); 3].map(|()| Vec::with_capacity(HOST_TIME_ROUNDS));
    let mut step = 0;
    let mut start = |kind: usize| match kind {
        0 => Running::Program(program.execute()),
        1 => Running::Program(program.execute_and_copy_tokens()),
        _ => {
            step += 1;
            let call = sampler.start(Entry::Automatic, &logits, &parameters, step, DeviceWants::default());
            Running::Call(call.expect("it starts"))
        }
    };
    for _ in 0..HOST_TIME_ROUNDS {
        for (kind, times) in times.iter_mut().enumerate() {
            // The library and the baselines use different compiled programs. After this call, the program that is
            // measured is also the program that ran last.
            start(kind).wait();
            let at = Instant::now();
            let running = start(kind);
            times.push(at.elapsed());
            running.wait();
        }
    }
    let [execute, with_copy, call] = times.each_mut().map(|times| median(times));
    serde_json::json!({
        "name": format!("device_call/host_time/{rows}x{HOST_TIME_VOCAB}"),
        "platform": client.platform_name(),
        "batch": rows,
        "vocab": HOST_TIME_VOCAB,
        "median_us": rounded(call),
        "execute_us": rounded(execute),
        "execute_and_copy_us": rounded(with_copy),
        "added_us": rounded(call - execute),
        "added_to_execute_and_copy_us": rounded(call - with_copy),
        "baseline": "the plugin's Execute on the same program",
    })
}

/// The work that a measurement of `host_time` has started.
enum Running {
    Program(plugin_calls::Run),
    Call(DeviceCall),
}

impl Running {
    fn wait(self) {
        match self {
            Running::Program(run) => drop(run),
            Running::Call(call) => assert!(call.wait(None).expect("it runs")),
        }
    }
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

/// Calls the functions of the plugin without the library, as a program in C does.
mod plugin_calls {
    use std::mem::size_of;
    use std::ptr::null_mut;
    use std::sync::Arc;

    use nucleus::pjrt::{Buffer, Client, Executable};
    use pjrt_sys::*;

    /// A struct of the C API and space for the fields of newer versions.
    #[repr(C)]
    #[derive(Default)]
    struct Args<T> {
        base: T,
        reserve: [usize; 16],
    }

    /// A compiled program and its operands.
    pub(crate) struct Program<'a> {
        api: &'a PJRT_Api,
        program: Arc<Executable>,
        operands: Vec<*mut PJRT_Buffer>,
        owned: Vec<Buffer>,
    }

    /// A running program. Dropping it waits for the program and frees its results.
    pub(crate) struct Run {
        api: *const PJRT_Api,
        events: Vec<*mut PJRT_Event>,
        outputs: [*mut PJRT_Buffer; 2],
        tokens: Vec<i32>,
    }

    impl<'a> Program<'a> {
        pub(crate) fn new(
            client: &'a Arc<Client>,
            program: Arc<Executable>,
            operands: Vec<Buffer>,
            logits: &Buffer,
        ) -> Program<'a> {
            assert_eq!(program.num_outputs(), 2);
            let raw = std::iter::once(logits).chain(&operands).map(Buffer::as_raw).collect();
            // SAFETY: the table belongs to a loaded plugin. The plugin stays loaded until the process ends.
            let api = unsafe { &*client.plugin().as_raw() };
            Program { api, program, operands: raw, owned: operands }
        }

        pub(crate) fn execute(&self) -> Run {
            let mut options = Args::<PJRT_ExecuteOptions>::default();
            options.base.struct_size = size_of_val(&options);
            let (mut outputs, mut event) = ([null_mut(); 2], null_mut());
            let (operands, output_list) = (self.operands.as_ptr(), outputs.as_mut_ptr());
            let mut args = Args::<PJRT_LoadedExecutable_Execute_Args>::default();
            args.base.struct_size = size_of_val(&args);
            args.base.executable = self.program.as_raw();
            args.base.options = &mut options.base;
            args.base.argument_lists = &operands;
            args.base.num_devices = 1;
            args.base.num_args = self.operands.len();
            args.base.output_lists = &output_list;
            args.base.device_complete_events = &mut event;
            // SAFETY: the objects are alive and belong to one client. The lists have the lengths that the program
            // needs.
            let error = unsafe { self.api.PJRT_LoadedExecutable_Execute.unwrap()(&mut args.base) };
            assert!(error.is_null());
            Run { api: self.api, events: vec![event], outputs, tokens: Vec::new() }
        }

        pub(crate) fn execute_and_copy_tokens(&self) -> Run {
            let mut run = self.execute();
            let rows = self.owned[0].dims()[0] as usize;
            run.tokens = vec![0; rows];
            let mut args = Args::<PJRT_Buffer_ToHostBuffer_Args>::default();
            args.base.struct_size = size_of_val(&args);
            args.base.src = run.outputs[1];
            args.base.dst = run.tokens.as_mut_ptr().cast();
            args.base.dst_size = rows * size_of::<i32>();
            // SAFETY: the buffer is alive, and the memory has its size. `Run` frees the memory after the event.
            let error = unsafe { self.api.PJRT_Buffer_ToHostBuffer.unwrap()(&mut args.base) };
            assert!(error.is_null());
            run.events.push(args.base.event);
            run
        }
    }

    impl Drop for Run {
        fn drop(&mut self) {
            // SAFETY: as in `Program::new`. The events and buffers are alive, and nothing uses them afterwards.
            unsafe {
                let api = &*self.api;
                for &event in &self.events {
                    let mut args = Args::<PJRT_Event_Await_Args>::default();
                    (args.base.struct_size, args.base.event) = (size_of_val(&args), event);
                    assert!(api.PJRT_Event_Await.unwrap()(&mut args.base).is_null());
                    let mut args = Args::<PJRT_Event_Destroy_Args>::default();
                    (args.base.struct_size, args.base.event) = (size_of_val(&args), event);
                    assert!(api.PJRT_Event_Destroy.unwrap()(&mut args.base).is_null());
                }
                for buffer in self.outputs {
                    let mut args = Args::<PJRT_Buffer_Destroy_Args>::default();
                    (args.base.struct_size, args.base.buffer) = (size_of_val(&args), buffer);
                    assert!(api.PJRT_Buffer_Destroy.unwrap()(&mut args.base).is_null());
                }
            }
        }
    }
}
