//! Logits on a device: calls on buffers of a PJRT client, without a copy of the logits to the host.
//!
//! A [`Sampler`] with a plugin samples a [`Buffer`] of its client. The parameters of the rows are [`Parameters`] on the
//! device; a call uploads them only after a change. Each call adds the number of its step to the offset of every row,
//! so a decode loop does not change the parameters. The tokens are those of [`Sampler::sample`], bit for bit.
//!
//! ```no_run
//! use nucleus::device::{HostNumbers, RowParameters, StartOptions};
//! use nucleus::{Batch, Dtype, Path, Sampler};
//!
//! let sampler = Sampler::builder().plugin_path("/opt/pjrt/plugin.so").build()?;
//! let parameters = sampler.parameters(2, 32_000, Dtype::F32)?;
//! parameters.set(0, &RowParameters { top_k: 40, top_p: 0.9, seed: 17, ..RowParameters::default() })?;
//! for step in 0..100 {
//!     // In a server, the model's output is on the device already: see `Sampler::borrow_buffer`.
//!     let logits = sampler.upload(&vec![0.0_f32; 2 * 32_000], 32_000)?;
//!     let call = sampler.start(Path::Automatic, &logits, &parameters, step, StartOptions::default())?;
//!     // The host is free while the device works.
//!     let tokens = call.tokens()?;
//! }
//! # Ok::<(), nucleus::Error>(())
//! ```

use std::ffi::c_void;
use std::fmt;
use std::time::Duration;

use crate::api::{Error, RowStatus, Sampled, Sampler, SamplerBuilder};
use crate::backend::pjrt::device_call::{DeviceCall, DeviceWants};
use crate::backend::pjrt::device_parameters::DeviceParameters;
use crate::batch::{check_vocab, CallOptions};
use crate::dtype::{Dtype, Logits};
use crate::error::Error as InternalError;
use crate::memory;
use crate::pjrt;
use crate::plan::Entry;
use crate::sampler;

pub use crate::backend::pjrt::device_call::HostNumbers;
pub use crate::batch::RowSettings as RowParameters;
pub use crate::pjrt::{BufferPointer, ClientPointer};

/// An array on the device of a sampler. Thread-safe. It keeps the sampler's client alive. Dropping it frees the memory
/// on the device, unless the buffer was [borrowed](Sampler::borrow_buffer).
#[derive(Debug)]
pub struct Buffer(pjrt::Buffer);

impl Buffer {
    /// The dimensions, the slowest-varying first.
    pub fn dims(&self) -> &[i64] {
        self.0.dims()
    }

    /// The `PJRT_Buffer`. It stays valid while this value lives.
    pub fn as_raw(&self) -> *mut c_void {
        self.0.as_raw().cast()
    }

    /// The `PJRT_Buffer`, which the caller now destroys. The caller must do so before the client is destroyed.
    pub fn into_raw(self) -> *mut c_void {
        self.0.into_raw().cast()
    }
}

/// The parameters of the rows of a batch on the device. Thread-safe. They belong to the sampler that created them and
/// keep its backend alive.
pub struct Parameters {
    inner: DeviceParameters,
    sampler: Sampler,
}

impl Parameters {
    /// Sets the parameters of a row for later calls. Calls that have started are not affected. An impossible parameter
    /// is reported by the calls: see [`HostNumbers`].
    ///
    /// Errors: [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if there is no such row.
    pub fn set(&self, row: usize, parameters: &RowParameters) -> Result<(), Error> {
        Ok(self.inner.set(row, parameters)?)
    }

    /// The number of rows.
    pub fn num_rows(&self) -> usize {
        self.inner.rows()
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameters").field("num_rows", &self.num_rows()).finish_non_exhaustive()
    }
}

/// The options of a call on the device.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct StartOptions {
    /// The numbers of each row to copy to the host. Default: the tokens.
    pub host_numbers: HostNumbers,
    /// Whether the call takes the contents of the logits: their buffer is deleted when the call has started.
    pub donate_logits: bool,
}

impl StartOptions {
    /// These options with other numbers for the host.
    pub fn host_numbers(mut self, host_numbers: HostNumbers) -> Self {
        self.host_numbers = host_numbers;
        self
    }

    /// These options with or without a donation of the logits.
    pub fn donate_logits(mut self, donate_logits: bool) -> Self {
        self.donate_logits = donate_logits;
        self
    }
}

/// A call that was started on the device. Thread-safe. Dropping it waits until the device has finished.
pub struct Call {
    inner: DeviceCall,
    // Dropped after the call: it keeps the client alive.
    _sampler: Sampler,
}

impl Call {
    /// Whether the call has ended. If it has succeeded, the numbers are on the host.
    pub fn is_done(&self) -> bool {
        self.inner.is_done()
    }

