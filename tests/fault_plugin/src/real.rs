//! The real plugin behind the proxy.

use std::ffi::{c_void, OsStr};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use pjrt_sys::*;

use crate::dispatch;
use crate::functions::HEADER_WORDS;

/// A function of the table. Every function takes a pointer to one struct.
pub(crate) type Entry = unsafe extern "C" fn(*mut c_void) -> *mut PJRT_Error;
type VoidEntry = unsafe extern "C" fn(*mut c_void);

pub(crate) struct Real {
    /// The real plugin's table, as words.
    words: Vec<usize>,
    /// The proxy's table, as words. The library under test uses this table.
    proxied: Vec<usize>,
}

static REAL: OnceLock<Real> = OnceLock::new();

/// An argument struct, followed by zeroed space. The space is for fields that the bindings do not know.
#[repr(C)]
pub(crate) struct Tailed<T> {
    pub(crate) base: T,
    pub(crate) tail: [usize; 16],
}

impl<T: Default> Tailed<T> {
    pub(crate) fn new() -> Tailed<T> {
        let mut args = Tailed { base: T::default(), tail: [0; 16] };
        // Every argument struct starts with its size.
        unsafe { std::ptr::from_mut(&mut args).cast::<usize>().write(size_of::<Tailed<T>>()) };
        args
    }
}

impl Real {
    /// Returns the real plugin, if [`load`] has loaded it.
    pub(crate) fn get() -> Option<&'static Real> {
        REAL.get()
    }

    pub(crate) fn table(&self) -> *const PJRT_Api {
        self.proxied.as_ptr().cast()
    }

    /// Calls a function of the real plugin.
    pub(crate) unsafe fn call(&self, function: usize, args: *mut c_void) -> *mut PJRT_Error {
        let entry = std::mem::transmute::<usize, Entry>(self.words[HEADER_WORDS + function]);
        entry(args)
    }

    /// Calls a function that returns nothing.
    pub(crate) unsafe fn call_void(&self, function: usize, args: *mut c_void) {
        let entry = std::mem::transmute::<usize, VoidEntry>(self.words[HEADER_WORDS + function]);
        entry(args);
    }

    /// Calls a function with an argument struct that the proxy owns.
    pub(crate) unsafe fn ask<T>(&self, function: usize, args: &mut Tailed<T>) -> *mut PJRT_Error {
        self.call(function, std::ptr::from_mut(args).cast())
    }
}

/// Loads the real plugin and builds the proxy's table: a copy of the real table in which trampolines replace the
/// functions. Does nothing if the plugin is already loaded.
pub(crate) fn load(path: &OsStr) -> Result<(), String> {
    if REAL.get().is_some() {
        return Ok(());
    }
    let words = unsafe {
        let library = Library::open(Some(path), RTLD_NOW | RTLD_LOCAL).map_err(|error| error.to_string())?;
        let library = std::mem::ManuallyDrop::new(library);
        let get_api = library
            .get::<unsafe extern "C" fn() -> *const usize>(b"GetPjrtApi\0")
            .map_err(|error| error.to_string())?;
        let table = get_api();
        std::slice::from_raw_parts(table, *table / size_of::<usize>()).to_vec()
    };
    let mut proxied = words.clone();
    for (function, word) in proxied[HEADER_WORDS..].iter_mut().enumerate() {
        if *word != 0 {
            let trampoline = dispatch::TRAMPOLINES.get(function);
            *word = *trampoline.ok_or("the plugin has more functions than the proxy")? as usize;
        }
    }
    // If another thread was faster, its value stays. Both threads loaded the same library.
    let _ = REAL.set(Real { words, proxied });
    Ok(())
}

/// The entry point of a plugin. The library under test calls it.
#[no_mangle]
pub(crate) extern "C" fn GetPjrtApi() -> *const PJRT_Api {
    Real::get().map_or(std::ptr::null(), Real::table)
}
