//! Calls of the C ABI on logits that are on the device, with a client of the caller.
//!
//! The caller itself also calls the plugin: it creates a client and buffers, and it reads buffers. These calls are
//! quiet: the proxy does not count them, and injects no fault into them.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use fault_plugin::{Kind, Proxy};
use nucleus::abi::*;
use nucleus::pjrt::{Buffer, Client, CompileOptions, ElementType, OptionValue, Plugin};
use pjrt_sys::{PJRT_Api, PJRT_Buffer_Destroy_Args, PJRT_Plugin_Initialize_Args};

use crate::calls::{Arrays, Handle, Outcome, Problem, TEMPERATURE, TOP_P};
use crate::sweep::{problems, MAX_K};

/// A batch, its correct arrays at step 0, and its correct tokens at step 1.
pub(crate) struct OnDevice {
    problem: Problem,
    right: Arrays,
    tokens_of_step_1: Vec<i32>,
}

/// Returns a batch whose rows take both paths, and a batch of one path. For the first batch, a program joins the
/// results of both paths.
pub(crate) fn batches() -> [OnDevice; 2] {
    let (mixed, bounded) = problems();
    [mixed, bounded].map(|problem| OnDevice {
        right: problem.expected(MAX_K),
        tokens_of_step_1: Problem { offset: 1, ..problem.clone() }.expected(MAX_K).narrow[0].clone(),
        problem,
    })
}

/// Initialises the plugin behind the proxy. A caller that loads a plugin itself must do this.
pub(crate) fn initialize_plugin(proxy: Proxy) {
    let mut args = PJRT_Plugin_Initialize_Args {
        struct_size: size_of::<PJRT_Plugin_Initialize_Args>(),
        extension_start: null_mut(),
    };
    let error = unsafe {
        let api = &*proxy.table().cast::<PJRT_Api>();
        api.PJRT_Plugin_Initialize.expect("the plugin has this function")(&mut args)
    };
    assert!(error.is_null());
}

/// Creates a client of the caller.
pub(crate) fn client(proxy: Proxy) -> Arc<Client> {
    let plugin = unsafe { Plugin::borrow(proxy.table().cast()).unwrap() };
    // One device is enough. With more devices, the same calls would be repeated.
    Client::create(plugin, &[("cpu_device_count".to_owned(), OptionValue::I64(1))]).unwrap()
}

type Judge<'a> = &'a dyn Fn(&Outcome) -> Option<String>;

/// A sampler, and for each batch its logits and its parameters on the device.
pub(crate) struct DeviceSession<'a> {
    proxy: Proxy,
    client: &'a Arc<Client>,
    sampler: &'a Handle,
    batches: &'a [OnDevice; 2],
    logits: [Buffer; 2],
    /// The logits of the second batch in a layout that is not row-major.
    column_major: Buffer,
    parameters: [*mut nuc_parameters; 2],
}

/// A call that was started. `registered` is the number of its callbacks, and `ran` is the number of callbacks that have
/// run.
struct Call {
    handle: *mut nuc_call,
    registered: usize,
    ran: Arc<AtomicUsize>,
}

/// The arguments of a call.
#[derive(Clone, Copy)]
struct Start {
    /// The number of the batch.
    batch: usize,
    step: u64,
    host_numbers: nuc_host_numbers,
}

/// Returns the logits as a buffer whose first dimension varies fastest in memory.
fn column_major(client: &Arc<Client>, logits: &Buffer) -> Buffer {
    let [rows, vocab] = logits.dims() else { panic!("a matrix") };
    let ty = format!("tensor<{rows}x{vocab}xf32>");
    let text = format!(
        "module @m {{ func.func public @main(%x: {ty}) -> ({ty} {{mhlo.layout_mode = \"{{0,1}}\"}}) {{ return %x : {ty} }} }}"
    );
    let options = CompileOptions::for_device(client.devices()[0].id());
    client.compile(&text, &options).unwrap().execute(&[logits]).unwrap().remove(0)
}

