//! Calls on logits that are on the device return the same tokens and arrays as calls on logits in host memory. The
//! tests cover every grouping of rows and every plugin.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use nucleus::backend::pjrt::device_call::{DeviceCall, DeviceWants, HostNumbers};
use nucleus::batch::{Batch, CallOptions, RandomSource, RowArguments, RowSettings};
use nucleus::dtype::{Dtype, Logits, LogitsMut};
use nucleus::error::Error;
use nucleus::kernels::Wanted;
use nucleus::outputs::{Outputs, RowArrays, ROW_BAD_PARAMETER};
use nucleus::pjrt::{Buffer, Client, CompileOptions, ElementType};
use nucleus::plan::Entry;
use nucleus::sampler::{Sampler, SamplerOptions};
use rand::prelude::*;

const VOCAB: usize = 1000;
const STEP: u64 = 5;

fn settings(top_k: i32, top_p: f32, temperature: f32, seed: u64) -> RowSettings {
    RowSettings { top_k, top_p, temperature, seed, offset: seed * 3, ..RowSettings::default() }
}

/// Batches whose rows take the bounded path, the arbitrary path, and both paths alternately.
fn groupings() -> [Vec<RowSettings>; 4] {
    let small = |row: u64| settings(1 + 9 * row as i32, 0.9, 1.0, row);
    let any = |row: u64| settings(if row.is_multiple_of(2) { 0 } else { 400 }, 0.95, 1.3, row);
    let mixed = |row: u64| if row.is_multiple_of(3) { any(row) } else { small(row) };
    let greedy = |row: u64| settings(0, 1.0, 0.0, row);
    [
        (0..5).map(small).collect(),
        (0..5).map(any).collect(),
        (0..7).map(mixed).collect(),
        (0..4).map(|row| if row == 2 { any(row) } else { greedy(row) }).collect(),
    ]
}

fn logits(rows: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(3);
    (0..rows).flat_map(|row| make_row(ROW_KINDS[row % ROW_KINDS.len()], VOCAB, &mut rng)).collect()
}

fn upload(sampler: &Sampler, logits: &[f32], dims: &[i64]) -> Buffer {
    let client = sampler.client().expect("a plugin");
    client.buffer_from_host(bytemuck::cast_slice(logits), ElementType::F32, dims, 0).unwrap()
}

/// The results of a host call with the same settings, on the built-in backend.
struct Host {
    tokens: Vec<i32>,
    status: Vec<u32>,
    greedy: Vec<i32>,
    topk_logits: Vec<f32>,
    weights: Vec<i32>,
}

fn host(logits: &[f32], rows: &[RowSettings]) -> Host {
    host_at(STEP, logits, rows)
}

fn host_at(step: u64, logits: &[f32], rows: &[RowSettings]) -> Host {
    let column = |value: fn(&RowSettings) -> f32| rows.iter().map(value).collect::<Vec<f32>>();
    let k: Vec<i32> = rows.iter().map(|row| row.top_k).collect();
    let (p, min_p) = (column(|row| row.top_p), column(|row| row.min_p));
    let temperature = column(|row| row.temperature);
    let seed: Vec<u64> = rows.iter().map(|row| row.seed).collect();
    let offset: Vec<u64> = rows.iter().map(|row| row.offset.wrapping_add(step)).collect();
    let random = RandomSource::Seeds { seed: Some(&seed), offset: Some(&offset) };
    let arguments = RowArguments {
        k: Some(&k),
        p: Some(&p),
        min_p: Some(&min_p),
        temperature: Some(&temperature),
        random,
    };
    let batch =
        Batch::new(Logits::F32(logits), rows.len(), VOCAB, 0, &arguments, CallOptions::default()).unwrap();
    let mut found = Host {
        tokens: vec![0; rows.len()],
        status: vec![0; rows.len()],
        greedy: vec![0; rows.len()],
        topk_logits: vec![0.0; logits.len()],
        weights: vec![0; logits.len()],
    };
    let mut outputs = Outputs {
        tokens: Some(&mut found.tokens),
        row_status: Some(&mut found.status),
        greedy_sampled: Some(&mut found.greedy),
        wide: RowArrays {
            topk_logits: Some(LogitsMut::F32(&mut found.topk_logits)),
            weights: Some(&mut found.weights),
            ..RowArrays::default()
        },
        ..Outputs::default()
    };
    builtin(1).sample(Entry::Automatic, &batch, &mut outputs).unwrap();
    found
}

