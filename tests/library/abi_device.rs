//! The C functions for logits on a device and for programs to embed, called from Rust. The plugin is one of the CPU
//! plugins; `device.rs` and `embed.rs` test the library below the C interface with all of them.

use std::ffi::{c_void, CStr, CString};
use std::mem::size_of;
use std::ptr::{dangling_mut, null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use nucleus::abi::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{embed, pack_seeds, Path, Source, Spec, Target, Wanted, COLUMNS};
use nucleus::pjrt::{Buffer, Client, ElementType, Plugin};
use nucleus::semantics::params::RowParams;

use crate::abi::{
    batch, call_options, create, no_debug_arrays, outcome, refused, sampler_options, zeroed, Outcome, Sampler,
};

const PLUGIN: &str = "lammps-jax-pjrt-cpu";
const ROWS: usize = 5;
const VOCAB: usize = 200;
const MAX_K: usize = 16;
const STEP: u64 = 9;

/// Rows of both paths, and a greedy one.
const TOP_K: [i32; ROWS] = [3, 0, 16, 100, 0];
const TOP_P: [f32; ROWS] = [0.9, 0.95, 1.0, 0.5, 1.0];
const MIN_P: [f32; ROWS] = [0.0, 0.0, 0.1, 0.0, 0.0];
const TEMPERATURE: [f32; ROWS] = [1.0, 0.7, 1.3, 2.0, 0.0];
const SEED: [u64; ROWS] = [1, u64::MAX, 3, 4, 5];
const OFFSET: [u64; ROWS] = [0, 0xffff_ffff, u64::MAX, 7, 8];

fn logits() -> Vec<f32> {
    (0..ROWS * VOCAB).map(|i| (i * 7919 % 1009) as f32 / 64.0).collect()
}

fn struct_of<T>() -> T {
    // SAFETY: a struct of the ABI, whose first field is its size.
    unsafe {
        let mut value = zeroed::<T>();
        (&raw mut value).cast::<usize>().write(size_of::<T>());
        value
    }
}

fn info(sampler: &Sampler) -> nuc_sampler_info {
    let mut info = struct_of::<nuc_sampler_info>();
    // SAFETY: a live handle and a local variable.
    assert_eq!(unsafe { nuc_sampler_get_info(sampler.0, &mut info, null_mut()) }, NUC_OK);
    info
}

/// The client of a sampler, for tests that create buffers as a caller does.
fn client(sampler: &Sampler) -> Arc<Client> {
    let info = info(sampler);
    // SAFETY: the pointers of a live sampler.
    unsafe { Client::borrow(Plugin::borrow(info.pjrt_api.cast()).unwrap(), info.pjrt_client.cast()).unwrap() }
}

fn upload(client: &Arc<Client>, logits: &[f32]) -> Buffer {
    let dims = [(logits.len() / VOCAB) as i64, VOCAB as i64];
    client.buffer_from_host(bytemuck::cast_slice(logits), ElementType::F32, &dims, 0).unwrap()
}

/// Reads a buffer that was taken from a call, and destroys it.
fn taken(client: &Arc<Client>, buffer: *mut c_void) -> Vec<i32> {
    // SAFETY: a live buffer of the client. It is destroyed after its last use.
    unsafe {
        let borrowed = Buffer::borrow(client, buffer.cast()).unwrap();
        let bytes: Vec<u8> = borrowed.to_host().unwrap();
        let mut args = pjrt_sys::PJRT_Buffer_Destroy_Args {
            struct_size: size_of::<pjrt_sys::PJRT_Buffer_Destroy_Args>(),
            extension_start: null_mut(),
            buffer: buffer.cast(),
        };
        let destroy = (*client.plugin().as_raw()).PJRT_Buffer_Destroy.unwrap();
        assert!(destroy(&mut args).is_null());
        bytemuck::pod_collect_to_vec(&bytes)
    }
}

/// A sampler, its client, and logits on its device.
struct Device {
    logits: Buffer,
    client: Arc<Client>,
    sampler: Sampler,
}

impl Device {
    fn new() -> Device {
        let sampler = Sampler::on(Some(PLUGIN), MAX_K);
        let client = client(&sampler);
        Device { logits: upload(&client, &logits()), client, sampler }
    }

    fn parameters(&self) -> Parameters {
        let parameters = Parameters::new(&self.sampler, &parameters_options());
        (0..ROWS).for_each(|row| parameters.set(row, &row_parameters(row)));
        parameters
    }

    fn start(&self, parameters: &Parameters, options: &nuc_start_options) -> Call {
        self.start_on(self.logits.as_raw().cast(), parameters, options)
    }

    fn start_on(&self, logits: *mut c_void, parameters: &Parameters, options: &nuc_start_options) -> Call {
        let (outcome, call) = self.try_start(logits, parameters.0, options);
        assert_eq!(outcome.status, NUC_OK, "{outcome:?}");
        call
    }

    /// After an error the handle is null.
    fn try_start(
        &self,
        logits: *mut c_void,
        parameters: *const nuc_parameters,
        options: *const nuc_start_options,
    ) -> (Outcome, Call) {
        let mut call = dangling_mut();
        // SAFETY: live handles, and structs of the ABI.
        let outcome = outcome(|error| unsafe {
            nuc_sample_start(
                self.sampler.0,
                NUC_PATH_AUTO,
                logits,
                parameters,
                STEP,
                options,
                &mut call,
                error,
            )
        });
        assert_eq!(outcome.status == NUC_OK, !call.is_null());
        (outcome, Call(call))
    }
}

struct Parameters(*mut nuc_parameters);

impl Parameters {
    fn new(sampler: &Sampler, options: &nuc_parameters_options) -> Parameters {
        let mut parameters = dangling_mut();
        // SAFETY: a live handle and local variables.
        let outcome =
            outcome(|error| unsafe { nuc_parameters_create(sampler.0, options, &mut parameters, error) });
        assert_eq!(outcome.status, NUC_OK, "{outcome:?}");
        Parameters(parameters)
    }

    fn set(&self, row: usize, values: &nuc_row_parameters) {
        // SAFETY: a live handle and a local variable.
        let outcome = outcome(|error| unsafe { nuc_parameters_set(self.0, row, values, error) });
        assert_eq!(outcome.status, NUC_OK, "{outcome:?}");
    }
}

impl Drop for Parameters {
    fn drop(&mut self) {
        // SAFETY: a live handle, which is not used after this.
        assert_eq!(unsafe { nuc_parameters_destroy(self.0, null_mut()) }, NUC_OK);
    }
}

struct Call(*mut nuc_call);

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: null, or a live handle, which is not used after this.
        assert_eq!(unsafe { nuc_call_destroy(self.0, null_mut()) }, NUC_OK);
    }
}

