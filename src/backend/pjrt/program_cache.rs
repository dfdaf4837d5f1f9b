//! The cache of compiled programs. Its size is bounded, it counts events, and threads that ask for the same program
//! share one compile.
//!
//! No code of the caller runs while the lock is held. An insertion can remove values from the cache. These are dropped
//! after the lock is released.
//!
//! In this module, "to make a program" means to load it from a file or to compile it.
//!
//! # Threads
//! Threads that ask for one program at the same time share one attempt to make it. A thread that is itself making a
//! program never waits for another thread's attempt. Instead it makes the program a second time. The library runs no
//! code of the caller while it makes a program, but a plugin could do that, and this code could ask for a program. If
//! the thread waited then, it could wait for itself, or two threads could wait for each other.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::thread_flag::with_flag;

/// Counters since the cache was created, and its current contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Programs compiled.
    pub compiles: u64,
    /// Programs loaded from a directory of compiled programs.
    pub loaded: u64,
    /// Lookups that neither compiled nor loaded, including those that waited for another thread's compile.
    pub hits: u64,
    /// Programs evicted because the cache was full.
    pub evictions: u64,
    /// The number of failed attempts.
    pub failures: u64,
    /// The time spent in the compiler, in nanoseconds, summed over threads.
    pub compile_ns: u64,
    /// Programs in the cache now.
    pub programs: u64,
    /// How many of `programs` are pinned: they were prewarmed and are never evicted.
    pub pinned: u64,
    /// Programs that were made and used once but not kept, because all entries of the cache were pinned.
    pub not_kept: u64,
}

/// A new program and its origin.
#[derive(Clone, Copy, Debug)]
pub enum Made<V> {
    /// Compiled, in this time.
    Compiled(V, Duration),
    /// Loaded from a file.
    Loaded(V),
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup<V> {
    /// The program.
    pub program: V,
    /// Whether the cache keeps the program. If not, the next lookup makes it again.
    pub kept: bool,
}

/// The error of [`ProgramCache::pin`]: the pinned programs and the programs to pin together exceed the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPinned {
    /// Programs that are pinned already.
    pub pinned: usize,
    /// The programs to pin in addition.
    pub additional: usize,
    /// The largest number of programs in the cache.
    pub capacity: usize,
}

/// A least-recently-used cache. The key describes a program, and the value is its compiled form.
pub struct ProgramCache<K, V, E> {
    capacity: usize,
    state: Mutex<State<K, V, E>>,
    /// See [`ProgramCache::count_hit`].
    other_hits: AtomicU64,
}

struct State<K, V, E> {
    /// Programs that are never evicted.
    pinned: HashMap<K, V>,
    /// Programs that are evicted when the cache is full. The list itself is unbounded, because a bounded `LruCache`
    /// allocates all its entries in advance.
    unpinned: LruCache<K, V>,
    /// Keys to pin as soon as their programs are made, with the number of [`Pins`] that request it.
    reserved: HashMap<K, usize>,
    /// Programs that are being made. They do not count as part of the cache.
    in_flight: HashMap<K, Arc<Attempt<V, E>>>,
    /// The counters; `programs` and `pinned` are filled in by [`ProgramCache::stats`].
    counters: CacheStats,
}

/// One attempt to make a program. It ends without an outcome if the thread that makes the program panics.
struct Attempt<V, E>(OnceLock<Option<Result<Lookup<V>, E>>>);

/// The next step of a lookup.
enum Claim<V, E> {
    Return(V),
    WaitFor(Arc<Attempt<V, E>>),
    /// Make the program; others wait for this attempt.
    Make(Arc<Attempt<V, E>>),
    /// Make the program, although another thread is also making it.
    MakeAgain,
}