fn start(
    sampler: &Sampler,
    logits: &Buffer,
    rows: &[RowSettings],
    wants: DeviceWants,
) -> Result<DeviceCall, Error> {
    let parameters = sampler.device_parameters(rows.len(), VOCAB, Dtype::F32, CallOptions::default())?;
    rows.iter().enumerate().try_for_each(|(row, settings)| parameters.set(row, settings))?;
    sampler.start(Entry::Automatic, logits, &parameters, STEP, wants)
}

fn ints(buffer: &Buffer) -> Vec<i32> {
    buffer.to_host().unwrap()
}

/// The dimensions of the logits of a call, and the results that it requests.
#[derive(Clone, Copy)]
enum Arrays {
    /// Logits `[rows, vocab]`, and the tokens.
    Narrow,
    /// Logits `[rows, 1, vocab]`, and the tokens.
    MiddleDimension,
    /// Logits `[rows, vocab]`, all numbers, and the wide arrays.
    Wide,
}

/// Each case compiles up to three programs, so only some of the cases run. The selection changes daily, and it differs
/// between the plugins.
fn device_calls_equal_host_calls(plugin: &'static str) {
    let arrays = [Arrays::Narrow, Arrays::MiddleDimension, Arrays::Wide];
    let mut cases: Vec<_> =
        groupings().into_iter().flat_map(|rows| arrays.map(|arrays| (rows.clone(), arrays))).collect();
    cases.rotate_left(PLUGINS.iter().position(|&name| name == plugin).unwrap());
    for (rows, arrays) in thinned(cases, 5) {
        device_call_equals_host_call(plugin, &rows, arrays);
    }
}

fn device_call_equals_host_call(plugin: &'static str, rows: &[RowSettings], arrays: Arrays) {
    let sampler = shared_sampler(plugin);
    let logits = logits(rows.len());
    let want = host(&logits, rows);
    let (batch, vocab) = (rows.len() as i64, VOCAB as i64);
    let dims = match arrays {
        Arrays::MiddleDimension => vec![batch, 1, vocab],
        Arrays::Narrow | Arrays::Wide => vec![batch, vocab],
    };
    let buffer = upload(sampler, &logits, &dims);
    if !matches!(arrays, Arrays::Wide) {
        let call = start(sampler, &buffer, rows, DeviceWants::default()).unwrap();
        assert!(call.wait(Some(Duration::from_secs(600))).unwrap() && call.is_done());
        assert_eq!(call.tokens().unwrap(), want.tokens, "{plugin}, {rows:?}");
        assert_eq!(ints(&call.take_tokens_buffer().unwrap()), want.tokens);
        return;
    }
    let wide = Wanted { topk_logits: true, weights: true, slices: false };
    let wants = DeviceWants { host: HostNumbers::All, wide, donate_logits: false };
    let call = start(sampler, &buffer, rows, wants).unwrap();
    let outcomes = call.outcomes().unwrap();
    assert_eq!(outcomes.iter().map(|outcome| outcome.status).collect::<Vec<_>>(), want.status);
    assert_eq!(outcomes.iter().map(|outcome| outcome.greedy_sampled).collect::<Vec<_>>(), want.greedy);
    assert_eq!(ints(&call.take_wide_buffer(0).unwrap()), bits(&want.topk_logits), "{plugin}, {rows:?}");
    assert_eq!(ints(&call.take_wide_buffer(1).unwrap()), want.weights, "{plugin}, {rows:?}");
}

fn a_bad_row_does_not_affect_others(plugin: &'static str) {
    let sampler = shared_sampler(plugin);
    for bad in 0..3 {
        let mut rows: Vec<RowSettings> = (0..3).map(|row| settings(5, 0.9, 1.0, row)).collect();
        let logits = logits(rows.len());
        rows[bad].temperature = f32::NAN;
        let want = host(&logits, &rows);
        let buffer = upload(sampler, &logits, &[3, VOCAB as i64]);
        let wide = Wanted { topk_logits: true, weights: true, slices: true };
        let call = start(
            sampler,
            &buffer,
            &rows,
            DeviceWants { host: HostNumbers::All, wide, donate_logits: false },
        )
        .unwrap();
        assert_eq!(ints(&call.take_tokens_buffer().unwrap()), want.tokens);
        let slots = sampler.max_k();
        let replace_val = CallOptions::default().replace_val;
        let mut indices: Vec<i32> = Vec::new();
        for row in want.topk_logits.chunks(VOCAB) {
            let kept = (0..VOCAB).filter(|&i| row[i] != replace_val).map(|i| i as i32);
            indices.extend(kept.chain(std::iter::repeat(-1)).take(slots));
        }
        assert_eq!(ints(&call.take_wide_buffer(2).unwrap()), indices);
        let status: Vec<u32> = call.outcomes().unwrap().iter().map(|outcome| outcome.status).collect();
        assert_eq!((status[bad], &status), (ROW_BAD_PARAMETER, &want.status));
        assert_eq!(ints(&call.take_wide_buffer(0).unwrap()), bits(&want.topk_logits));
        assert_eq!(ints(&call.take_wide_buffer(1).unwrap()), want.weights);

        let error = start(sampler, &buffer, &rows, DeviceWants::default()).err().unwrap();
        let Error::InvalidArgument(wrong) = error else { panic!("{error}") };
        assert_eq!((wrong.argument, wrong.row), (Some("temperature"), Some(bad)));
    }
}

