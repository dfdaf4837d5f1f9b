//! Versions of the library and of its binary interface.
//!
//! A program compares versions in two ways. At compile time, NUC_VERSION is the version of the header. At run time,
//! nuc_version_number() is the version of the loaded library.
//!
//! The binary interface has its own number, NUC_ABI_VERSION. The loaded library supports the program if
//! nuc_abi_version() >= NUC_ABI_VERSION. Check this once, before any other call:
//!
//!     if (nuc_abi_version() < NUC_ABI_VERSION) { ... the loaded library is too old ... }
//!
//! docs/abi-policy.md states what can change from version to version.

/// The version of the binary interface that this header describes. A library also supports programs that were compiled
/// with every smaller version.
pub const NUC_ABI_VERSION: u32 = 1;