impl<'a> DeviceSession<'a> {
    pub(crate) fn new(
        proxy: Proxy,
        client: &'a Arc<Client>,
        sampler: &'a Handle,
        batches: &'a [OnDevice; 2],
    ) -> DeviceSession<'a> {
        let logits = batches.each_ref().map(|batch| upload(proxy, client, batch));
        let column_major = proxy.quietly(|| column_major(client, &logits[1]));
        let parameters = batches.each_ref().map(|batch| create_parameters(sampler, &batch.problem));
        DeviceSession { proxy, client, sampler, batches, logits, column_major, parameters }
    }

    /// Destroys the parameters and the logits. Returns the violations.
    pub(crate) fn destroy(self) -> Vec<String> {
        let destroyed = self
            .parameters
            .map(|parameters| Outcome::of(|error| unsafe { nuc_parameters_destroy(parameters, error) }));
        self.proxy.quietly(|| drop((self.logits, self.column_major)));
        let failed = destroyed.into_iter().filter(|outcome| !outcome.is_ok());
        failed.map(|outcome| format!("nuc_parameters_destroy: {}", outcome.message)).collect()
    }

    /// Runs all steps. A function may fail with a status that `judge` accepts. It must then not write its outputs.
    /// Otherwise it must succeed with correct results. `kind` is the fault, if there is one. Returns the violations.
    pub(crate) fn run(&self, judge: Judge<'_>, kind: Option<Kind>) -> Vec<String> {
        let mut report = Report { judge, kind, step: "", findings: Vec::new() };
        self.all_numbers(&mut report);
        self.two_in_flight(&mut report);
        self.destroyed_at_once(&mut report);
        self.tokens_stay_on_device(&mut report);
        self.donated_logits(&mut report);
        self.other_layout(&mut report);
        self.changed_parameters(&mut report);
        report.findings
    }

    /// Starts a call with every output, and polls it. Its rows take both paths.
    fn all_numbers(&self, report: &mut Report<'_>) {
        report.step = "all numbers";
        let start = Start { batch: 0, step: 0, host_numbers: NUC_HOST_ALL };
        let Some(mut call) = self.start(start, report) else { return };
        call.on_done(report);
        call.poll(report);
        let OnDevice { problem, right, .. } = &self.batches[0];
        let mut arrays = Arrays::poisoned(problem, MAX_K);
        let complete = call.read_numbers(&mut arrays, report);
        let buffers = [NUC_BUFFER_TOKENS, NUC_BUFFER_TOPK_LOGITS, NUC_BUFFER_TOPK_TOPP_PROBS];
        let taken = buffers.map(|which| call.take(which, report));
        // The call has ended, so this callback runs immediately.
        call.on_done(report);
        call.destroy(report);
        let [tokens, logits, weights] =
            taken.map(|buffer| buffer.and_then(|buffer| self.read(buffer, report)));
        if let (true, Some(logits), Some(weights)) = (complete, logits, weights) {
            arrays.full = [logits, weights];
            report.check(arrays == *right, "success with wrong outputs");
        }
        if let Some(tokens) = tokens {
            report.check(tokens == right.narrow[0], "wrong tokens in the buffer");
        }
    }

    /// Starts two calls, and reads the second one first.
    fn two_in_flight(&self, report: &mut Report<'_>) {
        report.step = "two in flight";
        let start = Start { batch: 1, step: 0, host_numbers: NUC_HOST_TOKENS };
        let first = self.start(start, report);
        let second = self.start(Start { step: 1, ..start }, report);
        let OnDevice { right, tokens_of_step_1, .. } = &self.batches[1];
        for (call, tokens) in [(second, tokens_of_step_1), (first, &right.narrow[0])] {
            let Some(mut call) = call else { continue };
            call.on_done(report);
            call.read_tokens(tokens, report);
            call.destroy(report);
        }
    }

    /// Destroys calls while they run.
    fn destroyed_at_once(&self, report: &mut Report<'_>) {
        report.step = "destroyed at once";
        for (batch, host_numbers) in [(0, NUC_HOST_TOKENS), (1, NUC_HOST_NONE)] {
            let start = Start { batch, step: 0, host_numbers };
            let Some(mut call) = self.start(start, report) else { continue };
            call.on_done(report);
            call.destroy(report);
        }
    }

    /// Starts a call whose tokens stay on the device. The buffer of the tokens outlives the call.
    fn tokens_stay_on_device(&self, report: &mut Report<'_>) {
        report.step = "tokens on the device";
        let start = Start { batch: 1, step: 1, host_numbers: NUC_HOST_NONE };
        let Some(mut call) = self.start(start, report) else { return };
        let buffer = call.take(NUC_BUFFER_TOKENS, report);
        let ended = call.wait(u64::MAX);
        report.judge("nuc_call_wait", &ended);
        call.on_done(report);
        call.destroy(report);
        let Some(tokens) = buffer.and_then(|buffer| self.read(buffer, report)) else { return };
        report.check(tokens == self.batches[1].tokens_of_step_1, "wrong tokens in the buffer");
    }

    /// Starts a call that takes the contents of the logits.
    fn donated_logits(&self, report: &mut Report<'_>) {
        report.step = "donated logits";
        let OnDevice { right, .. } = &self.batches[1];
        let logits = upload(self.proxy, self.client, &self.batches[1]);
        let start = Start { batch: 1, step: 0, host_numbers: NUC_HOST_TOKENS };
        let call = self.start_with(&logits, true, start, report);
        if call.is_some() {
            let is_deleted = self.proxy.quietly(|| logits.is_deleted().unwrap());
            // A fault can make the plugin report that the buffer is already deleted. The library then does not delete
            // it.
            report.check(is_deleted || report.kind.is_some(), "the logits were not deleted");
        }
        if let Some(call) = call {
            call.read_tokens(&right.narrow[0], report);
            call.destroy(report);
        }
        self.proxy.quietly(|| drop(logits));
    }

    /// Starts a call whose logits the device first copies to the row-major layout.
    fn other_layout(&self, report: &mut Report<'_>) {
        report.step = "another layout";
        let OnDevice { tokens_of_step_1, .. } = &self.batches[1];
        let start = Start { batch: 1, step: 1, host_numbers: NUC_HOST_TOKENS };
        let Some(mut call) = self.start_with(&self.column_major, false, start, report) else { return };
        call.on_done(report);
        // If the plugin does not report layouts, the library assumes the row-major layout. The tokens are then wrong.
        let expected = (report.kind != Some(Kind::Unimplemented)).then_some(&tokens_of_step_1[..]);
        call.read_expected(tokens_of_step_1.len(), expected, report);
        call.destroy(report);
    }

    /// Changes the parameters, and runs a synchronous call. The call uploads the parameters again.
    fn changed_parameters(&self, report: &mut Report<'_>) {
        report.step = "changed parameters";
        let (OnDevice { problem, right, .. }, parameters) = (&self.batches[1], self.parameters[1]);
        set_row(parameters, problem, 0);
        let mut arrays = Arrays::poisoned(problem, MAX_K);
        let [tokens, status, ..] = &mut arrays.narrow;
        let (logits, entry) = (self.logits[1].as_raw().cast(), problem.entry as i32);
        let outcome = Outcome::of(|error| unsafe {
            nuc_sample_on_device(
                self.sampler.0,
                entry,
                logits,
                parameters,
                0,
                tokens.as_mut_ptr(),
                status.as_mut_ptr().cast(),
                error,
            )
        });
        match outcome.is_ok() {
            true => report.check(arrays.narrow[..2] == right.narrow[..2], "success with wrong outputs"),
            false => report.check(arrays.is_untouched(), "failed, but outputs written"),
        }
        report.judge("nuc_sample_on_device", &outcome);
    }

    fn start(&self, start: Start, report: &mut Report<'_>) -> Option<Call> {
        self.start_with(&self.logits[start.batch], false, start, report)
    }

    fn start_with(
        &self,
        logits: &Buffer,
        donate: bool,
        start: Start,
        report: &mut Report<'_>,
    ) -> Option<Call> {
        let Start { batch, step, host_numbers } = start;
        // All calls with one batch request the same arrays, so they use the same programs.
        let debug_arrays = if batch == 0 { NUC_DEBUG_TOPK_LOGITS | NUC_DEBUG_TOPK_TOPP_PROBS } else { 0 };
        let mut handle = null_mut();
        let (logits, entry) = (logits.as_raw().cast(), self.batches[batch].problem.entry as i32);
        let parameters = self.parameters[batch];
        let outcome = Outcome::of(|error| unsafe {
            let mut options = std::mem::zeroed::<nuc_start_options>();
            options.struct_size = size_of::<nuc_start_options>();
            (options.host_numbers, options.debug_arrays) = (host_numbers, debug_arrays);
            options.donate_logits = donate.into();
            nuc_sample_start(self.sampler.0, entry, logits, parameters, step, &options, &mut handle, error)
        });
        report.judge("nuc_sample_start", &outcome);
        report.check(
            outcome.is_ok() != handle.is_null(),
            "a handle without success, or success without a handle",
        );
        (!handle.is_null()).then(|| Call { handle, registered: 0, ran: Arc::default() })
    }

    /// Reads a buffer that was taken from a call, and destroys it. Returns `None` if the buffer has no correct contents
    /// because of the fault.
    fn read(&self, buffer: *mut c_void, report: &mut Report<'_>) -> Option<Vec<i32>> {
        let read = || {
            let borrowed = unsafe { Buffer::borrow(self.client, buffer.cast()).unwrap() };
            let outcome = borrowed.to_host();
            drop(borrowed);
            let mut args = PJRT_Buffer_Destroy_Args {
                struct_size: size_of::<PJRT_Buffer_Destroy_Args>(),
                extension_start: null_mut(),
                buffer: buffer.cast(),
            };
            unsafe {
                let api = &*self.proxy.table().cast::<PJRT_Api>();
                assert!(api.PJRT_Buffer_Destroy.expect("the plugin has this function")(&mut args).is_null());
            }
            outcome
        };
        match (self.proxy.quietly(read), report.kind) {
            // The outputs of a program are in the wrong order. The library cannot know this, because it does not read
            // this buffer.
            (Ok(_), Some(Kind::WrongType)) => None,
            (Ok(values), _) => Some(values),
            // The program failed after the buffer was taken.
            (Err(_), Some(kind)) if kind.is_late() => None,
            (Err(error), _) => {
                report.check(false, &format!("a buffer cannot be read: {error}"));
                None
            }
        }
    }
}

