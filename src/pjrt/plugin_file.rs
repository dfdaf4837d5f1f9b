//! Opens a plugin's file and checks it before the dynamic loader opens it.
//!
//! The loader opens any kind of file. On a FIFO it would wait forever. It also maps truncated files, and SIGBUS ends
//! the process when the loader accesses a missing page.

use std::fs::File;
use std::path::Path;

use super::elf::Elf;
use super::error::{Error, Result};
use crate::regular_file;

/// Opens the file at `path`, which must be a regular file and contain a complete ELF library.
pub(super) fn open(path: &Path) -> Result<File> {
    let not_found = |reason: String| Error::NotFound { path: path.to_owned(), reason };
    let not_loadable = |message: String| Error::NotLoadable { path: path.to_owned(), message };

    let (file, metadata) = regular_file::open(path).map_err(|error| not_found(error.to_string()))?;
    let size = metadata.len();
    let elf = Elf::read(&mut &file).map_err(|error| not_found(error.to_string()))?;
    let elf = elf.ok_or_else(|| not_loadable("it is not a 64-bit little-endian ELF file".to_owned()))?;
    let least = elf.least_file_size();
    if size < least {
        return Err(not_loadable(format!(
            "the file was cut short: it has {size} bytes, and its segments end at byte {least}"
        )));
    }
    Ok(file)
}
