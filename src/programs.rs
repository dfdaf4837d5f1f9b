//! The cache of compiled programs: bounded, counted, and one compile a program however many threads ask.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    /// Compiles that failed.
    pub failures: u64,
    /// Nanoseconds spent compiling, summed over threads.
    pub compile_ns: u64,
    /// Programs held now.
    pub programs: u64,
}

/// How a program came to be.
#[derive(Clone, Copy, Debug)]
pub enum Made<V> {
    /// By the compiler.
    Compiled(V),
    /// By loading what a compiler had made earlier.
    Loaded(V),
}

/// Compiled programs, and those that a thread is compiling: these take no capacity and cannot be evicted, or another
/// thread would compile them again.
struct Slots<K, V> {
    compiled: LruCache<K, V>,
    in_flight: HashMap<K, Arc<OnceCell<V>>>,
}

/// Least-recently-used cache from a program's key to its compiled form.
pub struct ProgramCache<K, V> {
    slots: Mutex<Slots<K, V>>,
    compiles: AtomicU64,
    loaded: AtomicU64,
    hits: AtomicU64,
    evictions: AtomicU64,
    failures: AtomicU64,
    compile_ns: AtomicU64,
}

impl<K: Hash + Eq + Clone, V: Clone> ProgramCache<K, V> {
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
    /// at once wait for one of them; threads that ask for other keys do not. After a failure the next to ask
    /// tries again.
    pub fn get_or_make<E>(&self, key: &K, make: impl FnOnce() -> Result<Made<V>, E>) -> Result<V, E> {
        let slot = {
            let mut slots = self.lock();
            if let Some(program) = slots.compiled.get(key) {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(program.clone());
            }
            slots.in_flight.entry(key.clone()).or_default().clone()
        };
        let mut made_here = false;
        let program = slot.get_or_try_init(|| {
            made_here = true;
            let start = Instant::now();
            let made = make();
            let counter = match made {
                Ok(Made::Compiled(_)) => &self.compiles,
                Ok(Made::Loaded(_)) => &self.loaded,
                Err(_) => &self.failures,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            if !matches!(made, Ok(Made::Loaded(_))) {
                self.compile_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
            made.map(|(Made::Compiled(program) | Made::Loaded(program))| program)
        });
        if made_here {
            let mut slots = self.lock();
            slots.in_flight.remove(key);
            if let Ok(program) = program {
                if slots.compiled.push(key.clone(), program.clone()).is_some() {
                    self.evictions.fetch_add(1, Ordering::Relaxed);
                }
            }
        } else if program.is_ok() {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        program.cloned()
    }

    /// Programs held at most.
    pub fn capacity(&self) -> usize {
        self.lock().compiled.cap().get()
    }

    // The lock is never held while compiling, and nothing under it panics half-way.
    fn lock(&self) -> MutexGuard<'_, Slots<K, V>> {
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
                    let program = cache.get_or_make(&7, || {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok::<_, Infallible>(Made::Compiled(70))
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
        let get = |key| cache.get_or_make(&key, || Ok::<_, Infallible>(Made::Compiled(key))).unwrap();
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
        assert_eq!(cache.get_or_make(&1, || Ok::<_, &str>(Made::Compiled(5))).unwrap(), 5);
        assert_eq!((cache.stats().failures, cache.stats().compiles), (1, 1));
    }

    #[test]
    fn a_failed_compile_evicts_nothing() {
        let cache = cache(1);
        cache.get_or_make(&1, || Ok::<_, &str>(Made::Compiled(5))).unwrap();
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
            std::thread::sleep(std::time::Duration::from_millis(50));
            Ok::<_, Infallible>(Made::Compiled(1))
        };
        std::thread::scope(|scope| {
            scope.spawn(|| cache.get_or_make(&1, compile).unwrap());
            compiling.wait();
            cache.get_or_make(&2, || Ok::<_, Infallible>(Made::Compiled(2))).unwrap();
            assert_eq!(cache.get_or_make(&1, || Ok::<_, Infallible>(Made::Compiled(9))).unwrap(), 1);
        });
        assert_eq!((cache.stats().compiles, cache.stats().hits), (2, 1));
    }

    #[test]
    fn what_is_loaded_is_not_compiled() {
        let cache = cache(2);
        assert_eq!(cache.get_or_make(&1, || Ok::<_, Infallible>(Made::Loaded(5))).unwrap(), 5);
        let stats = cache.stats();
        assert_eq!((stats.loaded, stats.compiles, stats.compile_ns, stats.programs), (1, 0, 0, 1));
    }
}