thread_local! {
    /// Whether this thread makes a program, or works for a thread that makes one.
    static IS_MAKER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is making a program now. If so, it must not wait for other threads that make programs.
pub fn is_maker() -> bool {
    IS_MAKER.get()
}

/// Runs `work` as part of making a program.
pub fn as_maker<R>(work: impl FnOnce() -> R) -> R {
    with_flag(&IS_MAKER, work)
}

impl<K: Hash + Eq + Clone, V: Clone, E: Clone> ProgramCache<K, V, E> {
    /// A cache of at most `capacity` programs. It allocates nothing in advance.
    pub fn new(capacity: NonZeroUsize) -> Self {
        let state = State {
            pinned: HashMap::new(),
            unpinned: LruCache::unbounded(),
            reserved: HashMap::new(),
            in_flight: HashMap::new(),
            counters: CacheStats::default(),
        };
        ProgramCache { capacity: capacity.get(), state: Mutex::new(state), other_hits: AtomicU64::new(0) }
    }

    /// The program, if the cache contains it.
    pub fn get(&self, key: &K) -> Option<V> {
        self.lock().hit(key)
    }

    /// The program, if the cache contains it, and whether it is pinned. A caller may keep a pinned program and use it
    /// without a lookup, because the cache never evicts it. The caller then calls [`ProgramCache::count_hit`] for each
    /// later use.
    pub fn get_pinned(&self, key: &K) -> Option<(V, bool)> {
        let mut state = self.lock();
        let program = state.hit(key)?;
        Some((program, state.pinned.contains_key(key)))
    }

    /// Counts a use of a pinned program that the caller has kept.
    pub fn count_hit(&self) {
        self.other_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a thread is making the program now.
    pub fn is_in_flight(&self, key: &K) -> bool {
        self.lock().in_flight.contains_key(key)
    }

    /// Returns the program for `key`. Calls `make` if the cache does not have the program and no other thread is making
    /// it. Threads that ask for one key at the same time wait for one attempt and share its outcome. Threads that ask
    /// for other keys do not wait. A failure is not cached: the next lookup tries again.
    pub fn get_or_make(&self, key: &K, make: impl FnOnce() -> Result<Made<V>, E>) -> Result<Lookup<V>, E> {
        loop {
            match self.claim(key) {
                Claim::Return(program) => return Ok(Lookup { program, kept: true }),
                Claim::Make(attempt) => return self.make(key, Some(attempt), make),
                Claim::MakeAgain => return self.make(key, None, make),
                Claim::WaitFor(attempt) => match attempt.0.wait() {
                    Some(Ok(found)) => {
                        self.lock().counters.hits += 1;
                        return Ok(found.clone());
                    }
                    Some(Err(error)) => return Err(error.clone()),
                    // The thread that was making it panicked.
                    None => continue,
                },
            }
        }
    }

    fn claim(&self, key: &K) -> Claim<V, E> {
        let mut state = self.lock();
        if let Some(program) = state.hit(key) {
            return Claim::Return(program);
        }
        match state.in_flight.get(key) {
            Some(_) if is_maker() => Claim::MakeAgain,
            Some(attempt) => Claim::WaitFor(attempt.clone()),
            None => {
                let attempt = Arc::new(Attempt(OnceLock::new()));
                state.in_flight.insert(key.clone(), attempt.clone());
                Claim::Make(attempt)
            }
        }
    }

    fn make(
        &self,
        key: &K,
        attempt: Option<Arc<Attempt<V, E>>>,
        make: impl FnOnce() -> Result<Made<V>, E>,
    ) -> Result<Lookup<V>, E> {
        let registered = Registered { cache: self, key, attempt };
        let made = as_maker(make);
        let mut displaced = Vec::new();
        let found = {
            let mut state = self.lock();
            state.count(&made);
            let found = made.map(|(Made::Compiled(program, _) | Made::Loaded(program))| {
                let kept = state.insert(key, program.clone(), self.capacity, &mut displaced);
                Lookup { program, kept }
            });
            // The attempt ends in the same critical section. Otherwise a thread could find neither the program nor the
            // attempt.
            registered.end(&mut state, found.clone());
            found
        };
        // Destroying a program can take a long time, and every lookup needs the lock.
        drop(displaced);
        found
    }

    /// Pins programs. Programs in the cache are pinned at once. Other programs are pinned when they are made, if the
    /// result still exists then. Pinned programs are never evicted, and they stay pinned as long as the cache exists.
    pub fn pin(self: &Arc<Self>, keys: &[K]) -> Result<Pins<K, V, E>, TooManyPinned> {
        let mut state = self.lock();
        let pinned =
            state.pinned.len() + state.reserved.keys().filter(|key| !state.pinned.contains_key(key)).count();
        let is_new = |key: &&K| !state.pinned.contains_key(key) && !state.reserved.contains_key(key);
        let additional = keys.iter().filter(is_new).count();
        if pinned + additional > self.capacity {
            return Err(TooManyPinned { pinned, additional, capacity: self.capacity });
        }
        for key in keys {
            *state.reserved.entry(key.clone()).or_default() += 1;
            if let Some(program) = state.unpinned.pop(key) {
                state.pinned.insert(key.clone(), program);
            }
        }
        Ok(Pins { cache: self.clone(), keys: keys.to_vec() })
    }

    // Poisoning is ignored, because no code that runs under the lock panics in the middle of a change.
    fn lock(&self) -> MutexGuard<'_, State<K, V, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> CacheStats {
        let state = self.lock();
        CacheStats {
            hits: state.counters.hits + self.other_hits.load(Ordering::Relaxed),
            programs: (state.pinned.len() + state.unpinned.len()) as u64,
            pinned: state.pinned.len() as u64,
            ..state.counters
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone, E> State<K, V, E> {
    fn hit(&mut self, key: &K) -> Option<V> {
        let program = self.pinned.get(key).or_else(|| self.unpinned.get(key))?.clone();
        self.counters.hits += 1;
        Some(program)
    }

    fn count(&mut self, made: &Result<Made<V>, E>) {
        match made {
            Ok(Made::Compiled(_, time)) => {
                self.counters.compiles += 1;
                self.counters.compile_ns += time.as_nanos() as u64;
            }
            Ok(Made::Loaded(_)) => self.counters.loaded += 1,
            Err(_) => self.counters.failures += 1,
        }
    }

    /// Inserts a program and evicts others to make room. Returns whether the program is kept. `displaced` receives
    /// the programs that the caller must drop after the lock is released.
    fn insert(&mut self, key: &K, program: V, capacity: usize, displaced: &mut Vec<V>) -> bool {
        if self.reserved.contains_key(key) || self.pinned.contains_key(key) {
            displaced.extend(self.unpinned.pop(key));
            displaced.extend(self.pinned.insert(key.clone(), program));
        } else if self.pinned.len() >= capacity {
            self.counters.not_kept += 1;
            return false;
        } else {
            displaced.extend(self.unpinned.put(key.clone(), program));
        }
        while self.pinned.len() + self.unpinned.len() > capacity {
            let Some((_, evicted)) = self.unpinned.pop_lru() else { break };
            displaced.push(evicted);
            self.counters.evictions += 1;
        }
        true
    }
}

/// Pins the programs that are made while this value exists: see [`ProgramCache::pin`].
#[must_use]
pub struct Pins<K: Hash + Eq + Clone, V: Clone, E: Clone> {
    cache: Arc<ProgramCache<K, V, E>>,
    keys: Vec<K>,
}

impl<K: Hash + Eq + Clone, V: Clone, E: Clone> Drop for Pins<K, V, E> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        for key in &self.keys {
            if let Some(count) = state.reserved.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    state.reserved.remove(key);
                }
            }
        }
    }
}

