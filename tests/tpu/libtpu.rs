//! libtpu on a host without a TPU: what it says of its topologies, that programs compile, and how a sampler fails.
//!
//! One test, since it sets environment variables, which no other thread may read meanwhile.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nucleus::backend::pjrt::program_dir::System;
use nucleus::compile_ahead::{compile_ahead, AheadOptions};
use nucleus::dtype::Dtype;
use nucleus::kernels::{Target, Wanted};
use nucleus::pjrt::{host_has_tpu, CompileOptions, ErrorKind, Plugin, LIBTPU_AHEAD_ENVIRONMENT};
use nucleus::plan::{CallShape, Entry};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};

#[test]
fn libtpu_without_a_tpu() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins/libtpu.so");
    assert!(path.is_file(), "{} is missing: run `make plugins`", path.display());
    let with_libtpu = SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(path.clone()),
        ..SamplerOptions::default()
    };

    if host_has_tpu() {
        println!("left out on a host with a TPU: how a sampler fails without one");
    } else {
        // Before the variables are set: refused before libtpu asks anybody.
        LIBTPU_AHEAD_ENVIRONMENT.iter().for_each(|(name, _)| std::env::remove_var(name));
        let start = Instant::now();
        let error = Sampler::new(&with_libtpu).err().unwrap().to_string();
        assert!(error.contains("this host has no TPU") && error.contains("TPU_SKIP_MDS_QUERY=1"), "{error}");
        assert_eq!(Plugin::load(&path).unwrap_err().kind(), ErrorKind::NoDevice);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }

    LIBTPU_AHEAD_ENVIRONMENT.iter().for_each(|(name, value)| std::env::set_var(name, value));
    let plugin = Plugin::load(&path).unwrap();
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
        let system = System::of_topology(&plugin, &topology).unwrap();
        assert_eq!((system.platform.as_str(), system.num_devices), ("tpu", devices), "{name}");
        assert_eq!(system.extents, extents, "{name}");
        let Target::Tpu(chip) = system.target() else { panic!("{name}: {system:?}") };
        assert_eq!((chip.name, chip.tensor_cores), (generation, cores), "{name}");
        // What the tool takes for a generation is what a topology of it gives.
        assert_eq!(Target::named(generation), Some(system.target()), "{name}");
        // What tests/tpu_hardware.rs asks of a TPU must at least compile without one.
        let options = CompileOptions::for_device(topology.devices().unwrap()[0].id);
        for probe in crate::common::probes::PROBES {
            let compiled = plugin.compile_ahead(&topology, &probe.text(), &options);
            compiled.unwrap_or_else(|error| panic!("{name}: {probe:?}: {error}"));
        }
    }

    if !host_has_tpu() {
        let start = Instant::now();
        let error = Sampler::new(&with_libtpu).err().unwrap().to_string();
        for words in ["started no TPU", "No jellyfish device found", "nuc_compile_ahead", "built-in backend"]
        {
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libtpu-{}", std::process::id()));
    let calls = CallShape {
        entry: Entry::Arbitrary,
        batch: 1,
        vocab: 256,
        dtype: Dtype::Bf16,
        stable: true,
        wanted: Wanted::default(),
    };
    let ahead = AheadOptions {
        plugin: Some(path),
        topology: Some("v5e:2x2".to_owned()),
        ..AheadOptions::new(folder.clone(), vec![1], calls)
    };
    let written = compile_ahead(&ahead, &|program| println!("{program:?}")).unwrap();
    assert_eq!(written.len(), 1);
    assert!(written[0].bytes > 1000);
    let file = fs::read(&written[0].file).unwrap();
    let says = |words: &str| file.windows(words.len()).any(|window| window == words.as_bytes());
    assert!(says(r#""device_kind":"TPU v5 lite""#) && says(r#""topology":"v5e:2x2""#));

    // What the kernels are not made for compiles as well.
    for (path, max_k, vocab) in [(Entry::Bounded, 200, 1000), (Entry::Arbitrary, 128, (1 << 20) + 1)] {
        let calls = CallShape { entry: path, vocab, ..calls };
        let portable = AheadOptions { max_k, calls, ..ahead.clone() };
        assert_eq!(compile_ahead(&portable, &|program| println!("{program:?}")).unwrap().len(), 1);
    }

    let misspelt = AheadOptions { topology: Some("v9z:2x2".to_owned()), ..ahead };
    let error = compile_ahead(&misspelt, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("topology is \"v9z:2x2\""), "{error}");
    fs::remove_dir_all(&folder).unwrap();
}
