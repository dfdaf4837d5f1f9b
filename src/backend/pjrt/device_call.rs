//! Calls on logits that are on the device. The results stay on the device. Only the numbers that the caller requests
//! are copied to the host. A call is asynchronous: the caller can do other work until it ends.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer;
use super::device_parameters::{Combine, DeviceParameters, Plan, PlanKey, Shape};
use super::inputs::element_of;
use super::PjrtBackend;
use crate::error::Error;
use crate::kernels::{Wanted, RESULTS};
use crate::memory;
use crate::outputs::RowOutcome;
use crate::pjrt::{self, Buffer, HostCopy, SharedLaunch};
use crate::plan::Entry;

/// The results that a caller wants from a device call.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceWants {
    /// The numbers to copy to the host.
    pub host: HostNumbers,
    /// The wide arrays to compute. They stay in buffers on the device.
    pub wide: Wanted,
    /// Whether the call takes the contents of the logits. A wide array of the same size then uses their memory, if the
    /// plugin can do this. The buffer of the logits is deleted when the call has started; its memory is free when the
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
    /// Locked before `outputs`.
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
    /// The memory of the device is host memory. The numbers are copied when they are read for the first time.
    InHostMemory,
    /// The copy is running or has ended.
    Copying(HostCopy),
    /// The numbers, or the reason why there are none.
    Copied(Result<Arc<HostResults>, Error>),
}

/// The purpose of allocations, for error messages.
const PURPOSE: &str = "the results of a device batch";

/// On a CPU, the largest size in bytes of numbers that are copied when they are read. The plugin copies so few bytes on
/// the thread that reads them, so reading them does not wait for other threads of the plugin.
const LARGEST_LATE_COPY: usize = 1 << 15;

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
    /// returns. With [`DeviceWants::donate_logits`], it is deleted then.
    pub(crate) fn start(
        &self,
        entry: Entry,
        max_k: usize,
        logits: &Buffer,
        parameters: &DeviceParameters,
        step: u64,
        wants: DeviceWants,
    ) -> Result<DeviceCall, Error> {
        let shape = parameters.shape();
        let singleton = self.check_logits(logits, shape)?;
        let reports_bad_rows = wants.host == HostNumbers::All;
        let key = PlanKey { entry, wanted: wants.wide, singleton, reports_bad_rows };
        let plan = parameters.plan(self, max_k, key)?;
        let copy = self.row_major_copies.start(logits, shape.dtype, self.device)?;
        let mut launches = match copy.as_ref().map(SharedLaunch::outputs) {
            // Nothing else reads the copy, so a program may use its memory.
            Some([copied, ..]) => self.launch_plan(&plan, copied, step, true)?,
            Some([]) => return Err(Error::Internal("a copy of the logits is missing".into())),
            None => self.launch_plan(&plan, logits, step, wants.donate_logits)?,
        };
        // The copy comes first, because the results belong to the last launch.
        launches.splice(..0, copy);
        let in_host_memory = self.client.platform_name() == "cpu";
        let call = DeviceCall::new(shape, entry, plan, launches, wants.host, in_host_memory)?;
        if wants.donate_logits && !logits.is_deleted()? {
            logits.delete()?;
        }
        Ok(call)
    }

    /// Starts the programs of a plan. `logits` is row-major. If `donate` is set, a program may use its memory.
    fn launch_plan(
        &self,
        plan: &Plan,
        logits: &Buffer,
        step: u64,
        donate: bool,
    ) -> Result<Vec<SharedLaunch>, Error> {
        let (multiple, rest) = self.steps.get(&self.client, self.device, step)?;
        let mut launches = memory::with_capacity(4, PURPOSE)?;
        // If there are several groups, each of them reads the logits.
        let donated = (donate && plan.groups.len() == 1).then_some(0);
        for group in &plan.groups {
            let program = self.programs.get(&group.spec)?;
            let operands = [logits, &group.parameters, &multiple, rest];
            launches.push(program.launch_shared(&operands, donated)?);
        }
        if let Some(combine) = &plan.combine {
            let combined = self.launch_combine(combine, &launches)?;
            launches.push(combined);
        }
        Ok(launches)
    }

    /// Starts the program that joins the results of groups.
    fn launch_combine(&self, combine: &Combine, groups: &[SharedLaunch]) -> Result<SharedLaunch, Error> {
        let program = self.programs.get_combine(&combine.spec)?;
        let mut inputs = vec![&combine.places, &combine.replace_val];
        inputs.extend(groups.iter().map(|launch| &launch.outputs()[0]));
        // The outputs of each group are the numbers, the tokens, and the wide arrays from index 2 on.
        for wide in 2..combine.spec.num_outputs() {
            inputs.extend(groups.iter().map(|launch| &launch.outputs()[wide]));
        }
        Ok(program.launch_shared(&inputs, None)?)
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
                None => "on a device that the sampler's client does not have".to_owned(),
            };
            return refuse(found, format!("on device {}, counted from 0", self.device));
        }
        if let Some(kind) = logits.other_memory(self.device)? {
            return refuse(
                format!("in memory of the kind {kind:?}"),
                "in the default memory of the device".into(),
            );
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
        in_host_memory: bool,
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
            None => HostState::Unwanted,
            Some(wanted) if in_host_memory && wanted.host_size() <= LARGEST_LATE_COPY => {
                HostState::InHostMemory
            }
            Some(wanted) => HostState::Copying(wanted.start_copy_to_host()?),
        };
        let done = Arc::<Done>::default();
        let finish = {
            let done = done.clone();
            move |outcome| done.finish(outcome)
        };
        match &host {
            HostState::Copying(copy) => copy.on_ready(finish)?,
            _ => last.on_ready(finish)?,
        }
        Ok(DeviceCall {
            shape,
            entry,
            outputs: Mutex::new(outputs.into_iter().map(Some).collect()),
            host: Mutex::new(host),
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
        let mut host = self.lock_host();
        let results = match std::mem::replace(&mut *host, HostState::Unwanted) {
            HostState::Unwanted => {
                return Err(Error::argument("the call was started without numbers on the host"))
            }
            HostState::InHostMemory => {
                self.start_copy().and_then(|copy| self.checked_results(copy)).map(Arc::new)
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
        let mut host = self.lock_host();
        if number == self.copied_output() && matches!(*host, HostState::InHostMemory) {
            // The caller can destroy the buffer before it reads the numbers.
            *host = match self.start_copy() {
                Ok(copy) => HostState::Copying(copy),
                Err(error) => HostState::Copied(Err(error)),
            };
        }
        self.lock_outputs().get_mut(number)?.take()
    }

    /// The output that is copied to the host, if any is.
    fn copied_output(&self) -> usize {
        usize::from(self.host_numbers != HostNumbers::All)
    }

    /// Starts the copy to the host.
    fn start_copy(&self) -> Result<HostCopy, Error> {
        match self.lock_outputs().get(self.copied_output()) {
            Some(Some(output)) => Ok(output.start_copy_to_host()?),
            _ => Err(Error::Internal("the numbers of a call were taken before they were copied".into())),
        }
    }

    fn lock_host(&self) -> MutexGuard<'_, HostState> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
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
