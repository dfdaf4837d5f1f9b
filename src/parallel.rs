//! Work shared among threads that end with the call.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Error;

/// Does `work` for every item, one thread per core; the first error stops the threads from taking more.
///
/// The calling thread takes part, so a host that can start no thread only loses time.
pub(crate) fn for_each<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(items.len());
    let next = AtomicUsize::new(0);
    let worker = || -> Result<(), Error> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads)
            .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, worker).ok())
            .collect();
        let mut outcomes = vec![worker()];
        outcomes.extend(helpers.into_iter().map(|helper| {
            helper.join().unwrap_or_else(|_| Err(Error::Internal("a worker thread panicked".to_owned())))
        }));
        outcomes.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        let counts: Vec<AtomicUsize> = (0..100).map(AtomicUsize::new).collect();
        for_each(&counts, |count| {
            count.fetch_add(1000, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert!(counts.iter().enumerate().all(|(i, count)| count.load(Ordering::Relaxed) == 1000 + i));
    }

    #[test]
    fn an_error_stops_the_rest() {
        let error = for_each(&[0; 1000], |_| Err(Error::Internal("no".to_owned()))).unwrap_err();
        assert_eq!(error.to_string(), "no");
    }
}
