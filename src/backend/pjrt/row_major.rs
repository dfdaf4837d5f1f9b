//! Copies logits to the row-major layout.
//!
//! A plugin does not compare the layout of an input with the layout that a program was compiled for. The program would
//! read a column-major array as if it were row-major. So the device first copies logits that have another layout.

use super::PjrtBackend;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::kernels::row_major::RowMajorSpec;
use crate::pjrt::{Buffer, Launch};

impl PjrtBackend {
    /// Starts a copy of logits to the row-major layout, on the device. Returns `None` if the logits already have this
    /// layout.
    pub(super) fn start_row_major_copy(
        &self,
        logits: &Buffer,
        dtype: Dtype,
    ) -> Result<Option<Launch>, Error> {
        let Some(minor_to_major) = logits.other_order()? else { return Ok(None) };
        let dims = logits.dims().iter().map(|&dim| dim as usize).collect();
        let program = self.programs.get(&RowMajorSpec { dtype, dims, minor_to_major }.into())?;
        Ok(Some(program.launch(&[logits], None)?))
    }
}
