//! Copies of logits in the row-major layout.
//!
//! A plugin does not compare the layout of an input with the layout that a program was compiled for. It would read a
//! column-major array as if it were row-major. So logits in another layout are copied on the device first.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use super::compile_thread;
use super::program_cache::{Made, ProgramCache};
use crate::dtype::Dtype;
use crate::error::Error;
use crate::kernels::row_major::{self, RowMajorSpec};
use crate::pjrt::{Buffer, CompileOptions, Executable, SharedLaunch};

/// The programs that copy arrays. They are small and compile fast, so they are not written to the program directory.
pub(super) struct RowMajorCopies {
    programs: ProgramCache<RowMajorSpec, Arc<Executable>, Error>,
}

impl RowMajorCopies {
    /// No programs. The sampler keeps at most `capacity` programs.
    pub(super) fn new(capacity: NonZeroUsize) -> Self {
        RowMajorCopies { programs: ProgramCache::new(capacity) }
    }

    /// Starts a copy of an array of logits on its device to the row-major layout. Returns `None` if the array has this
    /// layout.
    pub(super) fn start(
        &self,
        logits: &Buffer,
        dtype: Dtype,
        device: usize,
    ) -> Result<Option<SharedLaunch>, Error> {
        let Some(minor_to_major) = logits.other_order()? else { return Ok(None) };
        let dims = logits.dims().iter().map(|&dim| dim as usize).collect();
        let spec = RowMajorSpec { dtype, dims, minor_to_major };
        let client = logits.client();
        let make = || {
            let options = CompileOptions::for_device(client.devices()[device].id());
            let start = Instant::now();
            let program = client.compile(&row_major::emit(&spec), &options)?;
            match program.num_outputs() {
                1 => Ok(Made::Compiled(program, start.elapsed())),
                other => Err(Error::Internal(format!(
                    "the plugin compiled {}, but it has {other} outputs instead of 1",
                    spec.name()
                ))),
            }
        };
        let program = match self.programs.get(&spec) {
            Some(program) => program,
            None => {
                let make = || compile_thread::run(make).and_then(|made| made);
                self.programs.get_or_make(&spec, make)?.program
            }
        };
        Ok(Some(program.launch_shared(&[logits], None)?))
    }
}