fn errors_describe_wrong_buffers(plugin: &'static str) {
    let sampler = shared_sampler(plugin);
    let client = sampler.client().unwrap();
    let refused = |buffer: &Buffer, found: &str, wanted: &str| {
        let error = start(sampler, buffer, &[settings(5, 0.9, 1.0, 1); 2], DeviceWants::default()).err();
        let Some(Error::InvalidArgument(wrong)) = error else { panic!("{plugin}: {found}: {error:?}") };
        assert_eq!(wrong.argument, Some("logits"));
        let text = wrong.message;
        let both = [format!("logits is {found}"), format!("must be {wanted}")];
        assert!(both.iter().all(|words| text.contains(words)), "{text}");
    };
    let zeros = vec![0_u8; 2 * VOCAB * 4];
    let buffer = |client: &Arc<Client>, element: ElementType, dims: &[i64], device: usize| {
        let bytes = &zeros[..dims.iter().product::<i64>() as usize * element.size()];
        client.buffer_from_host(bytes, element, dims, device).unwrap()
    };
    let vocab = VOCAB as i64;
    refused(&buffer(client, ElementType::S32, &[2, vocab], 0), "an array of S32", "an array of F32");
    refused(&buffer(client, ElementType::BF16, &[2, vocab], 0), "an array of BF16", "an array of F32");
    for dims in [&[1, vocab][..], &[2, 500], &[2 * vocab], &[2, 2, 500], &[1, 2, vocab], &[2, 1, 1, vocab]] {
        let found = format!("an array with dimensions {dims:?}");
        refused(&buffer(client, ElementType::F32, dims, 0), &found, "[2, 1000] or [2, 1, 1000]");
    }
    refused(&buffer(client, ElementType::F32, &[2, vocab], 1), "on device 1", "on device 0");
    let deleted = buffer(client, ElementType::F32, &[2, vocab], 0);
    deleted.delete().unwrap();
    refused(&deleted, "a buffer that was deleted or donated", "a live buffer");
    // The second client belongs to the same plugin. The C interface cannot know to which client a pointer belongs. So
    // the library must also refuse a buffer that was borrowed with the wrong client.
    let other = Client::create(client.plugin().clone(), &[]).unwrap();
    let foreign = buffer(&other, ElementType::F32, &[2, vocab], 0);
    refused(&foreign, "a buffer of another client", "a buffer of the sampler's client");
    // SAFETY: the buffer lives until the end of this function. Only its device is queried.
    let borrowed = unsafe { Buffer::borrow(client, foreign.as_raw()).unwrap() };
    refused(&borrowed, "on a device that the sampler's client does not have", "on device 0");
}

/// A buffer in a memory that is not the default memory of the device is refused.
fn errors_describe_wrong_memories(plugin: &'static str) {
    let sampler = shared_sampler(plugin);
    let client = sampler.client().unwrap();
    let mut refused = 0;
    for memory in raw::memories(client) {
        let Some(buffer) = raw::upload(client, &[0.0; 2 * VOCAB], [2, VOCAB as i64], memory) else {
            continue;
        };
        let other = buffer.other_memory(0).unwrap();
        let error = start(sampler, &buffer, &[settings(5, 0.9, 1.0, 1); 2], DeviceWants::default()).err();
        match (other, error) {
            (None, None) => {}
            (Some(kind), Some(Error::InvalidArgument(wrong))) => {
                let text = wrong.message;
                assert!(text.contains(&format!("logits is in memory of the kind {kind:?}")), "{text}");
                assert!(text.contains("it must be in the default memory of the device"), "{text}");
                refused += 1;
            }
            (other, error) => panic!("{plugin}: {other:?}, {error:?}"),
        }
    }
    println!("{plugin}: {refused} memories other than the default memory hold buffers");
}

