//! The C functions for prewarming, the option `row_buckets`, and the latencies in the counters, called from Rust.

use std::ffi::CString;
use std::mem::size_of;
use std::ptr::{dangling_mut, null, null_mut};

use nucleus::abi::*;
use nucleus::pjrt::{Buffer, Client, ElementType, Plugin};

use crate::abi::{batch, create, outcome, refused, sampler_options, zeroed, Outcome, Sampler};
use crate::common;

const PLUGIN: &str = "lammps-jax-pjrt-cpu";
const VOCAB: usize = 64;
const ROWS: usize = 3;

fn struct_of<T>() -> T {
    // SAFETY: a struct of the ABI, whose first field is its size.
    unsafe {
        let mut value = zeroed::<T>();
        (&raw mut value).cast::<usize>().write(size_of::<T>());
        value
    }
}

fn sampler(row_buckets: &[usize]) -> Sampler {
    let path = CString::new(common::plugin(PLUGIN).to_str().unwrap()).unwrap();
    let options = nuc_sampler_options {
        backend: NUC_BACKEND_PJRT,
        plugin_path: path.as_ptr(),
        max_k: 8,
        row_buckets: if row_buckets.is_empty() { null() } else { row_buckets.as_ptr() },
        num_row_buckets: row_buckets.len(),
        ..sampler_options()
    };
    let (status, sampler) = create(&options, null_mut());
    assert_eq!(status, NUC_OK);
    Sampler(sampler)
}

fn spec(num_rows: usize) -> nuc_prewarm_spec {
    nuc_prewarm_spec { num_rows, vocab: VOCAB, ..struct_of() }
}

fn device_spec(num_rows: usize) -> nuc_prewarm_spec {
    nuc_prewarm_spec { logits: NUC_LOGITS_ON_DEVICE, host_numbers: NUC_HOST_ALL, ..spec(num_rows) }
}

fn prewarm(sampler: &Sampler, spec: &nuc_prewarm_spec) -> Outcome {
    // SAFETY: a live handle and a local struct.
    outcome(|error| unsafe { nuc_prewarm(sampler.0, spec, error) })
}

fn stats(sampler: &Sampler) -> nuc_sampler_stats {
    let mut stats = struct_of::<nuc_sampler_stats>();
    // SAFETY: a live handle and a local struct.
    assert_eq!(unsafe { nuc_sampler_get_stats(sampler.0, &mut stats, null_mut()) }, NUC_OK);
    stats
}

struct Prewarming(*mut nuc_prewarming);

impl Prewarming {
    fn start(sampler: &Sampler, spec: &nuc_prewarm_spec) -> Result<Prewarming, Outcome> {
        let mut prewarming = dangling_mut();
        // SAFETY: a live handle and local variables.
        let got = outcome(|error| unsafe { nuc_prewarm_start(sampler.0, spec, &mut prewarming, error) });
        assert_eq!(got.status == NUC_OK, !prewarming.is_null());
        match got.status {
            NUC_OK => Ok(Prewarming(prewarming)),
            _ => Err(got),
        }
    }

    fn progress(&self) -> nuc_prewarm_progress {
        let mut progress = struct_of::<nuc_prewarm_progress>();
        // SAFETY: a live handle and a local struct.
        assert_eq!(unsafe { nuc_prewarming_get_progress(self.0, &mut progress, null_mut()) }, NUC_OK);
        progress
    }

    fn wait(&self, timeout_ns: u64) -> Outcome {
        // SAFETY: a live handle.
        outcome(|error| unsafe { nuc_prewarming_wait(self.0, timeout_ns, error) })
    }

    fn cancel(&self) {
        // SAFETY: a live handle.
        assert_eq!(unsafe { nuc_prewarming_cancel(self.0, null_mut()) }, NUC_OK);
    }
}

impl Drop for Prewarming {
    fn drop(&mut self) {
        // SAFETY: a live handle, which is not used after this.
        assert_eq!(unsafe { nuc_prewarming_destroy(self.0, null_mut()) }, NUC_OK);
    }
}

/// Samples `rows` rows of zeros in host memory.
fn sample(sampler: &Sampler, rows: usize) {
    let logits = vec![0.0_f32; rows * VOCAB];
    let mut tokens = vec![-1; rows];
    let batch = nuc_batch { logits: logits.as_ptr().cast(), num_rows: rows, vocab: VOCAB, ..batch() };
    // SAFETY: a live handle and local arrays.
    let got = outcome(|error| unsafe {
        nuc_topk_topp_and_sample(sampler.0, &batch, null(), tokens.as_mut_ptr(), null_mut(), null(), error)
    });
    assert_eq!(got.status, NUC_OK, "{got:?}");
}

