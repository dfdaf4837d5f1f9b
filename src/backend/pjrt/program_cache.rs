//! The cache of compiled programs: bounded, counted, and one compile a program however many threads ask.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use once_cell::sync::OnceCell;

/// Counters since the cache was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Programs compiled.
    pub compiles: u64,
    /// Programs loaded from where they had been kept, compiled.
    pub loaded: u64,
    /// Look-ups that neither compiled nor loaded, those that waited for another thread's compile included.
    pub hits: u64,
    /// Programs dropped because the cache was full.
    pub evictions: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Nanoseconds spent in the compiler, summed over threads.
    pub compile_ns: u64,
    /// Programs held now.
    pub programs: u64,
}

/// How a program came to be.
#[derive(Clone, Copy, Debug)]
pub enum Made<V> {
    /// By the compiler, in so much time.
    Compiled(V, Duration),
    /// By loading what a compiler had made earlier.
    Loaded(V),
}

/// Compiled programs, and those that a thread is compiling: these take no capacity and cannot be evicted, or another
/// thread would compile them again.
struct Slots<K, V, E> {
    compiled: LruCache<K, V>,
    in_flight: HashMap<K, Arc<OnceCell<Result<V, E>>>>,
}

/// Least-recently-used cache from a program's key to its compiled form.
pub struct ProgramCache<K, V, E> {
    slots: Mutex<Slots<K, V, E>>,
    compiles: AtomicU64,
    loaded: AtomicU64,
    hits: AtomicU64,
    evictions: AtomicU64,
    failures: AtomicU64,
    compile_ns: AtomicU64,
}

impl<K: Hash + Eq + Clone, V: Clone, E: Clone> ProgramCache<K, V, E> {
    /// A cache of at most `capacity` programs.
    pub fn new(capacity: NonZeroUsize) -> Self {
        ProgramCache {
            slots: Mutex::new(Slots { compiled: LruCache::new(capacity), in_flight: HashMap::new() }),
            compiles: AtomicU64::new(0),
            loaded: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            compile_ns: AtomicU64::new(0),
        }
    }

