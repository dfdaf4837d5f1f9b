//! The number of a step, as operands on the device.
//!
//! A program for logits on a device adds the number of the step to the offset of every row. Uploading this number in
//! every call would take more host time than everything else that the library adds to a call. So the program takes two
//! operands whose sum is the number: a multiple of [`RADIX`], and the rest. Both operands stay on the device.
//!
//! In a decode loop, the step grows by 1 from call to call. So when all rests are on the device, one of [`RADIX`] calls
//! uploads 8 bytes, and the other calls upload nothing.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lru::LruCache;

use crate::error::Error;
use crate::pjrt::{Buffer, Client, ElementType};

/// The number of different rests.
const RADIX: usize = 64;

/// The largest number of multiples that stay on the device. Each running decode loop needs one multiple. If more loops
/// run at the same time, their calls upload more often.
const MULTIPLES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// The operands of one device. Thread-safe.
pub(super) struct StepOperands {
    multiples: Mutex<LruCache<u64, Arc<Buffer>>>,
    rests: [OnceLock<Buffer>; RADIX],
}

impl StepOperands {
    pub(super) fn new() -> Self {
        StepOperands {
            multiples: Mutex::new(LruCache::new(MULTIPLES)),
            rests: [const { OnceLock::new() }; RADIX],
        }
    }

    /// Returns two U64 scalars on the device whose sum is `step`. Uploads a scalar if it is not on the device.
    pub(super) fn get(
        &self,
        client: &Arc<Client>,
        device: usize,
        step: u64,
    ) -> Result<(Arc<Buffer>, &Buffer), Error> {
        let (multiple, rest) = split(step);
        // The uploads call the plugin, so no lock is held and no cell is being initialised during an upload. If two
        // threads upload the same number, one of the buffers is freed. Later calls reuse the buffers. A buffer whose
        // upload failed must not be kept, so this function waits for the upload.
        let upload = |value: u64| -> Result<Buffer, Error> {
            let buffer = client.buffer_from_host(&value.to_le_bytes(), ElementType::U64, &[], device)?;
            buffer.wait_until_ready()?;
            Ok(buffer)
        };
        let cell = &self.rests[rest];
        let rest = match cell.get() {
            Some(known) => known,
            None => {
                let uploaded = upload(rest as u64)?;
                cell.get_or_init(|| uploaded)
            }
        };
        if let Some(known) = self.lock().get(&multiple) {
            return Ok((known.clone(), rest));
        }
        let uploaded = Arc::new(upload(multiple)?);
        let evicted = self.lock().push(multiple, uploaded.clone());
        // Freeing a buffer calls the plugin, so the lock is released before.
        drop(evicted);
        Ok((uploaded, rest))
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<u64, Arc<Buffer>>> {
        self.multiples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Splits a step into a multiple of [`RADIX`] and the rest.
fn split(step: u64) -> (u64, usize) {
    let rest = step % RADIX as u64;
    (step - rest, rest as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operands_sum_to_the_step() {
        for step in [0, 1, 63, 64, 65, 1 << 40, u64::MAX - 64, u64::MAX] {
            let (multiple, rest) = split(step);
            assert_eq!((multiple % 64, multiple + rest as u64), (0, step));
            assert!(rest < RADIX);
        }
    }
}