impl Call {
    fn wait(&self, timeout_ns: u64) -> nuc_status {
        // SAFETY: a live handle.
        outcome(|error| unsafe { nuc_call_wait(self.0, timeout_ns, error) }).status
    }

    fn tokens(&self) -> [i32; ROWS] {
        let mut tokens = [77; ROWS];
        // SAFETY: a live handle and an array of one element per row.
        let got =
            outcome(|error| unsafe { nuc_call_get_tokens(self.0, tokens.as_mut_ptr(), null_mut(), error) });
        assert_eq!(got.status, NUC_OK, "{got:?}");
        tokens
    }

    fn take(&self, which: nuc_buffer) -> Result<*mut c_void, String> {
        let mut buffer = dangling_mut::<u64>().cast();
        // SAFETY: a live handle and a local variable.
        let got = outcome(|error| unsafe { nuc_call_take_buffer(self.0, which, &mut buffer, error) });
        assert_eq!(got.status == NUC_OK, !buffer.is_null());
        match got.status {
            NUC_OK => Ok(buffer),
            _ => Err(format!("{}: {}", got.argument, got.message)),
        }
    }
}

fn parameters_options() -> nuc_parameters_options {
    nuc_parameters_options { num_rows: ROWS, vocab: VOCAB, ..struct_of() }
}

fn row_parameters(row: usize) -> nuc_row_parameters {
    nuc_row_parameters {
        seed: SEED[row],
        offset: OFFSET[row],
        top_k: TOP_K[row],
        min_p: MIN_P[row],
        use_top_p: 1,
        top_p: TOP_P[row],
        use_temperature: 1,
        temperature: TEMPERATURE[row],
        ..struct_of()
    }
}

fn start_options(host_numbers: nuc_host_numbers, debug_arrays: u32) -> nuc_start_options {
    nuc_start_options { host_numbers, debug_arrays, ..struct_of() }
}

/// The results of the same rows in a host call on the built-in backend.
#[derive(Clone, Debug, PartialEq)]
struct Host {
    tokens: [i32; ROWS],
    status: [u32; ROWS],
    greedy: [i32; ROWS],
    high: [u32; ROWS],
    low: [u32; ROWS],
    topk_logits: Vec<f32>,
    weights: Vec<i32>,
}

const POISON: Host = Host {
    tokens: [77; ROWS],
    status: [77; ROWS],
    greedy: [77; ROWS],
    high: [77; ROWS],
    low: [77; ROWS],
    topk_logits: Vec::new(),
    weights: Vec::new(),
};

