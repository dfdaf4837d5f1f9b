//! Finds out whether this program can load plugins: not if it was linked with `-static`.
//!
//! In such a program, glibc's dlopen works only in part. The plugin gets a second C library, which nobody has
//! initialised, and the process can crash in the initialisers of the plugin. So a plugin must be refused before dlopen.
//!
//! A program that was linked dynamically names its loader in a segment of type PT_INTERP, also if the user started the
//! loader with the program as argument. A program that was linked with `-static` or `-static-pie` has none. The
//! auxiliary vector (AT_BASE) does not answer this question: it is zero if the user started the loader.

/// Whether this program was linked with `-static` or `-static-pie`.
#[cfg(target_os = "linux")]
pub(super) fn is_static() -> bool {
    use std::os::raw::{c_int, c_void};

    /// Stops the iteration at an object with a segment PT_INTERP.
    unsafe extern "C" fn names_loader(
        object: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        _data: *mut c_void,
    ) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid description, whose first members every version has.
        let object = unsafe { &*object };
        let count = usize::from(object.dlpi_phnum);
        // SAFETY: the object stays mapped during the iteration, and it has this number of program headers.
        let mut headers = (0..count).map(|index| unsafe { &*object.dlpi_phdr.add(index) });
        c_int::from(headers.any(|header| header.p_type == libc::PT_INTERP))
    }

    // SAFETY: the callback does not unwind, and it needs no data.
    unsafe { libc::dl_iterate_phdr(Some(names_loader), std::ptr::null_mut()) == 0 }
}

/// The linkers of other systems do not make such programs, or their dlopen reports an error.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_static() -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_dynamic_program_is_not_static() {
        assert!(!super::is_static());
    }
}
