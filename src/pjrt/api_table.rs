//! A plugin's table of functions. This module checks and copies the table. One method calls the functions and converts
//! their errors.

use std::mem::offset_of;
use std::path::Path;
use std::ptr::NonNull;

use pjrt_sys::*;

use super::args::{Args, Extensible};
use super::error::{Code, Error, Result};
use super::plugin_data::slice;
use super::text;
use super::version::{ApiVersion, MIN_API_MINOR};

/// A copy of a plugin's table. If the plugin's own table is shorter, the remaining entries are null.
pub(super) struct ApiTable {
    functions: Box<PJRT_Api>,
    /// The address of the plugin's own table. It differs for each loaded library.
    original: NonNull<PJRT_Api>,
    version: ApiVersion,
    errors: ErrorFunctions,
}

// SAFETY: the copy is only read, and its functions belong to a library that is never unloaded.
unsafe impl Send for ApiTable {}
// SAFETY: as above.
unsafe impl Sync for ApiTable {}

/// The functions that convert a plugin's error to an [`Error`]. Without them no other function can be called safely.
struct ErrorFunctions {
    message: unsafe extern "C" fn(*mut PJRT_Error_Message_Args),
    code: unsafe extern "C" fn(*mut PJRT_Error_GetCode_Args) -> *mut PJRT_Error,
    destroy: unsafe extern "C" fn(*mut PJRT_Error_Destroy_Args),
}

/// A function of the table that the plugin provides.
pub(super) struct Function<T> {
    pub(super) name: &'static str,
    pub(super) pointer: unsafe extern "C" fn(*mut T) -> *mut PJRT_Error,
}

impl ApiTable {
    /// Checks and copies the table at `original`. `path` is used in messages.
    ///
    /// # Safety
    /// `original` must be a table of the C API, of any version, that lives until the process ends.
    pub(super) unsafe fn read(original: NonNull<PJRT_Api>, path: &Path) -> Result<ApiTable> {
        // SAFETY: the caller guarantees this.
        let version = unsafe { read_version(original, path)? };
        if version.major != 0 {
            return Err(Error::TooNew { path: path.to_owned(), version });
        }
        if version.minor < MIN_API_MINOR {
            return Err(Error::TooOld { path: path.to_owned(), version });
        }
        // SAFETY: the caller guarantees this, and the version is one that the bindings describe.
        let functions = unsafe { copy(original) };
        let missing =
            |function: &'static str| Error::MissingFunction { path: path.to_owned(), version, function };
        let errors = ErrorFunctions {
            message: functions.PJRT_Error_Message.ok_or_else(|| missing("PJRT_Error_Message"))?,
            code: functions.PJRT_Error_GetCode.ok_or_else(|| missing("PJRT_Error_GetCode"))?,
            destroy: functions.PJRT_Error_Destroy.ok_or_else(|| missing("PJRT_Error_Destroy"))?,
        };
        // Without a function that waits, a caller could free memory that the plugin still uses.
        functions.PJRT_Event_Await.ok_or_else(|| missing("PJRT_Event_Await"))?;
        Ok(ApiTable { functions, original, version, errors })
    }

    /// The version of the C API that the plugin implements.
    pub(super) fn version(&self) -> ApiVersion {
        self.version
    }

    /// The plugin's own table.
    pub(super) fn original(&self) -> NonNull<PJRT_Api> {
        self.original
    }

    /// The entries of the table.
    pub(super) fn functions(&self) -> &PJRT_Api {
        &self.functions
    }