fn host(temperature: &[f32; ROWS]) -> Host {
    let sampler = Sampler::on(None, MAX_K);
    let offset = OFFSET.map(|offset| offset.wrapping_add(STEP));
    let logits = logits();
    let mut host = Host { topk_logits: vec![0.0; ROWS * VOCAB], weights: vec![0; ROWS * VOCAB], ..POISON };
    let batch = nuc_batch {
        logits: logits.as_ptr().cast(),
        temperature: temperature.as_ptr(),
        offset: offset.as_ptr(),
        ..rows()
    };
    let debug = nuc_debug_arrays {
        greedy_sampled: host.greedy.as_mut_ptr(),
        topk_logits_unsorted: host.topk_logits.as_mut_ptr().cast(),
        topk_topp_unnorm_probs_i32_unsorted: host.weights.as_mut_ptr(),
        random_unnorm_cdf_sampled_high: host.high.as_mut_ptr(),
        random_unnorm_cdf_sampled_low: host.low.as_mut_ptr(),
        ..no_debug_arrays()
    };
    let (tokens, status) = (host.tokens.as_mut_ptr(), host.status.as_mut_ptr());
    // SAFETY: a live handle, and arrays of the documented shapes.
    let got = outcome(|error| unsafe {
        nuc_topk_topp_and_sample(sampler.0, &batch, null(), tokens, status, &debug, error)
    });
    assert_eq!(got.status, NUC_OK, "{got:?}");
    host
}

/// The parameters of the rows as arrays, without logits.
fn rows() -> nuc_batch {
    nuc_batch {
        logits: null(),
        num_rows: ROWS,
        vocab: VOCAB,
        top_k: TOP_K.as_ptr(),
        top_p: TOP_P.as_ptr(),
        min_p: MIN_P.as_ptr(),
        temperature: TEMPERATURE.as_ptr(),
        seed: SEED.as_ptr(),
        offset: OFFSET.as_ptr(),
        ..batch()
    }
}

/// The numbers of a call that was started with NUC_HOST_ALL. They can be read again.
fn numbers(call: &Call) -> Host {
    let read = || {
        let mut host = POISON;
        let debug = nuc_debug_arrays {
            greedy_sampled: host.greedy.as_mut_ptr(),
            random_unnorm_cdf_sampled_high: host.high.as_mut_ptr(),
            random_unnorm_cdf_sampled_low: host.low.as_mut_ptr(),
            ..no_debug_arrays()
        };
        let (tokens, status) = (host.tokens.as_mut_ptr(), host.status.as_mut_ptr());
        // SAFETY: a live handle, and arrays of one element per row.
        unsafe {
            assert_eq!(nuc_call_get_tokens(call.0, tokens, status, null_mut()), NUC_OK);
            assert_eq!(nuc_call_get_numbers(call.0, &debug, null_mut()), NUC_OK);
        }
        host
    };
    assert_eq!(read(), read());
    read()
}

/// Every number and array of a device call equals that of a host call, with a client that the sampler created and with
/// a client of the caller.
#[test]
fn device_calls_equal_host_calls() {
    let own = Device::new();
    let theirs = info(&own.sampler);
    let options = nuc_sampler_options {
        pjrt_api: theirs.pjrt_api,
        pjrt_client: theirs.pjrt_client,
        max_k: MAX_K,
        ..sampler_options()
    };
    let (status, borrowing) = create(&options, null_mut());
    assert_eq!(status, NUC_OK);
    let borrowing = Sampler(borrowing);
    let again = info(&borrowing);
    assert_eq!((again.pjrt_api, again.pjrt_client), (theirs.pjrt_api, theirs.pjrt_client));
    let borrowing =
        Device { logits: upload(&own.client, &logits()), client: own.client.clone(), sampler: borrowing };
    let bad_row = [1.0, f32::NAN, 1.3, 2.0, 0.0];
    let wide = NUC_DEBUG_TOPK_LOGITS | NUC_DEBUG_TOPK_TOPP_PROBS;
    for device in [&borrowing, &own] {
        let parameters = device.parameters();
        let want = host(&TEMPERATURE);
        let call = device.start(&parameters, &start_options(NUC_HOST_TOKENS, 0));
        assert_eq!(call.tokens(), want.tokens);
        assert_eq!(call.tokens(), want.tokens);
        assert_eq!(taken(&device.client, call.take(NUC_BUFFER_TOKENS).unwrap()), want.tokens);

        for temperature in [TEMPERATURE, bad_row] {
            let mut row = row_parameters(1);
            row.temperature = temperature[1];
            parameters.set(1, &row);
            let want = host(&temperature);
            let call = device.start(&parameters, &start_options(NUC_HOST_ALL, wide));
            let got = numbers(&call);
            assert_eq!((got.tokens, got.status, got.greedy), (want.tokens, want.status, want.greedy));
            assert_eq!((got.high, got.low), (want.high, want.low));
            let logits = taken(&device.client, call.take(NUC_BUFFER_TOPK_LOGITS).unwrap());
            let bits: Vec<i32> = want.topk_logits.iter().map(|x| x.to_bits() as i32).collect();
            assert_eq!(logits, bits);
            assert_eq!(taken(&device.client, call.take(NUC_BUFFER_TOPK_TOPP_PROBS).unwrap()), want.weights);

            let (mut tokens, mut status) = ([77; ROWS], [77; ROWS]);
            let logits = device.logits.as_raw().cast();
            // SAFETY: live handles, and arrays of one element per row.
            let got = outcome(|error| unsafe {
                let (tokens, status) = (tokens.as_mut_ptr(), status.as_mut_ptr());
                nuc_sample_on_device(
                    device.sampler.0,
                    NUC_PATH_AUTO,
                    logits,
                    parameters.0,
                    STEP,
                    tokens,
                    status,
                    error,
                )
            });
            assert_eq!((got.status, tokens, status), (NUC_OK, want.tokens, want.status), "{got:?}");
        }
        // If the call does not return statuses to the host, a bad row makes it fail.
        for options in [start_options(NUC_HOST_TOKENS, 0), start_options(NUC_HOST_NONE, wide)] {
            let (got, _) = device.try_start(device.logits.as_raw().cast(), parameters.0, &options);
            assert_eq!(
                (got.status, got.argument.as_str(), got.row),
                (NUC_INVALID_ARGUMENT, "temperature", 1),
                "{got:?}"
            );
        }
    }
}

