//! Calls on logits that are on the device. The results stay on the device. Only the numbers that the caller requests
//! are copied to the host. A call is asynchronous: the caller can do other work until it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::answer;
use super::completion::Completion;
use super::conversion::Conversion;
use super::device_parameters::{Combine, DeviceParameters, Plan, PlanKey, Shape};
use super::failed_calls::FailedCalls;
use super::inputs::element_of;
use super::PjrtBackend;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::kernels::{Wanted, RESULTS};
use crate::latency::{CallLatencies, CallTimer};
use crate::memory;
use crate::outputs::RowOutcome;
use crate::pjrt::{self, Buffer, HostCopy, Launch};
use crate::plan::Entry;

/// The results that a caller wants from a device call.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceWants {
    /// The numbers to copy to the host.
    pub host: HostNumbers,
    /// The wide arrays to compute. They stay in buffers on the device.
    pub wide: Wanted,
    /// Whether the logits are donated to the call. A wide array of the same size can then use the memory of the logits.
    /// The buffer of the logits is deleted when the call has started. Memory that no wide array uses is free when the
    /// call ends.
    pub donate_logits: bool,
}

/// The numbers of each row to copy to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostNumbers {
    /// No numbers: the tokens stay on the device. If a row has impossible parameters, the call does not start.
    None,
    /// The tokens, 4 bytes per row. If a row has impossible parameters, the call does not start.
    #[default]
    Tokens,
    /// All numbers, 20 bytes per row. A row with impossible parameters gets the status
    /// [`bad_parameter`](crate::RowStatus::bad_parameter).
    All,
}

/// A call that was started and can still be running on the device. Thread-safe. Dropping it waits until the call ends
/// and the actions of [`DeviceCall::on_done`] have returned.
pub struct DeviceCall {
    shape: Shape,
    entry: Entry,
    /// The numbers `[RESULTS, rows]`, the tokens `[rows]`, and the wide arrays. `None` for a buffer that was taken.
    outputs: Mutex<Vec<Option<Buffer>>>,
    /// The numbers for the host. `None` if no numbers are wanted. Locked before `outputs`.
    host: Option<Conversion<HostSource, Result<Arc<HostResults>, Error>>>,
    host_numbers: HostNumbers,
    done: Arc<Completion<pjrt::Error>>,
    failed_calls: Arc<FailedCalls>,
    // This field is dropped after the outputs. Its drop waits for the programs.
    _launches: Vec<Launch>,
    _plan: Arc<Plan>,
}

/// The numbers of a call on the host.
pub enum HostResults {
    /// With [`HostNumbers::Tokens`].
    Tokens(Vec<i32>),
    /// With [`HostNumbers::All`].
    Outcomes(Vec<RowOutcome>),
}

/// The place of the numbers for the host before they are read for the first time.
enum HostSource {
    /// In an output that is in host memory. The first read copies the output.
    Output,
    /// In a copy of an output. The copy is running or has ended.
    Copy(HostCopy<i32>),
    /// The copy could not be started.
    Failed(Error),
}

/// The purpose of allocations, for error messages.
const PURPOSE: &str = "the results of a device batch";

/// If the numbers of a call on a CPU device have at most this size in bytes, they are copied only when they are read.
/// The plugin copies so few bytes on the thread that reads them. So the read does not wait for other threads of the
/// plugin.
const LARGEST_LATE_COPY: usize = 1 << 15;

/// Returns the error for a buffer that cannot be the logits of a call.
fn refuse<T>(found: String, right: String) -> Result<T, Error> {
    Err(Error::named_argument("logits", format!("logits is {found}; it must be {right}")))
}

fn refuse_deleted<T>() -> Result<T, Error> {
    refuse("a buffer that was deleted or donated".into(), "a live buffer".into())
}

/// The statistics of a sampler that a call changes when it ends.
struct Records {
    latencies: Arc<CallLatencies>,
    failed_calls: Arc<FailedCalls>,
}

