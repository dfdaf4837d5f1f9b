//! Collects the few entries of a row that reach a bound, together with their indices.

use fearless_simd::{dispatch, f32x16, prelude::*, Level, Simd};

use super::blocks::{mask_of, reaches, Blocks};
use super::element::{with_element, Element};
use super::lanes::{load, LANES};
use super::layout::{BIN, BLOCK, LARGEST_GROUP};
use crate::dtype::Logits;

/// The pass collects at most this number of entries.
pub(super) const FEW: usize = 256;
/// The number of groups whose maxima are compared before the blocks of these groups are read. One integer has a bit for
/// each of these groups.
const GROUPS_AT_ONCE: usize = u64::BITS as usize;

/// Collects the bits of all elements that are at least `bound`, in order, and their indices. Returns their number, or
/// `None` if there are more than [`FEW`].
///
/// The entries are usually in different blocks. [`super::collect::collect`] branches for each block, and the processor
/// cannot predict these branches. This pass first lists the blocks without branches.
pub(super) fn collect_few(
    level: Level,
    row: Logits<'_>,
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    bound: f32,
    (values, indices): (&mut [i32], &mut [i32]),
) -> Option<usize> {
    dispatch!(level, simd => {
        let mut list = [0; FEW + LARGEST_GROUP];
        let blocks = list_blocks(simd, group, (bins, tops), bound, &mut list)?;
        with_element!(row, row, E => collect_blocks::<_, E>(simd, row, blocks, bound, (values, indices)))
    })
}

/// Lists the blocks that have an element that is at least `bound`, in order. `None` if there are more than [`FEW`].
#[inline(always)]
fn list_blocks<'l, S: Simd>(
    simd: S,
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    bound: f32,
    list: &'l mut [u32; FEW + LARGEST_GROUP],
) -> Option<&'l [u32]> {
    let (bins, tops) = (bins.as_chunks::<BIN>().0, tops.as_chunks::<LANES>().0);
    let mut len = 0;
    for (i, tops) in tops.chunks(GROUPS_AT_ONCE).enumerate() {
        let mut groups = 0_u64;
        for (bit, top) in tops.iter().enumerate() {
            groups |= u64::from(load::<S, f32x16<S>, f32>(simd, top).simd_ge(bound).any_true()) << bit;
        }
        while groups != 0 {
            let first = (i * GROUPS_AT_ONCE + groups.trailing_zeros() as usize) * group;
            groups &= groups - 1;
            for (block, bin) in bins[first..].iter().take(group).enumerate() {
                list[len] = (first + block) as u32;
                len += usize::from(reaches(simd, bin, bound));
            }
            if len > FEW {
                return None;
            }
        }
    }
    Some(&list[..len])
}

/// Collects the elements of the listed blocks that are at least `bound`.
#[inline(always)]
fn collect_blocks<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    list: &[u32],
    bound: f32,
    (values, indices): (&mut [i32], &mut [i32]),
) -> Option<usize> {
    let blocks = Blocks::<E>::new(row);
    let bound = f32x16::splat(simd, bound);
    let mut len = 0;
    for &block in list {
        let elements = blocks.get(block as usize);
        let mut mask = mask_of::<S, E>(
            simd,
            elements,
            #[inline(always)]
            |x| x.simd_ge(bound),
        );
        if len + mask.count_ones() as usize > FEW {
            return None;
        }
        while mask != 0 {
            let at = mask.trailing_zeros() as usize % BLOCK;
            values[len] = E::value(elements[at]).to_bits() as i32;
            indices[len] = (block as usize * BLOCK + at) as i32;
            len += 1;
            mask &= mask - 1;
        }
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Layout;
    use super::super::scan::scan;
    use super::*;

    /// The expected values and indices, from a comparison of each element.
    fn expected(row: Logits<'_>, bound: f32) -> (Vec<i32>, Vec<i32>) {
        let value = |i: &usize| f32::from_bits(row.dtype().widen(row.bits(*i)));
        let indices = (0..row.len()).filter(|i| value(i) >= bound);
        indices.map(|i| (value(&i).to_bits() as i32, i as i32)).unzip()
    }

    fn check(row: Logits<'_>, bound: f32) {
        for wanted in [1, 64] {
            let layout = Layout::new(row.len(), wanted);
            let mut bins = vec![0.0; layout.blocks * BIN];
            let mut tops = vec![0.0; layout.groups() * LANES];
            scan(Level::new(), row, layout.group, &mut bins, &mut tops);
            let (mut values, mut indices) = (vec![0; FEW], vec![0; FEW]);
            let arrays = (&mut values[..], &mut indices[..]);
            let len = collect_few(Level::new(), row, layout.group, (&bins, &tops), bound, arrays);
            let (expected_values, expected_indices) = expected(row, bound);
            let count = expected_values.len();
            assert_eq!(len, (count <= FEW).then_some(count), "{} elements, bound {bound}", row.len());
            if let Some(len) = len {
                assert_eq!((&values[..len], &indices[..len]), (&expected_values[..], &expected_indices[..]));
            }
        }
    }

    #[test]
    fn collects_values_and_indices_in_order() {
        for vocab in [1_usize, 127, 128, 300, 5000, 70_001] {
            let row: Vec<f32> = (0..vocab).map(|i| ((i * 7919) % 10_007) as f32).collect();
            let narrow: Vec<u16> = row.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
            for bound in [-1.0, 9_000.0, 9_970.0, 9_999.0, 10_006.0, 20_000.0] {
                check(Logits::F32(&row), bound);
                check(Logits::Bf16(&narrow), bound);
                // As f16, the largest of these values is about 6.1.
                check(Logits::F16(&narrow), bound / 1640.0);
            }
        }
        // Exactly as many entries as the pass can collect, and one more.
        for more in 0..2 {
            let row: Vec<f32> = (0..50_000).map(|i| f32::from(u8::from(i < FEW + more))).collect();
            check(Logits::F32(&row), 1.0);
        }
    }
}