/// If a call requests k-slices, every row takes the bounded path. Each array of k-slices is a separate buffer.
#[test]
fn slices_stay_on_the_device() {
    let device = Device::new();
    let parameters = Parameters::new(&device.sampler, &parameters_options());
    for row in 0..ROWS {
        parameters.set(row, &nuc_row_parameters { top_k: 1 + row as i32, seed: 1, ..struct_of() });
    }
    let call = device
        .start(&parameters, &start_options(NUC_HOST_NONE, NUC_DEBUG_K_SLICES | NUC_DEBUG_TOPK_TOPP_PROBS));
    let slice = |which| taken(&device.client, call.take(which).unwrap());
    let (indices, weights) = (slice(NUC_BUFFER_TOPK_INDICES_K), slice(NUC_BUFFER_TOPK_TOPP_PROBS_K));
    let (logits_k, all_weights) = (slice(NUC_BUFFER_TOPK_LOGITS_K), slice(NUC_BUFFER_TOPK_TOPP_PROBS));
    assert_eq!((indices.len(), weights.len(), logits_k.len()), (ROWS * MAX_K, ROWS * MAX_K, ROWS * MAX_K));
    let logits = logits();
    for row in 0..ROWS {
        for slot in 0..=row {
            let index = indices[row * MAX_K + slot] as usize;
            assert_eq!(weights[row * MAX_K + slot], all_weights[row * VOCAB + index]);
            assert_eq!(logits_k[row * MAX_K + slot] as u32, logits[row * VOCAB + index].to_bits());
        }
        assert!(indices[row * MAX_K..][row + 1..MAX_K].iter().all(|&index| index == -1));
    }
    let again = call.take(NUC_BUFFER_TOPK_INDICES_K).unwrap_err();
    assert!(again.contains("already taken"), "{again}");
}

/// A zeroed row selects the defaults. Top-p and temperature can be zero only if a flag is set.
#[test]
fn a_zeroed_row_is_the_default() {
    let device = Device::new();
    let parameters = Parameters::new(&device.sampler, &parameters_options());
    let defaults = device.start(&parameters, &struct_of()).tokens();
    parameters.set(0, &struct_of());
    parameters.set(
        1,
        &nuc_row_parameters { use_temperature: 1, temperature: 1.0, use_top_p: 1, top_p: 1.0, ..struct_of() },
    );
    assert_eq!(device.start(&parameters, &struct_of()).tokens(), defaults);
    let maximum = host(&[0.0; ROWS]).greedy;
    for row in 0..ROWS {
        let greedy = nuc_row_parameters { use_temperature: 1, ..struct_of() };
        let top_p_0 = nuc_row_parameters { use_top_p: 1, min_p: 1.0, ..struct_of() };
        parameters.set(row, if row % 2 == 0 { &greedy } else { &top_p_0 });
    }
    // No row has two maxima.
    assert_eq!(device.start(&parameters, &struct_of()).tokens(), maximum);
    let refuse = |name: &str, row: usize, values: nuc_row_parameters| {
        // SAFETY: a live handle and a local variable.
        refused(name, |error| unsafe { nuc_parameters_set(parameters.0, row, &values, error) })
    };
    let text = refuse("top_p", 0, nuc_row_parameters { top_p: 0.5, ..struct_of() });
    assert!(text.contains("set use_top_p to 1"), "{text}");
    refuse("temperature", 0, nuc_row_parameters { temperature: 0.5, ..struct_of() });
    refuse("use_top_p", 0, nuc_row_parameters { use_top_p: 2, ..struct_of() });
    refuse("use_temperature", 0, nuc_row_parameters { use_temperature: -1, ..struct_of() });
    refuse("row", ROWS, struct_of());
    refuse("nuc_row_parameters", 0, nuc_row_parameters { struct_size: 7, ..struct_of() });
}

