//! The cache of compiled programs: bounded, counted, and one compile a program however many threads ask.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lru::LruCache;
use once_cell::sync::OnceCell;

/// Counters since the cache was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Programs compiled.
    pub compiles: u64,
    /// Look-ups that compiled nothing, those that waited for another thread's compile included.
    pub hits: u64,
    /// Programs dropped because the cache was full.
    pub evictions: u64,
    /// Compiles that failed.
    pub failures: u64,
    /// Nanoseconds spent compiling, summed over threads.
    pub compile_ns: u64,
    /// Programs held now.
    pub programs: u64,
}

/// Least-recently-used cache from a program's key to its compiled form.
pub struct ProgramCache<K, V> {
    slots: Mutex<LruCache<K, Arc<OnceCell<V>>>>,
    compiles: AtomicU64,
    hits: AtomicU64,
    evictions: AtomicU64,
    failures: AtomicU64,
    compile_ns: AtomicU64,
}

impl<K: Hash + Eq + Clone, V: Clone> ProgramCache<K, V> {
    /// A cache of at most `capacity` programs.
    pub fn new(capacity: NonZeroUsize) -> Self {
        ProgramCache {
            slots: Mutex::new(LruCache::new(capacity)),
            compiles: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            compile_ns: AtomicU64::new(0),
        }
    }

    /// The program for `key`, compiled by `compile` if no thread has done so. Threads that ask for the same key
    /// at once wait for one of them; threads that ask for other keys do not. After a failure the next to ask
    /// tries again.
    pub fn get_or_compile<E>(&self, key: &K, compile: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let slot = self.slot(key);
        let mut compiled_here = false;
        let program = slot.get_or_try_init(|| {
            compiled_here = true;
            let start = Instant::now();
            let program = compile();
            self.compile_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            let counter = if program.is_ok() { &self.compiles } else { &self.failures };
            counter.fetch_add(1, Ordering::Relaxed);
            program
        })?;
        if !compiled_here {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(program.clone())
    }

    fn slot(&self, key: &K) -> Arc<OnceCell<V>> {
        // The lock is never held while compiling, and nothing under it panics half-way.
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            return slot.clone();
        }
        let slot = Arc::new(OnceCell::new());
        if slots.push(key.clone(), slot.clone()).is_some() {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> CacheStats {
        let programs = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.iter().filter(|(_, slot)| slot.get().is_some()).count() as u64
        };
        CacheStats {
            compiles: self.compiles.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            compile_ns: self.compile_ns.load(Ordering::Relaxed),
            programs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::Barrier;

    fn cache(capacity: usize) -> ProgramCache<u32, u32> {
        ProgramCache::new(NonZeroUsize::new(capacity).unwrap())
    }

    #[test]
    fn many_threads_compile_once() {
        let cache = cache(4);
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let program = cache.get_or_compile(&7, || {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok::<_, Infallible>(70)
                    });
                    assert_eq!(program.unwrap(), 70);
                });
            }
        });
        let stats = cache.stats();
        assert_eq!((stats.compiles, stats.hits, stats.programs), (1, 7, 1));
        assert!(stats.compile_ns >= 20_000_000);
    }

    #[test]
    fn the_least_recently_used_program_goes() {
        let cache = cache(2);
        let get = |key| cache.get_or_compile(&key, || Ok::<_, Infallible>(key)).unwrap();
        for key in [1, 2, 1, 3, 1, 2] {
            assert_eq!(get(key), key);
        }
        let stats = cache.stats();
        assert_eq!((stats.compiles, stats.hits, stats.evictions, stats.programs), (4, 2, 2, 2));
    }

    #[test]
    fn a_failed_compile_is_tried_again() {
        let cache = cache(2);
        assert_eq!(cache.get_or_compile(&1, || Err("no")).unwrap_err(), "no");
        assert_eq!(cache.get_or_compile(&1, || Ok::<_, &str>(5)).unwrap(), 5);
        assert_eq!((cache.stats().failures, cache.stats().compiles), (1, 1));
    }
}
