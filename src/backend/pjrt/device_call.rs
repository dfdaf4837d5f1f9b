//! Calls on logits that are on the device. The results stay on the device. Only the numbers that the caller requests
//! are copied to the host. A call is asynchronous: the caller can do other work until it ends.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer;
use super::device_parameters::{DeviceParameters, Plan, PlanKey, Shape};
use super::inputs::element_of;
use super::PjrtBackend;
use crate::error::Error;
use crate::kernels::{Wanted, RESULTS};
use crate::latency::{CallLatencies, CallTimer};
use crate::memory;
use crate::outputs::RowOutcome;
use crate::pjrt::{self, Buffer, ElementType, HostCopy, SharedLaunch};
use crate::plan::Entry;

/// The results that a caller wants from a device call.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceWants {
    /// The numbers to copy to the host.
    pub host: HostNumbers,
    /// The wide arrays to compute. They stay in buffers on the device.
    pub wide: Wanted,
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
    /// [`ROW_BAD_PARAMETER`](crate::outputs::ROW_BAD_PARAMETER).
    All,
}

/// A call that was started and can still be running on the device. Thread-safe. Dropping it waits until the call ends
/// and the actions of [`DeviceCall::on_done`] have returned.
pub struct DeviceCall {
    shape: Shape,
    entry: Entry,
    /// The numbers `[RESULTS, rows]`, the tokens `[rows]`, and the wide arrays. `None` for a buffer that was taken.
    outputs: Mutex<Vec<Option<Buffer>>>,
    host: Mutex<HostState>,
    host_numbers: HostNumbers,
    done: Arc<Done>,
    // Dropped after the outputs. Dropping it waits for the programs, which must stay loaded while they run.
    _launches: Vec<SharedLaunch>,
    _plan: Arc<Plan>,
}

/// The numbers of a call on the host.
pub enum HostResults {
    /// With [`HostNumbers::Tokens`].
    Tokens(Vec<i32>),
    /// With [`HostNumbers::All`].
    Outcomes(Vec<RowOutcome>),
}

/// The state of the copy of the numbers to the host.
enum HostState {
    /// No numbers are wanted.
    Unwanted,
    /// The copy is running or has ended.
    Copying(HostCopy),
    /// The numbers, or the reason why there are none.
    Copied(Result<Arc<HostResults>, Error>),
}

/// The purpose of allocations, for error messages.
const PURPOSE: &str = "the results of a device batch";

/// The outcome of a call, after its end, and the actions to run when it ends.
#[derive(Default)]
struct Done {
    state: Mutex<DoneState>,
    changed: Condvar,
}

#[derive(Default)]
struct DoneState {
    outcome: Option<Result<(), pjrt::Error>>,
    actions: Vec<Action>,
    /// The number of threads that run actions.
    running: usize,
}

type Action = Box<dyn FnOnce() + Send>;

impl Done {
    fn lock(&self) -> MutexGuard<'_, DoneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the outcome, releases the lock, wakes the waiting threads, and runs the actions.
    fn finish(&self, outcome: Result<(), pjrt::Error>) {
        let mut state = self.lock();
        state.outcome = Some(outcome);
        let actions = std::mem::take(&mut state.actions);
        let _running = self.begin_actions(&mut state);
        drop(state);
        self.changed.notify_all();
        actions.into_iter().for_each(|action| action());
    }

    /// Runs `action` when there is an outcome: now, or in [`Done::finish`].
    fn run_when_finished(&self, action: Action) {
        let mut state = self.lock();
        if state.outcome.is_none() {
            state.actions.push(action);
            return;
        }
        let _running = self.begin_actions(&mut state);
        drop(state);
        action();
    }

    /// Counts this thread as one that runs actions, until the result is dropped.
    fn begin_actions(&self, state: &mut DoneState) -> Running<'_> {
        state.running += 1;
        Running(self)
    }

    /// Waits until there is an outcome and every action has returned.
    fn wait_for_actions(&self) {
        let busy = |state: &mut DoneState| state.outcome.is_none() || state.running > 0;
        drop(self.changed.wait_while(self.lock(), busy).unwrap_or_else(PoisonError::into_inner));
    }
}

