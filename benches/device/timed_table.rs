//! A copy of a plugin's table of functions that measures the calls of one thread.

use std::cell::RefCell;
use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pjrt_sys::*;

type Entry = unsafe extern "C" fn(*mut c_void) -> *mut PJRT_Error;

const HEADER_WORDS: usize = offset_of!(PJRT_Api, PJRT_Error_Destroy) / size_of::<usize>();

/// The functions of the plugin, by their position in the table.
static FUNCTIONS: OnceLock<Vec<Option<Entry>>> = OnceLock::new();

/// The calls to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measured {
    /// Only calls of `PJRT_LoadedExecutable_Execute`. Reading the clock also takes time.
    Execute,
    All,
}

/// The measured calls of a thread: positions in the table and times.
struct Calls {
    measured: Measured,
    times: Vec<(usize, Duration)>,
}

thread_local! {
    static CALLS: RefCell<Option<Calls>> = const { RefCell::new(None) };
}

const EXECUTE: usize =
    offset_of!(PJRT_Api, PJRT_LoadedExecutable_Execute) / size_of::<usize>() - HEADER_WORDS;

/// Calls the plugin's function at position `16 * ROW + COLUMN`, and measures the call.
unsafe extern "C" fn timed<const ROW: usize, const COLUMN: usize>(args: *mut c_void) -> *mut PJRT_Error {
    let function = 16 * ROW + COLUMN;
    // SAFETY: the caller has called the function at this position with these arguments. Two functions return nothing.
    // Their callers ignore the returned value.
    let call = || unsafe { FUNCTIONS.get().unwrap()[function].unwrap()(args) };
    let is_measured = |calls: &Calls| calls.measured == Measured::All || function == EXECUTE;
    if !CALLS.with_borrow(|calls| calls.as_ref().is_some_and(is_measured)) {
        return call();
    }
    let begin = Instant::now();
    let error = call();
    let time = begin.elapsed();
    CALLS.with_borrow_mut(|calls| calls.as_mut().unwrap().times.push((function, time)));
    error
}

macro_rules! row {
    ($row:literal: $($column:literal)*) => { [$(timed::<$row, $column> as Entry),*] };
}
macro_rules! rows {
    ($($row:literal)*) => { [$(row!($row: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),*] };
}
const TIMED: [[Entry; 16]; 10] = rows!(0 1 2 3 4 5 6 7 8 9);

/// Returns a table whose functions are those of `table`, and which can measure them. Call this once per process.
///
/// # Safety
/// `table` must be the table of a loaded plugin.
pub(crate) unsafe fn of(table: *const PJRT_Api) -> *const PJRT_Api {
    // The plugin's table can be larger than the struct `PJRT_Api` of the bindings. The copy has only the size of the
    // struct, so the size field of the copy must have this value.
    // SAFETY: the caller guarantees the table. A table of an older API is shorter, but this library refuses it.
    let mut copy = Box::new(unsafe { table.read() });
    copy.struct_size = size_of::<PJRT_Api>();
    let words = std::ptr::from_mut(&mut *copy).cast::<Option<Entry>>();
    let count = size_of::<PJRT_Api>() / size_of::<usize>() - HEADER_WORDS;
    // SAFETY: from the first function on, each word of the table is null or a pointer to a function that takes one
    // pointer.
    let functions = unsafe { std::slice::from_raw_parts_mut(words.add(HEADER_WORDS), count) };
    assert!(FUNCTIONS.set(functions.to_vec()).is_ok());
    for (function, timed) in functions.iter_mut().zip(TIMED.as_flattened()) {
        *function = function.map(|_| *timed);
    }
    Box::leak(copy)
}

/// A measurement of some work on the calling thread.
pub(crate) struct Recording<R> {
    pub(crate) result: R,
    /// The time of the whole work.
    pub(crate) time: Duration,
    /// The measured calls of the plugin: positions in the table and times.
    pub(crate) calls: Vec<(usize, Duration)>,
}

impl<R> Recording<R> {
    /// The time in which the thread was not in a measured call.
    pub(crate) fn time_outside(&self) -> Duration {
        self.time.saturating_sub(self.calls.iter().map(|(_, time)| *time).sum())
    }
}

/// Runs and measures work.
pub(crate) fn record<R>(measured: Measured, work: impl FnOnce() -> R) -> Recording<R> {
    CALLS.set(Some(Calls { measured, times: Vec::with_capacity(32) }));
    let begin = Instant::now();
    let result = work();
    let time = begin.elapsed();
    Recording { result, time, calls: CALLS.take().unwrap().times }
}

macro_rules! names {
    ($($name:ident)*) => {
        &[$((offset_of!(PJRT_Api, $name) / size_of::<usize>() - HEADER_WORDS, stringify!($name))),*]
    };
}

/// The name of the function at a position of the table.
pub(crate) fn name(function: usize) -> &'static str {
    const NAMES: &[(usize, &str)] = names! {
        PJRT_Buffer_Delete PJRT_Buffer_Device PJRT_Buffer_Dimensions PJRT_Buffer_ElementType
        PJRT_Buffer_GetMemoryLayout PJRT_Buffer_IsDeleted PJRT_Buffer_Memory PJRT_Buffer_ReadyEvent
        PJRT_Buffer_ToHostBuffer PJRT_Client_BufferFromHostBuffer PJRT_Event_Await PJRT_Event_Destroy
        PJRT_Event_OnReady PJRT_LoadedExecutable_Execute PJRT_Buffer_Destroy PJRT_Event_IsReady
    };
    NAMES.iter().find(|(known, _)| *known == function).map_or("another function", |(_, name)| name)
}
