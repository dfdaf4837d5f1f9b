//! The sets of programs that calls can need, for prewarming and for compiling ahead of time.

use super::buckets::Buckets;
use super::distinct::PURPOSE;
use super::paths::{paths, program};
use super::{device, CallShape, LogitsPlace};
use crate::error::Error;
use crate::kernels::program::ProgramSpec;
use crate::kernels::Spec;
use crate::memory;

/// Returns every program that these calls can need. With logits on the host, the calls have any number of rows up to
/// `calls.batch`. With logits on the device, the calls have exactly `calls.batch` rows. The programs that copy logits
/// to the row-major layout are not included.
pub(crate) fn programs_up_to(
    calls: &CallShape,
    max_k: usize,
    buckets: &Buckets,
) -> Result<Vec<ProgramSpec>, Error> {
    let LogitsPlace::Device { singleton, bad_rows } = calls.logits else {
        return sampling(host_programs(calls, max_k, buckets.up_to(calls.batch)));
    };
    let (samplers, combines) = device::programs(calls, max_k, buckets, singleton, bad_rows)?;
    let mut programs = memory::with_capacity(samplers.len() + combines.len(), PURPOSE)?;
    programs.extend(samplers.into_iter().map(ProgramSpec::Sampling));
    programs.extend(combines.into_iter().map(ProgramSpec::Combine));
    Ok(programs)
}

/// Returns the programs that these calls can need if they have exactly `calls.batch` rows and all rows take the same
/// path.
pub(crate) fn programs_exactly(
    calls: &CallShape,
    max_k: usize,
    buckets: &Buckets,
) -> Result<Vec<ProgramSpec>, Error> {
    if let LogitsPlace::Device { singleton, .. } = calls.logits {
        return sampling(device::whole_programs(calls, max_k, singleton));
    }
    let largest = buckets.largest();
    let (whole, rest) = (calls.batch / largest, calls.batch % largest);
    let mut sizes = Vec::new();
    if rest > 0 {
        sizes.push(buckets.of_piece(rest));
    }
    if whole > 0 && !sizes.contains(&largest) {
        sizes.push(largest);
    }
    sampling(host_programs(calls, max_k, &sizes))
}

fn sampling(specs: Vec<Spec>) -> Result<Vec<ProgramSpec>, Error> {
    memory::collected(specs.len(), PURPOSE, specs.into_iter().map(|spec| Ok(ProgramSpec::Sampling(spec))))
}

fn host_programs(calls: &CallShape, max_k: usize, sizes: &[usize]) -> Vec<Spec> {
    paths(calls, max_k)
        .into_iter()
        .flat_map(|path| sizes.iter().map(move |&rows| program(calls, path, rows)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, CallOptions};
    use crate::dtype::{Dtype, Logits};
    use crate::kernels::Wanted;
    use crate::plan::{check_entry, pieces, Entry};
    use crate::semantics::params::RowParams;

    const CALLS: CallShape = CallShape {
        entry: Entry::Bounded,
        batch: 1,
        vocab: 1000,
        dtype: Dtype::F32,
        stable: true,
        wanted: Wanted { topk_logits: false, weights: false, slices: false },
        logits: LogitsPlace::Host,
    };

    type List = fn(&CallShape, usize, &Buckets) -> Result<Vec<ProgramSpec>, Error>;

    fn sizes(batch: usize, buckets: &[usize], list: List) -> Vec<usize> {
        let programs = list(&CallShape { batch, ..CALLS }, 128, &Buckets::new(buckets).unwrap()).unwrap();
        programs
            .iter()
            .map(|program| match program {
                ProgramSpec::Sampling(spec) => spec.batch,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_batch_lands_in_its_buckets() {
        assert_eq!(sizes(1, &[], programs_exactly), [1]);
        assert_eq!(sizes(9, &[], programs_exactly), [16]);
        assert_eq!(sizes(128, &[], programs_exactly), [128]);
        assert_eq!(sizes(130, &[], programs_exactly), [2, 128]);
        assert_eq!(sizes(200, &[], programs_exactly), [128]);
        assert_eq!(sizes(9, &[], programs_up_to), [1, 2, 4, 8, 16]);
        assert_eq!(sizes(1000, &[], programs_up_to), [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(sizes(9, &[3, 10, 12], programs_exactly), [10]);
        assert_eq!(sizes(25, &[3, 10, 12], programs_exactly), [3, 12]);
        assert_eq!(sizes(9, &[3, 10, 12], programs_up_to), [3, 10]);
        assert_eq!(sizes(1000, &[3, 10, 12], programs_up_to), [3, 10, 12]);
    }

    /// A call runs only programs that prewarming for its shape compiles, for any parameters of the rows.
    #[test]
    fn calls_run_what_prewarming_compiles() {
        for buckets in [&[][..], &[40], &[7, 20, 100]] {
            let buckets = Buckets::new(buckets).unwrap();
            for entry in [Entry::Automatic, Entry::Arbitrary, Entry::Bounded] {
                for (stable, slices, topk_logits) in
                    [(true, false, false), (true, true, true), (false, false, false), (true, false, true)]
                {
                    let wanted = Wanted { topk_logits, weights: false, slices };
                    if !(slices && entry == Entry::Arbitrary) {
                        check(
                            &CallShape { entry, batch: 150, vocab: 300, stable, wanted, ..CALLS },
                            &buckets,
                        );
                    }
                }
            }
        }
    }

    fn check(calls: &CallShape, buckets: &Buckets) {
        let &CallShape { entry, batch: num_rows, vocab, wanted, stable, .. } = calls;
        let logits = vec![0.0; num_rows * vocab];
        let only_small = entry == Entry::Bounded || wanted.slices;
        let ks: &[i32] = if only_small { &[1, 64, 128] } else { &[0, 1, 128, 129, 300] };
        let rows: Vec<RowParams> = (0..num_rows)
            .map(|row| {
                let temperature = if row % 4 == 0 { 0.0 } else { 1.0 };
                RowParams::new(ks[row % ks.len()], 1.0, 0.0, temperature, [0; 4], vocab)
            })
            .collect();
        let options = CallOptions { stable, ..CallOptions::default() };
        let batch = Batch::from_params(Logits::F32(&logits), vocab, 0, rows, options).unwrap();
        check_entry(entry, 128, &batch, wanted.slices).unwrap();
        let prewarmed = programs_up_to(calls, 128, buckets).unwrap();
        let pieces = pieces(entry, 128, buckets, &batch, wanted).unwrap();
        for piece in &pieces {
            assert!(prewarmed.contains(&ProgramSpec::Sampling(piece.spec)), "{:?}", piece.spec);
            assert!(piece.rows.len() <= piece.spec.batch);
        }
        let mut all: Vec<usize> = pieces.iter().flat_map(|piece| piece.rows.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..num_rows).collect::<Vec<_>>());
    }
}
