//! Creates, checks and destroys handles. A handle is an opaque pointer to an object, for C.

use std::mem::offset_of;
use std::ptr::addr_of_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pointers::{bad, Result};
use super::process;

/// An opaque type of the header, and the object behind its pointers.
pub(super) trait Opaque {
    /// Any number of threads may use a handle at the same time, and any thread may destroy it.
    type Object: Send + Sync;
    /// The name of arguments of this type.
    const NAME: &'static str;
    /// The words for one object of this type in messages, for example "a sampler".
    const KIND: &'static str;
    /// The name of the function that creates an object.
    const CREATOR: &'static str;
    /// The magic word of a live handle. It differs between the types.
    const LIVE: u64;
    /// Runs before the handle becomes invalid. Callbacks that still use the handle must end here.
    fn before_destruction(_object: &Self::Object) {}
}

/// The magic word of a destroyed handle, until its memory is reused: "nuc_dead".
const DESTROYED: u64 = 0x6461_6564_5f63_756e;

/// An object, and the data that the C layer needs to validate handles.
// In C order, so that the magic word is not at the start: an allocator stores its lists in the first words of free
// memory.
#[repr(C)]
struct Handle<T> {
    _start: [u64; 4],
    magic: AtomicU64,
    process: u32,
    object: T,
}

const _: () = assert!(offset_of!(Handle<u64>, magic) >= 32);

/// Creates a handle that the caller owns and frees with [`destroy`].
pub(super) fn create<O: Opaque>(object: O::Object) -> *mut O {
    let magic = AtomicU64::new(O::LIVE);
    let handle = Handle { _start: [0; 4], magic, process: process::id(), object };
    Box::into_raw(Box::new(handle)).cast()
}

/// The object behind a handle, if this process may use it.
///
/// # Safety
/// `pointer` is null or a live handle. The check also detects a destroyed handle, and memory that never was a
/// handle, as long as the memory is readable and its magic word shows it.
pub(super) unsafe fn borrow<'a, O: Opaque>(pointer: *const O) -> Result<&'a O::Object>
where
    O::Object: 'a,
{
    // SAFETY: the same contract.
    unsafe { check_magic(pointer)? };
    // SAFETY: the caller guarantees that the handle is live. Its methods take shared references only.
    let handle = unsafe { &*pointer.cast::<Handle<O::Object>>() };
    if handle.process != process::id() {
        return bad(
            O::NAME,
            format!(
                "{} is {pointer:p}, which process {} created; {} does not survive fork, so create one in this process \
                 ({})",
                O::NAME,
                handle.process,
                O::KIND,
                process::id()
            ),
        );
    }
    Ok(&handle.object)
}

/// Frees an object. In a process that did not create the object, this function does nothing. There, destruction would
/// wait for threads that exist only in the process that created the object.
///
/// # Safety
/// As for [`borrow`], and no other call uses the handle now or later.
pub(super) unsafe fn destroy<O: Opaque>(pointer: *mut O) -> Result<()> {
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: the same contract.
    let magic = unsafe { check_magic(pointer)? };
    let handle = pointer.cast::<Handle<O::Object>>();
    // SAFETY: the caller guarantees that the handle is live.
    let live = unsafe { &*handle };
    if live.process != process::id() {
        return Ok(());
    }
    O::before_destruction(&live.object);
    // If two threads destroy the same handle, only one of them passes this exchange.
    if magic.compare_exchange(O::LIVE, DESTROYED, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return destroyed(pointer);
    }
    // SAFETY: `create` allocated the box, and the exchange above succeeds only once.
    drop(unsafe { Box::from_raw(handle) });
    Ok(())
}

/// Checks the magic word of a handle, and returns it.
///
/// # Safety
/// As for [`borrow`].
unsafe fn check_magic<'a, O: Opaque>(pointer: *const O) -> Result<&'a AtomicU64> {
    let handle = pointer.cast_mut().cast::<Handle<O::Object>>();
    if handle.is_null() || !handle.is_aligned() {
        let value = if handle.is_null() { "null".to_owned() } else { format!("{pointer:p}") };
        return bad(O::NAME, format!("{} is {value}; it must be a handle from {}", O::NAME, O::CREATOR));
    }
    // SAFETY: not null and aligned. In a live handle this is its magic word. For other memory the caller violated
    // the contract; the check then reads only this word, as an atomic.
    let magic = unsafe { AtomicU64::from_ptr(addr_of_mut!((*handle).magic).cast()) };
    match magic.load(Ordering::Acquire) {
        word if word == O::LIVE => Ok(magic),
        DESTROYED => destroyed(pointer),
        _ => bad(
            O::NAME,
            format!(
                "{} is {pointer:p}, which is not {}, or one that was destroyed; it must be a handle from {}",
                O::NAME,
                O::KIND,
                O::CREATOR
            ),
        ),
    }
}

fn destroyed<O: Opaque, T>(pointer: *const O) -> Result<T> {
    bad(
        O::NAME,
        format!("{} is {pointer:p}, which was destroyed; it must be a handle that is still in use", O::NAME),
    )
}
