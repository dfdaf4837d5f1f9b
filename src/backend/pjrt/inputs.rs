//! The inputs of a program call: the logits and the parameters of a piece, padded to the rows of the program.

use std::sync::Arc;

use crate::batch::Batch;
use crate::dtype::{Dtype, Logits};
use crate::error::Error;
use crate::kernels::{pack_params, COLUMNS};
use crate::memory;
use crate::pjrt::{Buffer, Client, ElementType};
use crate::plan::Piece;

/// Copies the inputs of a piece to a device: logits, then parameters.
pub(super) fn upload(
    client: &Arc<Client>,
    device: usize,
    piece: &Piece,
    batch: &Batch<'_>,
) -> Result<[Buffer; 2], Error> {
    Ok([upload_logits(client, device, piece, batch)?, upload_params(client, device, piece, batch)?])
}

/// Returns the batch row for each row of the program: first the rows of the piece, then copies of its last row as
/// padding. Rows of zeros would be slow padding: all their elements are tied, and k = 0 keeps the whole row.
fn padded_rows(piece: &Piece) -> impl Iterator<Item = usize> + '_ {
    piece.rows.iter().chain(piece.rows.last().into_iter().cycle()).copied()
}

fn upload_params(
    client: &Arc<Client>,
    device: usize,
    piece: &Piece,
    batch: &Batch<'_>,
) -> Result<Buffer, Error> {
    let spec = &piece.spec;
    let mut params = memory::zeroed::<i32>(spec.batch * COLUMNS, "the parameters of a program call")?;
    for (columns, row) in params.chunks_mut(COLUMNS).zip(padded_rows(piece)) {
        let row = piece.params(&batch.rows()[row]);
        columns.copy_from_slice(&pack_params(&row, batch.options(), spec.dtype));
    }
    let dims = [spec.batch as i64, COLUMNS as i64];
    Ok(client.buffer_from_host(bytemuck::cast_slice(&params), ElementType::S32, &dims, device)?)
}

fn upload_logits(
    client: &Arc<Client>,
    device: usize,
    piece: &Piece,
    batch: &Batch<'_>,
) -> Result<Buffer, Error> {
    let spec = &piece.spec;
    let element = element_of(spec.dtype);
    let dims = [spec.batch as i64, spec.vocab as i64];
    let is_dense = batch.row_stride() == batch.vocab() || batch.len() == 1;
    if is_dense && piece.rows.len() == batch.len() && spec.batch == batch.len() {
        return Ok(client.buffer_from_host(bytes(batch.logits()), element, &dims, device)?);
    }
    let row_bytes = spec.vocab * spec.dtype.size();
    let mut staged = memory::zeroed::<u8>(spec.batch * row_bytes, "the logits of a program call")?;
    for (slot, row) in staged.chunks_mut(row_bytes).zip(padded_rows(piece)) {
        slot.copy_from_slice(bytes(batch.row(row)));
    }
    Ok(client.buffer_from_host(&staged, element, &dims, device)?)
}

/// Returns the PJRT element type of logits.
pub(super) fn element_of(dtype: Dtype) -> ElementType {
    match dtype {
        Dtype::F32 => ElementType::F32,
        Dtype::Bf16 => ElementType::BF16,
        Dtype::F16 => ElementType::F16,
    }
}

pub(super) fn bytes(logits: Logits<'_>) -> &[u8] {
    match logits {
        Logits::F32(values) => bytemuck::cast_slice(values),
        Logits::Bf16(values) | Logits::F16(values) => bytemuck::cast_slice(values),
    }
}
