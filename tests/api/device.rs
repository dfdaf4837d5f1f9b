//! Logits on a device and compiled programs, through the Rust interface, on a CPU plugin.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use nucleus::device::{BufferPointer, ClientPointer, HostNumbers, RowParameters, StartOptions};
use nucleus::programs::{CallShape, CompileAhead, Function};
use nucleus::{Backend, Batch, Dtype, ErrorKind, Path, Sampler};

const VOCAB: usize = 300;

fn plugin() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins/lammps-jax-pjrt-cpu.so");
    assert!(path.exists(), "{} is missing: run `make plugins`", path.display());
    path
}

fn logits() -> Vec<f32> {
    (0..2 * VOCAB).map(|i| ((i * 7919) % 1009) as f32 * 1e-2).collect()
}

fn builtin() -> Sampler {
    Sampler::builder().backend(Backend::Builtin).num_threads(1).build().unwrap()
}

/// The tokens of the built-in backend at a step.
fn expected(step: u64) -> Vec<i32> {
    let logits = logits();
    let batch = Batch::new(&logits, VOCAB).unwrap().top_k(&[40, 0]).top_p(&[0.9, 1.0]).seed(&[17, 0]);
    builtin().sample(&batch.offset(&[5 + step, step])).unwrap()
}

fn set_parameters(parameters: &nucleus::device::Parameters) {
    let first = RowParameters { top_k: 40, top_p: 0.9, seed: 17, offset: 5, ..RowParameters::default() };
    parameters.set(0, &first).unwrap();
}

