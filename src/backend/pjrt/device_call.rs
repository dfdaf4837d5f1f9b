//! Calls on logits that are on the device. The results stay there, and only the numbers that the caller wants are
//! copied to the host, while the device works on.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer;
use super::device_parameters::{DeviceParameters, Plan, PlanKey, Shape};
use super::PjrtBackend;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::kernels::{Wanted, RESULTS};
use crate::outputs::RowOutcome;
use crate::pjrt::{self, Buffer, ElementType, HostCopy, SharedLaunch};
use crate::plan::Entry;

/// The results that a caller wants from a device call.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceWants {
    /// The numbers that are copied to the host.
    pub host: HostNumbers,
    /// The wide arrays, as buffers on the device.
    pub wide: Wanted,
}

/// The numbers of each row that are copied to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostNumbers {
    /// None: the tokens stay on the device.
    None,
    /// The tokens, 4 bytes per row. A row with impossible parameters is an error.
    #[default]
    Tokens,
    /// Every number of a row, 20 bytes per row. A row with impossible parameters gets a status.
    All,
}

/// A call that was started. The device may still be working on it. Thread-safe. Dropping it waits for the end.
pub struct DeviceCall {
    shape: Shape,
    entry: Entry,
    /// Numbers `[RESULTS, rows]`, tokens `[rows]`, and the wide arrays. `None` after a buffer was taken.
    outputs: Mutex<Vec<Option<Buffer>>>,
    host: Mutex<Option<HostCopy>>,
    host_numbers: HostNumbers,
    done: Arc<Done>,
    // Dropped after the outputs. It waits for the programs, which must stay loaded while they run.
    _launches: Vec<SharedLaunch>,
    _plan: Arc<Plan>,
}

/// Whether a call has ended, and what happens then.
struct Done {
    state: Mutex<DoneState>,
    changed: Condvar,
}

#[derive(Default)]
struct DoneState {
    outcome: Option<Result<(), pjrt::Error>>,
    actions: Vec<Action>,
}

type Action = Box<dyn FnOnce() + Send>;

impl Done {
    fn lock(&self) -> MutexGuard<'_, DoneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the outcome, wakes the waiting threads, and runs the actions without the lock.
    fn finish(&self, outcome: Result<(), pjrt::Error>) {
        let mut state = self.lock();
        state.outcome = Some(outcome);
        let actions = std::mem::take(&mut state.actions);
        drop(state);
        self.changed.notify_all();
        actions.into_iter().for_each(|action| action());
    }
}

impl PjrtBackend {
    /// Parameters for batches of logits on this backend's device.
    pub(crate) fn device_parameters(
        &self,
        rows: usize,
        vocab: usize,
        dtype: Dtype,
        options: crate::batch::CallOptions,
    ) -> Result<DeviceParameters, Error> {
        DeviceParameters::new(rows, vocab, dtype, options)
    }

    /// Starts a call. `logits` is a buffer of this backend's client. It may be deleted when this function returns.
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
            // The outputs of a group: the numbers, the tokens, and the wide arrays.
            for wide in 2..combine.spec.num_outputs() {
                inputs.extend(launches.iter().map(|launch| &launch.outputs()[wide]));
            }
            let combined = program.launch_shared(&inputs)?;
            launches.push(combined);
        }
        DeviceCall::new(shape, entry, plan, launches, wants.host)
    }

    /// Checks that a buffer is the logits of such a batch. Returns whether it has a dimension of length 1 in the middle.
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
        if logits.device()? != Some(self.device) {
            let found = format!("on device {:?}", logits.device()?);
            return refuse(found, format!("on device {}, counted from 0", self.device));
        }
        let element = match shape.dtype {
            Dtype::F32 => ElementType::F32,
            Dtype::Bf16 => ElementType::BF16,
            Dtype::F16 => ElementType::F16,
        };
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
        let done = Arc::new(Done { state: Mutex::default(), changed: Condvar::new() });
        let finish = {
            let done = done.clone();
            move |outcome| done.finish(outcome)
        };
        match &host {
            Some(copy) => copy.on_ready(finish)?,
            None => last.on_ready(finish)?,
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

    /// Whether the call has ended, and the numbers are on the host.
    pub fn is_done(&self) -> bool {
        self.done.lock().outcome.is_some()
    }

    /// Waits until the call ends, or at most for the given time. Returns whether it has ended. The error is that of the
    /// call.
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

    /// Calls `action` when the call has ended: on a thread of the plugin, or on this thread if the call has ended.
    pub fn on_done(&self, action: impl FnOnce() + Send + 'static) {
        let mut state = self.done.lock();
        if state.outcome.is_none() {
            state.actions.push(Box::new(action));
            return;
        }
        drop(state);
        action();
    }

    /// Waits for the end and returns the tokens of all rows.
    pub fn tokens(&self) -> Result<Vec<i32>, Error> {
        match self.host_numbers {
            HostNumbers::None => Err(Error::argument("the call was started without numbers on the host")),
            HostNumbers::Tokens => {
                let tokens: Vec<i32> = bytemuck::pod_collect_to_vec(&self.host_bytes(self.shape.rows * 4)?);
                answer::check_tokens(&tokens, self.shape.vocab)?;
                Ok(tokens)
            }
            HostNumbers::All => Ok(self.outcomes()?.iter().map(|outcome| outcome.next_token).collect()),
        }
    }

    /// Waits for the end and returns all numbers of all rows.
    pub fn outcomes(&self) -> Result<Vec<RowOutcome>, Error> {
        if self.host_numbers != HostNumbers::All {
            return Err(Error::argument("the call was started without all numbers on the host"));
        }
        let rows = self.shape.rows;
        let numbers: Vec<i32> = bytemuck::pod_collect_to_vec(&self.host_bytes(RESULTS * rows * 4)?);
        let outcomes = answer::outcomes(&numbers, rows, rows)?;
        let tokens: Vec<i32> = outcomes.iter().map(|outcome| outcome.next_token).collect();
        answer::check_tokens(&tokens, self.shape.vocab)?;
        Ok(outcomes)
    }

    fn host_bytes(&self, expected: usize) -> Result<Vec<u8>, Error> {
        self.wait(None)?;
        let copy = self.host.lock().unwrap_or_else(PoisonError::into_inner).take();
        let copy = copy.ok_or_else(|| Error::argument("the numbers of the call were already taken"))?;
        let bytes = copy.wait()?;
        match bytes.len() == expected {
            true => Ok(bytes),
            false => Err(Error::Internal(format!(
                "{:?} returned {} bytes of numbers instead of {expected}",
                self.entry,
                bytes.len()
            ))),
        }
    }

    /// Takes the buffer of the tokens, `[rows]` i32. It can be used at once: every use waits for the device.
    pub fn take_tokens_buffer(&self) -> Option<Buffer> {
        self.take_output(1)
    }

    /// Takes the buffer of a wide array, `[rows, vocab]`, by its number among the wanted ones.
    pub fn take_wide_buffer(&self, number: usize) -> Option<Buffer> {
        self.take_output(2 + number)
    }

    fn take_output(&self, number: usize) -> Option<Buffer> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number)?.take()
    }
}
