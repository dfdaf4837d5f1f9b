//! Histograms of the latencies of calls. Several threads can record at the same time, without locks.
//!
//! A histogram is log-linear, as in HdrHistogram: the range between two consecutive powers of two is divided into
//! buckets of equal size. So the relative error of a percentile is bounded for all latencies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::memory;

/// The binary logarithm of the number of buckets per power of two.
const LOG_STEPS: u32 = 5;
const STEPS: usize = 1 << LOG_STEPS;
/// Each latency below `STEPS` nanoseconds has its own bucket. Every higher power of two has `STEPS` buckets.
const BUCKETS: usize = STEPS * (65 - LOG_STEPS as usize);

/// The number of recorded latencies, and their percentiles in nanoseconds. Percentiles are within 1.6% of the exact
/// value. They are 0 if nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencySummary {
    /// The number of recorded latencies.
    pub count: u64,
    /// The median.
    pub p50_ns: u64,
    /// The 99th percentile.
    pub p99_ns: u64,
}

/// A histogram of the latencies of one phase of calls. Thread-safe.
pub struct Histogram {
    // The array is on the heap, because it could overflow the stack of a caller whose stack is small.
    counts: Box<[AtomicU64]>,
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    // `ns` has more than LOG_STEPS bits, so this does not underflow.
    let shift = 63 - ns.leading_zeros() - LOG_STEPS;
    // The top bits of `ns`, from STEPS to 2 * STEPS - 1.
    let top = (ns >> shift) as usize;
    (shift as usize) * STEPS + top
}

/// The value in the middle of a bucket.
fn middle(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    let top = (bucket - shift * STEPS) as u64;
    (top << shift) + (1 << shift) / 2
}

impl Histogram {
    /// Returns an empty histogram.
    pub fn new() -> Result<Histogram, Error> {
        let zeros = (0..BUCKETS).map(|_| Ok(AtomicU64::new(0)));
        let counts = memory::collected(BUCKETS, "a histogram of latencies", zeros)?;
        Ok(Histogram { counts: counts.into_boxed_slice() })
    }

    /// Records a latency.
    pub fn record(&self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)].fetch_add(1, Ordering::Relaxed);
    }

    /// The current contents. A latency that another thread records at the same time may be missing.
    pub fn summary(&self) -> LatencySummary {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let count: u64 = self.counts.iter().map(load).sum();
        if count == 0 {
            return LatencySummary::default();
        }
        let percentile = |percent: u64| {
            // The rank of the percentile, counted from 1.
            let rank = count - (u128::from(count) * u128::from(100 - percent) / 100) as u64;
            let mut seen = 0;
            let found = self.counts.iter().position(|count| {
                seen += load(count);
                seen >= rank
            });
            // Counts are never decreased, so the search reaches the rank.
            middle(found.unwrap_or(BUCKETS - 1))
        };
        LatencySummary { count, p50_ns: percentile(50), p99_ns: percentile(99) }
    }
}

/// The latencies of the calls of a sampler. Only calls that succeed are recorded.
pub struct CallLatencies {
    /// From the start of a call until all its programs are in the queue of the device. This includes compiling programs
    /// and uploading inputs. Calls without a queue, for example on the built-in backend, are not recorded here.
    enqueue: Histogram,
    /// From the end of `enqueue` until the device has finished and the requested results are on the host. Calls without
    /// a queue are not recorded here.
    execute: Histogram,
    /// The whole call.
    total: Histogram,
}

/// The latencies of the calls of a sampler. Calls that run on the host have only a total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencyStats {
    /// From the start of a call until all its programs are in the queue of the device.
    pub enqueue: LatencySummary,
    /// From the end of `enqueue` until the results are on the host. If no results are copied, until the device has
    /// finished.
    pub execute: LatencySummary,
    /// The whole call.
    pub total: LatencySummary,
}

impl CallLatencies {
    /// Returns empty histograms.
    pub fn new() -> Result<CallLatencies, Error> {
        Ok(CallLatencies { enqueue: Histogram::new()?, execute: Histogram::new()?, total: Histogram::new()? })
    }

    /// Records a call that used no queue. It began at `begin` and ends now.
    pub fn record_total(&self, begin: Instant) {
        self.total.record(begin.elapsed());
    }

    /// The current contents.
    pub fn stats(&self) -> LatencyStats {
        LatencyStats {
            enqueue: self.enqueue.summary(),
            execute: self.execute.summary(),
            total: self.total.summary(),
        }
    }
}

/// The times of a call through a queue. Only [`CallTimer::ended`] records the times, so a failed call records nothing.
#[derive(Clone, Copy)]
pub struct CallTimer {
    begin: Instant,
    enqueued: Instant,
}

impl CallTimer {
    /// Returns the timer of a call that begins now.
    pub fn begin() -> CallTimer {
        let now = Instant::now();
        CallTimer { begin: now, enqueued: now }
    }

    /// Stores the current time. The caller calls this when all programs of the call are in the queue.
    pub fn enqueued(&mut self) {
        self.enqueued = Instant::now();
    }

    /// Records the times of a call that has succeeded and ends now.
    pub fn ended(self, latencies: &CallLatencies) {
        let now = Instant::now();
        latencies.enqueue.record(self.enqueued.duration_since(self.begin));
        latencies.execute.record(now.duration_since(self.enqueued));
        latencies.total.record(now.duration_since(self.begin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_contain_their_middle() {
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
        assert!((0..BUCKETS).all(|number| bucket(middle(number)) == number));
        let mut before = 0;
        for shift in 0..64 {
            for ns in [1_u64 << shift, (1_u64 << shift) + (1 << shift) / 3, (2_u64 << shift).wrapping_sub(1)]
            {
                assert!(bucket(ns) >= before);
                before = bucket(ns);
                let error = middle(bucket(ns)).abs_diff(ns) as f64 / ns as f64;
                assert!(error <= 1.0 / 64.0, "{ns}: {error}");
            }
        }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let histogram = Histogram::new().unwrap();
        assert_eq!(histogram.summary(), LatencySummary::default());
        for ns in (1..=1000_u64).rev() {
            histogram.record(Duration::from_nanos(ns * 1000));
        }
        let LatencySummary { count, p50_ns, p99_ns } = histogram.summary();
        let near = |ns: u64, exact: f64| (ns as f64 / exact - 1.0).abs() < 1.0 / 64.0;
        assert!(count == 1000 && near(p50_ns, 500e3) && near(p99_ns, 990e3), "{count} {p50_ns} {p99_ns}");
        let one = Histogram::new().unwrap();
        one.record(Duration::from_nanos(7));
        assert_eq!(one.summary(), LatencySummary { count: 1, p50_ns: 7, p99_ns: 7 });
        one.record(Duration::MAX);
        assert_eq!(one.summary().p50_ns, 7);
    }

    #[test]
    fn threads_lose_nothing() {
        let histogram = Histogram::new().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|ns| histogram.record(Duration::from_nanos(ns))));
            }
        });
        assert_eq!(histogram.summary().count, 4000);
    }
}
