//! Calls on logits that are on the device. The results stay on the device. Only the numbers that the caller requests
//! are copied to the host. A call is asynchronous: the caller can do other work until it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::answer;
use super::completion::Completion;
use super::conversion::Conversion;
use super::device_parameters::{Combine, DeviceParameters, Plan, PlanKey, Shape};
use super::inputs::element_of;
use super::PjrtBackend;
use crate::error::Error;
use crate::kernels::{Wanted, RESULTS};
use crate::latency::{CallLatencies, CallTimer};
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
    /// Whether the call takes the contents of the logits. A wide array of the same size can then use the memory of the
    /// logits. The buffer of the logits is deleted when the call has started. Memory that no wide array uses is free
    /// when the call ends.
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

/// Where the numbers for the host are before they are read for the first time.
enum HostSource {
    /// In an output that is in host memory. The first read copies the output.
    Output,
    /// In a copy of an output. The copy is running or has ended.
    Copy(HostCopy),
    /// Nowhere: the copy could not be started.
    Failed(Error),
}

/// The purpose of allocations, for error messages.
const PURPOSE: &str = "the results of a device batch";

/// The largest size in bytes of numbers on a CPU device that are copied only when they are read. The plugin copies so
/// few bytes on the thread that reads them, so the read does not wait for other threads of the plugin.
const LARGEST_LATE_COPY: usize = 1 << 15;

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
        let reports_bad_rows = wants.host == HostNumbers::All;
        let key = PlanKey { entry, wanted: wants.wide, singleton, reports_bad_rows };
        let plan = parameters.plan(self, max_k, key)?;
        let copy = self.start_row_major_copy(logits, shape.dtype)?;
        let mut launches = match copy.as_ref().map(SharedLaunch::outputs) {
            // Nothing else reads the copy, so the plan may donate it.
            Some([copied, ..]) => self.launch_plan(&plan, copied, step, true)?,
            Some([]) => return Err(Error::Internal("a copy of the logits is missing".into())),
            None => self.launch_plan(&plan, logits, step, wants.donate_logits)?,
        };
        // The copy comes first, because the results belong to the last launch.
        launches.splice(..0, copy);
        let in_host_memory = self.client.platform_name() == "cpu";
        let timing = (timer, self.latencies.clone());
        let call = DeviceCall::new(shape, entry, plan, launches, wants.host, in_host_memory, timing)?;
        if wants.donate_logits && !logits.is_deleted()? {
            logits.delete()?;
        }
        Ok(call)
    }

    /// Starts the programs of a plan. `logits` is row-major. If `donate` is set, a program may use the memory of
    /// `logits`.
    fn launch_plan(
        &self,
        plan: &Plan,
        logits: &Buffer,
        step: u64,
        donate: bool,
    ) -> Result<Vec<SharedLaunch>, Error> {
        let (multiple, rest) = self.steps.get(&self.client, self.device, step)?;
        let mut launches = memory::with_capacity(4, PURPOSE)?;
        // If there are several groups, every group reads the logits, so none of them may reuse their memory.
        let donated = (donate && plan.groups.len() == 1).then_some(0);
        for group in &plan.groups {
            let program = self.programs.get(&group.spec.into())?;
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
        let program = self.programs.get(&combine.spec.into())?;
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
        (mut timer, latencies): (CallTimer, Arc<CallLatencies>),
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
            let done = done.clone();
            move |outcome: Result<(), pjrt::Error>| {
                if outcome.is_ok() {
                    timer.ended(&latencies);
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
            HostResults::Tokens(_) => {
                Err(Error::argument("the call was started with the tokens alone on the host"))
            }
        }
    }

    /// Waits until the call ends, and returns the numbers on the host. The numbers can be read any number of times.
    pub fn results(&self) -> Result<Arc<HostResults>, Error> {
        self.wait(None)?;
        let host = self
            .host
            .as_ref()
            .ok_or_else(|| Error::argument("the call was started without numbers on the host"))?;
        let results = host.get(|source| self.read(source).map(Arc::new));
        results.unwrap_or_else(|| Err(Error::Internal("the numbers of a call were lost in a panic".into())))
    }

    /// Waits for the numbers, and checks them.
    fn read(&self, source: HostSource) -> Result<HostResults, Error> {
        match source {
            HostSource::Output => self.checked_results(self.start_copy()?),
            HostSource::Copy(copy) => self.checked_results(copy),
            HostSource::Failed(error) => Err(error),
        }
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
        if let (Some(host), true) = (&self.host, number == self.copied_output()) {
            // The caller can destroy the buffer before it reads the numbers, so the copy must start now.
            host.update(|source| match source {
                HostSource::Output => self.start_copy().map_or_else(HostSource::Failed, HostSource::Copy),
                other => other,
            });
        }
        self.lock_outputs().get_mut(number)?.take()
    }

    /// The index of the output that is copied to the host, if there is one.
    fn copied_output(&self) -> usize {
        usize::from(self.host_numbers != HostNumbers::All)
    }

    /// Starts the copy of the numbers to the host.
    fn start_copy(&self) -> Result<HostCopy, Error> {
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