impl PjrtBackend {
    /// Starts a call. `logits` is a buffer of this backend's client. The caller may delete it when this function
    /// returns. With [`DeviceWants::donate_logits`], this function deletes it.
    pub(crate) fn start(
        &self,
        entry: Entry,
        max_k: usize,
        logits: &Buffer,
        parameters: &DeviceParameters,
        step: u64,
        wants: DeviceWants,
    ) -> Result<DeviceCall, Error> {
        let timer = CallTimer::begin();
        let shape = parameters.shape();
        let singleton = self.check_logits(logits, shape)?;
        if wants.donate_logits && logits.is_deleted()? {
            return refuse_deleted();
        }
        let reports_bad_rows = wants.host == HostNumbers::All;
        let key = PlanKey { entry, wanted: wants.wide, singleton, reports_bad_rows };
        let plan = parameters.plan(self, max_k, key)?;
        let launches = self.launch_programs(logits, shape.dtype, &plan, step, wants.donate_logits);
        let call = launches.and_then(|launches| {
            let in_host_memory = self.client.platform_name() == "cpu";
            let records =
                Records { latencies: self.latencies.clone(), failed_calls: self.failed_calls.clone() };
            DeviceCall::new(shape, entry, plan.clone(), launches, wants.host, in_host_memory, timer, records)
        });
        let call = match call {
            Ok(call) => call,
            Err(error) => {
                self.failed_calls.add();
                // Every program refuses a deleted buffer. So it is sufficient to examine the buffer after a failure.
                return match logits.is_deleted() {
                    Ok(true) => refuse_deleted(),
                    _ => Err(error),
                };
            }
        };
        if wants.donate_logits && !logits.is_deleted()? {
            logits.delete()?;
        }
        Ok(call)
    }

    /// Starts the programs of a plan. If the logits are not row-major, first starts a program that copies them in
    /// row-major order.
    fn launch_programs(
        &self,
        logits: &Buffer,
        dtype: Dtype,
        plan: &Plan,
        step: u64,
        donate: bool,
    ) -> Result<Vec<Launch>, Error> {
        let Some(copy) = self.start_row_major_copy(logits, dtype)? else {
            return self.launch_plan(plan, logits, step, donate);
        };
        let copied = copy.outputs().first();
        let copied = copied.ok_or_else(|| Error::Internal("a copy of the logits is missing".into()))?;
        // Nothing else reads the copy, so the plan may donate it.
        let mut launches = self.launch_plan(plan, copied, step, true)?;
        // The copy comes first, because the results belong to the last launch.
        launches.insert(0, copy);
        Ok(launches)
    }

    /// Starts the programs of a plan. `logits` is row-major. If `donate` is set, a program may use the memory of
    /// `logits`.
    fn launch_plan(
        &self,
        plan: &Plan,
        logits: &Buffer,
        step: u64,
        donate: bool,
    ) -> Result<Vec<Launch>, Error> {
        let [multiple, rest] = self.steps.get(&self.client, self.device, step, &self.failed_calls)?;
        // Space for two more launches: the copy of the logits, and the program that joins the groups.
        let mut launches = memory::with_capacity(plan.groups.len() + 2, PURPOSE)?;
        // If there are several groups, every group reads the logits, so none of them may reuse their memory.
        let donated = (donate && plan.groups.len() == 1).then_some(0);
        for group in &plan.groups {
            let program = self.programs.get_or_keep(&group.spec, &group.program)?;
            let operands = [logits, &group.parameters, &multiple, &rest];
            launches.push(program.launch(&operands, donated)?);
        }
        if let Some(combine) = &plan.combine {
            let combined = self.launch_combine(combine, &launches)?;
            launches.push(combined);
        }
        Ok(launches)
    }

