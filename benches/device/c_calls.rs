//! Calls of the C interface on the client of another sampler.

use std::mem::{size_of, zeroed};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use nucleus::abi::*;
use nucleus::pjrt::{Buffer, Client};

use crate::timed_table;

/// A sampler whose calls of the plugin can be measured.
pub(crate) struct CSampler(*mut nuc_sampler);

/// The parameters of a batch. Each row has top-k 40 and top-p 0.95.
pub(crate) struct CParameters<'a> {
    sampler: &'a CSampler,
    parameters: *mut nuc_parameters,
}

/// A call that was started. Dropping it waits for its end.
pub(crate) struct CCall(*mut nuc_call);

impl CSampler {
    pub(crate) fn new(client: &Arc<Client>) -> CSampler {
        let mut sampler = null_mut();
        // SAFETY: zero is a valid value of every field. The table belongs to a loaded plugin, and the client lives
        // until the end of the process.
        unsafe {
            let mut options = zeroed::<nuc_sampler_options>();
            options.struct_size = size_of::<nuc_sampler_options>();
            options.backend = NUC_BACKEND_PJRT;
            options.pjrt_api = timed_table::of(client.plugin().as_raw()).cast();
            options.pjrt_client = client.as_raw().cast();
            assert_eq!(nuc_sampler_create(&options, &mut sampler, null_mut()), NUC_OK);
        }
        CSampler(sampler)
    }

    /// Prewarms calls with `rows` rows on the bounded path, as a server does, and creates their parameters.
    pub(crate) fn parameters(&self, rows: usize, vocab: usize) -> CParameters<'_> {
        let mut parameters = null_mut();
        // SAFETY: zero is a valid value of every field, and the handles are live.
        unsafe {
            let mut calls = zeroed::<nuc_prewarm_spec>();
            calls.struct_size = size_of::<nuc_prewarm_spec>();
            (calls.path, calls.logits) = (NUC_PATH_BOUNDED, NUC_LOGITS_ON_DEVICE);
            (calls.num_rows, calls.vocab) = (rows, vocab);
            assert_eq!(nuc_prewarm(self.0, &calls, null_mut()), NUC_OK);
            let mut options = zeroed::<nuc_parameters_options>();
            options.struct_size = size_of::<nuc_parameters_options>();
            (options.num_rows, options.vocab) = (rows, vocab);
            assert_eq!(nuc_parameters_create(self.0, &options, &mut parameters, null_mut()), NUC_OK);
            let mut values = zeroed::<nuc_row_parameters>();
            values.struct_size = size_of::<nuc_row_parameters>();
            (values.top_k, values.use_top_p, values.top_p) = (40, 1, 0.95);
            for row in 0..rows {
                assert_eq!(nuc_parameters_set(parameters, row, &values, null_mut()), NUC_OK);
            }
        }
        CParameters { sampler: self, parameters }
    }
}

impl CParameters<'_> {
    pub(crate) fn start(&self, logits: &Buffer, step: u64) -> CCall {
        let mut call = null_mut();
        // SAFETY: the handles and the buffer are live, and belong to one client.
        let status = unsafe {
            let (sampler, logits) = (self.sampler.0, logits.as_raw().cast());
            let (path, parameters) = (NUC_PATH_BOUNDED, self.parameters);
            nuc_sample_start(sampler, path, logits, parameters, step, null(), &mut call, null_mut())
        };
        assert_eq!(status, NUC_OK);
        CCall(call)
    }
}

impl CCall {
    /// Waits for the tokens and copies them.
    pub(crate) fn read(&self, tokens: &mut [i32]) {
        // SAFETY: the handle is live, and the array has one element per row.
        let status = unsafe { nuc_call_get_tokens(self.0, tokens.as_mut_ptr(), null_mut(), null_mut()) };
        assert_eq!(status, NUC_OK);
    }
}

impl Drop for CParameters<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and nothing uses it afterwards.
        assert_eq!(unsafe { nuc_parameters_destroy(self.parameters, null_mut()) }, NUC_OK);
    }
}

impl Drop for CCall {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and nothing uses it afterwards.
        assert_eq!(unsafe { nuc_call_destroy(self.0, null_mut()) }, NUC_OK);
    }
}

impl Drop for CSampler {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and nothing uses it afterwards.
        assert_eq!(unsafe { nuc_sampler_destroy(self.0, null_mut()) }, NUC_OK);
    }
}
