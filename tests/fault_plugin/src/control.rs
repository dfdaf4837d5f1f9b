//! The interface with which a test program controls the proxy.

use std::ffi::{c_char, c_void, CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::fault::{Fault, Kind};
use crate::ledger::Contents;
use crate::{functions, real, state};

/// The functions that the shared library exports to the test program. The test program also links this crate as an
/// rlib. That copy has separate static variables, so the test program must call these functions instead.
#[repr(C)]
struct Control {
    load: unsafe extern "C" fn(path: *const c_char, message: Write, user: *mut c_void) -> bool,
    arm: unsafe extern "C" fn(fault: *const Fault),
    fired: unsafe extern "C" fn() -> u64,
    num_calls: unsafe extern "C" fn() -> usize,
    call: unsafe extern "C" fn(at: usize, contents: *mut Contents) -> usize,
    set_quiet: unsafe extern "C" fn(quiet: bool) -> bool,
    table: unsafe extern "C" fn() -> *const c_void,
    objections: unsafe extern "C" fn(write: Write, user: *mut c_void),
}

type Write = unsafe extern "C" fn(user: *mut c_void, text: *const u8, size: usize);

static CONTROL: Control = Control { load, arm, fired, num_calls, call, set_quiet, table, objections };

#[no_mangle]
extern "C" fn fault_plugin_control() -> *const c_void {
    std::ptr::from_ref(&CONTROL).cast()
}

unsafe extern "C" fn load(path: *const c_char, message: Write, user: *mut c_void) -> bool {
    match real::load(OsStr::from_bytes(CStr::from_ptr(path).to_bytes())) {
        Ok(()) => true,
        Err(error) => {
            message(user, error.as_ptr(), error.len());
            false
        }
    }
}

unsafe extern "C" fn arm(fault: *const Fault) {
    state::with(|state| state.arm(fault.as_ref().copied()));
}

unsafe extern "C" fn fired() -> u64 {
    state::with(|state| state.fired)
}

unsafe extern "C" fn num_calls() -> usize {
    state::with(|state| state.calls.len())
}

unsafe extern "C" fn call(at: usize, contents: *mut Contents) -> usize {
    let call = state::with(|state| state.calls[at]);
    *contents = call.contents;
    call.function
}

unsafe extern "C" fn set_quiet(quiet: bool) -> bool {
    state::QUIET.replace(quiet)
}

unsafe extern "C" fn table() -> *const c_void {
    real::GetPjrtApi().cast()
}

unsafe extern "C" fn objections(write: Write, user: *mut c_void) {
    let text = state::with(|state| {
        let mut text = std::mem::take(&mut state.violations);
        let leaked = state.ledger.describe();
        if !leaked.is_empty() {
            text.push(format!("leaked: {leaked}"));
            state.ledger = Default::default();
        }
        text.join("; ")
    });
    write(user, text.as_ptr(), text.len());
}

unsafe extern "C" fn append(user: *mut c_void, text: *const u8, size: usize) {
    let text = String::from_utf8_lossy(std::slice::from_raw_parts(text, size));
    (*user.cast::<String>()).push_str(&text);
}

/// A call of the library under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The position of the function in the table.
    pub function: usize,
    /// If the call copies a buffer to the host, the contents of this buffer. Otherwise [`Contents::Other`].
    pub contents: Contents,
}

impl Place {
    /// The name of the function.
    pub fn name(self) -> &'static str {
        functions::name(self.function).to_str().unwrap_or_default()
    }

    /// Whether a kind of fault applies to this call.
    pub fn takes(self, kind: Kind) -> bool {
        kind.applies(self.function, self.contents)
    }
}

/// The control interface of the proxy, in the test program.
#[derive(Clone, Copy)]
pub struct Proxy {
    control: &'static Control,
}

impl Proxy {
    /// Loads the proxy's shared library and the real plugin.
    pub fn open(proxy: &Path, plugin: &Path) -> Result<Proxy, String> {
        let plugin = CString::new(plugin.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        let mut message = String::new();
        let user = std::ptr::from_mut(&mut message).cast();
        unsafe {
            let library =
                Library::open(Some(proxy), RTLD_NOW | RTLD_LOCAL).map_err(|error| error.to_string())?;
            let library = std::mem::ManuallyDrop::new(library);
            let control = library
                .get::<extern "C" fn() -> *const Control>(b"fault_plugin_control\0")
                .map_err(|error| error.to_string())?;
            let control = &*control();
            match (control.load)(plugin.as_ptr(), append, user) {
                true => Ok(Proxy { control }),
                false => Err(message),
            }
        }
    }

    /// Arms a fault, or disarms the proxy if `fault` is `None`. Clears the list of calls.
    pub fn arm(self, fault: Option<Fault>) {
        let fault = fault.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        unsafe { (self.control.arm)(fault) }
    }

    /// Returns the proxy's table of functions, `const PJRT_Api *`.
    pub fn table(self) -> *const c_void {
        unsafe { (self.control.table)() }
    }

    /// Runs calls of the test program itself. Meanwhile, the proxy does not count the calls of this thread, and injects
    /// no fault into them. The ledger still records their objects.
    pub fn quietly<R>(self, calls: impl FnOnce() -> R) -> R {
        let before = unsafe { (self.control.set_quiet)(true) };
        let outcome = calls();
        unsafe { (self.control.set_quiet)(before) };
        outcome
    }

    /// The number of times that the proxy injected the armed fault.
    pub fn fired(self) -> u64 {
        unsafe { (self.control.fired)() }
    }

    /// The calls since the last [`Proxy::arm`]. The list omits the functions that read and destroy errors.
    pub fn places(self) -> Vec<Place> {
        let mut contents = Contents::Other;
        unsafe {
            (0..(self.control.num_calls)())
                .map(|at| {
                    let function = (self.control.call)(at, &mut contents);
                    Place { function, contents }
                })
                .collect()
        }
    }

    /// Returns the library's violations of the API, and the objects that are still alive. The text is empty if there
    /// are none. Clears the ledger.
    pub fn objections(self) -> String {
        let mut text = String::new();
        unsafe { (self.control.objections)(append, std::ptr::from_mut(&mut text).cast()) }
        text
    }
}