    /// Starts the program that joins the results of groups.
    fn launch_combine(&self, combine: &Combine, groups: &[Launch]) -> Result<Launch, Error> {
        let program = self.programs.get_or_keep(&combine.spec, &combine.program)?;
        let mut inputs = vec![&combine.places, &combine.replace_val];
        inputs.extend(groups.iter().map(|launch| &launch.outputs()[0]));
        // The outputs of each group are the numbers, the tokens, and the wide arrays from index 2 on.
        for wide in 2..combine.spec.num_outputs() {
            inputs.extend(groups.iter().map(|launch| &launch.outputs()[wide]));
        }
        Ok(program.launch(&inputs, None)?)
    }

    /// Checks the device and the memory of a buffer.
    fn check_place(&self, logits: &Buffer) -> Result<(), Error> {
        let device = logits.device()?;
        if device != Some(self.device) {
            let found = match device {
                Some(device) => format!("on device {device}"),
                None => "on a device that the sampler's client does not have".to_owned(),
            };
            return refuse(found, format!("on device {}, counted from 0", self.device));
        }
        match logits.other_memory(self.device)? {
            Some(kind) => refuse(
                format!("in memory of the kind {kind:?}"),
                "in the default memory of the device".into(),
            ),
            None => Ok(()),
        }
    }

    /// Checks that a buffer can be the logits of a batch of this shape. Returns whether the buffer has a middle
    /// dimension of length 1.
    fn check_logits(&self, logits: &Buffer, shape: Shape) -> Result<bool, Error> {
        if logits.client().as_raw() != self.client.as_raw() {
            return refuse("a buffer of another client".into(), "a buffer of the sampler's client".into());
        }
        if !logits.is_in_own_memory_of(self.device)? {
            self.check_place(logits)?;
        }
        let element = element_of(shape.dtype);
        if logits.element() != element {
            return refuse(
                format!("an array of {:?}", logits.element()),
                format!("an array of {element:?}, as the parameters state"),
            );
        }
        let (rows, vocab) = (shape.rows as i64, shape.vocab as i64);
        match logits.dims() {
            dims if dims == [rows, vocab] => Ok(false),
            dims if dims == [rows, 1, vocab] => Ok(true),
            dims => refuse(
                format!("an array with dimensions {dims:?}"),
                format!("[{rows}, {vocab}] or [{rows}, 1, {vocab}], as the parameters state"),
            ),
        }
    }
}

impl DeviceCall {
    #[allow(clippy::too_many_arguments)]
    fn new(
        shape: Shape,
        entry: Entry,
        plan: Arc<Plan>,
        mut launches: Vec<Launch>,
        host_numbers: HostNumbers,
        in_host_memory: bool,
        mut timer: CallTimer,
        Records { latencies, failed_calls }: Records,
    ) -> Result<DeviceCall, Error> {
        let last = launches.last_mut().ok_or_else(|| Error::Internal("a call started no program".into()))?;
        let outputs = last.take_outputs();
        let (numbers, tokens) = match outputs.as_slice() {
            [numbers, tokens, ..] => (numbers, tokens),
            _ => return Err(Error::Internal("a program returned too few arrays".into())),
        };
        let wanted = match host_numbers {
            HostNumbers::None => None,
            HostNumbers::Tokens => Some(tokens),
            HostNumbers::All => Some(numbers),
        };
        let host = match wanted {
            None => None,
            Some(wanted) if in_host_memory && wanted.host_size() <= LARGEST_LATE_COPY => {
                Some(HostSource::Output)
            }
            Some(wanted) => Some(HostSource::Copy(wanted.start_copy_to_host()?)),
        };
        let done = Arc::<Completion<pjrt::Error>>::default();
        timer.enqueued();
        let finish = {
            let (done, failed_calls) = (done.clone(), failed_calls.clone());
            move |outcome: Result<(), pjrt::Error>| {
                match outcome {
                    Ok(()) => timer.ended(&latencies),
                    Err(_) => failed_calls.add(),
                }
                done.finish(outcome);
            }
        };
        match &host {
            Some(HostSource::Copy(copy)) => copy.on_ready(finish)?,
            _ => last.on_ready(finish)?,
        }
        Ok(DeviceCall {
            shape,
            entry,
            outputs: Mutex::new(outputs.into_iter().map(Some).collect()),
            host: host.map(Conversion::new),
            host_numbers,
            done,
            failed_calls,
            _launches: launches,
            _plan: plan,
        })
    }

