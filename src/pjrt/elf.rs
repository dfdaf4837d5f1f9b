//! Reads the program headers of ELF files (System V ABI, chapters 4 and 5; the constants are those of elf(5)).

use std::io::{self, Read, Seek, SeekFrom};

/// The lengths of a 64-bit ELF header and of a 64-bit program header.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// `PT_LOAD`: the loader maps the segment into memory.
pub(super) const LOAD: u64 = 1;
/// `PT_NOTE`: the segment contains notes, for example the build id.
pub(super) const NOTE: u64 = 4;

/// The program headers of a 64-bit little-endian ELF file. Every supported system has this format.
pub(super) struct Elf {
    /// The file offset of the end of the table of program headers.
    table_end: u64,
    /// The segments whose headers the file contains.
    pub(super) segments: Vec<Segment>,
}

/// A segment, as described by its program header. The file may be too short to contain it.
pub(super) struct Segment {
    pub(super) kind: u64,
    /// The file offset of the segment.
    pub(super) offset: u64,
    /// The size of the segment in the file, in bytes.
    pub(super) size: u64,
}

impl Elf {
    /// Reads the program headers. `None` if the file is not a 64-bit little-endian ELF file.
    pub(super) fn read(file: &mut (impl Read + Seek)) -> io::Result<Option<Elf>> {
        let header = read_at(file, 0, HEADER as u64)?;
        if !header.starts_with(b"\x7fELF\x02\x01") || header.len() < HEADER {
            return Ok(None);
        }
        let (table, entry, count) =
            (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
        // The loader rejects entries of any other size.
        let size = if entry == PROGRAM_HEADER as u64 { entry * count } else { 0 };
        let segments = read_at(file, table, size)?
            .chunks_exact(PROGRAM_HEADER)
            .map(|header| Segment {
                kind: number(&header[..4]),
                offset: number(&header[8..16]),
                size: number(&header[32..40]),
            })
            .collect();
        Ok(Some(Elf { table_end: table.saturating_add(size), segments }))
    }

    /// The smallest size of a file that contains everything that the loader maps.
    pub(super) fn least_file_size(&self) -> u64 {
        let loaded = self.segments.iter().filter(|segment| segment.kind == LOAD && segment.size > 0);
        loaded.map(|segment| segment.offset.saturating_add(segment.size)).fold(self.table_end, u64::max)
    }
}

/// Reads `size` bytes at `start`, or fewer if the file ends earlier.
pub(super) fn read_at(file: &mut (impl Read + Seek), start: u64, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The system rejects offsets that no file can have.
    if i64::try_from(start).is_err() {
        return Ok(bytes);
    }
    file.seek(SeekFrom::Start(start))?;
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A little-endian number of at most eight bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn elf(bytes: &[u8]) -> Option<Elf> {
        Elf::read(&mut Cursor::new(bytes)).unwrap()
    }

    /// An ELF header directly followed by its table of program headers.
    fn file(segments: &[(u32, u64, u64)]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(HEADER, 0);
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        for &(kind, offset, size) in segments {
            let mut header = [0; PROGRAM_HEADER];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            bytes.extend(header);
        }
        bytes
    }

    #[test]
    fn the_end_of_what_is_mapped() {
        let bytes = file(&[(1, 0, 0x500), (1, 0x2000, 0x300), (4, 0x9000, 8), (1, 0x7000, 0)]);
        let elf = elf(&bytes).unwrap();
        assert_eq!(elf.segments.len(), 4);
        assert_eq!(elf.least_file_size(), 0x2300);
    }

    #[test]
    fn headers_that_are_cut_short_or_absurd() {
        for bytes in [&b""[..], b"\x7fELF\x02\x01", b"text", b"\x7fELF\x01\x01", &[0; 200]] {
            assert!(elf(bytes).is_none());
        }
        let bytes = file(&[(1, 0, 0x10), (1, u64::MAX, u64::MAX)]);
        assert_eq!(elf(&bytes).unwrap().least_file_size(), u64::MAX);
        // The second program header is missing: the file is too short for its own table.
        let cut = elf(&bytes[..HEADER + PROGRAM_HEADER + 3]).unwrap();
        assert_eq!((cut.segments.len(), cut.least_file_size()), (1, bytes.len() as u64));
        let mut absurd = b"\x7fELF\x02\x01".to_vec();
        absurd.resize(HEADER, 0xff);
        assert!(elf(&absurd).unwrap().segments.is_empty());
    }
}
