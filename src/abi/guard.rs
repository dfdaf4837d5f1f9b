//! The boundary around every C function. No panic crosses it, and every error becomes a status and a message.

use std::ptr::null_mut;

use super::arrays::Array;
use super::cancellation::NoCancellation;
use super::error_struct::{ErrorStruct, Report};
use super::float_environment::FloatEnvironment;
use super::memory::Memory;
use super::pointers::check_pointer;
use super::status_names::status_name;
use super::types::*;
use crate::error::{Error, ErrorKind};
use crate::panics::Inherited;
use crate::pjrt;

/// Runs `body`, turns its error or panic into a status, and writes the result to `error`.
///
/// If `error` is not a valid `nuc_error`, the call fails without running `body`, and nothing is written to `error`.
/// `body` receives a list of memory in which `error` is already registered.
///
/// # Safety
/// `error` is null or points to a `nuc_error`.
pub(super) unsafe fn guard(
    error: *mut nuc_error,
    body: impl FnOnce(&mut Memory) -> Result<(), Error>,
) -> nuc_status {
    // SAFETY: the same contract.
    let error = unsafe { ErrorStruct::new(error) };
    let report = run(|| {
        let mut memory = Memory::new();
        error.clone()?.register(&mut memory)?;
        body(&mut memory)
    });
    if let Ok(error) = error {
        // SAFETY: the same contract.
        unsafe { error.write(&report) };
    }
    report.code
}