/// Returns the logits as a buffer whose first dimension varies fastest in memory.
fn column_major(client: &Arc<Client>, logits: &Buffer) -> Buffer {
    let dims = logits.dims();
    let shape: String = dims.iter().map(|dim| format!("{dim}x")).collect();
    let order: Vec<String> = (0..dims.len()).map(|dim| dim.to_string()).collect();
    let (ty, order) = (format!("tensor<{shape}f32>"), order.join(","));
    let text = format!(
        "module @m {{ func.func public @main(%x: {ty}) -> ({ty} {{mhlo.layout_mode = \"{{{order}}}\"}}) {{ \
         return %x : {ty} }} }}"
    );
    let options = CompileOptions::for_device(client.devices()[0].id());
    let program = client.compile(&text, &options).unwrap();
    program.execute(&[logits]).unwrap().remove(0)
}

fn other_layouts_give_the_same_results(plugin: &'static str) {
    let sampler = shared_sampler(plugin);
    let client = sampler.client().unwrap();
    let [bounded, _, mixed, _] = groupings();
    for (rows, singleton, wide) in [(&bounded, false, true), (&mixed, false, false), (&bounded, true, false)]
    {
        let logits = logits(rows.len());
        let want = host(&logits, rows);
        let (batch, vocab) = (rows.len() as i64, VOCAB as i64);
        let dims = if singleton { vec![batch, 1, vocab] } else { vec![batch, vocab] };
        let buffer = column_major(client, &upload(sampler, &logits, &dims));
        assert_eq!(buffer.other_order().unwrap(), Some((0..dims.len()).collect()), "{plugin}: column-major");
        for donate_logits in [false, true] {
            let wide = Wanted { topk_logits: wide, weights: wide, slices: false };
            let call =
                start(sampler, &buffer, rows, DeviceWants { wide, donate_logits, ..DeviceWants::default() });
            let call = call.unwrap();
            assert_eq!(call.tokens().unwrap(), want.tokens, "{plugin}, {dims:?}, {rows:?}");
            if wide.topk_logits {
                assert_eq!(ints(&call.take_wide_buffer(0).unwrap()), bits(&want.topk_logits));
                assert_eq!(ints(&call.take_wide_buffer(1).unwrap()), want.weights);
            }
            assert_eq!(buffer.is_deleted().unwrap(), donate_logits);
        }
    }
}

/// A call deletes the logits only if the caller requests this. The results are the same in both cases.
fn logits_are_donated_on_request(plugin: &'static str) {
    let sampler = shared_sampler(plugin);
    let [bounded, _, mixed, _] = groupings();
    let wide = |topk_logits, weights| Wanted { topk_logits, weights, slices: false };
    let cases = [
        (&bounded, false, wide(false, false)),
        (&bounded, false, wide(true, true)),
        (&bounded, true, wide(false, true)),
        (&mixed, false, wide(true, true)),
    ];
    for (rows, singleton, wide) in cases {
        let logits = logits(rows.len());
        let want = host(&logits, rows);
        let (batch, vocab) = (rows.len() as i64, VOCAB as i64);
        let dims = if singleton { vec![batch, 1, vocab] } else { vec![batch, vocab] };
        let buffer = upload(sampler, &logits, &dims);
        for donate_logits in [false, true] {
            let wants = DeviceWants { wide, donate_logits, ..DeviceWants::default() };
            let call = start(sampler, &buffer, rows, wants).unwrap();
            assert_eq!(buffer.is_deleted().unwrap(), donate_logits);
            assert_eq!(call.tokens().unwrap(), want.tokens, "{plugin}, {dims:?}, {wide:?}");
            if wide.topk_logits {
                assert_eq!(ints(&call.take_wide_buffer(0).unwrap()), bits(&want.topk_logits));
            }
            if wide.weights {
                let number = usize::from(wide.topk_logits);
                assert_eq!(ints(&call.take_wide_buffer(number).unwrap()), want.weights);
            }
            if !donate_logits {
                assert_eq!(ints(&buffer), bits(&logits), "the logits are unchanged");
            }
        }
        let error = start(sampler, &buffer, rows, DeviceWants::default()).err().unwrap();
        assert!(error.to_string().contains("deleted or donated"), "{error}");
    }
}

