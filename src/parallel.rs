//! Work that several threads share. The threads end before the function returns.

use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::panics::{joined, Inherited};
use crate::signals;

/// The number of threads for `items` items of work: one per core, but at most one per item.
pub(crate) fn num_threads(items: usize) -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(items).max(1)
}

/// Calls `work` for every item, on one thread per core. After the first error the threads take no more items.
pub(crate) fn for_each<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let helpers = vec![(); num_threads(items.len()) - 1];
    for_each_with(items.iter(), (), helpers, |(), item| work(item))
}

/// Calls `work` for every item. The calling thread uses the workspace `own`, and one more thread runs for each
/// workspace in `helpers`. After the first error the threads take no more items.
///
/// If a thread cannot be started, the other threads process its share.
pub(crate) fn for_each_with<T: Send, W: Send>(
    items: impl Iterator<Item = T> + Send,
    mut own: W,
    helpers: Vec<W>,
    work: impl Fn(&mut W, T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    // `None` after a thread has failed.
    let items = Mutex::new(Some(items));
    let lock = || items.lock().unwrap_or_else(PoisonError::into_inner);
    let worker = |workspace: &mut W| -> Result<(), Error> {
        loop {
            let item = lock().as_mut().and_then(Iterator::next);
            let Some(item) = item else { return Ok(()) };
            work(workspace, item).inspect_err(|_| *lock() = None)?;
        }
    };
    let panics = Inherited::from_this_thread();
    std::thread::scope(|scope| {
        let start = |mut workspace: W| {
            let body = move || panics.catch(|| worker(&mut workspace));
            std::thread::Builder::new().name("nucleus".to_owned()).spawn_scoped(scope, body).ok()
        };
        let threads: Vec<_> = signals::blocked_while(|| helpers.into_iter().map_while(start).collect());
        let mut outcomes = vec![worker(&mut own)];
        outcomes.extend(threads.into_iter().map(|thread| joined(thread.join())));
        outcomes.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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
    fn every_thread_has_a_workspace_of_its_own() {
        let mut items = [0; 100];
        for_each_with(items.iter_mut(), 1, vec![2, 3], |workspace, item| {
            *item += *workspace;
            Ok(())
        })
        .unwrap();
        assert!(items.iter().all(|item| (1..=3).contains(item)), "{items:?}");
    }

    /// The panic of the caller has the same payload as the panic of the helper.
    #[test]
    fn a_panic_of_a_helper_passes_through() {
        let both = std::sync::Barrier::new(2);
        let caller = std::thread::current().id();
        let work = || {
            for_each_with(0..2, (), vec![()], |(), _| {
                both.wait();
                match std::thread::current().id() == caller {
                    true => Ok(()),
                    false => std::panic::resume_unwind(Box::new(7_i32)),
                }
            })
        };
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_err();
        assert_eq!(panic.downcast_ref::<i32>(), Some(&7));
    }

    #[test]
    fn an_error_stops_the_rest() {
        let error = for_each(&[0; 1000], |_| Err(Error::Internal("no".to_owned()))).unwrap_err();
        assert_eq!(error.to_string(), "no");
    }
}