/// Runs `make` and writes its result, a pointer, to `*slot`. After an error `*slot` is null.
///
/// # Safety
/// `slot` is null or points to a writable pointer. `error` is null or points to a nuc_error.
pub(super) unsafe fn with_slot<T>(
    slot: *mut *mut T,
    name: &'static str,
    error: *mut nuc_error,
    make: impl FnOnce(&mut Memory) -> Result<*mut T, Error>,
) -> nuc_status {
    if !slot.is_null() && slot.is_aligned() {
        // SAFETY: the caller guarantees a writable pointer. Writing null first makes `*slot` null after every error,
        // even after a panic.
        unsafe { *slot = null_mut() };
    }
    let body = |memory: &mut Memory| {
        check_pointer(slot, name)?;
        let written = Array::written(memory, name, slot, Some(1))?;
        let made = make(memory)?;
        // SAFETY: `make` has checked that nothing overlaps the slot. The caller guarantees the memory.
        if let Some([written]) = unsafe { written.get_mut() } {
            *written = made;
        }
        Ok(())
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

fn run(body: impl FnOnce() -> Result<(), Error>) -> Report {
    let _cancellation = NoCancellation::begin();
    // Unwind safety: a panic can leave only the state of this call inconsistent, and that state is dropped. The caches
    // behind a handle never panic in the middle of a change while they hold a lock. The message is formatted and logged
    // inside the function that catches panics, because the logger of a Rust caller can panic.
    let outcome = Inherited::SILENT.catch(|| {
        let _environment = FloatEnvironment::standard();
        let outcome = body();
        pjrt::log_release_failures();
        let report = report(outcome);
        if report.code != NUC_OK {
            log::debug!("{}: {}", status_name(report.code).to_string_lossy(), report.message);
        }
        report
    });
    outcome.unwrap_or_else(|panic| Report {
        code: NUC_INTERNAL,
        message: panic.to_string(),
        argument: None,
        row: None,
    })
}

fn report(outcome: Result<(), Error>) -> Report {
    let Err(failure) = outcome else {
        return Report { code: NUC_OK, message: String::new(), argument: None, row: None };
    };
    let (argument, row) = match &failure {
        Error::InvalidArgument(wrong) => (wrong.argument, wrong.row),
        _ => (None, None),
    };
    Report { code: status(&failure), message: failure.to_string(), argument, row }
}

fn status(error: &Error) -> nuc_status {
    match error.kind() {
        ErrorKind::InvalidArgument => NUC_INVALID_ARGUMENT,
        ErrorKind::PluginNotFound => NUC_PLUGIN_NOT_FOUND,
        ErrorKind::PluginInvalid => NUC_PLUGIN_INVALID,
        ErrorKind::PluginVersion => NUC_PLUGIN_VERSION,
        ErrorKind::Device => NUC_DEVICE_ERROR,
        ErrorKind::Internal => NUC_INTERNAL,
        ErrorKind::OutOfMemory => NUC_OUT_OF_MEMORY,
        ErrorKind::Io => NUC_IO_ERROR,
        ErrorKind::Timeout => NUC_TIMEOUT,
        ErrorKind::Cancelled => NUC_CANCELLED,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::process::Command;
    use std::sync::Barrier;

    use super::super::structs::initialized;
    use super::*;
    use crate::backend::pjrt::plugin_thread;
    use crate::parallel::for_each_with;

    fn outcome(body: impl FnOnce(&mut Memory) -> Result<(), Error>) -> (nuc_status, String) {
        let mut error: nuc_error = initialized();
        // SAFETY: a local nuc_error.
        let code = unsafe { guard(&mut error, body) };
        assert_eq!(error.code, code);
        // SAFETY: `guard` wrote a NUL-terminated string.
        let message = unsafe { CStr::from_ptr(error.message.as_ptr()) };
        (code, message.to_str().unwrap().to_owned())
    }

    /// A call with an uninitialized `nuc_error` does nothing.
    #[test]
    fn a_wrong_error_struct_stops_the_call() {
        let mut error = nuc_error { struct_size: 0, code: 77, ..initialized() };
        // SAFETY: a local nuc_error.
        let code = unsafe { guard(&mut error, |_| panic!("the body must not run")) };
        assert_eq!((code, error.code), (NUC_INVALID_ARGUMENT, 77));
    }

    #[test]
    fn errors_become_statuses() {
        assert_eq!(outcome(|_| Ok(())), (NUC_OK, String::new()));
        let argument = outcome(|_| Err(Error::argument("k is wrong")));
        assert_eq!(argument, (NUC_INVALID_ARGUMENT, "k is wrong".to_owned()));
        assert_eq!(outcome(|_| Err(Error::out_of_memory(8, "a test"))).0, NUC_OUT_OF_MEMORY);
        assert_eq!(outcome(|_| Err(Error::Io("full".to_owned()))).0, NUC_IO_ERROR);
    }

    /// A panic inside the boundary becomes a status whose message names its source location, and prints nothing. A
    /// panic outside the boundary is printed as usual. A child process shows what is printed.
    #[test]
    fn panics_do_not_print() {
        const CHILD: &str = "NUCLEUS_TEST_PANIC";
        if std::env::var_os(CHILD).is_none() {
            let name = "abi::guard::tests::panics_do_not_print";
            let child = Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact", "--nocapture", "--test-threads=1"])
                .env(CHILD, "1")
                .output()
                .unwrap();
            let printed = String::from_utf8_lossy(&child.stderr);
            assert!(child.status.success(), "{printed}");
            assert!(printed.contains("outside the boundary") && !printed.contains("inside"), "{printed}");
            return;
        }
        let (code, message) = outcome(|_| panic!("inside, {}", 7));
        assert_eq!(code, NUC_INTERNAL);
        assert!(message.contains("inside, 7") && message.contains("src/abi/guard.rs:"), "{message}");
        // A panic on another thread keeps its message and its source location.
        let both = Barrier::new(2);
        let worker = outcome(|_| {
            for_each_with(0..2, false, vec![true], |is_helper, _| {
                both.wait();
                assert!(!*is_helper, "inside a worker");
                Ok(())
            })
        });
        let of_plugin = outcome(|_| plugin_thread::run(|| panic!("inside a plugin")));
        for (code, message) in [worker, of_plugin] {
            assert_eq!(code, NUC_INTERNAL);
            assert!(message.contains("inside a") && message.contains("src/abi/guard.rs:"), "{message}");
        }
        std::panic::catch_unwind(|| panic!("outside the boundary")).unwrap_err();
    }
}