/// While a value of this type exists, one thread is counted as running actions. The drop ends this, even if an action
/// panics.
struct Running<'a>(&'a Done);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

impl PjrtBackend {
    /// Starts a call. `logits` is a buffer of this backend's client. The caller may delete it when this function
    /// returns.
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
        let reports_bad_rows = wants.host == HostNumbers::All;
        let key = PlanKey { entry, wanted: wants.wide, singleton, reports_bad_rows };
        let plan = parameters.plan(self, max_k, key)?;
        let step = self.client.buffer_from_host(&step.to_le_bytes(), ElementType::U64, &[], self.device)?;
        let mut launches = Vec::new();
        for group in &plan.groups {
            let program = self.programs.get(&group.spec)?;
            launches.push(program.launch_shared(&[logits, &group.parameters, &step])?);
        }
        if let Some(combine) = &plan.combine {
            let program = self.programs.get_combine(&combine.spec)?;
            let mut inputs = vec![&combine.places, &combine.replace_val];
            inputs.extend(launches.iter().map(|launch| &launch.outputs()[0]));
            // The outputs of each group are the numbers, the tokens, and the wide arrays from index 2 on.
            for wide in 2..combine.spec.num_outputs() {
                inputs.extend(launches.iter().map(|launch| &launch.outputs()[wide]));
            }
            let combined = program.launch_shared(&inputs)?;
            launches.push(combined);
        }
        let timing = (timer, self.latencies.clone());
        DeviceCall::new(shape, entry, plan, launches, wants.host, timing)
    }

    /// Checks that a buffer can be the logits of a batch of this shape. Returns whether the buffer has a middle
    /// dimension of length 1.
    fn check_logits(&self, logits: &Buffer, shape: Shape) -> Result<bool, Error> {
        let refuse = |found: String, right: String| {
            Err(Error::named_argument("logits", format!("logits is {found}; it must be {right}")))
        };
        if logits.client().as_raw() != self.client.as_raw() {
            return refuse("a buffer of another client".into(), "a buffer of the sampler's client".into());
        }
        if logits.is_deleted()? {
            return refuse("a buffer that was deleted or donated".into(), "a live buffer".into());
        }
        let device = logits.device()?;
        if device != Some(self.device) {
            let found = match device {
                Some(device) => format!("on device {device}"),
                None => "on a device that the sampler's client cannot address".to_owned(),
            };
            return refuse(found, format!("on device {}, counted from 0", self.device));
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
    fn new(
        shape: Shape,
        entry: Entry,
        plan: Arc<Plan>,
        mut launches: Vec<SharedLaunch>,
        host_numbers: HostNumbers,
        (mut timer, latencies): (CallTimer, Arc<CallLatencies>),
    ) -> Result<DeviceCall, Error> {
        let last = launches.last_mut().ok_or_else(|| Error::Internal("a call started no program".into()))?;
        let outputs = last.take_outputs();
        let (numbers, tokens) = match outputs.as_slice() {
            [numbers, tokens, ..] => (numbers, tokens),
            _ => return Err(Error::Internal("a program returned too few arrays".into())),
        };
        let host = match host_numbers {
            HostNumbers::None => None,
            HostNumbers::Tokens => Some(tokens.start_copy_to_host()?),
            HostNumbers::All => Some(numbers.start_copy_to_host()?),
        };
        let done = Arc::<Done>::default();
        timer.enqueued();
        let finish = {
            let done = done.clone();
            move |outcome: Result<(), pjrt::Error>| {
                if outcome.is_ok() {
                    timer.ended(&latencies);
                }
                done.finish(outcome);
            }
        };
        match &host {
            Some(copy) => copy.on_ready(finish)?,
            None => last.on_ready(finish)?,
        }
        Ok(DeviceCall {
            shape,
            entry,
            outputs: Mutex::new(outputs.into_iter().map(Some).collect()),
            host: Mutex::new(host.map_or(HostState::Unwanted, HostState::Copying)),
            host_numbers,
            done,
            _launches: launches,
            _plan: plan,
        })
    }

    /// Whether the call has ended. If it has succeeded, the requested numbers are on the host.
    pub fn is_done(&self) -> bool {
        self.done.lock().outcome.is_some()
    }

    /// Waits until the call ends or the timeout expires. `None` means no limit. Returns whether the call has ended.
    /// Returns the error of the call if the call failed.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.done.lock();
        while state.outcome.is_none() {
            state = match deadline {
                None => self.done.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                        return Ok(false);
                    };
                    let waited = self.done.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        match &state.outcome {
            Some(Err(error)) => Err(error.clone().into()),
            _ => Ok(true),
        }
    }

    /// Runs `action` when the call ends, on a thread of the plugin. If the call has already ended, runs it immediately,
    /// on this thread. `action` must neither wait for the device nor drop the call.
    pub fn on_done(&self, action: impl FnOnce() + Send + 'static) {
        self.done.run_when_finished(Box::new(action));
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
            HostResults::Tokens(_) => {
                Err(Error::argument("the call was started with the tokens alone on the host"))
            }
        }
    }

    /// Waits until the call ends, and returns the numbers on the host. They can be read any number of times.
    pub fn results(&self) -> Result<Arc<HostResults>, Error> {
        self.wait(None)?;
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let results = match std::mem::replace(&mut *host, HostState::Unwanted) {
            HostState::Unwanted => {
                return Err(Error::argument("the call was started without numbers on the host"))
            }
            HostState::Copying(copy) => self.checked_results(copy).map(Arc::new),
            HostState::Copied(results) => results,
        };
        *host = HostState::Copied(results.clone());
        results
    }

    fn checked_results(&self, copy: HostCopy) -> Result<HostResults, Error> {
        let (rows, all) = (self.shape.rows, self.host_numbers == HostNumbers::All);
        let expected = rows * if all { RESULTS * 4 } else { 4 };
        let bytes = copy.wait()?;
        if bytes.len() != expected {
            return Err(Error::Internal(format!(
                "{:?} returned {} bytes of numbers instead of {expected}",
                self.entry,
                bytes.len()
            )));
        }
        let mut numbers = memory::zeroed::<i32>(expected / 4, PURPOSE)?;
        bytemuck::cast_slice_mut(&mut numbers).copy_from_slice(&bytes);
        if !all {
            answer::check_tokens(numbers.iter().copied(), self.shape.vocab)?;
            return Ok(HostResults::Tokens(numbers));
        }
        let outcomes = answer::outcomes(&numbers, rows, rows)?;
        answer::check_tokens(outcomes.iter().map(|outcome| outcome.next_token), self.shape.vocab)?;
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
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number)?.take()
    }
}