impl Call {
    /// Registers a callback that increments `ran`.
    fn on_done(&mut self, report: &mut Report<'_>) {
        unsafe extern "C" fn count(user: *mut c_void) {
            Arc::from_raw(user.cast::<AtomicUsize>()).fetch_add(1, Ordering::SeqCst);
        }
        let user = Arc::into_raw(self.ran.clone());
        let outcome = Outcome::of(|error| unsafe {
            nuc_call_on_done(self.handle, Some(count), user.cast_mut().cast(), error)
        });
        report.judge("nuc_call_on_done", &outcome);
        match outcome.is_ok() {
            true => self.registered += 1,
            false => drop(unsafe { Arc::from_raw(user) }),
        }
    }

    fn wait(&self, timeout_ns: u64) -> Outcome {
        Outcome::of(|error| unsafe { nuc_call_wait(self.handle, timeout_ns, error) })
    }

    /// Polls the call, and then waits with a timeout of 0. If the poll reports the end of the call, the wait must not
    /// time out.
    fn poll(&self, report: &mut Report<'_>) {
        let mut done = -1;
        let outcome = Outcome::of(|error| unsafe { nuc_call_is_done(self.handle, &mut done, error) });
        report.judge("nuc_call_is_done", &outcome);
        report.check(done == 0 || done == 1, "nuc_call_is_done wrote neither 0 nor 1");
        let waited = self.wait(0);
        if waited.status != NUC_TIMEOUT {
            report.judge("nuc_call_wait", &waited);
        }
        report.check(done == 0 || waited.status != NUC_TIMEOUT, "a call ended and then continued");
    }

