//! The caller's `nuc_error`. It is checked before a call and written after the call.

use std::ptr::{addr_of, addr_of_mut, null, null_mut};

use libc::c_char;

use super::argument_names::c_name;
use super::memory::{Memory, Use};
use super::message;
use super::pointers::{bad, Result};
use super::structs::checked_size;
use super::types::{nuc_error, nuc_status};

/// The outcome of a call, for the caller.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) code: nuc_status,
    /// Empty after a success.
    pub(super) message: String,
    pub(super) argument: Option<&'static str>,
    pub(super) row: Option<usize>,
}

/// A checked `nuc_error`. `pointer` is null if the caller passed no `nuc_error`.
#[derive(Clone, Copy)]
pub(super) struct ErrorStruct {
    pointer: *mut nuc_error,
    struct_size: usize,
    full_message: *mut c_char,
    full_message_size: usize,
}

impl ErrorStruct {
    /// Checks the fields that the caller sets.
    ///
    /// # Safety
    /// `error` is null or points to a `nuc_error`.
    pub(super) unsafe fn new(error: *mut nuc_error) -> Result<ErrorStruct> {
        let none = ErrorStruct {
            pointer: null_mut(),
            struct_size: 0,
            full_message: null_mut(),
            full_message_size: 0,
        };
        if error.is_null() {
            return Ok(none);
        }
        // SAFETY: the same contract.
        let struct_size = unsafe { checked_size(error)? };
        // SAFETY: `checked_size` accepted the address and the size, and the caller guarantees the memory.
        let (reserved, full_message, full_message_size) = unsafe {
            (
                addr_of!((*error).reserved).read(),
                addr_of!((*error).full_message).read(),
                addr_of!((*error).full_message_size).read(),
            )
        };
        if reserved != 0 {
            return bad(
                "nuc_error",
                format!(
                    "nuc_error.reserved is {reserved}; it must be zero: initialize the struct with NUC_ERROR_INIT"
                ),
            );
        }
        let full_message_size = if full_message.is_null() { 0 } else { full_message_size };
        let checked = ErrorStruct { pointer: error, struct_size, full_message, full_message_size };
        if full_message_size > 0 {
            let mut memory = Memory::new();
            checked.register(&mut memory)?;
            memory.check_overlap()?;
        }
        Ok(checked)
    }

    /// Registers the struct and the buffer for the overlap check of the call.
    pub(super) fn register(&self, memory: &mut Memory) -> Result<()> {
        memory.add("nuc_error", self.pointer as usize, self.struct_size, Use::Written)?;
        memory.add("full_message", self.full_message as usize, self.full_message_size, Use::Written)
    }

    /// Writes the report.
    ///
    /// # Safety
    /// The memory that was valid in [`ErrorStruct::new`] is still valid.
    pub(super) unsafe fn write(&self, report: &Report) {
        if self.pointer.is_null() {
            return;
        }
        let whole = message::whole(&report.message);
        let argument = report.argument.map_or(null(), c_name);
        let row = report.row.and_then(|row| i64::try_from(row).ok()).unwrap_or(-1);
        // SAFETY: `new` accepted the address and the size, so all fields of version 1 are writable. They are not read.
        let line = unsafe {
            addr_of_mut!((*self.pointer).code).write(report.code);
            addr_of_mut!((*self.pointer).row).write(row);
            addr_of_mut!((*self.pointer).argument).write(argument);
            addr_of_mut!((*self.pointer).message_length).write(whole.len());
            // Only the message is borrowed, because the caller's header decides the size of the struct.
            &mut *addr_of_mut!((*self.pointer).message)
        };
        let text = message::one_line(&report.message, line.len() - 1);
        put(line, &text);
        if self.full_message_size > 0 {
            // SAFETY: the caller guarantees the buffer, and it does not overlap the struct.
            let buffer = unsafe { std::slice::from_raw_parts_mut(self.full_message, self.full_message_size) };
            put(buffer, message::prefix(&whole, self.full_message_size - 1));
        }
    }
}

