//! The logits of a slice, in registers.

use super::layout::Layout;
use crate::dtype::Dtype;
use crate::kernels::spec::Spec;
use crate::ptx::{Float, Int, Mask, Ptx, Reuse, Variable, Wide};
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

/// Whether all logits of a run are in the row, as far as it is known when the kernel is written. This affects only
/// speed.
#[derive(Clone, Copy)]
pub(super) enum InRow {
    Always,
    /// The threads of a warp test it together.
    Usually,
    /// Each load has a mask.
    Unknown,
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
        let row = row_address(k, spec, logits, row);
        SliceLogits::load_reused(k, spec, row, run, (InRow::Unknown, Reuse::Never))
    }

    /// Loads a run of logits of the row at `row`. A later kernel may load them again. All threads of a warp call this.
    pub(super) fn load_reused(
        k: &'k Ptx,
        spec: &Spec,
        row: Wide,
        run: Run,
        (in_row, reuse): (InRow, Reuse),
    ) -> SliceLogits<'k> {
        let Run { first, vector, count, stride } = run;
        let distances: Vec<usize> =
            (0..count).flat_map(|number| (0..vector).map(move |element| number * stride + element)).collect();
        let mut loaded = SliceLogits { k, values: Vec::new(), first, distances, vocab: spec.vocab };
        let address = k.address(row, first, spec.dtype.size());
        // The vectors of a row do not cross its end.
        let is_vector_in_row = |number: usize| loaded.is_distance_in_row(number * stride);
        let offset = |number: usize| number * stride * spec.dtype.size();
        if vector * spec.dtype.size() == 2 {
            let otherwise = k.int(negative_infinity(spec.dtype) & 0xffff);
            let half =
                |number| k.load_half_if(is_vector_in_row(number), reuse, address, offset(number), otherwise);
            loaded.values = (0..count).map(|number| widen(k, spec.dtype, half(number))).collect();
            return loaded;
        }
        let words: Vec<Vec<Variable>> = (0..count)
            .map(|_| (0..vector * spec.dtype.size() / 4).map(|_| k.new_variable()).collect())
            .collect();
        let load = |number: usize, mask: Option<Mask>| {
            k.load_variables(&words[number], mask, reuse, address, offset(number));
        };
        let load_all = || (0..count).for_each(|number| load(number, None));
        let load_in_row = || {
            for (number, words) in words.iter().enumerate() {
                words.iter().for_each(|&word| k.set(word, k.int(negative_infinity(spec.dtype))));
                load(number, Some(is_vector_in_row(number)));
            }
        };
        match in_row {
            InRow::Always => load_all(),
            InRow::Usually => {
                let is_cut = k.warp_any(k.not(is_vector_in_row(count - 1)));
                k.when_else(is_cut, load_in_row, load_all);
            }
            InRow::Unknown => load_in_row(),
        }
        loaded.values =
            words.into_iter().flatten().flat_map(|word| values_of(k, spec.dtype, k.get(word))).collect();
        loaded
    }

    /// The largest value of the thread. NaN counts as −inf.
    pub(super) fn max(&self) -> Float {
        let k = self.k;
        // `max` of NaN and NaN is NaN.
        k.fmax(reduced(&self.values, |a, b| k.fmax(a, b)), k.float(f32::NEG_INFINITY))
    }

    /// The largest value of the thread; NaN if a value is NaN.
    pub(super) fn max_or_nan(&self) -> Float {
        max_or_nan(self.k, &self.values)
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

/// The address of row `row` of the array at `logits`.
pub(super) fn row_address(k: &Ptx, spec: &Spec, logits: Wide, row: Int) -> Wide {
    k.base(k.address(logits, row, spec.vocab * spec.dtype.size()))
}

/// The largest of some values; NaN if one of them is NaN.
pub(super) fn max_or_nan(k: &Ptx, values: &[Float]) -> Float {
    reduced(values, |a, b| k.fmax_or_nan(a, b))
}

/// Combines pairs of values, then pairs of the results, and so on. So the assembler reuses the results of a part of the
/// values.
fn reduced(values: &[Float], combine: impl Fn(Float, Float) -> Float) -> Float {
    let mut level = values.to_vec();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| pair.iter().copied().reduce(&combine).expect("a pair has a value"))
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

/// A word that contains −inf: once as f32, or twice as a 16-bit type.
fn negative_infinity(dtype: Dtype) -> i32 {
    match dtype {
        Dtype::F32 => NEG_INF_BITS,
        Dtype::Bf16 => 0xff80_ff80_u32 as i32,
        Dtype::F16 => 0xfc00_fc00_u32 as i32,
    }
}

/// The values in a loaded word: one f32, or two numbers of a 16-bit type.
fn values_of(k: &Ptx, dtype: Dtype, word: Int) -> Vec<Float> {
    match dtype {
        Dtype::F32 => vec![k.from_bits(word)],
        // The high half is already where it is in an f32.
        Dtype::Bf16 => vec![widen(k, dtype, word), k.from_bits(k.and(word, k.int(!0xffff)))],
        Dtype::F16 => {
            [k.and(word, k.int(0xffff)), k.shr_by(word, k.int(16))].map(|half| widen(k, dtype, half)).to_vec()
        }
    }
}

/// Converts a number of a 16-bit type to f32. `half` contains its bits. For bf16, the other bits of `half` are ignored.
/// The conversion is exact. It may change the bits of a NaN, which cleaning replaces anyway.
fn widen(k: &Ptx, dtype: Dtype, half: Int) -> Float {
    match dtype {
        Dtype::F32 => unreachable!("an f32 has 32 bits"),
        Dtype::Bf16 => k.from_bits(widen_bf16(k, half)),
        Dtype::F16 => k.widen_half(half),
    }
}