#[test]
fn row_buckets_decide_the_programs() {
    let sampler = sampler(&[3, 6]);
    assert_eq!(prewarm(&sampler, &spec(100)).status, NUC_OK);
    assert_eq!(stats(&sampler).compiles, 4);
    (1..15).for_each(|rows| sample(&sampler, rows));
    assert_eq!(stats(&sampler).compiles, 4);
}

#[test]
fn wrong_row_buckets_are_refused() {
    let refuses = |argument: &str, buckets: *const usize, count: usize, words: &str| {
        let options =
            nuc_sampler_options { row_buckets: buckets, num_row_buckets: count, ..sampler_options() };
        let text = refused(argument, |error| create(&options, error).0);
        assert!(text.contains(words), "{text}");
    };
    refuses("row_buckets", null(), 2, "row_buckets is null; it must point to num_row_buckets = 2");
    refuses("row_buckets", [4, 2].as_ptr(), 2, "row_buckets[1] is 2");
    refuses("row_buckets", [0].as_ptr(), 1, "row_buckets[0] is 0");
    refuses("row_buckets", [1 << 17].as_ptr(), 1, "1 to 65536");
    refuses("num_row_buckets", [1].as_ptr(), 65, "num_row_buckets is 65");
}

#[test]
fn wrong_prewarms_are_refused() {
    let sampler = Sampler::new();
    let refuses = |argument: &str, spec: nuc_prewarm_spec, words: &str| {
        // SAFETY: a live handle and a local struct.
        let text = refused(argument, |error| unsafe { nuc_prewarm(sampler.0, &spec, error) });
        assert!(text.contains(words), "{text}");
        let other = Prewarming::start(&sampler, &spec).err().expect("refused");
        assert_eq!((other.argument.as_str(), other.message), (argument, text));
    };
    refuses("logits", nuc_prewarm_spec { logits: 2, ..spec(1) }, "logits is 2");
    refuses("host_numbers", nuc_prewarm_spec { host_numbers: 3, ..device_spec(1) }, "host_numbers is 3");
    refuses("host_numbers", nuc_prewarm_spec { host_numbers: 1, ..spec(1) }, "NUC_LOGITS_ON_HOST");
    refuses("has_middle_dimension", nuc_prewarm_spec { has_middle_dimension: 1, ..spec(1) }, "must be 0");
    refuses("has_middle_dimension", nuc_prewarm_spec { has_middle_dimension: 2, ..device_spec(1) }, "0 or 1");
    refuses("reserved", nuc_prewarm_spec { reserved: 1, ..spec(1) }, "nuc_prewarm_spec.reserved");
    refuses("num_rows", device_spec(65_537), "1 to 65536");
    refuses("num_rows", device_spec(0), "num_rows is 0; with logits on a device it must be 1 to 65536");
    // Every call of these shapes fails, so no program is compiled for them.
    let slices = NUC_DEBUG_K_SLICES;
    let arbitrary = nuc_prewarm_spec { path: NUC_PATH_ARBITRARY, debug_arrays: slices, ..spec(1) };
    refuses("debug_arrays", arbitrary, "only the bounded path returns");
    refuses(
        "keep_ties",
        nuc_prewarm_spec { keep_ties: 1, debug_arrays: slices, ..device_spec(1) },
        "keep_ties must be 0",
    );
}

/// A caller with the header of the first version prewarms for logits in host memory.
#[test]
fn the_first_version_of_the_struct_works() {
    let sampler = sampler(&[1]);
    let spec = nuc_prewarm_spec { struct_size: 40, logits: 77, reserved: 77, ..spec(1) };
    assert_eq!(prewarm(&sampler, &spec).status, NUC_OK);
    assert_eq!(stats(&sampler).compiles, 2);
}

fn client_of(sampler: &Sampler) -> std::sync::Arc<Client> {
    let mut info = struct_of::<nuc_sampler_info>();
    // SAFETY: a live handle and a local struct; then the pointers of a live sampler.
    unsafe {
        assert_eq!(nuc_sampler_get_info(sampler.0, &mut info, null_mut()), NUC_OK);
        Client::borrow(Plugin::borrow(info.pjrt_api.cast()).unwrap(), info.pjrt_client.cast()).unwrap()
    }
}