#[test]
fn wrong_arguments_are_named() {
    let device = Device::new();
    let create = |sampler: *const nuc_sampler, options: &nuc_parameters_options| {
        let mut parameters = dangling_mut();
        // SAFETY: the handle is live or null, and the struct is one of the ABI.
        let got = outcome(|error| unsafe { nuc_parameters_create(sampler, options, &mut parameters, error) });
        assert!(parameters.is_null());
        assert_eq!(got.status, NUC_INVALID_ARGUMENT, "{got:?}");
        got.argument
    };
    let good = parameters_options();
    let builtin = Sampler::new();
    assert_eq!(create(builtin.0, &good), "sampler");
    assert_eq!(create(null(), &good), "sampler");
    assert_eq!(create(device.sampler.0, &nuc_parameters_options { num_rows: 0, ..good }), "num_rows");
    assert_eq!(create(device.sampler.0, &nuc_parameters_options { vocab: 0, ..good }), "vocab");
    assert_eq!(create(device.sampler.0, &nuc_parameters_options { dtype: 3, ..good }), "dtype");
    assert_eq!(create(device.sampler.0, &nuc_parameters_options { keep_ties: 2, ..good }), "keep_ties");
    assert_eq!(create(device.sampler.0, &nuc_parameters_options { replace_val: 1.0, ..good }), "replace_val");
    let nan = nuc_parameters_options { use_replace_val: 1, replace_val: f32::NAN, ..good };
    assert_eq!(create(device.sampler.0, &nan), "replace_val");
    let info = info(&builtin);
    assert!(info.pjrt_api.is_null() && info.pjrt_client.is_null());

    let parameters = device.parameters();
    let buffer = device.logits.as_raw().cast();
    let start = |logits, parameters, options: &nuc_start_options| {
        let (got, _) = device.try_start(logits, parameters, options);
        assert_eq!(got.status, NUC_INVALID_ARGUMENT, "{got:?}");
        (got.argument, got.message)
    };
    assert_eq!(start(null_mut(), parameters.0, &struct_of()).0, "logits");
    assert_eq!(start(buffer, null(), &struct_of()).0, "parameters");
    assert_eq!(start(buffer, parameters.0, &start_options(3, 0)).0, "host_numbers");
    assert_eq!(start(buffer, parameters.0, &start_options(0, 8)).0, "debug_arrays");
    // Handles of other types.
    let (name, text) = start(buffer, device.sampler.0.cast(), &struct_of());
    assert!(name == "parameters" && text.contains("not a nuc_parameters"), "{text}");
    // SAFETY: the call is refused, because the magic word of the handle is that of another type.
    let text = refused("call", |error| unsafe { nuc_call_wait(parameters.0.cast(), 0, error) });
    assert!(text.contains("not a call"), "{text}");
    let other = Sampler::on(Some(PLUGIN), MAX_K);
    let foreign = Parameters::new(&other, &parameters_options());
    let (name, text) = start(buffer, foreign.0, &struct_of());
    assert!(name == "parameters" && text.contains("another sampler"), "{text}");
    let short = upload(&device.client, &logits()[..VOCAB]);
    let (name, text) = start(short.as_raw().cast(), parameters.0, &struct_of());
    assert!(name == "logits" && text.contains("[1, 200]") && text.contains("[5, 200]"), "{text}");

    let call = device.start(&parameters, &start_options(NUC_HOST_TOKENS, 0));
    let (mut tokens, mut status) = ([77; ROWS], [77; ROWS]);
    // SAFETY: a live handle, and arrays of one element per row.
    unsafe {
        refused("row_status", |error| {
            nuc_call_get_tokens(call.0, tokens.as_mut_ptr(), status.as_mut_ptr(), error)
        });
        refused("tokens", |error| nuc_call_get_tokens(call.0, null_mut(), null_mut(), error));
        refused("row_status", |error| {
            nuc_call_get_tokens(call.0, tokens.as_mut_ptr(), tokens.as_mut_ptr().cast(), error)
        });
        refused("call", |error| nuc_call_get_numbers(call.0, &no_debug_arrays(), error));
        let debug = nuc_debug_arrays { topk_indices_k: tokens.as_mut_ptr(), ..no_debug_arrays() };
        refused("topk_indices_k", |error| nuc_call_get_numbers(call.0, &debug, error));
        refused("function", |error| nuc_call_on_done(call.0, None, null_mut(), error));
        refused("done", |error| nuc_call_is_done(call.0, null_mut(), error));
        refused("buffer", |error| nuc_call_take_buffer(call.0, 0, null_mut(), error));
    }
    assert_eq!((tokens, status), ([77; ROWS], [77; ROWS]));
    assert!(call.take(6).unwrap_err().starts_with("which: "));
    let text = call.take(NUC_BUFFER_TOPK_LOGITS).unwrap_err();
    assert!(text.contains("NUC_DEBUG_TOPK_LOGITS"), "{text}");
    let none = device.start(&parameters, &start_options(NUC_HOST_NONE, 0));
    assert_eq!(none.wait(u64::MAX), NUC_OK);
    // SAFETY: a live handle, and an array of one element per row.
    let text = refused("call", |error| unsafe {
        nuc_call_get_tokens(none.0, tokens.as_mut_ptr(), null_mut(), error)
    });
    assert!(text.contains("NUC_HOST_NONE"), "{text}");
}

