//! The sampler of the Rust interface.

use std::fmt;
use std::sync::Arc;

use super::log_release_failures;
use crate::api::{Batch, DebugArrays, Error, Outputs, RowStatus};
use crate::backend::DeviceInfo;
use crate::latency::LatencyStats;
use crate::memory;
use crate::sampler::{self, BackendChoice, SamplerOptions};

/// Chooses the next token of every row of a [`Batch`].
///
/// A sampler owns a backend: the threads of the built-in backend, or the client and the compiled programs of a PJRT
/// plugin. Any number of threads may use one sampler at the same time. A clone shares the backend. The backend is freed
/// with the last clone.
#[derive(Clone)]
pub struct Sampler {
    pub(super) inner: Arc<sampler::Sampler>,
}

/// The tokens of a batch, and the status of each row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sampled {
    /// `[num_rows]`: the token of each row; −1 if the row has none.
    pub tokens: Vec<i32>,
    /// `[num_rows]`: the status of each row.
    pub row_status: Vec<RowStatus>,
}

impl Sampler {
    /// The options of a sampler, all with their defaults.
    ///
    /// ```
    /// use nucleus::{Backend, Sampler};
    ///
    /// let sampler = Sampler::builder().backend(Backend::Builtin).num_threads(2).max_k(64).build()?;
    /// assert_eq!((sampler.max_k(), sampler.platform().0.as_str()), (64, "builtin"));
    ///
    /// let error = Sampler::builder().max_k(0).build().unwrap_err();
    /// assert_eq!((error.kind(), error.argument()), (nucleus::ErrorKind::InvalidArgument, Some("max_k")));
    /// # Ok::<(), nucleus::Error>(())
    /// ```
    pub fn builder() -> SamplerBuilder {
        SamplerBuilder { options: SamplerOptions::default() }
    }