    /// Reads all numbers of the rows. Returns whether this succeeded.
    fn read_numbers(&self, arrays: &mut Arrays, report: &mut Report<'_>) -> bool {
        let [tokens, status, greedy, high, low, next] =
            arrays.narrow.each_mut().map(|array| array.as_mut_ptr());
        let (read, numbers) = unsafe {
            let mut debug = std::mem::zeroed::<nuc_debug_arrays>();
            debug.struct_size = size_of::<nuc_debug_arrays>();
            (debug.greedy_sampled, debug.next_tokens) = (greedy, next);
            debug.random_unnorm_cdf_sampled_high = high.cast();
            debug.random_unnorm_cdf_sampled_low = low.cast();
            (
                Outcome::of(|error| nuc_call_get_tokens(self.handle, tokens, status.cast(), error)),
                Outcome::of(|error| nuc_call_get_numbers(self.handle, &debug, error)),
            )
        };
        report.judge("nuc_call_get_tokens", &read);
        report.judge("nuc_call_get_numbers", &numbers);
        report.check(
            read.is_ok() == numbers.is_ok(),
            "only one of two functions that read the numbers succeeded",
        );
        report.check(read.is_ok() || arrays.is_untouched(), "failed, but outputs written");
        read.is_ok() && numbers.is_ok()
    }

    fn read_tokens(&self, right: &[i32], report: &mut Report<'_>) {
        self.read_expected(right.len(), Some(right), report);
    }

