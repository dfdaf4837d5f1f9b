//! A plugin: its library, its table of functions, and its attributes.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use once_cell::sync::OnceCell;
use pjrt_sys::*;

use super::api_table::{ApiTable, Function};
use super::args::{Args, Extensible};
use super::error::{Error, Result};
use super::fingerprint::{self, FileState};
use super::mapped_file;
use super::named_values::{self, OptionValue};
use super::plugin_file;
use super::release;
use super::static_program;
use super::text::{self, Shown};
use super::tpu;
use super::version::ApiVersion;

/// A loaded and initialised PJRT plugin. It stays loaded until the process ends, even when the last `Arc` is dropped.
/// Thread-safe.
pub struct Plugin {
    path: PathBuf,
    table: ApiTable,
    /// Whether the plugin is libtpu. In some environments libtpu must not be initialised.
    libtpu: bool,
    /// The file that this library loaded. Another file may be at the path now. `None` if the caller loaded the plugin.
    file: Option<File>,
    build: OnceCell<Build>,
    /// The id of the process that loaded the plugin.
    process: u32,
}

/// The build of a plugin.
struct Build {
    fingerprint: String,
    /// The files that were hashed to identify the build, with their hashes.
    hashed: Vec<(FileState, String)>,
}

/// `function!(plugin, PJRT_Name)` returns the table entry of that name, or [`Error::MissingFunction`].
macro_rules! function {
    ($plugin:expr, $name:ident) => {
        match $plugin.functions().$name {
            Some(pointer) => Ok($crate::pjrt::api_table::Function { name: stringify!($name), pointer }),
            None => Err($plugin.missing(stringify!($name))),
        }
    };
}
pub(super) use function;

impl Plugin {
    /// Loads the library at `path` and checks its table. [`Plugin::initialize`] must follow, once per library.
    pub(super) fn open(path: &Path) -> Result<Plugin> {
        let file = plugin_file::open(path)?;
        if static_program::is_static() {
            return Err(Error::StaticProgram { path: path.to_owned() });
        }
        let library = load_library(path)?;
        let table = call_entry_point(&library, path)?;
        // SAFETY: GetPjrtApi returned the table, and the library is never unloaded.
        let mut plugin = unsafe { Self::from_table(table, path)? };
        // SAFETY: the symbols are looked up and not used.
        plugin.libtpu =
            unsafe { tpu::LIBTPU_SYMBOLS.iter().any(|name| library.get::<*const u8>(name).is_ok()) };
        plugin.file = Some(file);
        Ok(plugin)
    }

    /// Wraps the table of a plugin that is already loaded and initialised.
    ///
    /// # Safety
    /// `table` must be a table of the C API, of any version, that lives until the process ends.
    pub(super) unsafe fn from_table(table: NonNull<PJRT_Api>, path: &Path) -> Result<Plugin> {
        // SAFETY: the caller guarantees this.
        let table = unsafe { ApiTable::read(table, path)? };
        let path = path.to_owned();
        let (file, build) = (None, OnceCell::new());
        Ok(Plugin { path, table, libtpu: false, file, build, process: std::process::id() })
    }

    /// Wraps the table of a plugin that the caller loaded and initialised. The plugin's path is the path of the library
    /// that contains its first function, because the table itself can be on the heap.
    ///
    /// # Safety
    /// As for [`Plugin::from_table`].
    pub(super) unsafe fn of_caller(table: NonNull<PJRT_Api>) -> Result<Plugin> {
        // SAFETY: the caller guarantees this.
        let mut plugin = unsafe { Self::from_table(table, Path::new("(passed by the caller)"))? };
        if let Some(path) = plugin.table.addresses().next().and_then(library_of) {
            plugin.path = path;
        }
        Ok(plugin)
    }

    /// Calls `PJRT_Plugin_Initialize`.
    pub(super) fn initialize(&self) -> Result<()> {
        if self.libtpu && tpu::would_ask_metadata_server() {
            return Err(Error::TpuEnvironment { path: self.path.clone() });
        }
        let mut args = Args::<PJRT_Plugin_Initialize_Args>::new();
        // SAFETY: the struct itself is the only pointer that the call takes.
        let outcome = unsafe { self.call(function!(self, PJRT_Plugin_Initialize)?, &mut args) };
        outcome.map_err(|error| match error {
            Error::Pjrt { code, message, .. } => Error::Init { path: self.path.clone(), code, message },
            other => other,
        })
    }

