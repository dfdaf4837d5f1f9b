//! Finds the files that contain the functions of a library that another part of the process loaded.
//!
//! The kernel lists the file of each mapping in /proc/self/maps (proc_pid_maps(5)). A path alone does not identify the
//! file, because another file may be at the path now. The device and inode numbers in the list identify the file. These
//! numbers can differ from those that stat(2) returns, for example on overlayfs and btrfs. So this module also maps the
//! file at the path, and compares the numbers of both mappings.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::text::Shown;
use crate::regular_file;

/// The kernel's list of the mappings of this process.
const LIST: &str = "/proc/self/maps";

/// The kernel appends this to the path of a deleted file.
const DELETED: &[u8] = b" (deleted)";

/// Opens the files whose mappings contain these addresses, each file once. An error is a clause that states the reason.
pub(super) fn open(addresses: impl Iterator<Item = usize>) -> Result<Vec<File>, String> {
    let mappings = read_list()?;
    let mut found: Vec<&Mapping> = Vec::new();
    for address in addresses {
        let mapping = mappings.iter().find(|mapping| mapping.addresses.contains(&address));
        let mapping = mapping.filter(|mapping| mapping.path.is_absolute());
        let mapping = mapping.ok_or_else(|| format!("its function at {address:#x} belongs to no file"))?;
        if !found.iter().any(|known| known.numbers == mapping.numbers) {
            found.push(mapping);
        }
    }
    found.into_iter().map(Mapping::open).collect()
}

/// One line of the list.
struct Mapping {
    addresses: Range<usize>,
    /// The device and inode numbers of the file, as in the list.
    numbers: (String, String),
    /// The path of the file. Empty or not absolute if the mapping has no file.
    path: PathBuf,
}

impl Mapping {
    /// Parses a line: `start-end permissions offset device inode path`. Returns `None` if the line has another format.
    fn parse(line: &[u8]) -> Option<Mapping> {
        let mut rest = line;
        let mut field = || {
            rest = rest.trim_ascii_start();
            let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            let (field, after) = rest.split_at(end);
            rest = after;
            std::str::from_utf8(field).ok().filter(|field| !field.is_empty())
        };
        let (start, end) = field()?.split_once('-')?;
        let (_permissions, _offset) = (field()?, field()?);
        let numbers = (field()?.to_owned(), field()?.to_owned());
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        let path = Path::new(OsStr::from_bytes(rest.trim_ascii_start())).to_owned();
        Some(Mapping { addresses: address(start)?..address(end)?, numbers, path })
    }

    /// Opens the file if it is still at its path.
    fn open(&self) -> Result<File, String> {
        let path = self.path.as_os_str().as_bytes();
        let path = Path::new(OsStr::from_bytes(path.strip_suffix(DELETED).unwrap_or(path)));
        let replaced =
            || format!("its file {} was replaced or removed after the process loaded it", Shown(path));
        let file = match regular_file::open(&self.path) {
            Ok((file, _)) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(replaced()),
            Err(error) => return Err(format!("its file {} cannot be opened: {error}", Shown(path))),
        };
        match numbers_of(&file)? == self.numbers {
            true => Ok(file),
            false => Err(replaced()),
        }
    }
}

fn read_list() -> Result<Vec<Mapping>, String> {
    let list = fs::read(LIST).map_err(|error| {
        format!("its file is unknown, because {LIST}, which only Linux has, cannot be read: {error}")
    })?;
    Ok(list.split(|&byte| byte == b'\n').filter_map(Mapping::parse).collect())
}

/// Maps a file, and returns the device and inode numbers that the list states for this mapping.
fn numbers_of(file: &File) -> Result<(String, String), String> {
    // SAFETY: this creates a new read-only mapping at an address that the kernel chooses. It changes no other mapping.
    let page = unsafe {
        libc::mmap(std::ptr::null_mut(), 1, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    };
    if page == libc::MAP_FAILED {
        return Err(format!("its file cannot be mapped: {}", io::Error::last_os_error()));
    }
    let address = page as usize;
    let list = read_list();
    // SAFETY: this removes the mapping from above, and nothing refers to its memory.
    unsafe { libc::munmap(page, 1) };
    let own = list?.into_iter().find(|mapping| mapping.addresses.contains(&address));
    own.map(|mapping| mapping.numbers).ok_or_else(|| format!("{LIST} does not list a new mapping"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_file_of_a_function_is_found_once() {
        let functions = [open_functions as *const () as usize, numbers_of as *const () as usize];
        let files = open(functions.into_iter()).unwrap();
        let program = fs::metadata(std::env::current_exe().unwrap()).unwrap();
        let inodes: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().ino()).collect();
        assert_eq!(inodes, [program.ino()]);
    }

    /// The test uses only the address of this function.
    fn open_functions() {}

    #[test]
    fn addresses_without_a_file_are_refused() {
        let heap = Box::new(1);
        for address in [std::ptr::from_ref(&*heap) as usize, 8] {
            let reason = open([address].into_iter()).unwrap_err();
            assert!(reason.contains("belongs to no file"), "{reason}");
        }
    }

    /// If another file replaced a mapped file, the other file is not opened, even if both have the same contents.
    #[test]
    fn a_replaced_file_is_detected() {
        let directory = std::env::temp_dir().join(format!("nucleus-mapped-file-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("a library");
        fs::write(&path, "text").unwrap();
        let mapping = Mapping {
            addresses: 0..1,
            numbers: numbers_of(&File::open(&path).unwrap()).unwrap(),
            path: path.clone(),
        };
        mapping.open().unwrap();
        let kept = File::open(&path).unwrap();
        fs::write(directory.join("new"), "text").unwrap();
        fs::rename(directory.join("new"), &path).unwrap();
        let reason = mapping.open().unwrap_err();
        assert!(reason.contains("was replaced or removed") && reason.contains("a library"), "{reason}");
        fs::remove_file(&path).unwrap();
        assert_eq!(mapping.open().unwrap_err(), reason);
        drop(kept);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn lines_of_the_list_are_parsed() {
        let line = b"7f00-7f10 r-xp 00002000 fe:00 247030                     /usr/lib/a b.so (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!(mapping.addresses, 0x7f00..0x7f10);
        assert_eq!(mapping.numbers, ("fe:00".to_owned(), "247030".to_owned()));
        assert_eq!(mapping.path, Path::new("/usr/lib/a b.so (deleted)"));
        assert_eq!(Mapping::parse(b"7f00-7f10 rw-p 00000000 00:00 0").unwrap().path, Path::new(""));
        for line in [&b""[..], b"7f00", b"x-y rw-p 00000000 00:00 0", b"7f00-7f10 rw-p 0"] {
            assert!(Mapping::parse(line).is_none());
        }
    }
}
