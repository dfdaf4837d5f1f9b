//! Tests of the PJRT layer with CPU plugins of three API versions.
//!
//! This process loads all three plugins. Each contains a copy of XLA, and `RTLD_LOCAL` keeps their symbols separate.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nucleus::pjrt::{
    ApiVersion, Buffer, Client, Code, CompileOptions, ElementType, Error, ErrorKind, Executable, OptionValue,
    Plugin, Result,
};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};

/// A plugin that `make plugins` downloaded.
fn plugin_path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins").join(name).with_extension("so");
    assert!(path.is_file(), "{} is missing: run `make plugins`", path.display());
    path
}

fn load(name: &str) -> Arc<Plugin> {
    Plugin::load(&plugin_path(name)).unwrap()
}

fn client(name: &str) -> Arc<Client> {
    Client::create(load(name), &[]).unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn floats(buffer: &Buffer) -> Vec<f32> {
    buffer.to_host().unwrap()
}

/// A program with two inputs, and three outputs of different types and ranks.
const PROGRAM: &str = r#"
module @sum_and_compare {
  func.func public @main(%x: tensor<2x3xf32>, %y: tensor<2x3xf32>) -> (tensor<2x3xf32>, tensor<3x2xf32>, tensor<2x3xi1>) {
    %sum = stablehlo.add %x, %y : tensor<2x3xf32>
    %turned = stablehlo.transpose %x, dims = [1, 0] : (tensor<2x3xf32>) -> tensor<3x2xf32>
    %less = stablehlo.compare LT, %x, %y, FLOAT : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xi1>
    return %sum, %turned, %less : tensor<2x3xf32>, tensor<3x2xf32>, tensor<2x3xi1>
  }
}
"#;

fn compile(client: &Arc<Client>, device: usize) -> Arc<Executable> {
    client.compile(PROGRAM, &CompileOptions::for_device(client.devices()[device].id())).unwrap()
}

fn run_and_check(client: &Arc<Client>, program: &Arc<Executable>, device: usize, seed: f32) {
    let x: Vec<f32> = (0..6).map(|i| seed + i as f32).collect();
    let y: Vec<f32> = (0..6).map(|i| 2.0 * seed - i as f32).collect();
    let dims = [2, 3];
    let x_on_device = client.buffer_from_host(&bytes(&x), ElementType::F32, &dims, device).unwrap();
    let y_on_device = client.buffer_from_host(&bytes(&y), ElementType::F32, &dims, device).unwrap();
    let outputs = program.execute(&[&x_on_device, &y_on_device]).unwrap();
    assert_eq!(outputs.len(), 3);
    assert_eq!(outputs[1].dims(), [3, 2]);
    assert_eq!(outputs[2].element(), ElementType::Pred);

    assert_eq!(floats(&outputs[0]), x.iter().zip(&y).map(|(x, y)| x + y).collect::<Vec<_>>());
    assert_eq!(floats(&outputs[1]), [x[0], x[3], x[1], x[4], x[2], x[5]]);
    let less: Vec<u8> = outputs[2].to_host().unwrap();
    assert_eq!(less, x.iter().zip(&y).map(|(x, y)| u8::from(x < y)).collect::<Vec<_>>());
}

fn load_returns_the_same_plugin(name: &str, version: ApiVersion) {
    let plugin = load(name);
    assert_eq!(plugin.version(), version);
    assert!(Arc::ptr_eq(&plugin, &load(name)));
    assert!(!plugin.is_libtpu());
    assert!(plugin.fingerprint().unwrap().starts_with("sha256-pieces:"));
    let attributes = plugin.attributes().unwrap();
    let stablehlo = attributes.iter().find(|(name, _)| name == "stablehlo_current_version");
    assert!(
        matches!(stablehlo, Some((_, OptionValue::I64List(version))) if version.len() == 3),
        "{attributes:?}"
    );
}

fn has_four_devices(name: &str) {
    let client = client(name);
    assert_eq!(client.platform_name(), "cpu");
    assert_eq!(client.devices().len(), 4);
    for (index, device) in client.devices().iter().enumerate() {
        assert_eq!((device.id(), device.kind()), (index as i32, "cpu"));
        assert!(!device.debug_string().is_empty());
    }
}

fn compiles_and_runs(name: &str) {
    let client = client(name);
    for device in 0..client.devices().len() {
        let program = compile(&client, device);
        assert_eq!(program.num_outputs(), 3);
        assert_eq!(program.devices(), [device]);
        run_and_check(&client, &program, device, 1.5);
    }
}

fn returns_compile_errors(name: &str) {
    let client = client(name);
    let options = CompileOptions::for_device(client.devices()[0].id());
    let error = client.compile("module { func.func @main() { return %nothing } }", &options).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Pjrt { code: Code::InvalidArgument | Code::Unknown }),
        "{error:?}"
    );
    assert!(error.to_string().starts_with("PJRT_Client_Compile: "), "{error}");
    assert!(error.to_string().contains("1:45: error: expected ':'"), "{error}");

    let wrong = PROGRAM.replace("stablehlo.add", "stablehlo.no_such_operation");
    let error = client.compile(&wrong, &options).unwrap_err().to_string();
    assert!(error.contains("no_such_operation"), "{error}");
    // The plugin must still work.
    run_and_check(&client, &compile(&client, 0), 0, 3.0);
}