    /// The id of the process that loaded the plugin. In a child after fork, the plugin's threads do not exist.
    pub(super) fn process(&self) -> u32 {
        self.process
    }

    /// The plugin's table, for code that shares its clients.
    pub fn as_raw(&self) -> *const PJRT_Api {
        self.table.original().as_ptr()
    }

    /// The canonical path of the plugin's library.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the C API that the plugin implements.
    pub fn version(&self) -> ApiVersion {
        self.table.version()
    }

    /// Whether the plugin is libtpu, the plugin for TPUs.
    pub fn is_libtpu(&self) -> bool {
        self.libtpu
    }

    /// Identifies the build of the plugin: equal for copies of one file, different for two releases. The first call
    /// may read the whole file.
    ///
    /// If the caller loaded the plugin, the result identifies all files that contain functions of the table. There can
    /// be several files, because a caller may replace some functions, for example to count calls. Fails if a file was
    /// replaced or removed after it was loaded, or if a function is in no file. A failure is not stored, so the next
    /// call tries again.
    pub fn fingerprint(&self) -> Result<&str> {
        self.identify(&|_| None)
    }

    /// Like [`Plugin::fingerprint`]. `known` returns the hash of a file that an earlier process has hashed in this
    /// state.
    pub fn identify(&self, known: &dyn Fn(&FileState) -> Option<String>) -> Result<&str> {
        self.build
            .get_or_try_init(|| {
                self.read_build(known)
                    .map_err(|reason| Error::UnknownBuild { path: self.path.clone(), reason })
            })
            .map(|build| build.fingerprint.as_str())
    }

    /// The files that this process has hashed to identify the plugin, and their hashes. A later process can pass them
    /// to [`Plugin::identify`].
    pub fn hashed_files(&self) -> &[(FileState, String)] {
        self.build.get().map_or(&[], |build| &build.hashed)
    }

    /// Identifies the build. An error is a clause that states the reason.
    fn read_build(&self, known: &dyn Fn(&FileState) -> Option<String>) -> std::result::Result<Build, String> {
        let read = |file: &File| fingerprint::fingerprint(file, known).map_err(|error| error.to_string());
        let builds = match &self.file {
            Some(file) => vec![read(file)?],
            None => {
                let files = mapped_file::open(self.table.addresses())?;
                files.iter().map(read).collect::<std::result::Result<Vec<_>, _>>()?
            }
        };
        let hashed = builds.iter().filter_map(|build| Some((build.hashed.clone()?, build.text.clone())));
        let hashed = hashed.collect();
        let mut texts: Vec<String> = builds.into_iter().map(|build| build.text).collect();
        texts.sort_unstable();
        Ok(Build { fingerprint: texts.join("+"), hashed })
    }

    /// The plugin's attributes, for example `xla_version` and `stablehlo_current_version`. Empty if it has none.
    pub fn attributes(&self) -> Result<Vec<(String, OptionValue)>> {
        let Some(args) = self.raw_attributes()? else { return Ok(Vec::new()) };
        // SAFETY: on success the plugin promises an array of that length that lives until the process ends.
        unsafe { named_values::read_named_values(args.attributes, args.num_attributes) }
    }

    /// The size of the plugin's `PJRT_NamedValue`. The plugin may use it as the distance between the options that it
    /// receives. `None` if the plugin has no attributes.
    pub(super) fn named_value_size(&self) -> Option<usize> {
        let args = self.raw_attributes().ok()??;
        // SAFETY: as in `attributes`.
        unsafe { named_values::struct_size(args.attributes, args.num_attributes).ok()? }
    }

