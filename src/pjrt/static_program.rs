//! Tells whether this program was linked with `-static`. Such a program cannot load plugins.
//!
//! In such a program, glibc supports dlopen only in part. The plugin gets a second C library that is not initialised.
//! The process can crash while the plugin is initialised. So this library refuses the plugin before dlopen.
//!
//! A program that was linked dynamically has a segment of type PT_INTERP, which names the loader. This is also true if
//! the user starts the loader with the program as its argument. A program that was linked with `-static` or
//! `-static-pie` has no such segment. This file examines only the main program, because dlopen can add objects with
//! this segment, for example libc.so.6. AT_BASE of the auxiliary vector cannot be used, because it is zero if the user
//! starts the loader.

/// Whether this program was linked with `-static` or `-static-pie`.
#[cfg(target_os = "linux")]
pub(super) fn is_static() -> bool {
    use std::os::raw::{c_int, c_void};

    const STATIC: c_int = 1;
    const DYNAMIC: c_int = 2;

    /// Stops the iteration at the main program, and returns its kind.
    unsafe extern "C" fn kind(
        object: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        _data: *mut c_void,
    ) -> c_int {
        // SAFETY: dl_iterate_phdr passes a valid description. Every version of the C library has the members that are
        // read here.
        let object = unsafe { &*object };
        // In glibc, only the main program has an empty name. In musl, no object has an empty name, so every program
        // counts as dynamic.
        // SAFETY: the name is null or a string that stays valid during the iteration.
        if object.dlpi_name.is_null() || unsafe { *object.dlpi_name } != 0 {
            return 0;
        }
        let count = usize::from(object.dlpi_phnum);
        // SAFETY: the object stays mapped during the iteration, and it has this number of program headers.
        let mut headers = (0..count).map(|index| unsafe { &*object.dlpi_phdr.add(index) });
        if headers.any(|header| header.p_type == libc::PT_INTERP) {
            DYNAMIC
        } else {
            STATIC
        }
    }

    // SAFETY: the callback does not unwind, and it needs no data.
    unsafe { libc::dl_iterate_phdr(Some(kind), std::ptr::null_mut()) == STATIC }
}

/// On other systems, the linker does not make such programs, or dlopen reports an error.
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