    /// The program for `key`, made by `make` if no thread has done so. Threads that ask for the same key
    /// at once wait for one of them and share what becomes of it; threads that ask for other keys do not wait. After a
    /// failure the next to ask tries again.
    pub fn get_or_make(&self, key: &K, make: impl FnOnce() -> Result<Made<V>, E>) -> Result<V, E> {
        let slot = {
            let mut slots = self.lock();
            if let Some(program) = slots.compiled.get(key) {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(program.clone());
            }
            slots.in_flight.entry(key.clone()).or_default().clone()
        };
        let mut made_here = false;
        let program = slot.get_or_init(|| {
            made_here = true;
            let made = make();
            let counter = match made {
                Ok(Made::Compiled(..)) => &self.compiles,
                Ok(Made::Loaded(_)) => &self.loaded,
                Err(_) => &self.failures,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            if let Ok(Made::Compiled(_, time)) = made {
                self.compile_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
            }
            made.map(|(Made::Compiled(program, _) | Made::Loaded(program))| program)
        });
        if made_here {
            let mut slots = self.lock();
            slots.in_flight.remove(key);
            let evicted =
                program.as_ref().ok().and_then(|program| slots.compiled.push(key.clone(), program.clone()));
            // Ending a program can take a while, and every hit needs the lock.
            drop(slots);
            if evicted.is_some() {
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
        } else if program.is_ok() {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        program.clone()
    }

    /// Programs held at most.
    pub fn capacity(&self) -> usize {
        self.lock().compiled.cap().get()
    }

    // The lock is never held while compiling, and nothing under it panics half-way.
    fn lock(&self) -> MutexGuard<'_, Slots<K, V, E>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> CacheStats {
        let programs = self.lock().compiled.len() as u64;
        CacheStats {
            compiles: self.compiles.load(Ordering::Relaxed),
            loaded: self.loaded.load(Ordering::Relaxed),
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
    use std::sync::Barrier;
    use std::thread::sleep;

    const MOMENT: Duration = Duration::from_millis(20);

    fn cache(capacity: usize) -> ProgramCache<u32, u32, &'static str> {
        ProgramCache::new(NonZeroUsize::new(capacity).unwrap())
    }

    fn compiled(program: u32) -> Result<Made<u32>, &'static str> {
        Ok(Made::Compiled(program, MOMENT))
    }

    #[test]
    fn many_threads_compile_once() {
        let cache = cache(4);
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let program = cache.get_or_make(&7, || {
                        sleep(MOMENT);
                        compiled(70)
                    });
                    assert_eq!(program.unwrap(), 70);
                });
            }
        });
        let stats = cache.stats();
        assert_eq!((stats.compiles, stats.hits, stats.programs), (1, 7, 1));
        assert_eq!(stats.compile_ns, MOMENT.as_nanos() as u64);
    }

    /// All who wait for a program that takes long to fail are told once it has, and not one after another.
    #[test]
    fn many_threads_fail_once() {
        let cache = cache(4);
        let (failing, waiting) = (Barrier::new(2), AtomicU64::new(0));
        let fail = || {
            failing.wait();
            // Whoever has been counted asks next, or has asked.
            while waiting.load(Ordering::Relaxed) < 8 {
                sleep(Duration::from_millis(1));
            }
            sleep(5 * MOMENT);
            Err("no")
        };
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(cache.get_or_make(&7, fail), Err("no")));
            failing.wait();
            for _ in 0..8 {
                scope.spawn(|| {
                    waiting.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(cache.get_or_make(&7, || Err("again")), Err("no"));
                });
            }
        });
        assert_eq!((cache.stats().failures, cache.stats().hits), (1, 0));
        assert_eq!(cache.get_or_make(&7, || compiled(70)), Ok(70));
    }

    #[test]
    fn the_least_recently_used_program_goes() {
        let cache = cache(2);
        let get = |key| cache.get_or_make(&key, || compiled(key)).unwrap();
        for key in [1, 2, 1, 3, 1, 2] {
            assert_eq!(get(key), key);
        }
        let stats = cache.stats();
        assert_eq!((stats.compiles, stats.hits, stats.evictions, stats.programs), (4, 2, 2, 2));
    }

    #[test]
    fn a_failed_compile_is_tried_again() {
        let cache = cache(2);
        assert_eq!(cache.get_or_make(&1, || Err("no")).unwrap_err(), "no");
        assert_eq!(cache.get_or_make(&1, || compiled(5)).unwrap(), 5);
        assert_eq!((cache.stats().failures, cache.stats().compiles), (1, 1));
    }

    #[test]
    fn a_failed_compile_evicts_nothing() {
        let cache = cache(1);
        cache.get_or_make(&1, || compiled(5)).unwrap();
        cache.get_or_make(&2, || Err("no")).unwrap_err();
        assert_eq!((cache.stats().evictions, cache.stats().programs), (0, 1));
    }

    /// While a full cache's newest program is being compiled, another key's compile does not push it out.
    #[test]
    fn a_compile_in_flight_is_not_evicted() {
        let cache = cache(1);
        let compiling = Barrier::new(2);
        let compile = || {
            compiling.wait();
            sleep(2 * MOMENT);
            compiled(1)
        };
        std::thread::scope(|scope| {
            scope.spawn(|| cache.get_or_make(&1, compile).unwrap());
            compiling.wait();
            cache.get_or_make(&2, || compiled(2)).unwrap();
            assert_eq!(cache.get_or_make(&1, || compiled(9)).unwrap(), 1);
        });
        assert_eq!((cache.stats().compiles, cache.stats().hits), (2, 1));
    }

    #[test]
    fn what_is_loaded_is_not_compiled() {
        let cache = cache(2);
        assert_eq!(cache.get_or_make(&1, || Ok(Made::Loaded(5))).unwrap(), 5);
        let stats = cache.stats();
        assert_eq!((stats.loaded, stats.compiles, stats.compile_ns, stats.programs), (1, 0, 0, 1));
    }
}
