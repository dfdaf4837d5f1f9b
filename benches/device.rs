//! The time that the host needs for a call on logits on the device: one JSON object per line on standard output.
//!
//! A figure compares the time until `Sampler::start` returns with the time of the plugin's own `Execute` on the same
//! program and inputs. The difference is what the library adds: the upload of the step, the copy of the tokens to the
//! host, and the callback. The device's work is not included; the benchmark waits for it between two measurements.
//!
//! The plugin is `NUCLEUS_PJRT_PLUGIN`, or the CPU plugin of `make plugins`. `NUCLEUS_BENCH_CLIENT_OPTIONS` is a list of
//! boolean options of its client, for example `preallocate=false`.

use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use nucleus::backend::pjrt::device_call::DeviceWants;
use nucleus::batch::{CallOptions, RowSettings};
use nucleus::dtype::Dtype;
use nucleus::kernels::{emit, pack_seeds, Path, Source, Spec, Target, Wanted, COLUMNS};
use nucleus::pjrt::{CompileOptions, ElementType, OptionValue};
use nucleus::plan::{Entry, DEFAULT_MAX_K};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use nucleus::semantics::params::RowParams;

const ROUNDS: usize = 400;
const VOCAB: usize = 1000;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
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

fn main() {
    let sampler = sampler();
    let client = sampler.client().expect("a plugin");
    let platform = client.platform_name().to_owned();
    let description = client.devices()[0].description();
    let target = Target::of(&platform, &description.kind, description.num_cores());
    for rows in [1, 8, 64] {
        let settings = RowSettings { top_k: 40, top_p: 0.95, ..RowSettings::default() };
        let logits: Vec<f32> = (0..rows * VOCAB).map(|i| (i * 7919 % 1013) as f32 * 0.01).collect();
        let dims = [rows as i64, VOCAB as i64];
        let logits = client
            .buffer_from_host(bytemuck::cast_slice(&logits), ElementType::F32, &dims, 0)
            .expect("an upload");
        let parameters =
            sampler.device_parameters(rows, VOCAB, Dtype::F32, CallOptions::default()).expect("memory");
        (0..rows).for_each(|row| parameters.set(row, &settings).expect("a row"));

        // The same program and inputs, without the library's calls around them.
        let source = Source::Buffer { rows, singleton: false, in_order: true };
        let path = Path::Bounded(DEFAULT_MAX_K);
        let spec = Spec {
            path,
            batch: rows,
            vocab: VOCAB,
            dtype: Dtype::F32,
            stable: true,
            wanted: Wanted::default(),
            source,
        };
        let program = client
            .compile(&emit(&spec, &target), &CompileOptions::for_device(client.devices()[0].id()))
            .expect("it compiles");
        let row = RowParams::new(40, 0.95, 0.0, 1.0, [0; 4], VOCAB);
        let packed: Vec<i32> =
            (0..rows).flat_map(|_| pack_seeds(&row, 0, 0, CallOptions::default(), Dtype::F32)).collect();
        let packed = client
            .buffer_from_host(
                bytemuck::cast_slice(&packed),
                ElementType::S32,
                &[rows as i64, COLUMNS as i64],
                0,
            )
            .expect("an upload");
        let step =
            client.buffer_from_host(&0_u64.to_le_bytes(), ElementType::U64, &[], 0).expect("an upload");

        let (mut alone, mut call) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let start = Instant::now();
            let launch = program.launch_shared(&[&logits, &packed, &step]).expect("it runs");
            alone.push(start.elapsed());
            launch.wait().expect("it runs");
            let start = Instant::now();
            let started = sampler
                .start(Entry::Automatic, &logits, &parameters, round as u64, DeviceWants::default())
                .expect("it starts");
            call.push(start.elapsed());
            started.wait(None).expect("it runs");
        }
        let (alone, call) = (median(alone), median(call));
        let round = |number: f64| (number * 100.0).round() / 100.0;
        let line = serde_json::json!({
            "name": format!("device_call/host_time/{rows}x{VOCAB}"),
            "platform": platform,
            "batch": rows,
            "vocab": VOCAB,
            "median_us": round(call),
            "execute_us": round(alone),
            "added_us": round(call - alone),
            "baseline": "the plugin's Execute on the same program",
        });
        println!("{line}");
    }
}
