//! Measures the cost of a call through the C ABI, and of the same call in Rust. Prints one JSON object per line.
//!
//! The row is small, so the conversion of the arguments is a large part of the time. `abi/structs` is the median time
//! of `nuc_topk_topp_and_sample`, including the time to fill the struct. `abi/flat` is the median time of
//! `nuc_sample_flat`. `abi/rust` is the median time of `Sampler::sample_into`. A ratio is a median time divided by the
//! median time of `abi/structs`. The benchmark measures the three calls in turn, so the load of the machine has little
//! effect on the ratios.

use std::hint::black_box;
use std::mem::{size_of, zeroed};
use std::ptr::{null, null_mut};
use std::time::Instant;

use nucleus::abi::*;
use nucleus::{Backend, Batch, Outputs, Sampler};

const VOCAB: usize = 1000;
const CALLS: u32 = 200;
const ROUNDS: usize = 400;

/// One row and its parameters.
struct Row {
    logits: Vec<f32>,
    top_k: i32,
    top_p: f32,
    temperature: f32,
    seed: u64,
    offset: u64,
}

fn sampler() -> *mut nuc_sampler {
    let mut sampler = null_mut();
    // SAFETY: zero is a valid value of every field.
    let mut options = unsafe { zeroed::<nuc_sampler_options>() };
    options.struct_size = size_of::<nuc_sampler_options>();
    options.backend = NUC_BACKEND_BUILTIN;
    options.num_threads = 1;
    // SAFETY: the options are initialized.
    let status = unsafe { nuc_sampler_create(&options, &mut sampler, null_mut()) };
    assert_eq!(status, NUC_OK);
    sampler
}

fn with_structs(sampler: *const nuc_sampler, row: &Row, error: &mut nuc_error) -> i32 {
    let mut token = -1;
    // SAFETY: zero is a valid value of every field.
    let mut batch = unsafe { zeroed::<nuc_batch>() };
    batch.struct_size = size_of::<nuc_batch>();
    batch.logits = row.logits.as_ptr().cast();
    batch.num_rows = 1;
    batch.vocab = VOCAB;
    batch.top_k = &row.top_k;
    batch.top_p = &row.top_p;
    batch.temperature = &row.temperature;
    batch.seed = &row.seed;
    batch.offset = &row.offset;
    // SAFETY: a live handle, and arrays of one row.
    let status =
        unsafe { nuc_topk_topp_and_sample(sampler, &batch, null(), &mut token, null_mut(), null(), error) };
    assert_eq!(status, NUC_OK);
    token
}

fn flat(sampler: *const nuc_sampler, row: &Row, error: &mut nuc_error) -> i32 {
    let mut token = -1;
    // SAFETY: a live handle, and arrays of one row.
    let status = unsafe {
        nuc_sample_flat(
            sampler,
            NUC_PATH_AUTO,
            row.logits.as_ptr().cast(),
            NUC_DTYPE_F32,
            1,
            VOCAB,
            0,
            &row.top_k,
            &row.top_p,
            null(),
            &row.temperature,
            null(),
            &row.seed,
            &row.offset,
            0,
            &mut token,
            null_mut(),
            error,
        )
    };
    assert_eq!(status, NUC_OK);
    token
}

fn in_rust(sampler: &Sampler, row: &Row) -> i32 {
    let mut token = [-1];
    let (top_k, top_p, temperature) = ([row.top_k], [row.top_p], [row.temperature]);
    let (seed, offset) = ([row.seed], [row.offset]);
    let batch = Batch::new(&row.logits, VOCAB)
        .unwrap()
        .top_k(&top_k)
        .top_p(&top_p)
        .temperature(&temperature)
        .seed(&seed)
        .offset(&offset);
    sampler.sample_into(&batch, Outputs::new().tokens(&mut token)).unwrap();
    token[0]
}

/// The time of one call in microseconds.
fn time(call: impl Fn() -> i32) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        black_box(call());
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let sampler = sampler();
    let logits = (0..VOCAB).map(|i| (i * 7919 % VOCAB) as f32 / 100.0).collect();
    let row = Row { logits, top_k: 64, top_p: 0.95, temperature: 0.8, seed: 7, offset: 1 };
    // SAFETY: zero is a valid value of every field.
    let error = unsafe { zeroed::<nuc_error>() };
    let error = std::cell::RefCell::new(nuc_error { struct_size: size_of::<nuc_error>(), ..error });
    let rust = Sampler::builder().backend(Backend::Builtin).num_threads(1).build().unwrap();
    let calls: [(&str, &dyn Fn() -> i32); 3] = [
        ("abi/structs", &|| with_structs(sampler, &row, &mut error.borrow_mut())),
        ("abi/flat", &|| flat(sampler, &row, &mut error.borrow_mut())),
        ("abi/rust", &|| in_rust(&rust, &row)),
    ];
    let tokens = calls.map(|(_, call)| call());
    assert_eq!(tokens, [tokens[0]; 3]);
    let mut times = calls.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((_, call), times) in calls.iter().zip(&mut times) {
            times.push(time(call));
        }
    }
    let medians = times.each_mut().map(|times| median(times));
    let structs = medians[0];
    for ((name, _), median) in calls.iter().zip(medians) {
        let ratio = median / structs;
        println!(
            "{{\"name\":\"{name}\",\"vocab\":{VOCAB},\"rows\":1,\"median_us\":{median:.3},\"ratio\":{ratio:.3},\
             \"baseline\":\"struct form\"}}"
        );
    }
    // SAFETY: a live handle, which is not used after this.
    assert_eq!(unsafe { nuc_sampler_destroy(sampler, null_mut()) }, NUC_OK);
}