fn buffer_of(sampler: &Sampler) -> Buffer {
    let logits = vec![0.0_f32; ROWS * VOCAB];
    let dims = [ROWS as i64, 1, VOCAB as i64];
    client_of(sampler).buffer_from_host(bytemuck::cast_slice(&logits), ElementType::F32, &dims, 0).unwrap()
}

/// After a prewarm, calls on the device compile nothing, for every mixture of paths and impossible rows.
#[test]
fn device_calls_compile_nothing_after_a_prewarm() {
    let sampler = sampler(&[]);
    let spec = nuc_prewarm_spec { has_middle_dimension: 1, num_threads: 1, ..device_spec(ROWS) };
    assert_eq!(prewarm(&sampler, &spec).status, NUC_OK);
    let before = stats(&sampler);
    assert_eq!((before.compiles, before.pinned, before.total_count), (2 + 4 + 2 + 2, 10, 0));
    let buffer = buffer_of(&sampler);
    let options = nuc_parameters_options { num_rows: ROWS, vocab: VOCAB, ..struct_of() };
    let mut parameters = null_mut();
    // SAFETY: a live handle and local structs.
    let created = unsafe { nuc_parameters_create(sampler.0, &options, &mut parameters, null_mut()) };
    assert_eq!(created, NUC_OK);
    for number in 0..27 {
        for row in 0..ROWS {
            let kind = number / 3_i32.pow(row as u32) % 3;
            let (top_k, min_p) = ([2, 20, 2][kind as usize], if kind == 2 { f32::NAN } else { 0.0 });
            let values = nuc_row_parameters { top_k, min_p, ..struct_of() };
            // SAFETY: a live handle and a local struct.
            assert_eq!(unsafe { nuc_parameters_set(parameters, row, &values, null_mut()) }, NUC_OK);
        }
        let (mut tokens, mut status) = ([0; ROWS], [0; ROWS]);
        // SAFETY: live handles, a live buffer and local arrays.
        let got = outcome(|error| unsafe {
            nuc_sample_on_device(
                sampler.0,
                NUC_PATH_AUTO,
                buffer.as_raw().cast(),
                parameters,
                0,
                tokens.as_mut_ptr(),
                status.as_mut_ptr(),
                error,
            )
        });
        assert_eq!(got.status, NUC_OK, "{got:?}");
    }
    let after = stats(&sampler);
    assert_eq!(after.compiles, before.compiles);
    assert_eq!((after.enqueue_count, after.execute_count, after.total_count), (27, 27, 27));
    assert!(after.enqueue_p50_ns > 0 && after.execute_p50_ns > 0, "{}", after.enqueue_p50_ns);
    assert!(after.total_p99_ns >= after.total_p50_ns);
    // A program can end right after it was enqueued. Both medians are then in the same bucket of their histograms.
    let (total, enqueue) = (after.total_p50_ns, after.enqueue_p50_ns);
    assert!(total >= enqueue, "total {total} ns, enqueue {enqueue} ns");
    // SAFETY: a live handle, which is not used after this.
    assert_eq!(unsafe { nuc_parameters_destroy(parameters, null_mut()) }, NUC_OK);
}

#[test]
fn a_prewarm_runs_in_the_background() {
    let sampler = sampler(&[1, 4]);
    let prewarming = Prewarming::start(&sampler, &spec(4)).unwrap();
    assert_eq!(prewarming.progress().total, 4);
    sample(&sampler, 3);
    assert_eq!(prewarming.wait(u64::MAX).status, NUC_OK);
    let progress = prewarming.progress();
    assert_eq!((progress.done, progress.has_ended), (4, 1));
    prewarming.cancel();
    assert_eq!(prewarming.wait(0).status, NUC_OK, "a cancel has no effect after the end");
    let before = stats(&sampler);
    assert_eq!((before.compiles, before.pinned), (4, 4));
    (1..10).for_each(|rows| sample(&sampler, rows));
    assert_eq!(stats(&sampler).compiles, 4);
}

#[test]
fn a_prewarm_can_be_cancelled() {
    let sampler = sampler(&[]);
    let spec = nuc_prewarm_spec { num_threads: 1, ..spec(128) };
    let prewarming = Prewarming::start(&sampler, &spec).unwrap();
    let early = prewarming.wait(1);
    assert_eq!(early.status, NUC_TIMEOUT, "{early:?}");
    assert!(early.message.contains("of 16 programs"), "{early:?}");
    prewarming.cancel();
    let got = prewarming.wait(u64::MAX);
    assert_eq!(got.status, NUC_CANCELLED, "{got:?}");
    let progress = prewarming.progress();
    assert!(progress.done < progress.total && progress.has_ended == 1);
    assert_eq!(stats(&sampler).compiles, progress.done as u64);
    // The sampler can be destroyed before a prewarm that is running.
    let other = Prewarming::start(&sampler, &spec).unwrap();
    drop(sampler);
    assert_eq!(other.wait(0).status, NUC_TIMEOUT);
    drop(other);
}

