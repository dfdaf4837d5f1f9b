//! Versions.

use libc::c_char;

use crate::abi::types::NUC_ABI_VERSION;

/// The version of the library as a number, like NUC_VERSION of the header.
const VERSION: u32 = {
    let minor = number(env!("CARGO_PKG_VERSION_MINOR"));
    let patch = number(env!("CARGO_PKG_VERSION_PATCH"));
    assert!(minor < 1000 && patch < 1000);
    number(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000 + minor * 1_000 + patch
};

const fn number(digits: &str) -> u32 {
    match u32::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => panic!("a version has three numbers"),
    }
}

/// Returns the version of the loaded library, "major.minor.patch". The string is NUL-terminated and valid until the
/// process ends. Any thread may call this function.
#[no_mangle]
pub extern "C" fn nuc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Returns the version of the loaded library as a number: major * 1000000 + minor * 1000 + patch. It equals the
/// NUC_VERSION of the library's own header. Any thread may call this function.
#[no_mangle]
pub extern "C" fn nuc_version_number() -> u32 {
    VERSION
}

/// Returns the NUC_ABI_VERSION of the loaded library. It must equal that of the header. Any thread may call this
/// function.
#[no_mangle]
pub extern "C" fn nuc_abi_version() -> u32 {
    NUC_ABI_VERSION
}
