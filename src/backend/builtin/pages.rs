//! Collected logits in pages.
//!
//! A load waits if a previous store has not reached the cache yet and both addresses have the same lowest 12 bits. If a
//! pass writes the collected logits one after another, some of its loads wait in this way. So a pass divides the row
//! into pages, and writes the collected logits of a page to a place whose address has the same lowest 12 bits as the
//! address of the page. Then the pass stores to a place only after it has loaded from the same place of the page.
//!
//! A pass that collects many logits leaves them in the places of their pages ([`Pages`]). A pass that collects few
//! logits copies them from these places, so that they are one after another ([`super::page_output::Contiguous`]).

use super::lanes::LANES;
use super::layout::BLOCK;
use crate::dtype::Logits;

/// The number of elements of a row in a page. As floats, they occupy 4 KiB. For 16-bit types, a page of the row
/// occupies 2 KiB, so only for every second page, the address has the same lowest 12 bits as that of its place.
pub(super) const PAGE: usize = 1024;

/// Where a pass writes the collected logits of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    /// The position of the first page in the array of collected logits.
    pub(super) start: usize,
    /// The number of elements of the row in a page. The next page starts after this number of positions.
    pub(super) len: usize,
    /// The number of pages.
    pub(super) count: usize,
}

impl Pages {
    /// The number of positions that an array needs in addition to those of its elements.
    pub(super) const SPACE: usize = PAGE;

    /// The largest number of pages of a row of `blocks` blocks.
    pub(super) fn most(blocks: usize) -> usize {
        blocks.div_ceil(PAGE / BLOCK)
    }

    /// One page for the whole row, with the logits one after another.
    pub(super) fn one(row: Logits<'_>) -> Pages {
        Pages { start: 0, len: row.len().next_multiple_of(BLOCK), count: 1 }
    }

    /// Several pages for a row whose logits are collected in `values`.
    pub(super) fn several(row: Logits<'_>, values: &[i32]) -> Pages {
        let start = same_page_offset(row.address(), values);
        Pages { start, len: PAGE, count: row.len().div_ceil(PAGE) }
    }

    /// The number of blocks of the row in a page.
    pub(super) fn blocks(self) -> usize {
        self.len / BLOCK
    }
}

/// The position in `values`, below [`PAGE`], whose address has the same lowest 12 bits as `address`.
#[inline(always)]
pub(super) fn same_page_offset(address: usize, values: &[i32]) -> usize {
    address.wrapping_sub(values.as_ptr() as usize) / size_of::<i32>() % PAGE
}

/// Pads the `count` logits of a page with −inf to groups of four vectors, whose weights are computed together. Returns
/// the logits with the padding.
#[inline(always)]
pub(super) fn pad_page(page: &mut [i32], count: usize) -> &mut [i32] {
    let page = &mut page[..count.next_multiple_of(4 * LANES)];
    page[count..].fill(f32::NEG_INFINITY.to_bits() as i32);
    page
}