/// A sampler loads every program that another sampler has written: the programs of both paths, the program that joins
/// their results, and the program that copies logits in another layout.
fn a_warm_directory_has_every_program(plugin: &'static str) {
    let client = shared_sampler(plugin).client().unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("warm-{plugin}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).unwrap();
    let [_, _, rows, _] = groupings();
    let logits = logits(rows.len());
    let want = host(&logits, &rows);
    for (compiles, loaded) in [(4, 0), (0, 4)] {
        let options = SamplerOptions {
            program_dir: Some(path.clone()),
            write_programs: true,
            ..SamplerOptions::default()
        };
        let sampler = Sampler::with_client(client.clone(), &options).unwrap();
        let buffer = upload(&sampler, &logits, &[rows.len() as i64, VOCAB as i64]);
        let call = start(&sampler, &column_major(client, &buffer), &rows, DeviceWants::default()).unwrap();
        assert_eq!(call.tokens().unwrap(), want.tokens, "{plugin}");
        let stats = sampler.stats();
        assert_eq!((stats.compiles, stats.loaded, stats.programs), (compiles, loaded, 4), "{plugin}");
    }
    fs::remove_dir_all(&path).unwrap();
}

fn bits(values: &[f32]) -> Vec<i32> {
    values.iter().map(|value| value.to_bits() as i32).collect()
}

/// The numbers of the steps grow, jump and wrap around. All calls are in flight at the same time.
fn every_step_has_its_random_words(plugin: &'static str) {
    let sampler = shared_sampler(plugin);
    let rows: Vec<RowSettings> = (0..3).map(|row| settings(0, 1.0, 3.0, row)).collect();
    let logits = logits(rows.len());
    let buffer = upload(sampler, &logits, &[3, VOCAB as i64]);
    let parameters = sampler.device_parameters(3, VOCAB, Dtype::F32, CallOptions::default()).unwrap();
    rows.iter().enumerate().for_each(|(row, settings)| parameters.set(row, settings).unwrap());
    let jumps = [u64::MAX, 0, 1 << 40, (1 << 40) + 63, u64::MAX - 64, 7];
    let steps: Vec<u64> = (60..70).chain(jumps).chain((0..200).map(|i| i * 1_000_003)).collect();
    let start = |step| sampler.start(Entry::Automatic, &buffer, &parameters, step, DeviceWants::default());
    let calls: Vec<DeviceCall> = steps.iter().map(|&step| start(step).unwrap()).collect();
    for (call, step) in calls.iter().zip(steps) {
        assert_eq!(call.tokens().unwrap(), host_at(step, &logits, &rows).tokens, "{plugin}, step {step}");
    }
}

/// Parameters change while earlier calls are running. Every call uses the parameters at the time of its start.
fn calls_overlap_and_parameters_change(plugin: &'static str) {
    let sampler = shared_sampler(plugin);
    let rows: Vec<RowSettings> = (0..4).map(|row| settings(8, 0.9, 1.0, row)).collect();
    let logits = logits(rows.len());
    let buffer = upload(sampler, &logits, &[4, VOCAB as i64]);
    let parameters =
        Arc::new(sampler.device_parameters(4, VOCAB, Dtype::F32, CallOptions::default()).unwrap());
    rows.iter().enumerate().for_each(|(row, settings)| parameters.set(row, settings).unwrap());
    let mut calls = Vec::new();
    let mut wants = Vec::new();
    for round in 0..12 {
        if round % 3 == 2 {
            let changed = settings(0, 0.5, 2.0, 100 + round);
            parameters.set(round as usize % 4, &changed).unwrap();
            wants.push((round as usize % 4, changed));
        }
        let mut now = rows.clone();
        wants.iter().for_each(|&(row, settings)| now[row] = settings);
        let call =
            sampler.start(Entry::Automatic, &buffer, &parameters, STEP, DeviceWants::default()).unwrap();
        calls.push((call, host(&logits, &now).tokens));
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    for (number, (call, _)) in calls.iter().enumerate() {
        let sender = sender.clone();
        call.on_done(move || sender.send(number).unwrap());
    }
    let mut done: Vec<usize> = receiver.iter().take(calls.len()).collect();
    done.sort_unstable();
    assert_eq!(done, (0..calls.len()).collect::<Vec<_>>());
    for (call, want) in &calls {
        assert_eq!(&call.tokens().unwrap(), want);
        assert_eq!(&call.tokens().unwrap(), want, "the tokens can be read again");
    }
    // A call can be dropped at any time.
    drop(sampler.start(Entry::Automatic, &buffer, &parameters, STEP, DeviceWants::default()).unwrap());
}

macro_rules! on_every_plugin {
    ($($test:ident)*) => {$(
        mod $test {
            use super::PLUGINS;
            #[test]
            fn plugin_api_115() {
                super::$test(PLUGINS[0]);
            }
            #[test]
            fn plugin_api_106() {
                super::$test(PLUGINS[1]);
            }
            #[test]
            fn plugin_api_81() {
                super::$test(PLUGINS[2]);
            }
        }
    )*};
}

on_every_plugin! {
    device_calls_equal_host_calls
    a_bad_row_does_not_affect_others
    errors_describe_wrong_buffers
    errors_describe_wrong_memories
    other_layouts_give_the_same_results
    logits_are_donated_on_request
    a_warm_directory_has_every_program
    every_step_has_its_random_words
    calls_overlap_and_parameters_change
}

#[test]
fn the_built_in_backend_has_no_device() {
    let error = builtin(1).device_parameters(1, 8, Dtype::F32, CallOptions::default()).err().unwrap();
    assert!(error.to_string().contains("create it with a plugin"), "{error}");
}

/// In a decode loop, only one call in 64 uploads data. A start does not wait until an upload is on the device. It waits
/// only until the plugin no longer needs the memory of the library.
#[test]
fn a_decode_loop_uploads_almost_nothing() {
    let sampler = raw::counting_sampler();
    let buffer = upload(&sampler, &logits(2), &[2, VOCAB as i64]);
    let parameters = sampler.device_parameters(2, VOCAB, Dtype::F32, CallOptions::default()).unwrap();
    let run = |steps: std::ops::Range<u64>| {
        let counts = || [&raw::UPLOADS, &raw::WAITS].map(|count| count.load(Ordering::SeqCst));
        let mut uploads = 0;
        for step in steps {
            let before = counts();
            let call = sampler.start(Entry::Automatic, &buffer, &parameters, step, DeviceWants::default());
            let after = counts();
            assert_eq!(after[1] - before[1], after[0] - before[0], "step {step}: one wait per upload");
            uploads += after[0] - before[0];
            assert!(call.unwrap().wait(None).unwrap());
        }
        uploads
    };
    // The uploads are the parameters, the first multiple of 64, and 64 rests.
    assert_eq!(run(0..64), 1 + 1 + 64);
    assert_eq!(run(64..640), 9);
    assert_eq!(run(64..640), 0);
}

/// After a call has failed, the next call uploads its parameters and its step again, because an upload may have caused
/// the failure.
#[test]
fn a_failed_call_makes_the_next_call_upload_again() {
    let sampler = raw::counting_sampler();
    let rows = [settings(0, 1.0, 3.0, 7); 2];
    let logits = logits(2);
    let buffer = upload(&sampler, &logits, &[2, VOCAB as i64]);
    let parameters = sampler.device_parameters(2, VOCAB, Dtype::F32, CallOptions::default()).unwrap();
    rows.iter().enumerate().for_each(|(row, settings)| parameters.set(row, settings).unwrap());
    let start = |buffer| sampler.start(Entry::Automatic, buffer, &parameters, STEP, DeviceWants::default());
    let uploads = || {
        let before = raw::UPLOADS.load(Ordering::SeqCst);
        assert_eq!(start(&buffer).unwrap().tokens().unwrap(), host(&logits, &rows).tokens);
        raw::UPLOADS.load(Ordering::SeqCst) - before
    };
    assert_eq!([uploads(), uploads()], [3, 0]);
    let deleted = upload(&sampler, &logits, &[2, VOCAB as i64]);
    deleted.delete().unwrap();
    assert!(start(&deleted).is_err());
    assert_eq!([uploads(), uploads()], [3, 0]);
    // The callback of this call reports an error.
    raw::FAIL_NEXT_CALLBACK.store(true, Ordering::SeqCst);
    assert!(start(&buffer).unwrap().wait(None).is_err());
    assert_eq!([uploads(), uploads()], [3, 0]);
}

/// If the buffer of the tokens is taken while the call runs, the call is done only when the tokens are on the host.
#[test]
fn a_call_is_done_when_its_numbers_are_on_the_host() {
    let sampler = raw::counting_sampler();
    let rows = [settings(4, 0.9, 1.0, 7); 2];
    let logits = logits(2);
    let buffer = upload(&sampler, &logits, &[2, VOCAB as i64]);
    raw::HOLD_CALLBACKS.store(true, Ordering::SeqCst);
    let call = start(&sampler, &buffer, &rows, DeviceWants::default()).unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = ran.clone();
    call.on_done(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let tokens = call.take_tokens_buffer().unwrap();
    raw::HOLD_CALLBACKS.store(false, Ordering::SeqCst);
    // The callbacks of the program and of the copy are held back.
    raw::release_callback();
    assert!(!call.is_done() && ran.load(Ordering::SeqCst) == 0);
    raw::release_callback();
    assert!(call.is_done() && ran.load(Ordering::SeqCst) == 1);
    assert_eq!(call.tokens().unwrap(), host(&logits, &rows).tokens);
    assert_eq!(ints(&tokens), host(&logits, &rows).tokens);

    // Here, the buffer of the tokens is taken after the end of the call.
    let call = start(&sampler, &buffer, &rows, DeviceWants::default()).unwrap();
    call.wait(None).unwrap();
    drop(call.take_tokens_buffer().unwrap());
    assert!(call.is_done());
    assert_eq!(call.tokens().unwrap(), host(&logits, &rows).tokens);
}

/// Calls functions of plugins that the library does not use. Also counts and changes the calls that the library makes.
mod raw {
    use std::ffi::c_void;
    use std::mem::size_of_val;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};
    use std::time::{Duration, Instant};

    use nucleus::pjrt::{Buffer, Client, Plugin};
    use nucleus::sampler::{Sampler, SamplerOptions};
    use pjrt_sys::*;

    use crate::common::{shared_sampler, PLUGINS};

    /// The number of calls of `PJRT_Client_BufferFromHostBuffer` by a [`Counting`] sampler.
    pub(super) static UPLOADS: AtomicUsize = AtomicUsize::new(0);

    /// The number of calls that wait, or that return the event of an upload.
    pub(super) static WAITS: AtomicUsize = AtomicUsize::new(0);

    /// Whether the next callback receives an error.
    pub(super) static FAIL_NEXT_CALLBACK: AtomicBool = AtomicBool::new(false);

    /// Whether new callbacks are held back until [`release_callback`].
    pub(super) static HOLD_CALLBACKS: AtomicBool = AtomicBool::new(false);

    /// The callbacks whose events are ready, and which are held back.
    static HELD: Mutex<Vec<Callback>> = Mutex::new(Vec::new());

    /// The plugin's own table.
    static TABLE: OnceLock<Table> = OnceLock::new();

    struct Table(PJRT_Api);
    // SAFETY: the table is only read, and the plugin stays loaded.
    unsafe impl Send for Table {}
    // SAFETY: as above.
    unsafe impl Sync for Table {}

    /// The callback of an event. `pointers` has the error and the argument of the callback.
    struct Callback {
        function: unsafe extern "C" fn(*mut PJRT_Error, *mut c_void),
        pointers: [usize; 2],
        fails: bool,
        held: bool,
    }

    impl Callback {
        fn run(self) {
            let [error, user] = self.pointers;
            // SAFETY: the library passed this function and argument, and the plugin passed this error.
            unsafe { (self.function)(error as *mut PJRT_Error, user as *mut c_void) }
        }
    }

    unsafe extern "C" fn upload_counted(args: *mut PJRT_Client_BufferFromHostBuffer_Args) -> *mut PJRT_Error {
        UPLOADS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller has called this function with these arguments.
        unsafe { TABLE.get().unwrap().0.PJRT_Client_BufferFromHostBuffer.unwrap()(args) }
    }

    unsafe extern "C" fn await_counted(args: *mut PJRT_Event_Await_Args) -> *mut PJRT_Error {
        WAITS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller has called this function with these arguments.
        unsafe { TABLE.get().unwrap().0.PJRT_Event_Await.unwrap()(args) }
    }

    unsafe extern "C" fn ready_event_counted(args: *mut PJRT_Buffer_ReadyEvent_Args) -> *mut PJRT_Error {
        WAITS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller has called this function with these arguments.
        unsafe { TABLE.get().unwrap().0.PJRT_Buffer_ReadyEvent.unwrap()(args) }
    }

    unsafe extern "C" fn on_ready(args: *mut PJRT_Event_OnReady_Args) -> *mut PJRT_Error {
        // SAFETY: the caller has called this function with these arguments. The plugin calls `ready` once.
        unsafe {
            let callback = Callback {
                function: (*args).callback.unwrap(),
                pointers: [0, (*args).user_arg as usize],
                fails: FAIL_NEXT_CALLBACK.swap(false, Ordering::SeqCst),
                held: HOLD_CALLBACKS.load(Ordering::SeqCst),
            };
            (*args).callback = Some(ready);
            (*args).user_arg = Box::into_raw(Box::new(callback)).cast();
            TABLE.get().unwrap().0.PJRT_Event_OnReady.unwrap()(args)
        }
    }

    unsafe extern "C" fn ready(error: *mut PJRT_Error, user: *mut c_void) {
        // SAFETY: `on_ready` has passed this argument, and this is its only use.
        let mut callback = unsafe { *Box::from_raw(user.cast::<Callback>()) };
        callback.pointers[0] = if callback.fails { any_error() } else { error } as usize;
        match callback.held {
            true => HELD.lock().unwrap_or_else(PoisonError::into_inner).push(callback),
            false => callback.run(),
        }
    }

    /// Waits for a callback that is held back, and runs it.
    pub(super) fn release_callback() {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
            if !held.is_empty() {
                let callback = held.remove(0);
                drop(held);
                return callback.run();
            }
            drop(held);
            assert!(Instant::now() < end, "no callback is held back");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns an error of the plugin.
    fn any_error() -> *mut PJRT_Error {
        // The struct is too small, so the plugin refuses it.
        let mut args = PJRT_Client_PlatformName_Args { struct_size: 1, ..Default::default() };
        // SAFETY: the plugin reads the size first, and refuses it.
        let error = unsafe { TABLE.get().unwrap().0.PJRT_Client_PlatformName.unwrap()(&mut args) };
        assert!(!error.is_null());
        error
    }

    /// A sampler whose calls of the plugin are counted and changed. Only one test at a time can have such a sampler,
    /// because all such samplers use the statics above.
    pub(super) struct Counting {
        sampler: Sampler,
        _alone: std::sync::MutexGuard<'static, ()>,
    }

    impl std::ops::Deref for Counting {
        type Target = Sampler;
        fn deref(&self) -> &Sampler {
            &self.sampler
        }
    }

    /// Creates a sampler on the client of another sampler, with another table of functions.
    pub(super) fn counting_sampler() -> Counting {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let client = shared_sampler(PLUGINS[0]).client().unwrap();
        // SAFETY: the table belongs to a loaded plugin. Its copy is never freed. The client lives until the process
        // ends.
        let client = unsafe {
            let own = TABLE.get_or_init(|| Table(client.plugin().as_raw().read()));
            let mut table = Box::new(own.0);
            table.PJRT_Client_BufferFromHostBuffer = Some(upload_counted);
            table.PJRT_Event_Await = Some(await_counted);
            table.PJRT_Buffer_ReadyEvent = Some(ready_event_counted);
            table.PJRT_Event_OnReady = Some(on_ready);
            let plugin = Plugin::borrow(Box::leak(table)).unwrap();
            Client::borrow(plugin, client.as_raw()).unwrap()
        };
        let sampler = Sampler::with_client(client, &SamplerOptions::default()).unwrap();
        Counting { sampler, _alone }
    }

    fn api(client: &Client) -> &PJRT_Api {
        // SAFETY: the table of a loaded plugin, which stays loaded.
        unsafe { &*client.plugin().as_raw() }
    }

    /// Returns the memories that the first device can address.
    pub(super) fn memories(client: &Client) -> Vec<*mut PJRT_Memory> {
        let mut args = PJRT_Device_AddressableMemories_Args { device: device(client), ..Default::default() };
        args.struct_size = size_of_val(&args);
        // SAFETY: a live device. The list lives as long as the device.
        unsafe {
            let error = api(client).PJRT_Device_AddressableMemories.unwrap()(&mut args);
            assert!(error.is_null());
            std::slice::from_raw_parts(args.memories, args.num_memories).to_vec()
        }
    }

    fn device(client: &Client) -> *mut PJRT_Device {
        let mut args = PJRT_Client_AddressableDevices_Args { client: client.as_raw(), ..Default::default() };
        args.struct_size = size_of_val(&args);
        // SAFETY: a live client with at least one device. The list lives as long as the client.
        unsafe {
            assert!(api(client).PJRT_Client_AddressableDevices.unwrap()(&mut args).is_null());
            *args.addressable_devices
        }
    }

    /// Uploads an array to a memory of the first device. Returns `None` if the plugin does not support this memory.
    pub(super) fn upload(
        client: &Arc<Client>,
        values: &[f32],
        dims: [i64; 2],
        memory: *mut PJRT_Memory,
    ) -> Option<Buffer> {
        let mut args = PJRT_Client_BufferFromHostBuffer_Args {
            client: client.as_raw(),
            data: values.as_ptr().cast(),
            type_: PJRT_Buffer_Type_PJRT_Buffer_Type_F32,
            dims: dims.as_ptr(),
            num_dims: dims.len(),
            host_buffer_semantics: PJRT_HostBufferSemantics_PJRT_HostBufferSemantics_kImmutableOnlyDuringCall,
            device: device(client),
            memory,
            ..Default::default()
        };
        args.struct_size = size_of_val(&args);
        // SAFETY: the objects are alive and belong to one client. The array has the stated size. The event and the
        // buffer are leaked, because the process of a test ends soon.
        unsafe {
            let error = api(client).PJRT_Client_BufferFromHostBuffer.unwrap()(&mut args);
            error.is_null().then(|| Buffer::borrow(client, args.buffer).unwrap())
        }
    }
}
