//! What one program call gave, and where it goes.

use crate::dtype::LogitsMut;
use crate::kernels::{Path, Spec, RESULTS};
use crate::outputs::{RowArrays, RowOutcome};

/// What one program call gave, on the host.
pub(super) struct Answer {
    pub(super) outcomes: Vec<i32>,
    /// In the order of the program's outputs: bytes, `[bucket, width]`.
    pub(super) wide: Vec<Vec<u8>>,
}

/// Bytes a row of each wide output.
pub(super) fn output_widths(spec: &Spec) -> Vec<usize> {
    let slots = match spec.path {
        Path::Bounded(max_k) => max_k.min(spec.vocab),
        Path::Arbitrary => 0,
    };
    let size = spec.dtype.size();
    let mut widths = Vec::new();
    if spec.wanted.topk_logits {
        widths.push(spec.vocab * size);
    }
    if spec.wanted.weights {
        widths.push(spec.vocab * 4);
    }
    if spec.wanted.slices {
        widths.extend([slots * 4, slots * size, slots * 4]);
    }
    widths
}

impl Answer {
    pub(super) fn outcome(&self, place: usize, batch: usize) -> RowOutcome {
        let [next_token, greedy_sampled, high, low, status] =
            std::array::from_fn::<i32, RESULTS, _>(|result| self.outcomes[result * batch + place]);
        RowOutcome {
            next_token,
            greedy_sampled,
            random_unnorm_cdf_sampled: u64::from(high as u32) << 32 | u64::from(low as u32),
            status: status as u32,
        }
    }

    pub(super) fn scatter(&self, spec: &Spec, place: usize, replace: u32, arrays: &mut RowArrays<'_>) {
        let mut rows = self.wide.iter().map(|bytes| {
            let width = bytes.len() / spec.batch;
            &bytes[place * width..(place + 1) * width]
        });
        let mut next = |present: bool| if present { rows.next() } else { None };
        let (topk_logits, weights) = (next(spec.wanted.topk_logits), next(spec.wanted.weights));
        let slices = [(); 3].map(|()| next(spec.wanted.slices));
        copy_logits(&mut arrays.topk_logits, topk_logits);
        copy_ints(&mut arrays.weights, weights);
        if let Path::Bounded(max_k) = spec.path {
            // A row shorter than max_k has a program with fewer slots than the caller's arrays.
            for unused in spec.vocab.min(max_k)..arrays.slots() {
                arrays.set_slot(unused, -1, replace, 0);
            }
        }
        copy_ints(&mut arrays.indices_k, slices[0]);
        copy_logits(&mut arrays.topk_logits_k, slices[1]);
        copy_ints(&mut arrays.weights_k, slices[2]);
    }
}

pub(super) fn i32_from(bytes: &[u8]) -> i32 {
    i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn copy_ints(array: &mut Option<&mut [i32]>, bytes: Option<&[u8]>) {
    if let (Some(array), Some(bytes)) = (array, bytes) {
        array.iter_mut().zip(bytes.chunks_exact(4)).for_each(|(slot, value)| *slot = i32_from(value));
    }
}

fn copy_logits(array: &mut Option<LogitsMut<'_>>, bytes: Option<&[u8]>) {
    match (array, bytes) {
        (Some(LogitsMut::F32(array)), Some(bytes)) => {
            let values = bytes.chunks_exact(4).map(|value| f32::from_bits(i32_from(value) as u32));
            array.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
        }
        (Some(LogitsMut::Bf16(array) | LogitsMut::F16(array)), Some(bytes)) => {
            let values = bytes.chunks_exact(2).map(|value| u16::from_ne_bytes([value[0], value[1]]));
            array.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
        }
        _ => {}
    }
}
