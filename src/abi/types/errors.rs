//! Statuses and error messages.

use libc::c_char;

/// The result of a call: NUC_OK or the kind of the failure. The nuc_error of the call describes the failure. A call
/// that fails writes no output except its nuc_error. If a function that creates an object fails, it sets the caller's
/// pointer to the object to null.
pub type nuc_status = i32;

/// The call succeeded and wrote its outputs.
pub const NUC_OK: nuc_status = 0;
/// An argument is wrong. The message states the argument, its value, and a correct value. The same call would fail
/// again.
pub const NUC_INVALID_ARGUMENT: nuc_status = 1;
/// The plugin's file does not exist, or no plugin is named although the call needs one.
pub const NUC_PLUGIN_NOT_FOUND: nuc_status = 2;
/// The file is not a PJRT plugin, or this process cannot load it. If the dynamic loader reports an error, the
/// message quotes it. A program that was linked with `-static` cannot load plugins.
pub const NUC_PLUGIN_INVALID: nuc_status = 3;
/// The plugin implements a version of the PJRT C API that this library does not support.
pub const NUC_PLUGIN_VERSION: nuc_status = 4;
/// The plugin or its device failed: there is no device, or a compilation or an execution failed. The message quotes
/// the plugin.
pub const NUC_DEVICE_ERROR: nuc_status = 5;
/// This library has a defect, or the plugin returned a result that no correct plugin returns. Please report it. The
/// sampler stays usable.
pub const NUC_INTERNAL: nuc_status = 6;
/// The host or the device ran out of memory, threads or another resource. The same call can succeed later, so a
/// server can reduce its load and try again. Every function can return it. The process ends if an
/// allocation of a few bytes fails, for example that of a message.
pub const NUC_OUT_OF_MEMORY: nuc_status = 7;
/// A file or directory could not be created, read or written, for example because the disk is full or a permission
/// is missing. The message names it. nuc_sampler_create returns it for `program_dir`, and nuc_compile_ahead for
/// `output_dir`.
pub const NUC_IO_ERROR: nuc_status = 8;
/// nuc_call_wait or nuc_prewarming_wait returned because the timeout expired. The call or the prewarm continues.
pub const NUC_TIMEOUT: nuc_status = 9;
/// nuc_prewarming_cancel ended the prewarm before all its programs were compiled.
pub const NUC_CANCELLED: nuc_status = 10;

/// The reason why a call failed. The last argument of every function that can fail points to a nuc_error, or is null.
///
/// Initialize the struct once with NUC_ERROR_INIT. It can then be used for any number of calls, one at a time. The
/// caller owns the memory. The library keeps no error state, so any thread, goroutine or task can make any call.
///
/// Every call writes `code`, `row`, `argument`, `message_length` and `message`. After a success `code` is NUC_OK, `row`
/// is -1, `argument` is null and both messages are empty.
///
/// A nuc_error with a wrong `struct_size` or a nonzero `reserved`, or a pointer that is not aligned to 8 bytes, was
/// probably not initialized. The call then does nothing except return NUC_INVALID_ARGUMENT, and does not write the
/// nuc_error. A function that creates an object also sets its pointer to the object to null.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_error {
    /// `sizeof(nuc_error)`, in the caller's version of this header.
    pub struct_size: usize,
    /// Output: the status that the function returned.
    pub code: nuc_status,
    /// Must be zero.
    pub reserved: i32,
    /// Output: the index of the row at fault, counted from 0; -1 if no single row is at fault.
    pub row: i64,
    /// Output: the name of the argument or struct at fault, for example "temperature"; null if no single argument is at
    /// fault. The string is NUL-terminated and valid until the process ends.
    pub argument: *const c_char,
    /// An optional buffer for the whole message, or null. It receives NUL-terminated UTF-8, cut at its end if the
    /// buffer is too small. It can have several lines, for example if it quotes a compiler. The caller owns the buffer,
    /// which must not overlap any other memory of the call, including this struct.
    pub full_message: *mut c_char,
    /// The size of `full_message` in bytes, including the terminator. 0: there is no buffer.
    pub full_message_size: usize,
    /// Output: the length of the whole message in bytes, without the terminator. The buffer `full_message` contains
    /// all of it if `full_message_size` is larger than this number.
    pub message_length: usize,
    /// Output: the message as one line of NUL-terminated UTF-8, without control characters. If it is too long, the
    /// library cuts the middle of long words, for example of paths, and then the middle of the message.
    pub message: [c_char; 968],
}
