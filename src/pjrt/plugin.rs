//! A plugin and the table of functions it offers.

use std::fmt;
use std::fs::File;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use once_cell::sync::OnceCell;
use pjrt_sys::*;

use super::args::{Args, Extensible};
use super::error::{Code, Error, Result};
use super::fingerprint;
use super::named_values::{self, OptionValue};
use super::plugin_data::string;
use super::tpu;
use super::version::{ApiVersion, MIN_API_MINOR};

/// A loaded and initialised PJRT plugin. It stays loaded until the process ends, however many `Arc`s are dropped.
pub struct Plugin {
    path: PathBuf,
    version: ApiVersion,
    api: Api,
    errors: ErrorFunctions,
    /// Whether it is libtpu, which must not be started in just any environment.
    libtpu: bool,
    /// What was loaded, whatever lies at the path by now; none of a plugin that somebody else loaded.
    file: Option<File>,
    fingerprint: OnceCell<String>,
}

/// A copy of the plugin's table of functions, null where the plugin's own is shorter than the bindings' struct.
struct Api {
    functions: Box<PJRT_Api>,
    /// Where the plugin keeps the original: one address per loaded library.
    original: NonNull<PJRT_Api>,
}

// SAFETY: the copy is only read, and the functions in it are of a library that is never unloaded.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

/// The functions that turn a plugin's error into ours. Fetched at load: without them no other call can be made safely.
struct ErrorFunctions {
    message: unsafe extern "C" fn(*mut PJRT_Error_Message_Args),
    code: unsafe extern "C" fn(*mut PJRT_Error_GetCode_Args) -> *mut PJRT_Error,
    destroy: unsafe extern "C" fn(*mut PJRT_Error_Destroy_Args),
}

/// A function of the table, known to be there.
pub(super) struct Function<T> {
    pub(super) name: &'static str,
    pub(super) pointer: unsafe extern "C" fn(*mut T) -> *mut PJRT_Error,
}

/// `function!(plugin, PJRT_Name)`: the entry of that name, or [`Error::MissingFunction`].
macro_rules! function {
    ($plugin:expr, $name:ident) => {
        match $plugin.functions().$name {
            Some(pointer) => Ok($crate::pjrt::plugin::Function { name: stringify!($name), pointer }),
            None => Err($plugin.missing(stringify!($name))),
        }
    };
}
pub(super) use function;

impl Plugin {
    pub(super) fn open(path: &Path) -> Result<Plugin> {
        let file = File::open(path)
            .map_err(|error| Error::NotFound { path: path.to_owned(), reason: error.to_string() })?;
        // RTLD_LOCAL: each plugin carries its own LLVM and protobuf, whose symbols must not meet another's.
        // SAFETY: loading runs the library's initialisers. That they are sound is what the caller asks for by naming
        // the file as a plugin; nothing here can check it.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|error| Error::NotLoadable { path: path.to_owned(), message: error.to_string() })?;
        // Never closed, not even on the errors below: initialisers have run and may have left threads behind.
        let library = std::mem::ManuallyDrop::new(library);

        let not_a_plugin = |reason: &str| Error::NotAPlugin { path: path.to_owned(), reason: reason.into() };
        // SAFETY: by the name and PJRT's definition this symbol is a function without arguments that returns the table.
        let table = unsafe {
            let get_api = library
                .get::<unsafe extern "C" fn() -> *const PJRT_Api>(b"GetPjrtApi\0")
                .map_err(|_| not_a_plugin("it does not export GetPjrtApi"))?;
            get_api()
        };
        let table = NonNull::new(table.cast_mut()).ok_or_else(|| not_a_plugin("GetPjrtApi returned null"))?;
        // SAFETY: what GetPjrtApi returns is the table, in a library that is never closed.
        let mut plugin = unsafe { Self::from_table(table, path)? };
        // SAFETY: the symbols are only looked up, not used.
        plugin.libtpu =
            unsafe { tpu::LIBTPU_SYMBOLS.iter().any(|name| library.get::<*const u8>(name).is_ok()) };
        plugin.file = Some(file);
        Ok(plugin)
    }

