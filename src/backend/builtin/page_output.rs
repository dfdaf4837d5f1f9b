//! Where a pass writes the elements that it collects from the pages of a row.
//!
//! See [`super::pages`] for the reason why a pass divides a row into pages.

use fearless_simd::{dispatch, Level};

use super::lanes::{lanes_of, LANES};
use super::layout::BLOCK;
use super::pages::{same_page_offset, PAGE};

/// The output of a pass. For each page, the pass calls [`PageOutput::start`], writes the collected elements, and calls
/// [`PageOutput::end`].
pub(super) trait PageOutput {
    /// Starts a page. `first` is the index of its first element in the row, and `address` is the address of this
    /// element. Returns the place for the collected elements, and the position of this place in the array of all
    /// collected elements.
    fn start(&mut self, first: usize, address: usize) -> (&mut [i32], usize);

    /// Ends the page. `len` elements of the page were collected.
    fn end(&mut self, len: usize);

    /// The number of elements that were collected from the pages that have ended.
    fn collected(&self) -> usize;
}

/// Writes the elements of each page to a separate place. If a page starts at index `i` of the row, its elements are
/// written from `values[i]` on. Writes the number of collected elements of each page to `counts`.
pub(super) struct SeparatePages<'a> {
    values: &'a mut [i32],
    counts: std::slice::IterMut<'a, u32>,
    collected: usize,
}

impl<'a> SeparatePages<'a> {
    pub(super) fn new(values: &'a mut [i32], counts: &'a mut [u32]) -> Self {
        SeparatePages { values, counts: counts.iter_mut(), collected: 0 }
    }
}

impl PageOutput for SeparatePages<'_> {
    #[inline(always)]
    fn start(&mut self, first: usize, _address: usize) -> (&mut [i32], usize) {
        (&mut self.values[first..], first)
    }

    #[inline(always)]
    fn end(&mut self, len: usize) {
        *self.counts.next().expect("a count for each page") = len as u32;
        self.collected += len;
    }

    #[inline(always)]
    fn collected(&self) -> usize {
        self.collected
    }
}

/// The array in which [`Contiguous`] collects the elements of a page.
pub(super) struct Staging([i32; Staging::LEN]);

impl Staging {
    /// The largest number of blocks in a page. As 16-bit elements, such a page occupies 4 KiB. As floats, its elements
    /// occupy 8 KiB.
    pub(super) const MOST_BLOCKS: usize = 2 * PAGE / BLOCK;
    /// A page can start at any position below `PAGE`. After its elements, a store writes up to one more vector.
    const LEN: usize = PAGE + Staging::MOST_BLOCKS * BLOCK + LANES;

    pub(super) fn new() -> Staging {
        Staging([0; Staging::LEN])
    }

    /// An array, if it makes a pass faster. On AMD Zen 5 with registers of eight lanes, copying from the array takes as
    /// much time as it saves.
    pub(super) fn if_faster(level: Level) -> Option<Staging> {
        dispatch!(level, simd => lanes_of(simd) == LANES).then(Staging::new)
    }
}

/// Writes the elements of all pages one after another to `values`.
///
/// The pass writes the elements of a page to a staging array. [`PageOutput::end`] copies them to `values`. The address
/// of the page in the staging array has the same lowest 12 bits as the address of the page in the row.
pub(super) struct Contiguous<'a> {
    values: &'a mut [i32],
    staging: &'a mut Staging,
    /// The position of the current page in the staging array.
    page_start: usize,
    collected: usize,
}

impl<'a> Contiguous<'a> {
    /// `values` has space for all elements that the pass can collect, and for one more vector.
    pub(super) fn new(values: &'a mut [i32], staging: &'a mut Staging) -> Self {
        Contiguous { values, staging, page_start: 0, collected: 0 }
    }
}

impl PageOutput for Contiguous<'_> {
    #[inline(always)]
    fn start(&mut self, _first: usize, address: usize) -> (&mut [i32], usize) {
        self.page_start = same_page_offset(address, &self.staging.0);
        (&mut self.staging.0[self.page_start..], self.collected)
    }

    #[inline(always)]
    fn end(&mut self, len: usize) {
        // Copying whole vectors is faster. The next page overwrites the values after the last element. After the last
        // page, no code reads them.
        let vectors = len.div_ceil(LANES);
        let from = &self.staging.0[self.page_start..].as_chunks::<LANES>().0[..vectors];
        let to = &mut self.values[self.collected..].as_chunks_mut::<LANES>().0[..vectors];
        for (from, to) in from.iter().zip(to) {
            *to = *from;
        }
        self.collected += len;
    }

    #[inline(always)]
    fn collected(&self) -> usize {
        self.collected
    }
}
