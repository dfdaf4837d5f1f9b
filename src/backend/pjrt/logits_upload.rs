//! Copies logits of the caller to the device, for calls on logits that are there.

use super::inputs::{bytes, element_of};
use super::PjrtBackend;
use crate::dtype::Logits;
use crate::error::Error;
use crate::pjrt::Buffer;

impl PjrtBackend {
    /// Copies dense logits `[rows, vocab]` to the device.
    pub(crate) fn upload_logits(
        &self,
        logits: Logits<'_>,
        rows: usize,
        vocab: usize,
    ) -> Result<Buffer, Error> {
        let dims = [rows as i64, vocab as i64];
        Ok(self.client.buffer_from_host(bytes(logits), element_of(logits.dtype()), &dims, self.device)?)
    }
}
