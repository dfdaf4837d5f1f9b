//! The object behind a `nuc_sampler *`: created, checked on every use, and destroyed.

use std::mem::offset_of;
use std::ptr::addr_of_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use super::info::Strings;
use super::pointers::{bad, Result};
use crate::sampler::Sampler;

/// The magic word of a live handle: "nuc_live".
const LIVE: u64 = 0x6576_696c_5f63_756e;
/// The magic word of a destroyed handle, until its memory is reused: "nuc_dead".
const DESTROYED: u64 = 0x6461_6564_5f63_756e;

/// A sampler, and the data that the C layer needs to validate handles.
// In C order, so that the magic word is not at the start: an allocator stores its lists in the first words of free
// memory.
#[repr(C)]
pub(super) struct Handle {
    strings: Strings,
    magic: AtomicU64,
    process: u32,
    sampler: Sampler,
}

const _: () = assert!(offset_of!(Handle, magic) >= 32);

// Any number of threads may use a handle at the same time, and any thread may destroy it.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<nuc_sampler>();
};

/// A sampler: a backend, its threads or its device, and the programs compiled for it. The type is opaque.
///
/// nuc_sampler_create creates a sampler, the caller owns it, and nuc_sampler_destroy frees it. Any number of
/// threads may use the same sampler at the same time. Only nuc_sampler_destroy must run alone.
///
/// A sampler belongs to the process that created it. In a child process after fork, every call with it returns
/// NUC_INVALID_ARGUMENT, and nuc_sampler_destroy returns NUC_OK without freeing anything.
pub struct nuc_sampler {
    handle: Handle,
}

impl Handle {
    pub(super) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    pub(super) fn strings(&self) -> &Strings {
        &self.strings
    }
}

/// Creates a handle that the caller owns and frees with [`destroy`].
pub(super) fn create(sampler: Sampler) -> *mut nuc_sampler {
    let handle = Handle {
        strings: Strings::of(&sampler),
        magic: AtomicU64::new(LIVE),
        process: std::process::id(),
        sampler,
    };
    Box::into_raw(Box::new(nuc_sampler { handle }))
}

/// The sampler behind a handle, if this process may use it.
///
/// # Safety
/// `sampler` is null or a live handle. The check also detects a destroyed handle, and memory that never was a
/// handle, as long as the memory is readable and its magic word shows it.
pub(super) unsafe fn borrow<'a>(sampler: *const nuc_sampler) -> Result<&'a Handle> {
    // SAFETY: the same contract.
    unsafe { check_magic(sampler)? };
    // SAFETY: the caller guarantees that the handle is live. Its methods take shared references only.
    let handle = unsafe { &(*sampler).handle };
    if handle.process != std::process::id() {
        return bad("sampler", format!(
            "sampler is {sampler:p}, which process {} created; a sampler does not survive fork, so create one in this \
             process ({})",
            handle.process,
            std::process::id()
        ));
    }
    Ok(handle)
}

/// Frees a sampler. Does nothing in a process that did not create it: the threads and the plugin that it would wait
/// for exist only in its creator.
///
/// # Safety
/// As for [`borrow`], and no other call uses the handle now or later.
pub(super) unsafe fn destroy(sampler: *mut nuc_sampler) -> Result<()> {
    if sampler.is_null() {
        return Ok(());
    }
    // SAFETY: the same contract.
    let magic = unsafe { check_magic(sampler)? };
    // SAFETY: the caller guarantees that the handle is live.
    if unsafe { (*sampler).handle.process } != std::process::id() {
        return Ok(());
    }
    // If two threads destroy the same handle, only one of them passes this exchange.
    if magic.compare_exchange(LIVE, DESTROYED, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return destroyed(sampler);
    }
    // SAFETY: `create` allocated the box, and the exchange above succeeds only once.
    drop(unsafe { Box::from_raw(sampler) });
    Ok(())
}

/// Checks the magic word of a handle, and returns it.
///
/// # Safety
/// As for [`borrow`].
unsafe fn check_magic<'a>(sampler: *const nuc_sampler) -> Result<&'a AtomicU64> {
    if sampler.is_null() || !sampler.is_aligned() {
        return bad(
            "sampler",
            format!("sampler is {sampler:p}; it must be a handle from nuc_sampler_create"),
        );
    }
    // SAFETY: not null and aligned. In a live handle this is its magic word. For other memory the caller violated
    // the contract; the check then reads only this word, as an atomic.
    let magic = unsafe { AtomicU64::from_ptr(addr_of_mut!((*sampler.cast_mut()).handle.magic).cast()) };
    match magic.load(Ordering::Acquire) {
        LIVE => Ok(magic),
        DESTROYED => destroyed(sampler),
        _ => bad("sampler", format!(
            "sampler is {sampler:p}, which is not a sampler, or one that was destroyed; it must be a handle from \
             nuc_sampler_create"
        )),
    }
}

fn destroyed<T>(sampler: *const nuc_sampler) -> Result<T> {
    bad(
        "sampler",
        format!("sampler is {sampler:p}, which was destroyed; it must be a handle that is still in use"),
    )
}