#[test]
fn calls_on_the_device_return_the_tokens_of_the_host() {
    let sampler = Sampler::builder().plugin_path(plugin()).build().unwrap();
    assert_eq!(sampler.platform().0, "cpu");
    sampler.prewarm(&CallShape::new(2, VOCAB, Dtype::F32).on_device(false, false)).unwrap();
    let compiled = sampler.program_stats();
    assert!(compiled.compiles > 0 && compiled.pinned == compiled.programs, "{compiled:?}");

    let logits = sampler.upload(&logits(), VOCAB).unwrap();
    assert_eq!(logits.dims(), [2, VOCAB as i64]);
    let parameters = sampler.parameters(2, VOCAB, Dtype::F32).unwrap();
    set_parameters(&parameters);
    for step in 0..3 {
        let call =
            sampler.start(Path::Automatic, &logits, &parameters, step, StartOptions::default()).unwrap();
        let (sender, receiver) = mpsc::channel();
        call.on_done(move || sender.send(()).unwrap());
        assert_eq!(call.tokens().unwrap(), expected(step));
        receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(call.is_done() && call.wait(None).unwrap());
        assert_eq!(call.tokens_with_status().unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(call.take_tokens_buffer().unwrap().dims(), [2]);
        assert!(call.take_tokens_buffer().is_none());
    }
    assert_eq!(sampler.program_stats().compiles, compiled.compiles, "a call compiled a prewarmed program");

    // A bad row fails the call, or only its row, as the caller wants.
    parameters.set(1, &RowParameters { temperature: f32::NAN, ..RowParameters::default() }).unwrap();
    assert!(parameters.set(2, &RowParameters::default()).is_err());
    let start = |options| sampler.start(Path::Automatic, &logits, &parameters, 0, options);
    assert_eq!(start(StartOptions::default()).unwrap_err().row(), Some(1));
    let sampled =
        start(StartOptions::default().host_numbers(HostNumbers::All)).unwrap().tokens_with_status().unwrap();
    assert_eq!(sampled.tokens, [expected(0)[0], -1]);
    assert!(sampled.row_status[0].is_empty() && sampled.row_status[1].bad_parameter());

    // Parameters of another sampler.
    let other = Sampler::builder().plugin_path(plugin()).build().unwrap();
    let outcome = other.start(Path::Automatic, &logits, &parameters, 0, StartOptions::default());
    assert_eq!(outcome.unwrap_err().argument(), Some("parameters"));
}

#[test]
fn a_client_of_the_caller_is_borrowed() {
    let owner = Sampler::builder().plugin_path(plugin()).build().unwrap();
    let api = nucleus::pjrt::Plugin::load(&plugin()).unwrap().as_raw();
    // SAFETY: the plugin stays loaded, and `owner`, which is dropped last, keeps its client alive.
    let client = unsafe { ClientPointer::new(api.cast(), owner.client().unwrap()) };
    let sampler = Sampler::builder().build_on_client(client).unwrap();
    let own = owner.upload(&logits(), VOCAB).unwrap();
    // SAFETY: `own` outlives the borrowed buffer.
    let logits = sampler.borrow_buffer(unsafe { BufferPointer::new(own.as_raw()) }).unwrap();
    let parameters = sampler.parameters(2, VOCAB, Dtype::F32).unwrap();
    set_parameters(&parameters);
    let call = sampler.start(Path::Automatic, &logits, &parameters, 1, StartOptions::default()).unwrap();
    drop(parameters);
    assert_eq!(call.tokens().unwrap(), expected(1));
    // SAFETY: null pointers are allowed.
    let (no_client, no_buffer) = unsafe {
        (ClientPointer::new(api.cast(), std::ptr::null_mut()), BufferPointer::new(std::ptr::null_mut()))
    };
    assert_eq!(Sampler::builder().build_on_client(no_client).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(sampler.borrow_buffer(no_buffer).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn the_built_in_backend_has_no_device() {
    let sampler = builtin();
    assert_eq!(sampler.parameters(2, VOCAB, Dtype::F32).unwrap_err().argument(), Some("sampler"));
    assert_eq!(sampler.upload(&logits(), VOCAB).unwrap_err().argument(), Some("sampler"));
    assert!(sampler.client().is_none());
    let calls = CallShape::new(2, VOCAB, Dtype::F32);
    sampler.prewarm(&calls).unwrap();
    let prewarming = sampler.prewarm_start(&calls, 0).unwrap();
    assert!(prewarming.wait(None).unwrap() && prewarming.progress() == (0, 0) && prewarming.has_ended());
    assert_eq!(
        sampler.prewarm(&CallShape::new(0, VOCAB, Dtype::F32)).unwrap_err().argument(),
        Some("num_rows")
    );
    assert_eq!(sampler.prewarm(&CallShape::new(1, 0, Dtype::F32)).unwrap_err().argument(), Some("vocab"));
}

#[test]
fn programs_are_compiled_ahead_and_loaded() {
    let directory = std::env::temp_dir().join(format!("nucleus-api-{}", std::process::id()));
    let calls = CallShape::new(1, VOCAB, Dtype::F32).path(Path::Arbitrary);
    let ahead = CompileAhead::new(&directory, [2], calls).plugin_path(plugin());
    let written = ahead.run(|program| println!("{} {:?}", program.name, program.compiling)).unwrap();
    let sampler = Sampler::builder().plugin_path(plugin()).program_dir(&directory).build().unwrap();
    let logits = logits();
    let batch = Batch::new(&logits, VOCAB).unwrap().seed(&[1, 2]);
    let tokens = sampler.sample(&batch.path(Path::Arbitrary));
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(tokens.unwrap(), builtin().sample(&batch).unwrap());
    let stats = sampler.program_stats();
    assert_eq!((written.len(), stats.loaded, stats.compiles), (1, 1, 0));
}

#[test]
fn functions_are_emitted_for_known_targets() {
    let function = || Function::new(CallShape::new(4, VOCAB, Dtype::Bf16));
    assert!(function().name("draw").emit().unwrap().contains("@draw("));
    assert_eq!(function().name("9").emit().unwrap_err().argument(), Some("name"));
    assert_eq!(function().target("abacus").unwrap_err().argument(), Some("target"));
    assert!(function().target("v5e").unwrap().emit().unwrap().contains("tpu_custom_call"));
    let parameters = RowParameters { temperature: -1.0, ..RowParameters::default() };
    assert_eq!(function().pack(3, &parameters).unwrap_err().row(), Some(3));
    function().pack(3, &RowParameters::default()).unwrap();
}