#[test]
fn the_built_in_backend_has_nothing_to_prewarm() {
    let sampler = Sampler::new();
    let prewarming = Prewarming::start(&sampler, &spec(8)).unwrap();
    let progress = prewarming.progress();
    assert_eq!((progress.done, progress.total, progress.has_ended), (0, 0, 1));
    assert_eq!(prewarming.wait(0).status, NUC_OK);
    sample(&sampler, 2);
    let stats = stats(&sampler);
    assert_eq!((stats.enqueue_count, stats.execute_count, stats.total_count), (0, 0, 1));
    assert!(stats.total_p50_ns > 0 && stats.enqueue_p99_ns == 0);
    // SAFETY: null is allowed.
    assert_eq!(unsafe { nuc_prewarming_destroy(null_mut(), null_mut()) }, NUC_OK);
    // SAFETY: null is refused.
    refused("prewarming", |error| unsafe { nuc_prewarming_wait(null(), 0, error) });
}

#[test]
fn the_built_in_backend_refuses_to_prewarm_for_logits_on_a_device() {
    let sampler = Sampler::new();
    assert_eq!(prewarm(&sampler, &spec(8)).status, NUC_OK);
    let device = device_spec(8);
    let mut prewarming = dangling_mut();
    // SAFETY: a live handle and local variables.
    let texts = unsafe {
        [
            refused("sampler", |error| nuc_prewarm(sampler.0, &device, error)),
            refused("sampler", |error| nuc_prewarm_start(sampler.0, &device, &mut prewarming, error)),
        ]
    };
    assert!(prewarming.is_null());
    assert!(texts.iter().all(|text| text.contains("built-in backend, which has no device")), "{texts:?}");
}

unsafe extern "C" fn waits_and_destroys(user: *mut libc::c_void) {
    let prewarming = user.cast::<nuc_prewarming>();
    // SAFETY: the handle is live until after the callback.
    unsafe {
        refused("prewarming", |error| nuc_prewarming_wait(prewarming, u64::MAX, error));
        refused("prewarming", |error| nuc_prewarming_destroy(prewarming, error));
        let mut progress = struct_of::<nuc_prewarm_progress>();
        assert_eq!(nuc_prewarming_get_progress(prewarming, &mut progress, null_mut()), NUC_OK);
        assert_eq!(nuc_prewarming_cancel(prewarming, null_mut()), NUC_OK);
    }
    CALLED.store(true, std::sync::atomic::Ordering::Relaxed);
}

static CALLED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// A callback of `nuc_call_on_done` must not wait for a prewarm, because the compiler may need the thread of the
/// callback.
#[test]
fn callbacks_do_not_wait_for_a_prewarm() {
    let sampler = sampler(&[]);
    let buffer = buffer_of(&sampler);
    let options = nuc_parameters_options { num_rows: ROWS, vocab: VOCAB, ..struct_of() };
    let (mut parameters, mut call) = (null_mut(), null_mut());
    let logits = buffer.as_raw().cast();
    // SAFETY: live handles and local structs. The prewarm outlives the call and its callback.
    unsafe {
        assert_eq!(nuc_parameters_create(sampler.0, &options, &mut parameters, null_mut()), NUC_OK);
        let started = outcome(|error| {
            nuc_sample_start(sampler.0, NUC_PATH_AUTO, logits, parameters, 0, null(), &mut call, error)
        });
        assert_eq!(started.status, NUC_OK, "{started:?}");
        assert_eq!(nuc_call_wait(call, u64::MAX, null_mut()), NUC_OK);
        let prewarming = Prewarming::start(&sampler, &spec(128)).unwrap();
        let user = prewarming.0.cast();
        assert_eq!(nuc_call_on_done(call, Some(waits_and_destroys), user, null_mut()), NUC_OK);
        assert_eq!(nuc_call_destroy(call, null_mut()), NUC_OK);
        assert!(CALLED.load(std::sync::atomic::Ordering::Relaxed));
        drop(prewarming);
        assert_eq!(nuc_parameters_destroy(parameters, null_mut()), NUC_OK);
    }
}
