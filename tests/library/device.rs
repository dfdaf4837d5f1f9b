//! Calls on logits that are on the device return the same tokens and arrays as calls on logits in host memory. The
//! tests cover every grouping of rows and every plugin.

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use nucleus::backend::pjrt::device_call::{DeviceCall, DeviceWants, HostNumbers};
use nucleus::batch::{Batch, CallOptions, RandomSource, RowArguments, RowSettings};
use nucleus::dtype::{Dtype, Logits, LogitsMut};
use nucleus::error::Error;
use nucleus::kernels::Wanted;
use nucleus::outputs::{Outputs, RowArrays, ROW_BAD_PARAMETER};
use nucleus::pjrt::{Buffer, ElementType};
use nucleus::plan::Entry;
use nucleus::sampler::Sampler;
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
    let column = |value: fn(&RowSettings) -> f32| rows.iter().map(value).collect::<Vec<f32>>();
    let k: Vec<i32> = rows.iter().map(|row| row.top_k).collect();
    let (p, min_p) = (column(|row| row.top_p), column(|row| row.min_p));
    let temperature = column(|row| row.temperature);
    let seed: Vec<u64> = rows.iter().map(|row| row.seed).collect();
    let offset: Vec<u64> = rows.iter().map(|row| row.offset + STEP).collect();
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
    let mut bytes = vec![0; buffer.host_size()];
    buffer.to_host(&mut bytes).unwrap();
    bytemuck::pod_collect_to_vec(&bytes)
}

fn device_calls_equal_host_calls(plugin: &'static str) {
    let sampler = shared_sampler(plugin);
    for rows in groupings() {
        let logits = logits(rows.len());
        let want = host(&logits, &rows);
        let (batch, vocab) = (rows.len() as i64, VOCAB as i64);
        for dims in [&[batch, vocab][..], &[batch, 1, vocab]] {
            let buffer = upload(sampler, &logits, dims);
            let call = start(sampler, &buffer, &rows, DeviceWants::default()).unwrap();
            assert!(call.wait(Some(Duration::from_secs(600))).unwrap() && call.is_done());
            assert_eq!(call.tokens().unwrap(), want.tokens, "{plugin}, {rows:?}");
            assert_eq!(ints(&call.take_tokens_buffer().unwrap()), want.tokens);
        }
        let wide = Wanted { topk_logits: true, weights: true, slices: false };
        let buffer = upload(sampler, &logits, &[batch, vocab]);
        let call = start(sampler, &buffer, &rows, DeviceWants { host: HostNumbers::All, wide }).unwrap();
        let outcomes = call.outcomes().unwrap();
        assert_eq!(outcomes.iter().map(|outcome| outcome.status).collect::<Vec<_>>(), want.status);
        assert_eq!(outcomes.iter().map(|outcome| outcome.greedy_sampled).collect::<Vec<_>>(), want.greedy);
        let bits: Vec<i32> = want.topk_logits.iter().map(|x| x.to_bits() as i32).collect();
        assert_eq!(ints(&call.take_wide_buffer(0).unwrap()), bits, "{plugin}, {rows:?}");
        assert_eq!(ints(&call.take_wide_buffer(1).unwrap()), want.weights, "{plugin}, {rows:?}");
    }
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
        let call = start(sampler, &buffer, &rows, DeviceWants { host: HostNumbers::All, wide }).unwrap();
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
        let bits: Vec<i32> = want.topk_logits.iter().map(|x| x.to_bits() as i32).collect();
        assert_eq!(ints(&call.take_wide_buffer(0).unwrap()), bits);
        assert_eq!(ints(&call.take_wide_buffer(1).unwrap()), want.weights);

        let error = start(sampler, &buffer, &rows, DeviceWants::default()).err().unwrap();
        let Error::InvalidArgument(wrong) = error else { panic!("{error}") };
        assert_eq!((wrong.argument, wrong.row), (Some("temperature"), Some(bad)));
    }
}

fn errors_describe_wrong_buffers(plugin: &'static str) {
    let sampler = shared_sampler(plugin);
    let client = sampler.client().unwrap();
    let refused = |buffer: &Buffer, words: &str| {
        let error = start(sampler, buffer, &[settings(5, 0.9, 1.0, 1); 2], DeviceWants::default()).err();
        let text = error.expect("refused").to_string();
        assert!(text.contains("logits is") && text.contains(words), "{text}");
    };
    let zeros = vec![0_u8; 2 * VOCAB * 4];
    let buffer = |element, dims: &[i64], device: usize| {
        let bytes = &zeros[..dims.iter().product::<i64>() as usize * element_size(element)];
        client.buffer_from_host(bytes, element, dims, device).unwrap()
    };
    let vocab = VOCAB as i64;
    refused(&buffer(ElementType::S32, &[2, vocab], 0), "an array of S32");
    refused(&buffer(ElementType::BF16, &[2, vocab], 0), "an array of BF16");
    refused(&buffer(ElementType::F32, &[1, vocab], 0), "[1, 1000]");
    refused(&buffer(ElementType::F32, &[2, 500], 0), "[2, 500]");
    refused(&buffer(ElementType::F32, &[2 * vocab], 0), "[2000]");
    refused(&buffer(ElementType::F32, &[2, vocab], 1), "on device 1");
}

fn element_size(element: ElementType) -> usize {
    element.size()
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
    calls_overlap_and_parameters_change
}

#[test]
fn the_built_in_backend_has_no_device() {
    let error = builtin(1).device_parameters(1, 8, Dtype::F32, CallOptions::default()).err().unwrap();
    assert!(error.to_string().contains("create it with a plugin"), "{error}");
}
