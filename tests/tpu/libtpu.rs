//! libtpu on a host without a TPU: its topologies, compiling ahead, and the error of a sampler without a device.
//!
//! There is only one test, because it sets environment variables. No other thread may read them at the same time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::tpu::{embedded_program, spec};
use nucleus::backend::pjrt::program_dir::System;
use nucleus::compile_ahead::{compile_ahead, AheadOptions};
use nucleus::dtype::Dtype;
use nucleus::kernels::{emit, Path as KernelPath, Target, Wanted};
use nucleus::pjrt::{host_has_tpu, CompileOptions, ErrorKind, Plugin, LIBTPU_AHEAD_ENVIRONMENT};
use nucleus::plan::{CallShape, Entry, LogitsPlace};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};

/// The time in which libtpu must fail on a host without a TPU.
const FAILS_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn libtpu_without_a_tpu() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins/libtpu.so");
    assert!(path.is_file(), "{} is missing: run `make plugins`", path.display());
    let without_tpu = !host_has_tpu();
    if without_tpu {
        refuses_to_load_without_the_variables(&path);
    } else {
        println!("skipped on a host with a TPU: how a sampler fails without one");
    }
    LIBTPU_AHEAD_ENVIRONMENT.iter().for_each(|(name, value)| std::env::set_var(name, value));
    describes_topologies_and_compiles_probes(&Plugin::load(&path).unwrap());
    if without_tpu {
        a_sampler_needs_a_device(&path);
    }
    compiles_ahead(&path);
}

fn sampler_error(path: &Path) -> String {
    let options = SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(path.to_owned()),
        ..SamplerOptions::default()
    };
    let start = Instant::now();
    let error = Sampler::new(&options).err().unwrap().to_string();
    assert!(start.elapsed() < FAILS_WITHIN, "{:?}", start.elapsed());
    error
}

/// Without these environment variables, libtpu would wait for a metadata server for minutes. So the library must refuse
/// to initialize libtpu.
fn refuses_to_load_without_the_variables(path: &Path) {
    LIBTPU_AHEAD_ENVIRONMENT.iter().for_each(|(name, _)| std::env::remove_var(name));
    let start = Instant::now();
    let error = sampler_error(path);
    assert!(error.contains("this host has no TPU") && error.contains("TPU_SKIP_MDS_QUERY=1"), "{error}");
    assert_eq!(Plugin::load(path).unwrap_err().kind(), ErrorKind::NoDevice);
    assert!(start.elapsed() < FAILS_WITHIN, "{:?}", start.elapsed());
}

fn describes_topologies_and_compiles_probes(plugin: &Arc<Plugin>) {
    assert!(plugin.is_libtpu() && plugin.fingerprint().unwrap().starts_with("build-id:"));
    for (name, generation, cores, devices, extents) in [
        ("v4:2x2x1", "v4", 1, 8, [2, 2, 1]),
        ("v5e:1x1", "v5e", 1, 1, [1, 1, 1]),
        ("v5e:2x4", "v5e", 1, 8, [2, 4, 1]),
        ("v5e:4x2", "v5e", 1, 8, [4, 2, 1]),
        ("v5p:2x2x1", "v5p", 2, 4, [2, 2, 1]),
        ("v6e:1x1", "v6e", 1, 1, [1, 1, 1]),
        ("tpu7x:2x2x1", "tpu7x", 1, 8, [2, 2, 1]),
    ] {
        let topology = plugin.topology(name, &[]).unwrap();
        let system = System::of_topology(plugin, &topology).unwrap();
        assert_eq!((system.platform.as_str(), system.num_devices), ("tpu", devices), "{name}");
        assert_eq!(system.extents, extents, "{name}");
        let target = system.target();
        let Target::Tpu(chip) = target else { panic!("{name}: {system:?}") };
        assert_eq!((chip.name, chip.tensor_cores), (generation, cores), "{name}");
        // The generation's name on the command line selects the same target as a topology of this generation.
        assert_eq!(Target::named(generation), Some(system.target()), "{name}");
        let options = CompileOptions::for_device(topology.devices().unwrap()[0].id);
        if devices == 1 {
            let spec = spec(KernelPath::Bounded(64), 8, 1000, Dtype::Bf16, false);
            let embedded = plugin.compile_ahead(&topology, &embedded_program(&spec, &target), &options);
            embedded.unwrap_or_else(|error| panic!("{name}: a function for a decode step: {error}"));
        }
        // An unknown TPU runs portable programs. libtpu compiles them slowly, so this test compiles only one.
        if name == "v6e:1x1" {
            let portable = emit(&spec(KernelPath::Arbitrary, 1, 256, Dtype::F32, false), &Target::Portable);
            let compiled = plugin.compile_ahead(&topology, &portable, &options);
            compiled.unwrap_or_else(|error| panic!("{name}: a portable program: {error}"));
        }
        // The programs that tests/hardware runs on a TPU must compile without one.
        for probe in crate::common::probes::PROBES {
            let compiled = plugin.compile_ahead(&topology, &probe.text(), &options);
            compiled.unwrap_or_else(|error| panic!("{name}: {probe:?}: {error}"));
        }
    }
}

fn a_sampler_needs_a_device(path: &Path) {
    let error = sampler_error(path);
    for words in ["started no TPU", "No jellyfish device found", "nuc_compile_ahead", "built-in backend"] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

fn compiles_ahead(path: &Path) {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("libtpu-{}", std::process::id()));
    let calls = CallShape {
        entry: Entry::Arbitrary,
        batch: 1,
        vocab: 256,
        dtype: Dtype::Bf16,
        stable: true,
        wanted: Wanted::default(),
        logits: LogitsPlace::Host,
    };
    let ahead = AheadOptions {
        plugin: Some(path.to_owned()),
        topology: Some("v5e:2x2".to_owned()),
        ..AheadOptions::new(directory.clone(), vec![1], calls)
    };
    let written = compile_ahead(&ahead, &|program| println!("{program:?}")).unwrap();
    assert_eq!(written.len(), 1);
    assert!(written[0].bytes > 1000);
    let file = fs::read(&written[0].file).unwrap();
    let says = |words: &str| file.windows(words.len()).any(|window| window == words.as_bytes());
    assert!(says(r#""device_kind":"TPU v5 lite""#) && says(r#""topology":"v5e:2x2""#));

    // Programs with the largest max_k and vocabulary compile too.
    let slices = Wanted { slices: true, ..Wanted::default() };
    let bounded = CallShape { entry: Entry::Bounded, vocab: 32_000, wanted: slices, ..calls };
    for (topology, calls) in [("v6e:2x2", bounded), ("v4:2x2x1", CallShape { vocab: 1 << 24, ..calls })] {
        let topology = Some(topology.to_owned());
        let largest = AheadOptions { topology, max_k: 1024, calls, ..ahead.clone() };
        assert_eq!(compile_ahead(&largest, &|program| println!("{program:?}")).unwrap().len(), 1);
    }

    let misspelt = AheadOptions { topology: Some("v9z:2x2".to_owned()), ..ahead };
    let error = compile_ahead(&misspelt, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("topology is \"v9z:2x2\""), "{error}");
    fs::remove_dir_all(&directory).unwrap();
}