/// An attempt that other threads can wait for. If it is dropped early, for example by a panic, these threads wake
/// without an outcome.
struct Registered<'a, K: Hash + Eq + Clone, V: Clone, E: Clone> {
    cache: &'a ProgramCache<K, V, E>,
    key: &'a K,
    attempt: Option<Arc<Attempt<V, E>>>,
}

impl<K: Hash + Eq + Clone, V: Clone, E: Clone> Registered<'_, K, V, E> {
    fn end(mut self, state: &mut State<K, V, E>, outcome: Result<Lookup<V>, E>) {
        if let Some(attempt) = self.attempt.take() {
            state.in_flight.remove(self.key);
            let _ = attempt.0.set(Some(outcome));
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone, E: Clone> Drop for Registered<'_, K, V, E> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.cache.lock().in_flight.remove(self.key);
            let _ = attempt.0.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{mpsc, Barrier};
    use std::thread::sleep;

    const MOMENT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    type Cache = ProgramCache<u32, u32, &'static str>;

    fn cache(capacity: usize) -> Arc<Cache> {
        Arc::new(ProgramCache::new(NonZeroUsize::new(capacity).unwrap()))
    }

    fn compiled(program: u32) -> Result<Made<u32>, &'static str> {
        Ok(Made::Compiled(program, MOMENT))
    }

    fn get(cache: &Cache, key: u32) -> u32 {
        cache.get_or_make(&key, || compiled(key)).unwrap().program
    }

    /// Runs `work` on a thread. Fails if it does not end in time.
    fn ends(work: impl FnOnce() + Send + 'static) {
        let (done, wait) = mpsc::channel();
        std::thread::spawn(move || {
            work();
            done.send(()).unwrap();
        });
        wait.recv_timeout(LONG).expect("the work ends");
    }

    #[test]
    fn many_threads_compile_once() {
        let cache = cache(4);
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let found = cache.get_or_make(&7, || {
                        sleep(MOMENT);
                        compiled(70)
                    });
                    assert_eq!(found, Ok(Lookup { program: 70, kept: true }));
                });
            }
        });
        let stats = cache.stats();
        assert_eq!((stats.compiles, stats.hits, stats.programs), (1, 7, 1));
        assert_eq!(stats.compile_ns, MOMENT.as_nanos() as u64);
    }

    /// Threads that wait for a slow failure all receive this failure. They do not try one after another.
    #[test]
    fn many_threads_fail_once() {
        let cache = cache(4);
        let (failing, waiting) = (Barrier::new(2), AtomicU64::new(0));
        let fail = || {
            failing.wait();
            // A thread is counted just before its lookup.
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
        assert_eq!(get(&cache, 7), 7);
    }

    #[test]
    fn the_least_recently_used_program_is_evicted() {
        let cache = cache(2);
        for key in [1, 2, 1, 3, 1, 2] {
            assert_eq!(get(&cache, key), key);
        }
        let stats = cache.stats();
        assert_eq!((stats.compiles, stats.hits, stats.evictions, stats.programs), (4, 2, 2, 2));
    }

    #[test]
    fn a_failed_compile_is_tried_again() {
        let cache = cache(2);
        assert_eq!(cache.get_or_make(&1, || Err("no")).unwrap_err(), "no");
        assert_eq!(get(&cache, 1), 1);
        assert_eq!((cache.stats().failures, cache.stats().compiles), (1, 1));
    }

    #[test]
    fn a_failed_compile_evicts_nothing() {
        let cache = cache(1);
        get(&cache, 1);
        cache.get_or_make(&2, || Err("no")).unwrap_err();
        assert_eq!((cache.stats().evictions, cache.stats().programs), (0, 1));
    }

    /// While the newest program of a full cache is being compiled, the compile of another key does not evict it.
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
            get(&cache, 2);
            assert_eq!(cache.get_or_make(&1, || compiled(9)).unwrap().program, 1);
        });
        assert_eq!((cache.stats().compiles, cache.stats().hits), (2, 1));
    }

    #[test]
    fn a_loaded_program_does_not_count_as_compiled() {
        let cache = cache(2);
        assert_eq!(cache.get_or_make(&1, || Ok(Made::Loaded(5))).unwrap().program, 5);
        let stats = cache.stats();
        assert_eq!((stats.loaded, stats.compiles, stats.compile_ns, stats.programs), (1, 0, 0, 1));
    }

    /// Threads that share an attempt also learn that the cache does not keep the program.
    #[test]
    fn waiting_threads_learn_that_a_program_is_not_kept() {
        let cache = cache(1);
        let pins = cache.pin(&[1]).unwrap();
        get(&cache, 1);
        drop(pins);
        let making = Barrier::new(2);
        let not_kept = Ok(Lookup { program: 2, kept: false });
        let make = || {
            making.wait();
            sleep(5 * MOMENT);
            compiled(2)
        };
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(cache.get_or_make(&2, make), not_kept));
            making.wait();
            assert_eq!(cache.get_or_make(&2, || compiled(9)), not_kept);
        });
        assert_eq!((cache.stats().compiles, cache.stats().hits, cache.stats().not_kept), (2, 1, 1));
    }

    #[test]
    fn a_huge_capacity_allocates_nothing() {
        let cache = cache(usize::MAX);
        assert_eq!((get(&cache, 1), cache.stats().programs), (1, 1));
    }

    #[test]
    fn a_lookup_from_inside_a_compile_returns() {
        ends(|| {
            let cache = cache(2);
            let outer = cache.get_or_make(&1, || {
                assert_eq!(cache.get_or_make(&1, || compiled(10)).unwrap().program, 10);
                compiled(11)
            });
            assert_eq!((outer.unwrap().program, get(&cache, 1)), (11, 11));
            assert_eq!((cache.stats().compiles, cache.stats().programs), (2, 1));
        });
    }

    /// A thread that compiles on behalf of another thread also follows the rule.
    #[test]
    fn a_lookup_from_a_compile_on_another_thread_returns() {
        ends(|| {
            let cache = cache(2);
            let nested = || as_maker(|| cache.get_or_make(&1, || compiled(10)).unwrap().program);
            let outer = cache.get_or_make(&1, || {
                let nested = std::thread::scope(|scope| scope.spawn(nested).join().unwrap());
                assert_eq!(nested, 10);
                compiled(11)
            });
            assert_eq!(outer.unwrap().program, 11);
        });
    }

    /// Each of two compiles looks up the program of the other.
    #[test]
    fn compiles_that_ask_for_each_other_return() {
        ends(|| {
            let (cache, both) = (cache(4), Barrier::new(2));
            let compile = |key: u32, other: u32| {
                let found = cache.get_or_make(&key, || {
                    both.wait();
                    get(&cache, other);
                    both.wait();
                    compiled(key)
                });
                assert_eq!(found.unwrap().program, key);
            };
            std::thread::scope(|scope| {
                scope.spawn(|| compile(1, 2));
                scope.spawn(|| compile(2, 1));
            });
        });
    }

    #[test]
    fn a_panic_hands_the_work_to_the_next_thread() {
        ends(|| {
            let (cache, compiling) = (cache(2), Barrier::new(2));
            std::thread::scope(|scope| {
                let panicking = scope.spawn(|| {
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        cache.get_or_make(&1, || {
                            compiling.wait();
                            sleep(MOMENT);
                            std::panic::resume_unwind(Box::new("stop"))
                        })
                    }))
                    .is_err()
                });
                compiling.wait();
                assert_eq!(get(&cache, 1), 1);
                assert!(panicking.join().unwrap());
            });
            assert!(!is_maker());
        });
    }

    #[test]
    fn pinned_programs_are_not_evicted() {
        let cache = cache(3);
        get(&cache, 1);
        let pins = cache.pin(&[1, 2]).unwrap();
        get(&cache, 2);
        drop(pins);
        for key in 10..20 {
            assert_eq!(get(&cache, key), key);
        }
        let stats = cache.stats();
        assert_eq!((stats.programs, stats.pinned, stats.evictions, stats.not_kept), (3, 2, 9, 0));
        assert_eq!((cache.get(&1), cache.get(&2)), (Some(1), Some(2)));
    }

    #[test]
    fn programs_that_do_not_fit_beside_pinned_ones_are_refused() {
        let cache = cache(3);
        let pins = cache.pin(&[1, 2]).unwrap();
        get(&cache, 1);
        let refused = Err(TooManyPinned { pinned: 2, additional: 2, capacity: 3 });
        assert_eq!(cache.pin(&[2, 3, 4]).map(drop), refused);
        assert_eq!(cache.pin(&[1, 2, 3]).map(drop), Ok(()));
        drop(pins);
        // Program 2 was never made, so its reservation no longer exists.
        assert_eq!((cache.stats().pinned, cache.pin(&[3, 4]).map(drop)), (1, Ok(())));
    }

    #[test]
    fn a_program_beside_pinned_ones_only_is_used_but_not_kept() {
        let cache = cache(1);
        let pins = cache.pin(&[1]).unwrap();
        get(&cache, 1);
        drop(pins);
        for _ in 0..2 {
            let found = cache.get_or_make(&2, || compiled(2));
            assert_eq!(found, Ok(Lookup { program: 2, kept: false }));
        }
        let stats = cache.stats();
        assert_eq!((stats.compiles, stats.evictions, stats.not_kept), (3, 0, 2));
        assert_eq!(cache.get(&1), Some(1));
    }
}
