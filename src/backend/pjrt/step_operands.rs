//! The number of a step, as operands on the device.
//!
//! A program for logits on a device adds the number of the step to the offset of every row. Uploading this number in
//! every call would take more host time than everything else that the library adds to a call. So the program takes two
//! operands whose sum is the number: a multiple of [`RADIX`], and the rest. Both operands stay on the device.
//!
//! In a decode loop, the step grows by 1 from call to call. So when all rests are on the device, one of [`RADIX`] calls
//! uploads 8 bytes, and the other calls upload nothing.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::failed_calls::FailedCalls;
use crate::error::Error;
use crate::pjrt::{Buffer, Client, ElementType};

/// The number of different rests.
const RADIX: usize = 64;

/// The largest number of multiples that stay on the device. Each running decode loop needs one multiple. If more loops
/// run at the same time, their calls upload more often.
const MULTIPLES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// The operands of one device. Thread-safe.
pub(super) struct StepOperands {
    kept: Mutex<Kept>,
}

/// The operands that are on the device.
struct Kept {
    /// The number of failed calls before the uploads: see [`FailedCalls`].
    failed_calls: u64,
    multiples: LruCache<u64, Arc<Buffer>>,
    rests: [Option<Arc<Buffer>>; RADIX],
}

impl Kept {
    fn new(failed_calls: u64) -> Kept {
        Kept { failed_calls, multiples: LruCache::new(MULTIPLES), rests: [const { None }; RADIX] }
    }
}

impl StepOperands {
    pub(super) fn new() -> Self {
        StepOperands { kept: Mutex::new(Kept::new(0)) }
    }

    /// Returns two U64 scalars on the device whose sum is `step`. Uploads a scalar if it is not on the device.
    pub(super) fn get(
        &self,
        client: &Arc<Client>,
        device: usize,
        step: u64,
        failed_calls: &FailedCalls,
    ) -> Result<[Arc<Buffer>; 2], Error> {
        let (multiple, rest) = split(step);
        let now = failed_calls.count();
        let mut kept = self.lock();
        // Freeing buffers calls the plugin, so it happens after the lock was released.
        let _suspect = (kept.failed_calls < now).then(|| std::mem::replace(&mut *kept, Kept::new(now)));
        let known = (kept.multiples.get(&multiple).cloned(), kept.rests[rest].clone());
        drop(kept);
        if let (Some(multiple), Some(rest)) = known {
            return Ok([multiple, rest]);
        }
        // The uploads call the plugin, so no lock is held. If two threads upload the same number, later calls use one
        // of the buffers.
        let upload = |known: Option<Arc<Buffer>>, value: u64| match known {
            Some(known) => Ok::<_, Error>(known),
            None => {
                let buffer = client.buffer_from_host(&value.to_le_bytes(), ElementType::U64, &[], device)?;
                Ok(Arc::new(buffer))
            }
        };
        let operands = [upload(known.0, multiple)?, upload(known.1, rest as u64)?];
        let mut kept = self.lock();
        if kept.failed_calls == now {
            let _evicted = kept.multiples.push(multiple, operands[0].clone());
            let _replaced = kept.rests[rest].replace(operands[1].clone());
            drop(kept);
        }
        Ok(operands)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
