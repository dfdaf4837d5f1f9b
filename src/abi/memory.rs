//! The memory regions that one call reads and writes, and the check that no written region overlaps another one.

use std::mem::size_of;

use super::pointers::{bad, Result};
use super::types::nuc_error;

/// Whether a call reads or writes a region of the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Written,
}

#[derive(Clone, Copy)]
struct Region {
    name: &'static str,
    start: usize,
    end: usize,
    usage: Use,
}

impl Region {
    const NONE: Region = Region { name: "", start: 0, end: 0, usage: Use::Read };

    fn overlaps(&self, other: &Region) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// A call receives at most 3 structs, 19 arrays and a `nuc_error`.
const LARGEST_COUNT: usize = 24;

/// Every region of memory that one call receives. The list has a fixed size, so that a call does not allocate it.
pub(super) struct Memory {
    regions: [Region; LARGEST_COUNT],
    count: usize,
    error: Region,
}

impl Memory {
    /// `error` is the caller's `nuc_error`; it may be null.
    pub(super) fn new(error: *const nuc_error) -> Memory {
        let start = error as usize;
        let bytes = if error.is_null() { 0 } else { size_of::<nuc_error>() };
        let end = start.saturating_add(bytes);
        let error = Region { name: "nuc_error", start, end, usage: Use::Written };
        Memory { regions: [Region::NONE; LARGEST_COUNT], count: 0, error }
    }

    /// Registers `bytes` bytes from `start`. A region of zero bytes overlaps nothing.
    pub(super) fn add(&mut self, name: &'static str, start: usize, bytes: usize, usage: Use) -> Result<()> {
        let Some(end) = start.checked_add(bytes).filter(|_| bytes <= isize::MAX as usize) else {
            return bad(format!(
                "{name} is {start:#x} and has {bytes} bytes; that exceeds the address space"
            ));
        };
        if bytes > 0 {
            self.regions[self.count] = Region { name, start, end, usage };
            self.count += 1;
        }
        Ok(())
    }

    /// Checks that no written region overlaps another region.
    pub(super) fn check_overlap(&self) -> Result<()> {
        let regions = &self.regions[..self.count];
        for (i, region) in regions.iter().chain([&self.error]).enumerate() {
            for earlier in &regions[..i] {
                let written = region.usage == Use::Written || earlier.usage == Use::Written;
                if written && region.overlaps(earlier) {
                    return bad(format!(
                        "{} ({:#x} to {:#x}) overlaps {} ({:#x} to {:#x}); memory that a call writes must not overlap \
                         any other memory of the call",
                        region.name, region.start, region.end, earlier.name, earlier.start, earlier.end
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(regions: &[(usize, usize, Use)], error: usize) -> Result<()> {
        let mut memory = Memory::new(error as *const nuc_error);
        for &(start, bytes, usage) in regions {
            memory.add("array", start, bytes, usage)?;
        }
        memory.check_overlap()
    }

    #[test]
    fn written_memory_overlaps_nothing() {
        use Use::{Read, Written};
        outcome(&[(16, 8, Written), (24, 8, Written), (8, 8, Read), (8, 8, Read)], 0).unwrap();
        outcome(&[(16, 0, Written), (16, 8, Written)], 0).unwrap();
        outcome(&[(16, 8, Written), (23, 8, Read)], 0).unwrap_err();
        outcome(&[(16, 8, Read), (17, 1, Written)], 0).unwrap_err();
    }

    #[test]
    fn the_error_takes_part() {
        let error = 4096;
        outcome(&[(error - 8, 8, Use::Read), (error + 512, 8, Use::Written)], error).unwrap();
        for usage in [Use::Read, Use::Written] {
            let message = outcome(&[(error + 508, 8, usage)], error).unwrap_err().to_string();
            assert!(message.contains("nuc_error") && message.contains("overlaps array"), "{message}");
        }
    }

    #[test]
    fn sizes_beyond_the_address_space_are_refused() {
        for (start, bytes) in [(8, usize::MAX), (usize::MAX - 8, 16), (0, isize::MAX as usize + 1)] {
            assert!(outcome(&[(start, bytes, Use::Read)], 0).is_err(), "{start} {bytes}");
        }
    }
}