/// Writes a NUL-terminated text. The text is shorter than the buffer.
fn put(buffer: &mut [c_char], text: &str) {
    buffer.iter_mut().zip(text.bytes().chain([0])).for_each(|(slot, byte)| *slot = byte as c_char);
}

#[cfg(test)]
mod tests {
    use super::super::structs::initialized;
    use super::super::types::NUC_INVALID_ARGUMENT;
    use super::*;
    use std::ffi::CStr;

    fn text(bytes: &[c_char]) -> &str {
        // SAFETY: the tests pass terminated texts.
        unsafe { CStr::from_ptr(bytes.as_ptr()) }.to_str().unwrap()
    }

    fn report(message: &str) -> Report {
        let argument = Some("temperature");
        Report { code: NUC_INVALID_ARGUMENT, message: message.to_owned(), argument, row: Some(3) }
    }

    #[test]
    fn every_output_field_is_written() {
        let mut buffer = [0x5a; 12];
        let mut error: nuc_error = initialized();
        error.full_message = buffer.as_mut_ptr();
        error.full_message_size = buffer.len();
        // SAFETY: local memory.
        unsafe { ErrorStruct::new(&mut error).unwrap().write(&report("two\nlines \u{1b}ä long")) };
        assert_eq!((error.code, error.row), (NUC_INVALID_ARGUMENT, 3));
        // SAFETY: a static string.
        assert_eq!(unsafe { CStr::from_ptr(error.argument) }, c"temperature");
        assert_eq!(text(&error.message), r"two\nlines \u{1b}ä long");
        assert_eq!(text(&buffer), "two\nlines \\");
        assert_eq!(error.message_length, "two\nlines \\u{1b}ä long".len());
        let success = Report { code: 0, message: String::new(), argument: None, row: None };
        // SAFETY: local memory.
        unsafe { ErrorStruct::new(&mut error).unwrap().write(&success) };
        assert_eq!((error.code, error.row, error.message_length), (0, -1, 0));
        assert!(error.argument.is_null() && text(&error.message).is_empty() && text(&buffer).is_empty());
    }

    #[test]
    fn a_struct_that_is_not_initialized_is_refused() {
        let sizes = [0, 8, size_of::<nuc_error>() - 1, 1 << 20, usize::MAX];
        for struct_size in sizes {
            let mut error: nuc_error = nuc_error { struct_size, ..initialized() };
            // SAFETY: local memory.
            let refused = unsafe { ErrorStruct::new(&mut error) }.err().unwrap().to_string();
            assert!(refused.contains("nuc_error.struct_size"), "{refused}");
        }
        let mut error: nuc_error = initialized();
        // SAFETY: not read, because it is not aligned.
        let refused = unsafe { ErrorStruct::new((&raw mut error).byte_add(4)) };
        assert!(refused.err().unwrap().to_string().contains("aligned to 8 bytes"));
        let mut error: nuc_error = nuc_error { reserved: 1, ..initialized() };
        // SAFETY: local memory.
        let refused = unsafe { ErrorStruct::new(&mut error) }.err().unwrap().to_string();
        assert!(refused.contains("nuc_error.reserved"), "{refused}");
    }

    #[test]
    fn the_buffer_does_not_overlap_the_struct() {
        let mut error: nuc_error = initialized();
        error.full_message = error.message.as_mut_ptr();
        error.full_message_size = 4;
        // SAFETY: local memory.
        let refused = unsafe { ErrorStruct::new(&mut error) }.err().unwrap().to_string();
        assert!(refused.contains("full_message") && refused.contains("overlaps nuc_error"), "{refused}");
        error.full_message_size = 0;
        // SAFETY: local memory. A buffer of size 0 overlaps nothing.
        assert!(unsafe { ErrorStruct::new(&mut error) }.is_ok());
    }
}