    /// Samples a batch and returns its tokens `[num_rows]`. A row without a candidate (every logit is −inf or NaN) gets
    /// −1.
    ///
    /// Errors: [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if an array has the wrong length or a parameter
    /// of any row is impossible; the error names the argument and the row.
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory). With a plugin also [`Device`](crate::ErrorKind::Device) and
    /// [`Internal`](crate::ErrorKind::Internal).
    pub fn sample(&self, batch: &Batch<'_>) -> Result<Vec<i32>, Error> {
        let mut tokens = memory::zeroed(batch.num_rows, "the tokens")?;
        self.sample_into(batch, Outputs::new().tokens(&mut tokens))?;
        Ok(tokens)
    }

    /// Samples a batch and returns the token and the status of each row. An impossible parameter of one request does
    /// not fail the others: its row gets the token −1 and the status [`bad_parameter`](RowStatus::bad_parameter).
    ///
    /// ```
    /// use nucleus::{Batch, Sampler};
    ///
    /// let sampler = Sampler::builder().build()?;
    /// let batch = Batch::new(&[1.0_f32, 2.0, 3.0, 4.0], 2)?.temperature(&[f32::NAN, 0.0]);
    /// let sampled = sampler.sample_with_status(&batch)?;
    /// assert_eq!(sampled.tokens, [-1, 1]);
    /// assert!(sampled.row_status[0].bad_parameter() && sampled.row_status[1].is_empty());
    /// // `sample` has no place for a status, so it fails.
    /// assert_eq!(sampler.sample(&batch).unwrap_err().row(), Some(0));
    /// # Ok::<(), nucleus::Error>(())
    /// ```
    pub fn sample_with_status(&self, batch: &Batch<'_>) -> Result<Sampled, Error> {
        let mut tokens = memory::zeroed(batch.num_rows, "the tokens")?;
        let mut bits = memory::zeroed(batch.num_rows, "the statuses of the rows")?;
        self.sample_into(batch, Outputs::new().tokens(&mut tokens).row_status(&mut bits))?;
        let row_status = bits.into_iter().map(RowStatus::from_bits).collect();
        Ok(Sampled { tokens, row_status })
    }

    /// Samples a batch and writes the results to arrays of the caller. Like [`sample`](Sampler::sample), except that
    /// an impossible parameter affects only its own row if [`Outputs::row_status`] is set. After an error, no array was
    /// written.
    pub fn sample_into(&self, batch: &Batch<'_>, outputs: Outputs<'_>) -> Result<(), Error> {
        let checked = batch.checked()?;
        let mut outputs = outputs.checked(&checked, self.inner.max_k())?;
        let outcome = self.inner.sample(batch.path, &checked, &mut outputs);
        log_release_failures();
        Ok(outcome?)
    }

    /// Samples a batch and returns every intermediate result, for validation. It takes much longer than the other
    /// functions. An impossible parameter affects only its own row. Batches on [`Path::Bounded`](crate::Path::Bounded)
    /// also return the k-slices.
    ///
    /// ```
    /// use nucleus::{Batch, Path, Sampler};
    ///
    /// let sampler = Sampler::builder().max_k(3).build()?;
    /// let batch = Batch::new(&[0.5_f32, 3.0, 2.0, -1.0], 4)?.top_k(&[2]).path(Path::Bounded);
    /// let debug = sampler.sample_debug(&batch)?;
    /// assert_eq!(debug.topk_logits_unsorted.to_f32(), [-1e12, 3.0, 2.0, -1e12]);
    /// assert_eq!(debug.k_slices.unwrap().topk_indices_k, [1, 2, -1]);
    /// # Ok::<(), nucleus::Error>(())
    /// ```
    pub fn sample_debug(&self, batch: &Batch<'_>) -> Result<DebugArrays, Error> {
        let (checked, max_k) = (batch.checked()?, self.inner.max_k());
        let arrays = DebugArrays::filled_by(&checked, batch.path, max_k, |outputs| {
            let mut outputs = outputs.checked(&checked, max_k)?;
            self.inner.sample(batch.path, &checked, &mut outputs)
        });
        log_release_failures();
        Ok(arrays?)
    }

    /// The number of slots of the bounded path, which is the width of the k-slices.
    pub fn max_k(&self) -> usize {
        self.inner.max_k()
    }

    /// The name of the platform and its version. For the built-in backend: `"builtin"`, and the instruction set and the
    /// number of threads.
    pub fn platform(&self) -> (String, String) {
        let (name, version, _) = self.inner.platform();
        (name, version)
    }

    /// The devices that [`device_index`](SamplerBuilder::device_index) can select. The built-in backend has one.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        self.inner.devices()
    }

    /// The latencies of the calls that have succeeded.
    pub fn latencies(&self) -> LatencyStats {
        self.inner.latencies()
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, version) = self.platform();
        f.debug_struct("Sampler").field("platform", &name).field("version", &version).finish_non_exhaustive()
    }
}

/// The options of a [`Sampler`]. [`Sampler::builder`] creates it.
#[derive(Clone, Debug)]
#[must_use]
pub struct SamplerBuilder {
    pub(super) options: SamplerOptions,
}

impl SamplerBuilder {
    /// Creates the sampler. With a plugin this loads the plugin and creates a client, which can take seconds.
    ///
    /// Errors: [`InvalidArgument`](crate::ErrorKind::InvalidArgument), which names the option, and the errors of
    /// plugins.
    pub fn build(&self) -> Result<Sampler, Error> {
        Ok(Sampler { inner: Arc::new(sampler::Sampler::new(&self.options)?) })
    }

    /// The backend. Default: [`Backend::Auto`](crate::Backend::Auto).
    pub fn backend(mut self, backend: BackendChoice) -> Self {
        self.options.backend = backend;
        self
    }

    /// The number of threads of the built-in backend. 1: only the calling thread, and the sampler starts no thread.
    /// 0: one thread per core, at most 1024. Default: 0.
    pub fn num_threads(mut self, num_threads: usize) -> Self {
        self.options.num_threads = num_threads;
        self
    }

    /// The number of slots of the bounded path: the largest k that the path accepts, and the width of the k-slices.
    /// 1 to 1024. Default: 128.
    pub fn max_k(mut self, max_k: usize) -> Self {
        self.options.max_k = max_k;
        self
    }

    /// The index of the device among the client's addressable devices. The built-in backend has only device 0.
    /// Default: 0.
    pub fn device_index(mut self, device_index: usize) -> Self {
        self.options.device = device_index;
        self
    }
}