    /// The plugin's table, for code that shares its clients.
    pub fn as_raw(&self) -> *const PJRT_Api {
        self.api.original.as_ptr()
    }

    /// # Safety
    /// `table` must be a table of the C API, of any version, that lives as long as the process.
    pub(super) unsafe fn from_table(table: NonNull<PJRT_Api>, path: &Path) -> Result<Plugin> {
        // SAFETY: any version of the table starts with its size.
        let size = unsafe { std::ptr::addr_of!((*table.as_ptr()).struct_size).read() };
        let header = offset_of!(PJRT_Api, pjrt_api_version) + size_of::<PJRT_Api_Version>();
        if size < header {
            return Err(Error::NotAPlugin {
                path: path.to_owned(),
                reason: format!("GetPjrtApi returned a table of {size} bytes, too short to hold a version"),
            });
        }
        // SAFETY: the table reaches past this field, by the check above.
        let version = unsafe { std::ptr::addr_of!((*table.as_ptr()).pjrt_api_version).read() };
        let version = ApiVersion { major: version.major_version, minor: version.minor_version };
        if version.major != 0 {
            return Err(Error::TooNew { path: path.to_owned(), version });
        }
        if version.minor < MIN_API_MINOR {
            return Err(Error::TooOld { path: path.to_owned(), version });
        }

        let mut functions = Box::new(PJRT_Api::default());
        // Whole words only: part of a pointer is none.
        let known = size.min(size_of::<PJRT_Api>()) / size_of::<usize>() * size_of::<usize>();
        // SAFETY: both are good for `known` bytes and apart. Pointers may hold any bits, and whatever the plugin put
        // where the header wants a function is that function or null.
        unsafe {
            std::ptr::copy_nonoverlapping(
                table.as_ptr().cast::<u8>(),
                std::ptr::from_mut(&mut *functions).cast::<u8>(),
                known,
            );
        }
        let missing =
            |function: &'static str| Error::MissingFunction { path: path.to_owned(), version, function };
        let errors = ErrorFunctions {
            message: functions.PJRT_Error_Message.ok_or_else(|| missing("PJRT_Error_Message"))?,
            code: functions.PJRT_Error_GetCode.ok_or_else(|| missing("PJRT_Error_GetCode"))?,
            destroy: functions.PJRT_Error_Destroy.ok_or_else(|| missing("PJRT_Error_Destroy"))?,
        };
        // Without a way to wait, memory could be handed back to callers while the plugin still uses it.
        functions.PJRT_Event_Await.ok_or_else(|| missing("PJRT_Event_Await"))?;
        let api = Api { functions, original: table };
        let (file, fingerprint) = (None, OnceCell::new());
        Ok(Plugin { path: path.to_owned(), version, api, errors, libtpu: false, file, fingerprint })
    }

    pub(super) fn initialize(&self) -> Result<()> {
        if self.libtpu && tpu::would_ask_metadata_server() {
            return Err(Error::TpuEnvironment { path: self.path.clone() });
        }
        let mut args = Args::<PJRT_Plugin_Initialize_Args>::new();
        // SAFETY: the call takes no pointers but the struct itself.
        unsafe { self.call(function!(self, PJRT_Plugin_Initialize)?, &mut args) }.map_err(|error| match error
        {
            Error::Pjrt { code, message, .. } => Error::Init { path: self.path.clone(), code, message },
            other => other,
        })
    }

    /// The canonical path that it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the C API that it speaks.
    pub fn version(&self) -> ApiVersion {
        self.version
    }

    /// Whether it is libtpu, the plugin for TPUs.
    pub fn is_libtpu(&self) -> bool {
        self.libtpu
    }