fn rejects_wrong_arguments(name: &str) {
    let client = client(name);
    let rejected = |outcome: Error, words: &str| {
        assert_eq!(outcome.kind(), ErrorKind::Argument, "{outcome:?}");
        assert!(outcome.to_string().contains(words), "{outcome}");
    };
    let upload = |bytes: &[u8], dims: &[i64], device| {
        client.buffer_from_host(bytes, ElementType::F32, dims, device).map(drop)
    };
    rejected(upload(&[0; 8], &[3], 0).unwrap_err(), "8 bytes are not an array of F32 with dimensions [3]");
    rejected(upload(&[0; 8], &[-2], 0).unwrap_err(), "[-2]");
    rejected(upload(&[0; 8], &[i64::MAX, i64::MAX], 0).unwrap_err(), "8 bytes");
    rejected(upload(&[0; 8], &[2], 4).unwrap_err(), "there is no device 4");
    rejected(client.compile(PROGRAM, &CompileOptions::for_device(77)).unwrap_err(), "device id 77");

    let program = compile(&client, 0);
    let x = client.buffer_from_host(&[0; 24], ElementType::F32, &[2, 3], 0).unwrap();
    let other = Client::create(client.plugin().clone(), &[]).unwrap();
    let foreign = other.buffer_from_host(&[0; 24], ElementType::F32, &[2, 3], 0).unwrap();
    rejected(program.execute(&[&x, &foreign]).unwrap_err(), "another client");

    let from_plugin = |outcome: Result<Vec<_>>, words: &str| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Pjrt { code: Code::InvalidArgument }, "{error:?}");
        assert!(error.to_string().starts_with("PJRT_LoadedExecutable_Execute: "), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    from_plugin(program.execute(&[&x]), "supplied 1");
    from_plugin(program.execute(&[&x, &x, &x]), "supplied 3");
    let short = client.buffer_from_host(&[0; 8], ElementType::F32, &[2], 0).unwrap();
    from_plugin(program.execute(&[&x, &short]), "size 8");
    let elsewhere = client.buffer_from_host(&[0; 24], ElementType::F32, &[2, 3], 3).unwrap();
    from_plugin(program.execute(&[&x, &elsewhere]), "device");
    run_and_check(&client, &program, 0, 3.0);
}

fn moves_every_type_and_rank(name: &str) {
    let client = client(name);
    let types = [
        ElementType::Pred,
        ElementType::S32,
        ElementType::U16,
        ElementType::U32,
        ElementType::U64,
        ElementType::F16,
        ElementType::BF16,
        ElementType::F32,
    ];
    let shapes: [&[i64]; 5] = [&[], &[7], &[2, 3], &[2, 3, 4], &[3, 0]];
    for element in types {
        for dims in shapes {
            let size = dims.iter().product::<i64>() as usize * element.size();
            let sent: Vec<u8> =
                (0..size).map(|i| if element == ElementType::Pred { i % 2 } else { i } as u8).collect();
            let buffer = client.buffer_from_host(&sent, element, dims, 1).unwrap();
            assert_eq!((buffer.element(), buffer.dims(), buffer.host_size()), (element, dims, size));
            let back: Vec<u8> = buffer.to_host().unwrap();
            assert_eq!(back, sent, "{buffer:?}");
        }
    }
}

