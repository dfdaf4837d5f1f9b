//! stub until the SIMD backend lands
#![allow(missing_docs)]
use crate::problem::{Batch, Outputs};
pub struct CpuBackend;
impl CpuBackend {
    pub fn new(_num_threads: usize) -> Result<CpuBackend, rayon::ThreadPoolBuildError> {
        Ok(CpuBackend)
    }
    pub fn sample(&self, batch: &Batch<'_>, outputs: &mut Outputs<'_>) {
        crate::reference::sample_batch(batch, outputs)
    }
    pub fn description(&self) -> String {
        "reference".into()
    }
}