    /// Returns the addresses of the functions that the plugin provides.
    pub(super) fn addresses(&self) -> impl Iterator<Item = usize> + '_ {
        const WORD: usize = size_of::<usize>();
        let first = offset_of!(PJRT_Api, PJRT_Error_Destroy) / WORD;
        let words = std::ptr::from_ref(&*self.functions).cast::<usize>();
        // SAFETY: the table is a list of words. From the first function on, each word is a function pointer or null.
        let address = move |at| unsafe { words.add(at).read() };
        (first..size_of::<PJRT_Api>() / WORD).map(address).filter(|&address| address != 0)
    }

    /// Calls `function` and converts its error to an [`Error`].
    ///
    /// # Safety
    /// For the duration of the call, every pointer in `args` must be what the C API requires of that function, and
    /// every object in it must be alive and belong to this plugin.
    pub(super) unsafe fn call<T: Extensible>(&self, function: Function<T>, args: &mut Args<T>) -> Result<()> {
        // SAFETY: the pointer is the table's entry for this argument type. The caller guarantees the rest.
        let error = unsafe { (function.pointer)(args.as_mut_ptr()) };
        // SAFETY: the plugin has just returned this error, and nothing else uses it.
        unsafe { self.outcome(error, function.name) }
    }

    /// Converts an error of the plugin to a result, and destroys it. Null is success.
    ///
    /// # Safety
    /// `error` must be null or a live error of this plugin that nothing uses afterwards.
    pub(super) unsafe fn outcome(&self, error: *mut PJRT_Error, function: &'static str) -> Result<()> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the caller guarantees this.
        let (code, message) = unsafe { self.take_error(error) };
        Err(Error::Pjrt { function, code, message })
    }

    /// Reads an error and destroys it.
    ///
    /// # Safety
    /// `error` must be a live error of this plugin that nothing uses afterwards.
    unsafe fn take_error(&self, error: *mut PJRT_Error) -> (Code, String) {
        let mut text = Args::<PJRT_Error_Message_Args>::new();
        text.error = error;
        let mut code = Args::<PJRT_Error_GetCode_Args>::new();
        code.error = error;
        // SAFETY: the error is alive until it is destroyed below, and its message is copied before.
        unsafe {
            (self.errors.message)(text.as_mut_ptr());
            let message = match slice(text.message.cast::<u8>(), text.message_size, "PJRT_Error_Message") {
                Ok(bytes) => text::message(bytes),
                Err(unreadable) => unreadable.to_string(),
            };
            let failure = (self.errors.code)(code.as_mut_ptr());
            if !failure.is_null() {
                self.destroy_error(failure);
                code.code = PJRT_Error_Code_PJRT_Error_Code_UNKNOWN;
            }
            self.destroy_error(error);
            (Code::from_raw(code.code), message)
        }
    }

    /// # Safety
    /// `error` must be a live error of this plugin that nothing uses afterwards.
    unsafe fn destroy_error(&self, error: *mut PJRT_Error) {
        let mut args = Args::<PJRT_Error_Destroy_Args>::new();
        args.error = error;
        // SAFETY: the caller guarantees this.
        unsafe { (self.errors.destroy)(args.as_mut_ptr()) }
    }
}

/// Reads the version of a table, which is at the same offset in every version.
///
/// # Safety
/// As for [`ApiTable::read`].
unsafe fn read_version(table: NonNull<PJRT_Api>, path: &Path) -> Result<ApiVersion> {
    let not_a_plugin = |reason: String| Error::NotAPlugin { path: path.to_owned(), reason };
    if !table.is_aligned() {
        return Err(not_a_plugin(format!(
            "GetPjrtApi returned {table:p}, which is not the address of a table"
        )));
    }
    // SAFETY: a table of any version starts with its size.
    let size = unsafe { std::ptr::addr_of!((*table.as_ptr()).struct_size).read() };
    if size < offset_of!(PJRT_Api, pjrt_api_version) + size_of::<PJRT_Api_Version>() {
        return Err(not_a_plugin(format!(
            "GetPjrtApi returned a table of {size} bytes, too short to hold a version"
        )));
    }
    // SAFETY: by the check above, the table reaches beyond this field.
    let version = unsafe { std::ptr::addr_of!((*table.as_ptr()).pjrt_api_version).read() };
    Ok(ApiVersion { major: version.major_version, minor: version.minor_version })
}

/// Copies the part of a table that the bindings know.
///
/// # Safety
/// As for [`ApiTable::read`]; the table's version must be 0.54 or a later minor version of major version 0.
unsafe fn copy(table: NonNull<PJRT_Api>) -> Box<PJRT_Api> {
    let mut functions = Box::new(PJRT_Api::default());
    // SAFETY: a table of any version starts with its size.
    let size = unsafe { std::ptr::addr_of!((*table.as_ptr()).struct_size).read() };
    // Only whole words are copied, so that no pointer is cut.
    let known = size.min(size_of::<PJRT_Api>()) / size_of::<usize>() * size_of::<usize>();
    // SAFETY: both are valid for `known` bytes and do not overlap. Each entry is null or the function that the header
    // declares there, because the API only appends.
    unsafe {
        std::ptr::copy_nonoverlapping(
            table.as_ptr().cast::<u8>(),
            std::ptr::from_mut(&mut *functions).cast::<u8>(),
            known,
        );
    }
    functions
}