    /// Reads the tokens. `None` accepts any tokens.
    fn read_expected(&self, rows: usize, right: Option<&[i32]>, report: &mut Report<'_>) {
        let poison = vec![-77; rows];
        let mut tokens = poison.clone();
        let outcome = Outcome::of(|error| unsafe {
            nuc_call_get_tokens(self.handle, tokens.as_mut_ptr(), null_mut(), error)
        });
        report.judge("nuc_call_get_tokens", &outcome);
        match outcome.is_ok() {
            true => report.check(right.is_none_or(|right| tokens == right), "success with wrong tokens"),
            false => report.check(tokens == poison, "failed, but tokens written"),
        }
    }

    fn take(&self, which: nuc_buffer, report: &mut Report<'_>) -> Option<*mut c_void> {
        let mut buffer = null_mut();
        let outcome =
            Outcome::of(|error| unsafe { nuc_call_take_buffer(self.handle, which, &mut buffer, error) });
        report.judge("nuc_call_take_buffer", &outcome);
        report.check(
            outcome.is_ok() != buffer.is_null(),
            "a buffer without success, or success without a buffer",
        );
        (!buffer.is_null()).then_some(buffer)
    }

    /// Destroys the call. Every registered callback must have run once.
    fn destroy(self, report: &mut Report<'_>) {
        let outcome = Outcome::of(|error| unsafe { nuc_call_destroy(self.handle, error) });
        report.check(outcome.is_ok(), &format!("nuc_call_destroy: {}", outcome.message));
        let (ran, registered) = (self.ran.load(Ordering::SeqCst), self.registered);
        report.check(ran == registered, &format!("{registered} callbacks were registered and {ran} ran"));
    }
}

/// Collects the violations.
struct Report<'a> {
    judge: Judge<'a>,
    /// The fault, if there is one.
    kind: Option<Kind>,
    /// The name of the current step.
    step: &'static str,
    findings: Vec<String>,
}

impl Report<'_> {
    fn check(&mut self, fits: bool, finding: &str) {
        if !fits {
            self.findings.push(format!("{}: {finding}", self.step));
        }
    }

    fn judge(&mut self, function: &str, outcome: &Outcome) {
        // A fault can make the plugin describe the caller's logits wrongly. The library then refuses correct logits.
        let is_wrong_description = self.kind.is_some_and(|kind| !kind.is_error() && !kind.is_late());
        if is_wrong_description
            && outcome.status == NUC_INVALID_ARGUMENT
            && ["logits is ", "a buffer has the element type "]
                .iter()
                .any(|start| outcome.message.starts_with(start))
        {
            return;
        }
        let finding = (self.judge)(outcome);
        self.findings.extend(finding.map(|finding| format!("{}: {function}: {finding}", self.step)));
    }
}

/// Uploads the logits of a batch.
fn upload(proxy: Proxy, client: &Arc<Client>, batch: &OnDevice) -> Buffer {
    let dims = [batch.problem.k.len() as i64, batch.problem.vocab as i64];
    let logits: Vec<u8> = batch.problem.logits().iter().flat_map(|x| x.to_le_bytes()).collect();
    proxy.quietly(|| client.buffer_from_host(&logits, ElementType::F32, &dims, 0).unwrap())
}

fn create_parameters(sampler: &Handle, problem: &Problem) -> *mut nuc_parameters {
    let mut parameters = null_mut();
    let created = Outcome::of(|error| unsafe {
        let mut options = std::mem::zeroed::<nuc_parameters_options>();
        options.struct_size = size_of::<nuc_parameters_options>();
        (options.num_rows, options.vocab) = (problem.k.len(), problem.vocab);
        nuc_parameters_create(sampler.0, &options, &mut parameters, error)
    });
    assert!(created.is_ok(), "{created:?}");
    (0..problem.k.len()).for_each(|row| set_row(parameters, problem, row));
    parameters
}

/// Sets the parameters of a row to those of the calls with logits on the host.
fn set_row(parameters: *mut nuc_parameters, problem: &Problem, row: usize) {
    let set = Outcome::of(|error| unsafe {
        let mut values = std::mem::zeroed::<nuc_row_parameters>();
        values.struct_size = size_of::<nuc_row_parameters>();
        (values.top_k, values.seed) = (problem.k[row], Problem::seed(row));
        (values.use_top_p, values.top_p) = (1, TOP_P);
        (values.use_temperature, values.temperature) = (1, TEMPERATURE);
        nuc_parameters_set(parameters, row, &values, error)
    });
    assert!(set.is_ok(), "{set:?}");
}
