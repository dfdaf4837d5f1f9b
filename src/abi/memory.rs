//! The memory regions that one call reads and writes, and the check that no written region overlaps another one.

use std::mem::MaybeUninit;

use super::pointers::{bad, Result};

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
    fn overlaps(&self, other: &Region) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// A call receives at most 3 structs, 19 arrays, a `nuc_error` and its buffer.
const LARGEST_COUNT: usize = 24;

/// Every region of memory that one call receives. The list has a fixed size, so that a call does not allocate it.
pub(super) struct Memory {
    // The first `count` regions are initialized. Most calls need only a few, so the others are never written.
    regions: [MaybeUninit<Region>; LARGEST_COUNT],
    count: usize,
}

impl Memory {
    pub(super) fn new() -> Memory {
        Memory { regions: [const { MaybeUninit::uninit() }; LARGEST_COUNT], count: 0 }
    }

    /// Registers `bytes` bytes from `start`. A region of zero bytes overlaps nothing.
    pub(super) fn add(&mut self, name: &'static str, start: usize, bytes: usize, usage: Use) -> Result<()> {
        let Some(end) = start.checked_add(bytes).filter(|_| bytes <= isize::MAX as usize) else {
            return bad(
                name,
                format!("{name} is {start:#x} and has {bytes} bytes; that exceeds the address space"),
            );
        };
        if bytes > 0 {
            self.regions[self.count].write(Region { name, start, end, usage });
            self.count += 1;
        }
        Ok(())
    }

    fn regions(&self) -> &[Region] {
        let regions = &self.regions[..self.count];
        // SAFETY: the first `count` regions are initialized, and `MaybeUninit<Region>` has the layout of `Region`.
        unsafe { std::slice::from_raw_parts(regions.as_ptr().cast(), regions.len()) }
    }

    /// Checks that no written region overlaps another region.
    pub(super) fn check_overlap(&self) -> Result<()> {
        let regions = self.regions();
        for (i, region) in regions.iter().enumerate() {
            for earlier in &regions[..i] {
                let written = region.usage == Use::Written || earlier.usage == Use::Written;
                if written && region.overlaps(earlier) {
                    return bad(
                        region.name,
                        format!(
                            "{} ({:#x} to {:#x}) overlaps {} ({:#x} to {:#x}); memory that a call writes must not \
                             overlap any other memory of the call",
                            region.name, region.start, region.end, earlier.name, earlier.start, earlier.end
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(regions: &[(usize, usize, Use)]) -> Result<()> {
        let mut memory = Memory::new();
        for &(start, bytes, usage) in regions {
            memory.add("tokens", start, bytes, usage)?;
        }
        memory.check_overlap()
    }

    #[test]
    fn written_memory_overlaps_nothing() {
        use Use::{Read, Written};
        outcome(&[(16, 8, Written), (24, 8, Written), (8, 8, Read), (8, 8, Read)]).unwrap();
        outcome(&[(16, 0, Written), (16, 8, Written)]).unwrap();
        outcome(&[(16, 8, Written), (23, 8, Read)]).unwrap_err();
        outcome(&[(16, 8, Read), (17, 1, Written)]).unwrap_err();
    }

    #[test]
    fn sizes_beyond_the_address_space_are_refused() {
        for (start, bytes) in [(8, usize::MAX), (usize::MAX - 8, 16), (0, isize::MAX as usize + 1)] {
            assert!(outcome(&[(start, bytes, Use::Read)]).is_err(), "{start} {bytes}");
        }
    }
}
