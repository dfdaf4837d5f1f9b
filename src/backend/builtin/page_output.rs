//! Where a pass writes the elements that it collects from the pages of a row.
//!
//! See [`super::pages`] for the reason why a pass divides a row into pages.

use super::lanes::LANES;
use super::layout::BLOCK;
use super::pages::{same_page_offset, PAGE};

/// The output of a pass. For each page, the pass calls [`PageOutput::start`], writes the collected elements, and calls
/// [`PageOutput::end`].
pub(super) trait PageOutput {
    /// Starts a page. `first` is the index of its first element in the row, and `page` contains its elements. Returns
    /// the place for the collected elements, and the position of this place in the array of all collected elements.
    fn start<T>(&mut self, first: usize, page: &[T]) -> (&mut [i32], usize);

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
    fn start<T>(&mut self, first: usize, _page: &[T]) -> (&mut [i32], usize) {
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

/// The memory in which [`Contiguous`] collects the elements of a page.
pub(super) struct Staging([i32; 3 * PAGE + BLOCK]);

impl Staging {
    /// The largest number of blocks in a page. As floats, the elements of such a page occupy 8 KiB.
    pub(super) const MOST_BLOCKS: usize = 2 * PAGE / BLOCK;

    pub(super) fn new() -> Staging {
        Staging([0; 3 * PAGE + BLOCK])
    }
}

/// Writes the elements of all pages one after another to `values`.
///
/// The pass writes the elements of a page to a staging array first. At the end of the page, they are copied. The
/// address of the staging array and the address of the page have the same lowest 12 bits.
pub(super) struct Contiguous<'a> {
    values: &'a mut [i32],
    staging: &'a mut Staging,
    start: usize,
    collected: usize,
}

impl<'a> Contiguous<'a> {
    /// `values` has at least one more vector than the elements that the pass can collect.
    pub(super) fn new(values: &'a mut [i32], staging: &'a mut Staging) -> Self {
        Contiguous { values, staging, start: 0, collected: 0 }
    }
}

impl PageOutput for Contiguous<'_> {
    #[inline(always)]
    fn start<T>(&mut self, _first: usize, page: &[T]) -> (&mut [i32], usize) {
        self.start = same_page_offset(page.as_ptr() as usize, &self.staging.0);
        (&mut self.staging.0[self.start..], self.collected)
    }

    #[inline(always)]
    fn end(&mut self, len: usize) {
        // Whole vectors are copied, which is faster. The next page or nobody uses the values after the last element.
        let vectors = len.div_ceil(LANES);
        let from = &self.staging.0[self.start..].as_chunks::<LANES>().0[..vectors];
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
