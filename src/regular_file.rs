//! Opens regular files whose paths come from the user.
//!
//! Opening a FIFO blocks until a writer opens it, and opening a device can have side effects. This module avoids
//! both.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Opens a regular file for reading. If the path leads to another kind of file, the error names the kind.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // The first check is before opening, because opening a device can have side effects.
    check_regular(fs::metadata(path)?.file_type())?;
    // The second check is necessary because another process could have replaced the file.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    check_regular(metadata.file_type())?;
    Ok((file, metadata))
}

fn check_regular(kind: FileType) -> io::Result<()> {
    let name = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "something else",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {name}, not a regular file")))
}