/// Options that contain a client, and an option that is not allowed with a client. The library does not read from these
/// pointers.
#[test]
fn a_client_excludes_other_options() {
    let mut words = [0_u64; 8];
    let client: *mut c_void = words.as_mut_ptr().cast();
    let path = c"/nonexistent/plugin.so";
    let good = nuc_sampler_options { pjrt_api: client, pjrt_client: client, ..sampler_options() };
    let with = [
        ("pjrt_client", nuc_sampler_options { pjrt_client: null_mut(), ..good }),
        ("pjrt_api", nuc_sampler_options { pjrt_api: null(), ..good }),
        ("pjrt_api", nuc_sampler_options { pjrt_api: client.wrapping_byte_add(1), ..good }),
        ("backend", nuc_sampler_options { backend: NUC_BACKEND_BUILTIN, ..good }),
        ("plugin_path", nuc_sampler_options { plugin_path: path.as_ptr(), ..good }),
        ("num_client_options", nuc_sampler_options { num_client_options: 1, ..good }),
    ];
    for (name, options) in with {
        refused(name, |error| create(&options, error).0);
    }
    // The struct of an older header does not have the fields of the client.
    let older = nuc_sampler_options { struct_size: 80, backend: NUC_BACKEND_BUILTIN, ..good };
    let (status, sampler) = create(&older, null_mut());
    assert_eq!(status, NUC_OK);
    drop(Sampler(sampler));
}

/// What a callback observed.
struct Observed {
    call: AtomicUsize,
    ran: AtomicUsize,
    statuses: [AtomicI32; 4],
    tokens: [AtomicI32; ROWS],
}

impl Observed {
    fn new() -> Observed {
        Observed {
            call: AtomicUsize::new(0),
            ran: AtomicUsize::new(0),
            statuses: [const { AtomicI32::new(-1) }; 4],
            tokens: [const { AtomicI32::new(-1) }; ROWS],
        }
    }