fn runs_from_many_threads(name: &str) {
    let client = client(name);
    let program = compile(&client, 0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (client, program) = (&client, &program);
            scope.spawn(move || {
                for run in 0..50 {
                    run_and_check(client, program, 0, (thread * 100 + run) as f32);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| drop(compile(&client, 0)));
        }
    });
}

fn outputs_outlive_the_values_that_made_them(name: &str) {
    let client = client(name);
    let program = compile(&client, 0);
    let x = client.buffer_from_host(&bytes(&[1.0; 6]), ElementType::F32, &[2, 3], 0).unwrap();
    let launch = program.launch(&[&x, &x], None).unwrap();
    drop((client, x, program));
    let outputs = launch.wait().unwrap();
    assert_eq!(floats(&outputs[0]), [2.0; 6]);
}

fn does_not_donate_inputs(name: &str) {
    // The program overwrites a donated input. The library does not donate its inputs, so this input must stay
    // unchanged.
    let donating = r#"
        module @m {
          func.func public @main(%x: tensor<4xf32> {tf.aliasing_output = 0 : i32}) -> tensor<4xf32> {
            %y = stablehlo.add %x, %x : tensor<4xf32>
            return %y : tensor<4xf32>
          }
        }"#;
    let client = client(name);
    let program = client.compile(donating, &CompileOptions::for_device(client.devices()[0].id())).unwrap();
    let x = client.buffer_from_host(&bytes(&[1.0, 2.0, 3.0, 4.0]), ElementType::F32, &[4], 0).unwrap();
    for _ in 0..3 {
        let outputs = program.execute(&[&x]).unwrap();
        assert_eq!(floats(&outputs[0]), [2.0, 4.0, 6.0, 8.0]);
    }
    assert_eq!(floats(&x), [1.0, 2.0, 3.0, 4.0]);
}

fn saves_and_restores_programs(name: &str) {
    let client = client(name);
    let saved = compile(&client, 1).serialize().unwrap();
    assert!(!saved.is_empty());
    // The program runs on the device that it was compiled for, and on another device.
    for device in [1, 3] {
        let options = CompileOptions::for_device(client.devices()[device].id());
        let restored = client.deserialize(&saved, &options).unwrap();
        assert_eq!((restored.num_outputs(), restored.devices()), (3, &[device][..]));
        run_and_check(&client, &restored, device, 0.25);
    }
    let options = CompileOptions::for_device(client.devices()[1].id());
    let error = client.deserialize(&saved[..saved.len() / 2], &options).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Pjrt { .. }), "{error:?}");
    let error = client.deserialize(&saved, &CompileOptions::for_device(77)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
}

fn compiles_ahead(name: &str) {
    let client = client(name);
    let plugin = client.plugin();
    let topology = client.topology().unwrap();
    assert_eq!(topology.platform_name().unwrap(), "cpu");
    let described: Vec<_> = client.devices().iter().map(|device| device.description().clone()).collect();
    assert_eq!(topology.devices().unwrap(), described);
    let error = plugin.topology("no_such_topology", &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pjrt { code: Code::Unimplemented }, "{error}");
    assert!(error.is_unimplemented());

    let options = CompileOptions::for_device(client.devices()[2].id());
    let compiled = plugin.compile_ahead(&topology, PROGRAM, &options);
    if plugin.version().minor < 115 {
        // Older CPU plugins cannot compile without a client.
        assert_eq!(compiled.unwrap_err().kind(), ErrorKind::Pjrt { code: Code::NotFound });
        return;
    }
    let program = client.deserialize(&compiled.unwrap(), &options).unwrap();
    run_and_check(&client, &program, 2, 4.5);
}

fn borrows_the_callers_objects(name: &str) {
    let owner = client(name);
    let x = owner.buffer_from_host(&bytes(&[1.5; 6]), ElementType::F32, &[2, 3], 1).unwrap();
    // SAFETY: plugin, client and buffer outlive the borrowed values.
    unsafe {
        let plugin = Plugin::borrow(owner.plugin().as_raw()).unwrap();
        assert!(Arc::ptr_eq(&plugin, owner.plugin()));
        let borrowed = Client::borrow(plugin.clone(), owner.as_raw()).unwrap();
        let x_borrowed = Buffer::borrow(&borrowed, x.as_raw()).unwrap();
        assert_eq!((x_borrowed.element(), x_borrowed.dims()), (ElementType::F32, &[2, 3][..]));
        let outputs = compile(&borrowed, 1).execute(&[&x_borrowed, &x_borrowed]).unwrap();
        assert_eq!(floats(&outputs[0]), [3.0; 6]);

        assert_eq!(Plugin::borrow(std::ptr::null()).unwrap_err().kind(), ErrorKind::Argument);
        assert_eq!(Client::borrow(plugin, std::ptr::null_mut()).unwrap_err().kind(), ErrorKind::Argument);
        assert_eq!(Buffer::borrow(&borrowed, std::ptr::null_mut()).unwrap_err().kind(), ErrorKind::Argument);
    }
    assert_eq!(floats(&x), [1.5; 6]);
    run_and_check(&owner, &compile(&owner, 0), 0, 1.0);
}