    /// Waits until the call ends or the timeout expires. `None` means no limit. Returns whether the call has ended.
    ///
    /// Errors: those of the call.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        Ok(self.inner.wait(timeout)?)
    }

    /// Runs `action` when the call ends, on a thread of the plugin; or immediately, if the call has ended. `action`
    /// must neither wait for the device nor drop the call.
    pub fn on_done(&self, action: impl FnOnce() + Send + 'static) {
        self.inner.on_done(action);
    }

    /// Waits until the call ends, and returns the tokens of all rows.
    ///
    /// Errors: those of the call; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it was started with
    /// [`HostNumbers::None`].
    pub fn tokens(&self) -> Result<Vec<i32>, Error> {
        Ok(self.inner.tokens()?)
    }

    /// Waits until the call ends, and returns the token and the status of each row. The call must have been started
    /// with [`HostNumbers::All`].
    pub fn tokens_with_status(&self) -> Result<Sampled, Error> {
        let outcomes = self.inner.outcomes()?;
        let rows = outcomes.len();
        let status = outcomes.iter().map(|outcome| Ok(RowStatus::from_bits(outcome.status)));
        Ok(Sampled {
            tokens: memory::collected(
                rows,
                "the tokens",
                outcomes.iter().map(|outcome| Ok(outcome.next_token)),
            )?,
            row_status: memory::collected(rows, "the statuses of the rows", status)?,
        })
    }

    /// Takes the buffer of the tokens, `[num_rows]` i32. `None` if it was taken before. The buffer can be used
    /// immediately, because every use waits for the device.
    pub fn take_tokens_buffer(&self) -> Option<Buffer> {
        self.inner.take_tokens_buffer().map(Buffer)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}

/// Logits on a device. These methods need a sampler with a plugin; on the built-in backend they fail with
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
impl Sampler {
    /// Creates the parameters for logits `[num_rows, vocab]` on the device. Every row has the defaults.
    pub fn parameters(&self, num_rows: usize, vocab: usize, dtype: Dtype) -> Result<Parameters, Error> {
        let inner = self.inner.device_parameters(num_rows, vocab, dtype, CallOptions::default())?;
        Ok(Parameters { inner, sampler: self.clone() })
    }

    /// Copies logits `[num_rows, vocab]` to the device.
    pub fn upload<'a>(&self, logits: impl Into<Logits<'a>>, vocab: usize) -> Result<Buffer, Error> {
        let logits = logits.into();
        check_vocab(vocab)?;
        if logits.is_empty() || logits.len() % vocab != 0 {
            let message = format!(
                "logits has {} elements; it must have a positive multiple of vocab = {vocab}",
                logits.len()
            );
            return Err(InternalError::named_argument("logits", message).into());
        }
        Ok(Buffer(self.inner.upload_logits(logits, logits.len() / vocab, vocab)?))
    }

    /// Wraps a buffer of the caller, which stays the caller's. `buffer` is a buffer of the sampler's client:
    /// `[num_rows, vocab]` or `[num_rows, 1, vocab]`.
    pub fn borrow_buffer(&self, buffer: BufferPointer) -> Result<Buffer, Error> {
        let client = self.inner.device_client()?;
        Ok(Buffer(buffer.buffer(client).map_err(InternalError::from)?))
    }

    /// The `PJRT_Client` of the sampler, for buffers of the caller. `None` on the built-in backend. It stays valid
    /// while the sampler or anything that it created lives.
    pub fn client(&self) -> Option<*mut c_void> {
        Some(self.inner.client()?.as_raw().cast())
    }

    /// Starts a call on logits that are on the device, and returns without waiting for it. `step` is added to the
    /// offset of every row, modulo 2^64. The logits may be dropped when this function returns.
    ///
    /// The first call of each shape compiles its programs, unless they were [prewarmed](Sampler::prewarm).
    pub fn start(
        &self,
        path: Entry,
        logits: &Buffer,
        parameters: &Parameters,
        step: u64,
        options: StartOptions,
    ) -> Result<Call, Error> {
        if !std::ptr::eq::<sampler::Sampler>(&*self.inner, &*parameters.sampler.inner) {
            let message = "parameters belongs to another sampler; create it with this sampler";
            return Err(InternalError::named_argument("parameters", message).into());
        }
        let StartOptions { host_numbers: host, donate_logits } = options;
        let wants = DeviceWants { host, donate_logits, ..DeviceWants::default() };
        let outcome = self.inner.start(path, &logits.0, &parameters.inner, step, wants);
        super::log_release_failures();
        Ok(Call { inner: outcome?, _sampler: self.clone() })
    }
}

impl SamplerBuilder {
    /// Creates a sampler on a client of the caller. It ignores the options `backend`, `plugin_path` and
    /// `client_option`.
    pub fn build_on_client(&self, client: ClientPointer) -> Result<Sampler, Error> {
        let client = client.client().map_err(InternalError::from)?;
        let inner = sampler::Sampler::with_client(client, &self.options)?;
        Ok(Sampler { inner: inner.into() })
    }
}
