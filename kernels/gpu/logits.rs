//! The logits of a slice, in registers.

use super::layout::Layout;
use crate::dtype::Dtype;
use crate::kernels::spec::Spec;
use crate::ptx::{Float, Int, Mask, Ptx, Wide};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, order_key, widen_bf16, NEG_INF_BITS};

/// The logits of one thread.
pub(super) struct SliceLogits<'k> {
    k: &'k Ptx,
    /// The values as f32, before cleaning. Elements beyond the end of the row are −inf.
    pub(super) values: Vec<Float>,
    /// The index in the row of the first value.
    first: Int,
    /// The distance in the row of each value from the first.
    distances: Vec<usize>,
    vocab: usize,
}

/// The logits that one thread loads: vectors of consecutive logits at equal distances.
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// The index in the row of the first logit.
    pub(super) first: Int,
    /// The number of consecutive logits of a vector.
    pub(super) vector: usize,
    /// The number of vectors.
    pub(super) count: usize,
    /// The distance in the row between the first logits of two vectors.
    pub(super) stride: usize,
}

impl<'k> SliceLogits<'k> {
    /// Loads slice `slice` of row `row` of the array at `logits`.
    pub(super) fn load(
        k: &'k Ptx,
        (spec, layout): (&Spec, &Layout),
        logits: Wide,
        (row, slice): (Int, Int),
    ) -> SliceLogits<'k> {
        let vector = layout.vector;
        let first = k.add(k.mul(slice, layout.slice_len()), k.mul(k.thread(), vector));
        let (count, stride) = (layout.per_thread / vector, layout.threads * vector);
        let run = Run { first, vector, count, stride };
        SliceLogits::load_run(k, spec, logits, row, run)
    }

    /// Loads a run of logits of row `row` of the array at `logits`.
    pub(super) fn load_run(k: &'k Ptx, spec: &Spec, logits: Wide, row: Int, run: Run) -> SliceLogits<'k> {
        let bytes = spec.dtype.size();
        let Run { first, vector, count, stride } = run;
        let address = k.far_address(logits, k.far_element(row, spec.vocab, first), bytes);
        let (values, distances) = (Vec::new(), Vec::new());
        let mut loaded = SliceLogits { k, values, first, distances, vocab: spec.vocab };
        for number in 0..count {
            let in_row = loaded.is_distance_in_row(number * stride);
            loaded.distances.extend((0..vector).map(|element| number * stride + element));
            let offset = number * stride * bytes;
            loaded.values.extend(match spec.dtype {
                Dtype::F32 => k
                    .load_words_if(in_row, address, offset, vector, k.int(NEG_INF_BITS))
                    .into_iter()
                    .map(|bits| k.from_bits(bits))
                    .collect(),
                Dtype::Bf16 => {
                    let halves = halves(k, in_row, address, offset, vector, 0xff80);
                    halves.into_iter().map(|bits| k.from_bits(widen_bf16(k, bits))).collect::<Vec<_>>()
                }
                // The conversion is exact. It may change the bits of a NaN, which cleaning replaces anyway.
                Dtype::F16 => {
                    let halves = halves(k, in_row, address, offset, vector, 0xfc00);
                    halves.into_iter().map(|bits| k.widen_half(bits)).collect()
                }
            });
        }
        loaded
    }

    /// The largest value of the thread. NaN counts as −inf.
    pub(super) fn max(&self) -> Float {
        // `max` of NaN and NaN is NaN.
        self.k.fmax(largest(self.k, &self.values), self.k.float(f32::NEG_INFINITY))
    }

    /// Whether a value of the thread is NaN.
    pub(super) fn had_nan(&self) -> Mask {
        let k = self.k;
        self.values.chunks(2).fold(k.never(), |before, pair| k.any_nan(pair[0], pair[pair.len() - 1], before))
    }

    /// The index in the row of value `number`.
    pub(super) fn index(&self, number: usize) -> Int {
        self.k.add(self.first, self.k.int(self.distances[number] as i32))
    }

    /// The index in the row of the first value that reaches `bound`. At least one value must reach it.
    pub(super) fn first_at_least(&self, bound: Float) -> Int {
        let k = self.k;
        let numbered = self.values.iter().zip(&self.distances).rev();
        let first = numbered.fold(k.int(0), |later, (&value, &distance)| {
            k.select(k.at_least(value, bound), k.int(distance as i32), later)
        });
        k.add(self.first, first)
    }

    /// The order key of value `number`; `i32::MIN` beyond the end of the row, which is below every key.
    pub(super) fn key(&self, number: usize) -> Int {
        let k = self.k;
        k.select(self.is_in_row(number), key_of(k, self.values[number]), k.int(i32::MIN))
    }

    /// Whether value `number` is in the row.
    pub(super) fn is_in_row(&self, number: usize) -> Mask {
        self.is_distance_in_row(self.distances[number])
    }

    /// Whether the value at a distance from the first is in the row.
    fn is_distance_in_row(&self, distance: usize) -> Mask {
        self.k.lt(self.first, self.k.int(self.vocab as i32 - distance as i32))
    }
}

/// Returns the largest of some values, or NaN if all are NaN. First computes the maximum of each pair, then of each
/// group of four, and so on. So the assembler can use the maxima of the groups again.
pub(super) fn largest(k: &Ptx, values: &[Float]) -> Float {
    let mut level = values.to_vec();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| pair.iter().copied().reduce(|a, b| k.fmax(a, b)).expect("a pair"))
            .collect();
    }
    level[0]
}

/// The order key of a value that has not been cleaned.
pub(super) fn key_of(k: &Ptx, value: Float) -> Int {
    order_key(k, clean(k, k.to_bits(value)))
}

/// A bound for values that have not been cleaned: a value reaches it if the order key of the cleaned value reaches
/// `bound`. A subnormal value may reach it although its key does not reach `bound`. `bound` is above the key of −inf.
pub(super) fn raw_bound(k: &Ptx, bound: Int) -> Float {
    // Cleaning changes −0 and all subnormals to +0, whose key is 0. The constant is the key of the most negative
    // subnormal.
    const ABOVE_NEGATIVE: i32 = -0x0080_0000;
    let near_zero = k.both(k.le(k.int(ABOVE_NEGATIVE), bound), k.le(bound, k.int(0)));
    k.from_bits(order_key(k, k.select(near_zero, k.int(ABOVE_NEGATIVE), bound)))
}

/// Loads `count` 16-bit elements.
fn halves(
    k: &Ptx,
    mask: Mask,
    address: crate::ptx::Address,
    offset: usize,
    count: usize,
    otherwise: u32,
) -> Vec<Int> {
    if count == 1 {
        return vec![k.load_half_if(mask, address, offset, k.int(otherwise as i32))];
    }
    let both = k.int((otherwise << 16 | otherwise) as i32);
    let words = k.load_words_if(mask, address, offset, count / 2, both);
    let split = |word| [k.and(word, k.int(0xffff)), k.shr_by(word, k.int(16))];
    words.into_iter().flat_map(split).collect()
}