    /// Which build of the plugin this is, wherever its file lies: equal for copies of one file, different for two
    /// releases. The first call may read the whole file.
    pub fn fingerprint(&self) -> Result<&str> {
        let not_found = |reason: String| Error::NotFound { path: self.path.clone(), reason };
        let read = || {
            let file = self
                .file
                .as_ref()
                .ok_or_else(|| not_found("the caller loaded it, from a file unknown".into()))?;
            fingerprint::fingerprint(file).map_err(|error| not_found(error.to_string()))
        };
        self.fingerprint.get_or_try_init(read).map(String::as_str)
    }

    /// What the plugin says of itself, such as `xla_version` and `stablehlo_current_version`. Empty if it says nothing.
    pub fn attributes(&self) -> Result<Vec<(String, OptionValue)>> {
        let mut args = Args::<PJRT_Plugin_Attributes_Args>::new();
        let function = match function!(self, PJRT_Plugin_Attributes) {
            Ok(function) => function,
            Err(_) => return Ok(Vec::new()),
        };
        // SAFETY: the call only writes outputs.
        unsafe { self.call(function, &mut args)? };
        // SAFETY: on success the plugin promises an array of that length that lives as long as the process.
        unsafe { named_values::read_named_values(args.attributes, args.num_attributes) }
    }

    /// Calls `function` and turns its error into ours.
    ///
    /// # Safety
    /// Every pointer in `args` must be what the C API asks of that function for the duration of the call, and objects
    /// in it must be alive and of this plugin.
    pub(super) unsafe fn call<T: Extensible>(&self, function: Function<T>, args: &mut Args<T>) -> Result<()> {
        // SAFETY: the pointer is the table's entry for this argument type; the rest is the caller's promise.
        let error = unsafe { (function.pointer)(args.as_mut_ptr()) };
        self.check(error, function.name)
    }

    /// Reports a failure to destroy an object: there is nobody to return it to from `Drop`.
    ///
    /// # Safety
    /// As for [`Plugin::call`], and the object must not be used afterwards.
    pub(super) unsafe fn call_in_drop<T: Extensible>(
        &self,
        function: Result<Function<T>>,
        args: &mut Args<T>,
    ) {
        // SAFETY: the caller's promise.
        let outcome = function.and_then(|function| unsafe { self.call(function, args) });
        if let Err(error) = outcome {
            log::warn!("an object of the PJRT plugin {} could not be released: {error}", self.path.display());
        }
    }

    /// Takes an error from the plugin, which may be null for none, reads it and destroys it.
    fn check(&self, error: *mut PJRT_Error, function: &'static str) -> Result<()> {
        if error.is_null() {
            return Ok(());
        }
        let mut text = Args::<PJRT_Error_Message_Args>::new();
        text.error = error;
        let mut code = Args::<PJRT_Error_GetCode_Args>::new();
        code.error = error;
        // SAFETY: `error` is a live error of this plugin, ours to destroy, and nothing uses it after that; the message
        // is copied before.
        let message = unsafe {
            (self.errors.message)(text.as_mut_ptr());
            let message = string(text.message, text.message_size);
            let failure = (self.errors.code)(code.as_mut_ptr());
            if !failure.is_null() {
                self.destroy_error(failure);
                code.code = PJRT_Error_Code_PJRT_Error_Code_UNKNOWN;
            }
            self.destroy_error(error);
            message
        };
        Err(Error::Pjrt { function, code: Code::from_raw(code.code), message })
    }

    /// # Safety
    /// `error` must be a live error of this plugin that nothing uses afterwards.
    unsafe fn destroy_error(&self, error: *mut PJRT_Error) {
        let mut args = Args::<PJRT_Error_Destroy_Args>::new();
        args.error = error;
        // SAFETY: the caller's promise.
        unsafe { (self.errors.destroy)(args.as_mut_ptr()) }
    }

    /// For the macro `function!`.
    pub(super) fn functions(&self) -> &PJRT_Api {
        &self.api.functions
    }

    /// For the macro `function!`.
    pub(super) fn missing(&self, function: &'static str) -> Error {
        Error::MissingFunction { path: self.path.clone(), version: self.version, function }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("path", &self.path)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
