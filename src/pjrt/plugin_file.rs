//! Opening a plugin's file and checking it before the dynamic loader gets it.
//!
//! The loader opens whatever the path leads to, and so waits for ever on a FIFO. It maps files that were cut short, and
//! the process dies of SIGBUS when the loader touches a missing page.

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::elf::Elf;
use super::error::{Error, Result};

/// Opens the file at `path`, which must be a regular file and hold a complete ELF library.
pub(super) fn open(path: &Path) -> Result<File> {
    let not_found = |reason: String| Error::NotFound { path: path.to_owned(), reason };
    let not_loadable = |message: String| Error::NotLoadable { path: path.to_owned(), message };

    let file = open_regular(path).map_err(not_found)?;
    let size = file.metadata().map_err(|error| not_found(error.to_string()))?.len();
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

/// Opens a regular file for reading, without waiting for anything. The error is a reason in words.
fn open_regular(path: &Path) -> std::result::Result<File, String> {
    let words = |error: io::Error| error.to_string();
    // Checked before opening, because opening a device may have effects.
    check_regular(fs::metadata(path).map_err(words)?.file_type())?;
    // Checked again after opening, because the path may lead elsewhere by now.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(words)?;
    check_regular(file.metadata().map_err(words)?.file_type())?;
    Ok(file)
}

fn check_regular(kind: FileType) -> std::result::Result<(), String> {
    let name = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "something else",
    };
    Err(format!("it is {name}, not a regular file"))
}
