//! The objects behind the opaque types of the header.
//!
//! Parameters and calls share the sampler that created them. So the backend and its client live until the last of them
//! is destroyed, in any order.

use std::sync::Arc;

use super::handle::Opaque;
use super::info::Strings;
use super::types::{nuc_call, nuc_parameters, nuc_prewarming, nuc_sampler};
use crate::backend::pjrt::device_call::{DeviceCall, DeviceWants};
use crate::backend::pjrt::device_parameters::DeviceParameters;
use crate::backend::pjrt::prewarming::Prewarming;
use crate::sampler::Sampler;

/// A sampler, and the strings that its getters return.
pub(super) struct SamplerObject {
    strings: Strings,
    sampler: Arc<Sampler>,
}

impl SamplerObject {
    pub(super) fn new(sampler: Sampler) -> SamplerObject {
        SamplerObject { strings: Strings::of(&sampler), sampler: Arc::new(sampler) }
    }

    pub(super) fn sampler(&self) -> &Arc<Sampler> {
        &self.sampler
    }

    pub(super) fn strings(&self) -> &Strings {
        &self.strings
    }
}

/// The parameters of a batch on the device. Fields are dropped in their order.
pub(super) struct ParametersObject {
    pub(super) parameters: DeviceParameters,
    pub(super) sampler: Arc<Sampler>,
}

/// A call that samples logits on the device. Fields are dropped in the order of their declaration.
pub(super) struct CallObject {
    pub(super) call: DeviceCall,
    /// The results that the caller requested.
    pub(super) wants: DeviceWants,
    pub(super) _sampler: Arc<Sampler>,
}

impl Opaque for nuc_sampler {
    type Object = SamplerObject;
    const NAME: &'static str = "sampler";
    const KIND: &'static str = "a sampler";
    const CREATOR: &'static str = "nuc_sampler_create";
    /// "nuc_live".
    const LIVE: u64 = 0x6576_696c_5f63_756e;
}

impl Opaque for nuc_parameters {
    type Object = ParametersObject;
    const NAME: &'static str = "parameters";
    const KIND: &'static str = "a nuc_parameters";
    const CREATOR: &'static str = "nuc_parameters_create";
    /// "nuc_rows".
    const LIVE: u64 = 0x7377_6f72_5f63_756e;
}

impl Opaque for nuc_call {
    type Object = CallObject;
    const NAME: &'static str = "call";
    const KIND: &'static str = "a call";
    const CREATOR: &'static str = "nuc_sample_start";
    /// "nuc_call".
    const LIVE: u64 = 0x6c6c_6163_5f63_756e;

    fn before_destruction(object: &CallObject) {
        object.call.wait_for_actions();
    }
}

impl Opaque for nuc_prewarming {
    type Object = Prewarming;
    const NAME: &'static str = "prewarming";
    const KIND: &'static str = "a nuc_prewarming";
    const CREATOR: &'static str = "nuc_prewarm_start";
    /// "nuc_warm".
    const LIVE: u64 = 0x6d72_6177_5f63_756e;
}
