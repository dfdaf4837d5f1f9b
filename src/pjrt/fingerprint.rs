//! Which build of a plugin a file is: what a compiled program fits.
//!
//! A plugin's own version string will not do. XLA's CPU plugins of every release call themselves `cpu`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

/// Longer notes are not looked through: a build id takes 16 to 36 bytes.
const LARGEST_NOTES: u64 = 1 << 16;

/// The linker's build id, or where it left none the SHA-256 of the whole file; either with its kind in front.
pub(super) fn fingerprint(mut file: &File) -> io::Result<String> {
    if let Some(id) = build_id(&mut file)? {
        return Ok(format!("build-id:{}", hex(&id)));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(format!("sha256:{}", hex(&hash.finalize()))),
            read => hash.update(&chunk[..read]),
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The note `NT_GNU_BUILD_ID` of a 64-bit little-endian ELF file, the only kind that any plugin comes as.
fn build_id(file: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
    const NOTE_SEGMENT: u64 = 4;
    let header = read_at(file, 0, 64)?;
    if !header.starts_with(b"\x7fELF\x02\x01") || header.len() < 64 {
        return Ok(None);
    }
    let (table, entry, count) = (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
    for i in 0..count {
        let segment = read_at(file, table.saturating_add(i * entry), 56)?;
        if segment.len() < 56 || number(&segment[..4]) != NOTE_SEGMENT {
            continue;
        }
        let (start, size) = (number(&segment[8..16]), number(&segment[32..40]));
        let notes = read_at(file, start, size.min(LARGEST_NOTES))?;
        if let Some(id) = gnu_build_id(&notes) {
            return Ok(Some(id.to_vec()));
        }
    }
    Ok(None)
}

fn gnu_build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const GNU_BUILD_ID: u64 = 3;
    while notes.len() >= 12 {
        let (name_size, size) = (number(&notes[..4]) as usize, number(&notes[4..8]) as usize);
        let kind = number(&notes[8..12]);
        // Either part is padded to a word.
        let body = 12usize.checked_add(name_size.checked_next_multiple_of(4)?)?;
        let name = notes.get(12..12usize.checked_add(name_size)?)?;
        let content = notes.get(body..body.checked_add(size)?)?;
        if kind == GNU_BUILD_ID && name == b"GNU\0" && !content.is_empty() {
            return Some(content);
        }
        notes = notes.get(body.checked_add(size.checked_next_multiple_of(4)?)?..)?;
    }
    None
}

/// At most `size` bytes: fewer where the file ends.
fn read_at(file: &mut (impl Read + Seek), start: u64, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The system refuses places that no file can have.
    if i64::try_from(start).is_err() {
        return Ok(bytes);
    }
    file.seek(SeekFrom::Start(start))?;
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn fingerprint_at(path: &Path) -> String {
        fingerprint(&File::open(path).unwrap()).unwrap()
    }

    fn library(folder: &Path, name: &str, source: &str, id: &str) -> String {
        let (c, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
        std::fs::write(&c, source).unwrap();
        let build = format!("-Wl,--build-id={id}");
        let status =
            Command::new("cc").args(["-shared", "-fPIC", &build, "-o"]).arg(&library).arg(&c).status();
        assert!(status.expect("cc runs").success());
        fingerprint_at(&library)
    }

    #[test]
    fn a_build_is_known_by_its_id_or_by_all_its_bytes() {
        let folder = std::env::temp_dir().join(format!("nucleus-fingerprint-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(library(&folder, "with", "int a;", "0x00ab12cd"), "build-id:00ab12cd");
        let (one, other) =
            (library(&folder, "one", "int a;", "none"), library(&folder, "two", "int b;", "none"));
        assert!(one.starts_with("sha256:") && one.len() == 7 + 64 && one != other, "{one} {other}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn files_that_are_no_libraries_have_fingerprints_too() {
        let path = std::env::temp_dir().join(format!("nucleus-fingerprint-file-{}", std::process::id()));
        // Program headers and notes that reach past the end of the file or of the address space.
        let mut broken = b"\x7fELF\x02\x01".to_vec();
        broken.resize(64, 0xff);
        for content in [&b""[..], b"\x7fELF\x02\x01", b"text", &broken] {
            std::fs::write(&path, content).unwrap();
            assert!(fingerprint_at(&path).starts_with("sha256:"));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(gnu_build_id(&[0xff; 40]), None);
    }
}