    fn raw_attributes(&self) -> Result<Option<Args<PJRT_Plugin_Attributes_Args>>> {
        let mut args = Args::<PJRT_Plugin_Attributes_Args>::new();
        let Ok(function) = function!(self, PJRT_Plugin_Attributes) else { return Ok(None) };
        // SAFETY: the call only writes outputs.
        unsafe { self.call(function, &mut args)? };
        Ok(Some(args))
    }

    /// Calls `function` and converts its error to an [`Error`].
    ///
    /// # Safety
    /// For the duration of the call, every pointer in `args` must be what the C API requires of that function, and
    /// every object in it must be alive and belong to this plugin.
    pub(super) unsafe fn call<T: Extensible>(&self, function: Function<T>, args: &mut Args<T>) -> Result<()> {
        // SAFETY: the caller guarantees this.
        unsafe { self.table.call(function, args) }
    }

    /// Converts the error that a plugin passes to a callback, and destroys it. `function` is the name of the function
    /// that received the callback.
    ///
    /// # Safety
    /// `error` must be null or a live error of this plugin that nothing uses afterwards.
    pub(super) unsafe fn outcome(&self, error: *mut PJRT_Error, function: &'static str) -> Result<()> {
        // SAFETY: the caller guarantees this.
        unsafe { self.table.outcome(error, function) }
    }

    /// Calls a function that destroys an object. `Drop` cannot return a failure, so the failure is stored for
    /// [`log_release_failures`](super::log_release_failures).
    ///
    /// # Safety
    /// As for [`Plugin::call`], and nothing may use the object afterwards.
    pub(super) unsafe fn call_in_drop<T: Extensible>(
        &self,
        function: Result<Function<T>>,
        args: &mut Args<T>,
    ) {
        // SAFETY: the caller guarantees this.
        let outcome = function.and_then(|function| unsafe { self.call(function, args) });
        if let Err(error) = outcome {
            let path = Shown(&self.path);
            release::record(format!("an object of the PJRT plugin {path} could not be released: {error}"));
        }
    }

    /// Used by the macro `function!`.
    pub(super) fn functions(&self) -> &PJRT_Api {
        self.table.functions()
    }

    /// Used by the macro `function!`.
    pub(super) fn missing(&self, function: &'static str) -> Error {
        Error::MissingFunction { path: self.path.clone(), version: self.version(), function }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("path", &self.path)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

/// Loads a shared library. The library is never unloaded, even if it is not a plugin. Its initialisers have run and may
/// have started threads.
fn load_library(path: &Path) -> Result<ManuallyDrop<Library>> {
    // RTLD_LOCAL: each plugin contains its own LLVM and protobuf, whose symbols must not conflict with those of
    // another plugin.
    // SAFETY: loading runs the library's initialisers. By naming the file as a plugin, the caller declares them
    // safe; nothing here can check them.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    library.map(ManuallyDrop::new).map_err(|error| {
        let message = error.to_string();
        // The loader's message starts with the path. The path may be long, and the error already shows it.
        let reason = message.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&message);
        Error::NotLoadable { path: path.to_owned(), message: text::message(reason.as_bytes()) }
    })
}

/// Calls `GetPjrtApi`.
fn call_entry_point(library: &Library, path: &Path) -> Result<NonNull<PJRT_Api>> {
    let not_a_plugin = |reason: &str| Error::NotAPlugin { path: path.to_owned(), reason: reason.into() };
    // SAFETY: PJRT defines the symbol of this name as a function without arguments that returns the table.
    let table = unsafe {
        let get_api = library
            .get::<unsafe extern "C" fn() -> *const PJRT_Api>(b"GetPjrtApi\0")
            .map_err(|_| not_a_plugin("it does not export GetPjrtApi"))?;
        get_api()
    };
    NonNull::new(table.cast_mut()).ok_or_else(|| not_a_plugin("GetPjrtApi returned null"))
}

/// Returns the path of the library that contains the function at `address`, if the dynamic loader knows the library.
fn library_of(address: usize) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    // SAFETY: `Dl_info` contains only pointers, for which zero is valid.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr accepts any address and writes to `info`.
    let found = unsafe { libc::dladdr(std::ptr::without_provenance(address), &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: on success the name is a NUL-terminated string that lives as long as the library.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())).canonicalize().ok()
}
