//! Versions of the library and of its binary interface.
//!
//! NUC_ABI_VERSION is the number of the binary interface. A program needs a library with the same number. The name of
//! the shared library contains it (libnucleus.so.1), so the dynamic loader never uses a library with another number. A
//! program that loads the library itself, for example with dlopen, must check the number once, before any other call:
//!
//!     if (nuc_abi_version() != NUC_ABI_VERSION) { ... this is not the right library ... }
//!
//! Later versions of the library can add functions and fields without a new number. NUC_VERSION is the version of the
//! header at compile time. nuc_version_number() returns the version of the loaded library at run time. A library that
//! is not older than the header has every function and field of the header:
//!
//!     if (nuc_version_number() < NUC_VERSION) { ... the loaded library may lack something ... }
//!
//! docs/abi-policy.md states what can change from version to version.

/// The number of the binary interface that this header describes. It changes only if programs that were compiled with
/// an older header can no longer run.
pub const NUC_ABI_VERSION: u32 = 1;