impl Drop for DeviceCall {
    fn drop(&mut self) {
        self.done.wait_for_actions();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, AssertUnwindSafe};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn done() -> Arc<Done> {
        Arc::default()
    }

    fn counting(count: &Arc<AtomicUsize>) -> Action {
        let count = count.clone();
        Box::new(move || {
            thread::sleep(Duration::from_millis(5));
            count.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Threads add actions while another thread finishes. Each action runs once, and the wait ends after all of them.
    #[test]
    fn every_action_runs_before_the_wait_ends() {
        for _ in 0..20 {
            let (done, count) = (done(), Arc::new(AtomicUsize::new(0)));
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| done.run_when_finished(counting(&count)));
                }
                scope.spawn(|| done.finish(Ok(())));
            });
            done.run_when_finished(counting(&count));
            done.wait_for_actions();
            assert_eq!(count.load(Ordering::Relaxed), 4);
        }
    }

    /// The wait for the actions begins while they run, and lasts until they have returned.
    #[test]
    fn a_running_action_is_awaited() {
        let (done, count) = (done(), Arc::new(AtomicUsize::new(0)));
        done.run_when_finished(counting(&count));
        done.run_when_finished(counting(&count));
        let finishing = done.clone();
        let thread = thread::spawn(move || finishing.finish(Ok(())));
        done.wait_for_actions();
        assert_eq!(count.load(Ordering::Relaxed), 2);
        thread.join().unwrap();
    }

    #[test]
    fn a_panic_of_an_action_ends_the_wait() {
        let done = done();
        done.run_when_finished(Box::new(|| panic!("an action")));
        assert!(catch_unwind(AssertUnwindSafe(|| done.finish(Ok(())))).is_err());
        done.wait_for_actions();
    }
}
