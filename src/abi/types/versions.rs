//! Versions of the library and of its binary interface.
//!
//! NUC_ABI_VERSION counts the incompatible binary interfaces. A program runs with a library of the same number. The
//! number is also in the name of the shared library, so the dynamic loader finds a library with the right one. A program
//! that loads the library itself, for example with dlopen, must check it once, before any other call:
//!
//!     if (nuc_abi_version() != NUC_ABI_VERSION) { ... this is not the right library ... }
//!
//! Later versions of the library add functions and fields without a new number. NUC_VERSION is the version of the header
//! at compile time, and nuc_version_number() that of the loaded library at run time. A library that is not older than
//! the header has every function and field of the header:
//!
//!     if (nuc_version_number() < NUC_VERSION) { ... the loaded library may lack something ... }
//!
//! docs/abi-policy.md states what can change from version to version.

/// The binary interface that this header describes. It changes only if programs that were compiled with an older header
/// cannot run any more.
pub const NUC_ABI_VERSION: u32 = 1;