fn takes_client_options(name: &str) {
    let options = [("cpu_device_count".to_string(), OptionValue::I64(2))];
    assert_eq!(Client::create(load(name), &options).unwrap().devices().len(), 2);
}

/// A logger that creates a sampler when the PJRT layer logs for the first time.
struct CreatesSampler {
    /// Counts the log messages of the PJRT layer.
    records: AtomicUsize,
    created: AtomicBool,
}

static CREATES_SAMPLER: CreatesSampler =
    CreatesSampler { records: AtomicUsize::new(0), created: AtomicBool::new(false) };

const FROM_A_LOG_FUNCTION: &str = "lammps-jax-pjrt-cpu";

impl log::Log for CreatesSampler {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let ours = record.target().starts_with("nucleus::pjrt");
        if ours && self.records.fetch_add(1, Ordering::SeqCst) == 0 {
            let plugin = Some(plugin_path(FROM_A_LOG_FUNCTION));
            let options =
                SamplerOptions { backend: BackendChoice::Pjrt, plugin, ..SamplerOptions::default() };
            Sampler::new(&options).unwrap();
            self.created.store(true, Ordering::SeqCst);
        }
    }
    fn flush(&self) {}
}

/// While a plugin is being loaded, the library logs. The caller's log function may then create a sampler with this
/// plugin. The test runs itself in a child process, because a process can have only one logger.
#[test]
fn a_log_function_may_create_a_sampler_during_a_load() {
    const CHILD: &str = "NUCLEUS_TEST_LOG_FUNCTION";
    if std::env::var_os(CHILD).is_some() {
        log::set_logger(&CREATES_SAMPLER).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        load(FROM_A_LOG_FUNCTION);
        assert!(CREATES_SAMPLER.created.load(Ordering::SeqCst));
        // Callers compile, load, run and destroy programs while they hold locks. None of these calls may log.
        let client = client(FROM_A_LOG_FUNCTION);
        let records = CREATES_SAMPLER.records.load(Ordering::SeqCst);
        let program = compile(&client, 0);
        let options = CompileOptions::for_device(client.devices()[0].id());
        let restored = client.deserialize(&program.serialize().unwrap(), &options).unwrap();
        run_and_check(&client, &restored, 0, 1.0);
        drop((program, restored, client));
        assert_eq!(CREATES_SAMPLER.records.load(Ordering::SeqCst), records);
        return;
    }
    let name = "pjrt_layer::a_log_function_may_create_a_sampler_during_a_load";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() > Duration::from_secs(120) => {
                child.kill().unwrap();
                panic!("the load hangs");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(status.success(), "{status}");
}

macro_rules! each_plugin {
    ($($module:ident $name:literal $minor:literal)*) => {$(
        mod $module {
            #[test]
            fn load_returns_the_same_plugin() {
                super::load_returns_the_same_plugin($name, super::ApiVersion { major: 0, minor: $minor });
            }
            each_plugin!(@tests $name:
                has_four_devices
                compiles_and_runs
                returns_compile_errors
                rejects_wrong_arguments
                moves_every_type_and_rank
                runs_from_many_threads
                outputs_outlive_the_values_that_made_them
                does_not_donate_inputs
                saves_and_restores_programs
                compiles_ahead
                borrows_the_callers_objects
                takes_client_options);
        }
    )*};
    (@tests $name:literal: $($test:ident)*) => {$(
        #[test]
        fn $test() {
            super::$test($name);
        }
    )*};
}

each_plugin! {
    lammps "lammps-jax-pjrt-cpu" 115
    fastatomstruct "fastatomstruct-xla-cpu" 106
    xla_cpu_pjrt "xla-cpu-pjrt" 81
}
