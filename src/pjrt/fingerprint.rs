//! Fingerprints of plugin builds. A compiled program fits only the build that compiled it.
//!
//! The version string of a plugin does not identify a build: XLA's CPU plugins of all releases return `cpu`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

use super::elf::{self, number, Elf};

/// The largest number of bytes that are read from a note segment. A build id takes 16 to 36 bytes.
const LARGEST_NOTES: u64 = 1 << 16;

/// Returns the linker's build id, or the SHA-256 of the whole file if there is none. A prefix distinguishes the two.
pub(super) fn fingerprint(mut file: &File) -> io::Result<String> {
    if let Some(id) = build_id(&mut file)? {
        return Ok(format!("build-id:{}", hex(&id)));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 16];
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

/// The content of the note `NT_GNU_BUILD_ID`.
fn build_id(file: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
    let Some(elf) = Elf::read(file)? else { return Ok(None) };
    for segment in elf.segments.iter().filter(|segment| segment.kind == elf::NOTE) {
        let notes = elf::read_at(file, segment.offset, segment.size.min(LARGEST_NOTES))?;
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
        // Name and content are padded to four bytes each.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn fingerprint_at(path: &Path) -> String {
        fingerprint(&File::open(path).unwrap()).unwrap()
    }

    fn library(directory: &Path, name: &str, source: &str, id: &str) -> String {
        let (c, library) = (directory.join(format!("{name}.c")), directory.join(format!("{name}.so")));
        std::fs::write(&c, source).unwrap();
        let build = format!("-Wl,--build-id={id}");
        let status =
            Command::new("cc").args(["-shared", "-fPIC", &build, "-o"]).arg(&library).arg(&c).status();
        assert!(status.expect("cc runs").success());
        fingerprint_at(&library)
    }

    #[test]
    fn a_build_is_identified_by_its_id_or_by_all_its_bytes() {
        let directory = std::env::temp_dir().join(format!("nucleus-fingerprint-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        assert_eq!(library(&directory, "with", "int a;", "0x00ab12cd"), "build-id:00ab12cd");
        let (one, other) =
            (library(&directory, "one", "int a;", "none"), library(&directory, "two", "int b;", "none"));
        assert!(one.starts_with("sha256:") && one.len() == 7 + 64 && one != other, "{one} {other}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn files_that_are_not_libraries_have_fingerprints_too() {
        let path = std::env::temp_dir().join(format!("nucleus-fingerprint-file-{}", std::process::id()));
        // Program headers and notes that extend past the end of the file or of the address space.
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