    /// Whether the call has ended. If it has succeeded, the requested numbers are on the host.
    pub fn is_done(&self) -> bool {
        self.done.is_finished()
    }

    /// Waits until the call ends or the timeout expires. `None` means no limit. Returns whether the call has ended. If
    /// the call failed, returns its error.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        match self.done.wait(timeout) {
            Some(outcome) => Ok(outcome.map(|()| true)?),
            None => Ok(false),
        }
    }

    /// Runs `action` when the call ends, on a thread of the plugin. If the call has already ended, runs it immediately,
    /// on this thread. `action` must neither wait for the device nor drop the call.
    pub fn on_done(&self, action: impl FnOnce() + Send + 'static) {
        self.done.run_when_finished(action);
    }

    /// Waits until the call ends and the actions of [`DeviceCall::on_done`] have returned.
    pub fn wait_for_actions(&self) {
        self.done.wait_for_actions();
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Waits until the call ends, and returns the tokens of all rows.
    pub fn tokens(&self) -> Result<Vec<i32>, Error> {
        let results = self.results()?;
        let rows = self.shape.rows;
        match &*results {
            HostResults::Tokens(tokens) => memory::collected(rows, PURPOSE, tokens.iter().copied().map(Ok)),
            HostResults::Outcomes(outcomes) => {
                memory::collected(rows, PURPOSE, outcomes.iter().map(|outcome| Ok(outcome.next_token)))
            }
        }
    }

    /// Waits until the call ends, and returns all numbers of all rows.
    pub fn outcomes(&self) -> Result<Vec<RowOutcome>, Error> {
        match &*self.results()? {
            HostResults::Outcomes(outcomes) => {
                memory::collected(self.shape.rows, PURPOSE, outcomes.iter().copied().map(Ok))
            }
            HostResults::Tokens(_) => Err(Error::argument(
                "the call copies only the tokens to the host; start it with all numbers (NUC_HOST_ALL, HostNumbers::All)",
            )),
        }
    }

    /// Waits until the call ends, and returns the numbers on the host. The numbers can be read any number of times.
    pub fn results(&self) -> Result<Arc<HostResults>, Error> {
        self.wait(None)?;
        let host = self.host.as_ref().ok_or_else(|| {
            Error::argument(
                "the call copies nothing to the host; start it with the tokens (NUC_HOST_TOKENS, HostNumbers::Tokens) or with all numbers (NUC_HOST_ALL, HostNumbers::All)",
            )
        })?;
        let results = host.get(|source| self.read(source).map(Arc::new));
        results.unwrap_or_else(|| Err(Error::Internal("the numbers of a call were lost in a panic".into())))
    }

    /// Waits for the numbers, and checks them.
    fn read(&self, source: HostSource) -> Result<HostResults, Error> {
        let results = match source {
            HostSource::Output => self.start_copy().and_then(|copy| self.checked_results(copy)),
            HostSource::Copy(copy) => self.checked_results(copy),
            HostSource::Failed(error) => Err(error),
        };
        results.inspect_err(|_| self.failed_calls.add())
    }

    fn checked_results(&self, copy: HostCopy<i32>) -> Result<HostResults, Error> {
        let (rows, all) = (self.shape.rows, self.host_numbers == HostNumbers::All);
        let expected = rows * if all { RESULTS } else { 1 };
        let numbers = copy.wait()?;
        if numbers.len() != expected {
            return Err(Error::Internal(format!(
                "{:?} returned {} numbers instead of {expected}",
                self.entry,
                numbers.len()
            )));
        }
        if !all {
            answer::check_tokens(numbers.iter().copied(), self.shape.vocab)?;
            return Ok(HostResults::Tokens(numbers));
        }
        let outcomes = answer::outcomes(&numbers, rows, rows)?;
        answer::check_outcomes(&outcomes, self.shape.vocab)?;
        Ok(HostResults::Outcomes(outcomes))
    }

    /// Takes the buffer of the tokens, `[rows]` i32. `None` if it was taken before. The buffer can be used immediately,
    /// because every use waits for the device.
    pub fn take_tokens_buffer(&self) -> Option<Buffer> {
        self.take_output(1)
    }

    /// Takes the buffer of a wide array, `[rows, vocab]`. `number` counts the requested wide arrays from 0. `None` if
    /// there is no such array, or if it was taken before.
    pub fn take_wide_buffer(&self, number: usize) -> Option<Buffer> {
        self.take_output(2 + number)
    }

    fn take_output(&self, number: usize) -> Option<Buffer> {
        if number == self.copied_output() {
            self.copy_numbers();
        }
        self.lock_outputs().get_mut(number)?.take()
    }

    /// Starts the copy of the numbers to the host, unless it was started earlier. The caller can destroy the buffer
    /// before it reads the numbers, so the copy must start before the caller takes the buffer.
    fn copy_numbers(&self) {
        let Some(host) = &self.host else { return };
        // If the call is running, it gets two more parts. One of these parts is the copy. The other part ends after
        // `update` has released its lock. The end of the last part runs the actions of the call, and an action can take
        // this lock to read the numbers. So the last part must not end while this thread holds the lock.
        let is_running = self.done.add_parts(2);
        let mut own_parts = if is_running { 2 } else { 0 };
        host.update(|source| match source {
            HostSource::Output => {
                own_parts = own_parts.min(1);
                self.copy_output(is_running).map_or_else(HostSource::Failed, HostSource::Copy)
            }
            other => other,
        });
        (0..own_parts).for_each(|_| self.done.finish(Ok(())));
    }

    /// Starts the copy of the numbers. If the call is running, the copy is a part of the call. This part also ends if
    /// the copy fails. If the call has ended, this function waits for the end of the copy. The wait is short, because
    /// the copy is small and its source is in host memory.
    fn copy_output(&self, is_running: bool) -> Result<HostCopy<i32>, Error> {
        let started = self.start_copy();
        if !is_running {
            let mut copy = started?;
            copy.finish()?;
            return Ok(copy);
        }
        let (done, failed_calls) = (self.done.clone(), self.failed_calls.clone());
        let finish = move |outcome: Result<(), pjrt::Error>| {
            if outcome.is_err() {
                failed_calls.add();
            }
            done.finish(outcome);
        };
        match started {
            Ok(copy) => match copy.on_ready(finish) {
                Ok(()) => Ok(copy),
                Err(error) => {
                    self.done.finish(Err(error.clone()));
                    Err(error.into())
                }
            },
            Err(error) => {
                self.done.finish(Ok(()));
                Err(error)
            }
        }
    }

    /// The index of the output that is copied to the host, if there is one.
    fn copied_output(&self) -> usize {
        usize::from(self.host_numbers != HostNumbers::All)
    }

    /// Starts the copy of the numbers to the host.
    fn start_copy(&self) -> Result<HostCopy<i32>, Error> {
        match self.lock_outputs().get(self.copied_output()) {
            Some(Some(output)) => Ok(output.start_copy_to_host()?),
            _ => Err(Error::Internal("the numbers of a call were taken before they were copied".into())),
        }
    }

    fn lock_outputs(&self) -> MutexGuard<'_, Vec<Option<Buffer>>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DeviceCall {
    fn drop(&mut self) {
        self.done.wait_for_actions();
    }
}
