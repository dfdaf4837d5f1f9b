//! Which programs calls of a shape run: the paths that rows can take, and the sizes that batches are padded to.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Error;
use crate::kernels::{Path, Spec, Wanted};
use crate::sampler::{Entry, PrewarmSpec};

/// Rows of the largest program; larger batches run in pieces, so that a server compiles a handful of programs.
pub(crate) const LARGEST_BUCKET: usize = 128;

/// Rows of the program that `rows` rows are padded to.
pub(crate) fn bucket(rows: usize) -> usize {
    rows.next_power_of_two()
}

/// Every program that calls like `calls` of at most `calls.batch` rows can need, whatever the rows ask for.
pub(crate) fn specs_up_to(calls: &PrewarmSpec, max_k: usize) -> Vec<Spec> {
    let largest = bucket(calls.batch.clamp(1, LARGEST_BUCKET));
    let sizes: Vec<usize> =
        std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|&size| size <= largest).collect();
    specs(calls, max_k, &sizes)
}

/// The programs that calls like `calls` of exactly `calls.batch` rows need whose rows all take one path.
pub(crate) fn specs_exactly(calls: &PrewarmSpec, max_k: usize) -> Vec<Spec> {
    let (whole, rest) = (calls.batch / LARGEST_BUCKET, calls.batch % LARGEST_BUCKET);
    let mut sizes = Vec::new();
    if rest > 0 {
        sizes.push(bucket(rest));
    }
    if whole > 0 && !sizes.contains(&LARGEST_BUCKET) {
        sizes.push(LARGEST_BUCKET);
    }
    specs(calls, max_k, &sizes)
}

fn specs(calls: &PrewarmSpec, max_k: usize, sizes: &[usize]) -> Vec<Spec> {
    let paths = match calls.entry {
        Entry::Reference => vec![],
        Entry::Arbitrary => vec![Path::Arbitrary],
        _ if !calls.stable => vec![Path::Arbitrary],
        Entry::Bounded => vec![Path::Bounded(max_k)],
        // No row of such calls can be too large for the bounded path.
        Entry::Automatic if calls.vocab <= max_k || calls.wanted.slices => vec![Path::Bounded(max_k)],
        Entry::Automatic => vec![Path::Bounded(max_k), Path::Arbitrary],
    };
    let spec = |path, batch| Spec {
        path,
        batch,
        vocab: calls.vocab,
        dtype: calls.dtype,
        stable: calls.stable,
        wanted: Wanted { slices: calls.wanted.slices && path != Path::Arbitrary, ..calls.wanted },
    };
    paths.iter().flat_map(|&path| sizes.iter().map(move |&batch| spec(path, batch))).collect()
}

/// Does `work` for every spec, one thread a core; the first error stops the threads from taking more. The threads end
/// with the call: a sampler leaves none behind.
pub(crate) fn for_each_in_parallel(
    specs: &[Spec],
    work: impl Fn(&Spec) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(specs.len());
    let next = AtomicUsize::new(0);
    let worker = || -> Result<(), Error> {
        while let Some(spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(spec).inspect_err(|_| next.store(specs.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let outcomes: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(Error::Internal("a compiling thread panicked".to_owned())))
            })
            .collect();
        outcomes.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;

    fn sizes(batch: usize, list: fn(&PrewarmSpec, usize) -> Vec<Spec>) -> Vec<usize> {
        let calls = PrewarmSpec {
            entry: Entry::Bounded,
            batch,
            vocab: 1000,
            dtype: Dtype::F32,
            stable: true,
            wanted: Wanted::default(),
        };
        list(&calls, 128).iter().map(|spec| spec.batch).collect()
    }

    #[test]
    fn a_batch_lands_in_its_buckets() {
        assert_eq!(sizes(1, specs_exactly), [1]);
        assert_eq!(sizes(9, specs_exactly), [16]);
        assert_eq!(sizes(128, specs_exactly), [128]);
        assert_eq!(sizes(130, specs_exactly), [2, 128]);
        assert_eq!(sizes(200, specs_exactly), [128]);
        assert_eq!(sizes(9, specs_up_to), [1, 2, 4, 8, 16]);
        assert_eq!(sizes(1000, specs_up_to), [1, 2, 4, 8, 16, 32, 64, 128]);
    }
}