    fn user(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// A callback. Reads the results of its call, which has ended, and tries to destroy the call.
unsafe extern "C" fn observe(user: *mut c_void) {
    // SAFETY: `user` is the `Observed` of the test, which outlives the call.
    let observed = unsafe { &*user.cast::<Observed>() };
    // The callback can run before the test has stored the handle of the call.
    let mut call = null_mut::<nuc_call>();
    while call.is_null() {
        call = observed.call.load(Ordering::Acquire) as *mut nuc_call;
    }
    let (mut tokens, mut done) = ([77; ROWS], 0);
    // SAFETY: a live handle, and arrays of one element per row.
    let statuses = unsafe {
        [
            nuc_call_is_done(call, &mut done, null_mut()),
            nuc_call_wait(call, u64::MAX, null_mut()),
            nuc_call_get_tokens(call, tokens.as_mut_ptr(), null_mut(), null_mut()),
            nuc_call_destroy(call, null_mut()),
        ]
    };
    assert_eq!(done, 1);
    observed.statuses.iter().zip(statuses).for_each(|(slot, status)| slot.store(status, Ordering::Relaxed));
    observed.tokens.iter().zip(tokens).for_each(|(slot, token)| slot.store(token, Ordering::Relaxed));
    observed.ran.fetch_add(1, Ordering::Release);
}

/// A callback reads the results of its call and cannot destroy it. Every callback has returned when the call is
/// destroyed.
#[test]
fn callbacks_read_results() {
    let device = Device::new();
    let parameters = device.parameters();
    let want = host(&TEMPERATURE).tokens;
    for round in 0..20 {
        let observed = [Observed::new(), Observed::new()];
        let call = device.start(&parameters, &struct_of());
        if round % 2 == 1 {
            assert_eq!(call.wait(u64::MAX), NUC_OK);
        }
        for observed in &observed {
            observed.call.store(call.0 as usize, Ordering::Release);
            // SAFETY: a live handle; the struct outlives the call.
            let status = unsafe { nuc_call_on_done(call.0, Some(observe), observed.user(), null_mut()) };
            assert_eq!(status, NUC_OK);
        }
        drop(call);
        for observed in &observed {
            assert_eq!(observed.ran.load(Ordering::Acquire), 1);
            let statuses = observed.statuses.each_ref().map(|status| status.load(Ordering::Relaxed));
            assert_eq!(statuses, [NUC_OK, NUC_OK, NUC_OK, NUC_INVALID_ARGUMENT]);
            assert_eq!(observed.tokens.each_ref().map(|token| token.load(Ordering::Relaxed)), want);
        }
    }
}

/// A call that takes a long time on the CPU: many rows on the arbitrary path.
fn long_call(device: &Device, logits: &Buffer) -> Call {
    let options = nuc_parameters_options { num_rows: 4096, vocab: VOCAB, ..struct_of() };
    let parameters = Parameters::new(&device.sampler, &options);
    device.start_on(logits.as_raw().cast(), &parameters, &struct_of())
}

/// A wait ends after its timeout, and the call continues. A call can be destroyed while it runs, and after its sampler.
#[test]
fn waits_end_and_calls_outlive_their_sampler() {
    let device = Device::new();
    let many: Vec<f32> = logits().into_iter().cycle().take(4096 * VOCAB).collect();
    let many = upload(&device.client, &many);
    long_call(&device, &many).wait(u64::MAX);
    let timeouts = (0..5).filter(|_| {
        let call = long_call(&device, &many);
        let status = call.wait(0);
        assert!(status == NUC_OK || status == NUC_TIMEOUT);
        let short = call.wait(1000);
        assert!(short == NUC_OK || short == NUC_TIMEOUT);
        assert_eq!(call.wait(Duration::from_secs(300).as_nanos() as u64), NUC_OK);
        assert_eq!(call.wait(0), NUC_OK);
        status == NUC_TIMEOUT
    });
    assert!(timeouts.count() > 0, "every call had ended at once");
    let running: Vec<Call> = (0..3).map(|_| long_call(&device, &many)).collect();
    drop(running);

    let parameters = device.parameters();
    let calls = [device.start(&parameters, &struct_of()), device.start(&parameters, &struct_of())];
    let want = host(&TEMPERATURE).tokens;
    // The test drops its buffers and its client first. The client lives as long as the calls use it.
    let Device { logits, client, sampler } = device;
    drop((logits, many, client));
    drop(sampler);
    assert_eq!(calls[0].tokens(), want);
    drop(parameters);
    assert_eq!(calls[1].tokens(), want);
}

#[test]
fn destroyed_handles_are_refused() {
    let device = Device::new();
    let parameters = device.parameters();
    let call = device.start(&parameters, &struct_of());
    let (raw_call, raw_parameters) = (call.0, parameters.0);
    std::mem::forget((call, parameters));
    // SAFETY: the handles are live, then destroyed once. Later calls read only the magic word, in memory that the
    // allocator keeps.
    unsafe {
        assert_eq!(nuc_call_destroy(raw_call, null_mut()), NUC_OK);
        refused("call", |error| nuc_call_destroy(raw_call, error));
        assert_eq!(nuc_parameters_destroy(raw_parameters, null_mut()), NUC_OK);
        refused("parameters", |error| nuc_parameters_destroy(raw_parameters, error));
        assert_eq!(nuc_call_destroy(null_mut(), null_mut()), NUC_OK);
        assert_eq!(nuc_parameters_destroy(null_mut(), null_mut()), NUC_OK);
    }
}

fn emit_options() -> nuc_emit_options {
    nuc_emit_options { num_rows: ROWS, vocab: VOCAB, max_k: MAX_K, ..struct_of() }
}

fn emit(options: &nuc_emit_options, text: *mut u8, size: usize) -> (Outcome, usize) {
    let mut length = 77;
    // SAFETY: a struct of the ABI, and a buffer of that size.
    let got = outcome(|error| unsafe { nuc_emit(options, text.cast(), size, &mut length, error) });
    (got, length)
}

#[test]
fn emitted_functions_are_those_of_the_library() {
    let name = c"my.sampler";
    for (path, kernel_path, target) in [
        (NUC_PATH_AUTO, Path::Arbitrary, c""),
        (NUC_PATH_ARBITRARY, Path::Arbitrary, c"portable"),
        (NUC_PATH_BOUNDED, Path::Bounded(MAX_K), c"v5e"),
    ] {
        let options = nuc_emit_options {
            path,
            target: target.as_ptr(),
            name: name.as_ptr(),
            debug_arrays: NUC_DEBUG_TOPK_LOGITS,
            ..emit_options()
        };
        let spec = Spec {
            path: kernel_path,
            batch: ROWS,
            vocab: VOCAB,
            dtype: Dtype::F32,
            stable: true,
            wanted: Wanted { topk_logits: true, ..Wanted::default() },
            source: Source::Batch,
        };
        let known = if path == NUC_PATH_BOUNDED { Target::named("v5e").unwrap() } else { Target::Portable };
        let want = embed::emit(&spec, &known, "my.sampler");
        let (got, length) = emit(&options, null_mut(), 0);
        assert_eq!((got.status, length), (NUC_OK, want.len()), "{got:?}");
        for (size, status) in [(length + 1, NUC_OK), (length + 9, NUC_OK), (length, NUC_INVALID_ARGUMENT)] {
            let mut text = vec![0x5a_u8; size + 1];
            let (got, length) = emit(&options, text.as_mut_ptr(), size);
            assert_eq!(got.status, status, "{got:?}");
            if status == NUC_OK {
                assert_eq!(CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap(), want);
                assert_eq!(length, want.len());
            } else {
                assert_eq!((got.argument.as_str(), length), ("text_size", 77));
                assert!(text.iter().all(|&byte| byte == 0x5a));
            }
        }
    }
    let (got, _) = emit(&emit_options(), null_mut(), 0);
    assert_eq!(got.status, NUC_OK);
    let wrong = |name: &str, options: nuc_emit_options| {
        let (got, length) = emit(&options, null_mut(), 0);
        assert_eq!((got.status, got.argument.as_str(), length), (NUC_INVALID_ARGUMENT, name, 77), "{got:?}");
    };
    wrong("num_rows", nuc_emit_options { num_rows: 0, ..emit_options() });
    wrong("num_rows", nuc_emit_options { num_rows: usize::MAX, ..emit_options() });
    wrong("vocab", nuc_emit_options { vocab: 0, ..emit_options() });
    wrong("max_k", nuc_emit_options { max_k: 1025, ..emit_options() });
    wrong("target", nuc_emit_options { target: c"v99".as_ptr(), ..emit_options() });
    wrong("name", nuc_emit_options { name: c"a b".as_ptr(), ..emit_options() });
    wrong("dtype", nuc_emit_options { dtype: -1, ..emit_options() });
    wrong("path", nuc_emit_options { path: 3, ..emit_options() });
    wrong("keep_ties", nuc_emit_options { keep_ties: 1, path: NUC_PATH_BOUNDED, ..emit_options() });
    wrong("debug_arrays", nuc_emit_options { debug_arrays: NUC_DEBUG_K_SLICES, ..emit_options() });
}

/// The packed parameters equal those that `embed.rs` uses in its decode loop.
#[test]
fn packed_parameters_are_those_of_the_library() {
    let pack = |function: &nuc_emit_options, batch: &nuc_batch, options: *const nuc_call_options| {
        let mut packed = [[77_i32; COLUMNS]; ROWS];
        // SAFETY: structs of the ABI, and arrays of the documented shapes.
        let got = outcome(|error| unsafe {
            nuc_pack_parameters(function, batch, options, packed.as_mut_ptr().cast(), error)
        });
        (got, packed)
    };
    let options = nuc_call_options { use_replace_val: 1, replace_val: -5.0, ..call_options() };
    let (got, packed) = pack(&emit_options(), &rows(), &options);
    assert_eq!(got.status, NUC_OK, "{got:?}");
    for (row, packed) in packed.iter().enumerate() {
        let params = RowParams::new(TOP_K[row], TOP_P[row], MIN_P[row], TEMPERATURE[row], [0; 4], VOCAB);
        let options = nucleus::batch::CallOptions { stable: true, replace_val: -5.0 };
        assert_eq!(*packed, pack_seeds(&params, SEED[row], OFFSET[row], options, Dtype::F32));
    }
    let defaults = nuc_batch { num_rows: ROWS, vocab: VOCAB, logits: null(), ..batch() };
    let (got, packed) = pack(&emit_options(), &defaults, null());
    assert_eq!(got.status, NUC_OK, "{got:?}");
    let plain = RowParams::new(0, 1.0, 0.0, 1.0, [0; 4], VOCAB);
    assert_eq!(packed[3], pack_seeds(&plain, 0, 0, Default::default(), Dtype::F32));

    let refuse = |name: &str, row: i64, function: nuc_emit_options, batch: nuc_batch| {
        let (got, packed) = pack(&function, &batch, null());
        assert_eq!(
            (got.status, got.argument.as_str(), got.row),
            (NUC_INVALID_ARGUMENT, name, row),
            "{got:?}"
        );
        assert_eq!(packed, [[77; COLUMNS]; ROWS]);
    };
    let words = [0_u32; 4 * ROWS];
    let nan = [1.0, 1.0, f32::NAN, 1.0, 1.0];
    let bounded = nuc_emit_options { path: NUC_PATH_BOUNDED, ..emit_options() };
    refuse("temperature", 2, emit_options(), nuc_batch { temperature: nan.as_ptr(), ..rows() });
    refuse("top_k", 1, bounded, rows());
    refuse("num_rows", -1, emit_options(), nuc_batch { num_rows: 4, ..rows() });
    refuse("vocab", -1, emit_options(), nuc_batch { vocab: 4, ..rows() });
    refuse("dtype", -1, emit_options(), nuc_batch { dtype: NUC_DTYPE_F16, ..rows() });
    refuse("logits", -1, emit_options(), nuc_batch { logits: words.as_ptr().cast(), ..rows() });
    let with_words = nuc_batch { random_words: words.as_ptr(), seed: null(), offset: null(), ..rows() };
    refuse("random_words", -1, emit_options(), with_words);
    let ties = nuc_call_options { keep_ties: 1, ..call_options() };
    let (got, _) = pack(&emit_options(), &rows(), &ties);
    assert_eq!((got.status, got.argument.as_str()), (NUC_INVALID_ARGUMENT, "keep_ties"), "{got:?}");
    let path = CString::new("x").unwrap();
    refuse("target", -1, nuc_emit_options { target: path.as_ptr(), ..emit_options() }, rows());
}
