//! Times that a backend learns from its calls. The backend uses them to decide how many threads a call uses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::row_kind::RowKind;

/// A number that several threads read and write. If two threads change it at the same time, one change may be lost.
/// That is acceptable for an estimate.
#[derive(Debug)]
struct Estimate(AtomicU32);

impl Estimate {
    fn new(value: f32) -> Estimate {
        Estimate(AtomicU32::new(value.to_bits()))
    }

    fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f32) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// The number of kinds of work: four kinds of rows, each without and with wide arrays.
const KINDS: usize = 8;

/// The initial estimates, in nanoseconds per element. They were measured with AVX-512, on rows in the L2 cache in which
/// the passes skip most blocks.
const FASTEST: [f32; KINDS] = [0.022, 0.035, 0.045, 0.045, 0.022, 0.035, 0.045, 0.045];

/// The estimated time of rows in calls that are not shared, in nanoseconds per element, for each kind of work.
///
/// The time depends on the machine, on the logits and on the row's parameters. The estimates start at the speed of the
/// fastest known machine. A slower call raises an estimate a little, and a faster call lowers it a lot. So interrupted
/// calls have little effect.
#[derive(Debug)]
pub(super) struct RowTimes([Estimate; KINDS]);

/// The estimated time of one or more rows, and the kinds of work that they need.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    pub(super) nanoseconds: f32,
    /// Bit `i` is set if a row needs work of kind `i`.
    kinds: u32,
}

impl Work {
    pub(super) fn add(&mut self, other: Work) {
        self.nanoseconds += other.nanoseconds;
        self.kinds |= other.kinds;
    }
}

impl Default for RowTimes {
    fn default() -> Self {
        RowTimes(FASTEST.map(Estimate::new))
    }
}

impl RowTimes {
    /// The work of one row.
    pub(super) fn of_row(&self, kind: RowKind, wants_arrays: bool, vocab: usize) -> Work {
        let kind = match kind {
            RowKind::Greedy => 0,
            RowKind::TopK(_) => 1,
            RowKind::TopP => 2,
            RowKind::Plain => 3,
        } + if wants_arrays { KINDS / 2 } else { 0 };
        Work { nanoseconds: self.0[kind].get() * vocab as f32, kinds: 1 << kind }
    }

    /// Corrects the estimates. `took` is the measured time of `work` in a call that was not shared.
    pub(super) fn learn(&self, work: Work, took: Duration) {
        let ratio = took.as_nanos() as f32 / work.nanoseconds.max(1.0);
        let factor = if ratio > 1.0 { ratio.min(1.0625) } else { 1.0 - (1.0 - ratio) / 4.0 };
        for kind in (0..KINDS).filter(|kind| work.kinds >> kind & 1 == 1) {
            self.0[kind].set((self.0[kind].get() * factor).clamp(1e-3, 1e3));
        }
    }
}

/// The initial estimate of the time that a helper takes to wake, and the limits of this estimate, in nanoseconds.
const WAKE: f32 = 40_000.0;
const LEAST_WAKE: f32 = 20_000.0;
const MOST_WAKE: f32 = 200_000.0;

/// Calls are shared while shared calls take less than this fraction of their time on one thread.
const WORTHWHILE: f32 = 0.95;
/// The initial estimate of this fraction.
const EXPECTED: f32 = 0.7;

/// The estimated cost and benefit of sharing calls with helpers.
///
/// If other processes need the cores, helpers wake late and are interrupted. This raises the estimates, and the backend
/// stops sharing calls. Each call that is not shared lowers the estimates a little, so the backend tries sharing again
/// later.
#[derive(Debug)]
pub(super) struct SharingTimes {
    wake: Estimate,
    fraction: Estimate,
}

impl Default for SharingTimes {
    fn default() -> Self {
        SharingTimes { wake: Estimate::new(WAKE), fraction: Estimate::new(EXPECTED) }
    }
}

impl SharingTimes {
    /// How long a helper takes to wake, in nanoseconds.
    pub(super) fn wake(&self) -> f32 {
        self.wake.get()
    }

    /// Whether shared calls take clearly less time than they would take on one thread.
    pub(super) fn is_worthwhile(&self) -> bool {
        self.fraction.get() < WORTHWHILE
    }

    /// Learns how long a helper took to wake.
    pub(super) fn learn_wake(&self, took: Duration) {
        let took = (took.as_nanos() as f32).min(MOST_WAKE);
        let wake = self.wake.get();
        self.wake.set((wake + (took - wake) / 8.0).max(LEAST_WAKE));
    }

    /// Learns from a shared call. `fraction` is its time divided by its estimated time on one thread.
    pub(super) fn learn_fraction(&self, fraction: f32) {
        let before = self.fraction.get();
        self.fraction.set(before + (fraction.min(2.0) - before) / 4.0);
    }

    /// Records that a call was not shared. Lowers estimates that are above their initial values.
    pub(super) fn skip(&self) {
        let (wake, fraction) = (self.wake.get(), self.fraction.get());
        self.wake.set(wake - (wake - WAKE).max(0.0) / 64.0);
        self.fraction.set(fraction - (fraction - EXPECTED).max(0.0) / 64.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: usize = 100_000;

    #[test]
    fn estimates_follow_the_calls() {
        let times = RowTimes::default();
        let work = || times.of_row(RowKind::TopP, false, VOCAB);
        assert!(work().nanoseconds < 10_000.0);
        (0..60).for_each(|_| times.learn(work(), Duration::from_micros(30)));
        assert!((29_000.0..31_000.0).contains(&work().nanoseconds), "{:?}", work());
        // The estimate of another kind has not changed.
        assert!(times.of_row(RowKind::Plain, false, VOCAB).nanoseconds < 10_000.0);
        // One interrupted call changes the estimate a little. A few faster calls change it a lot.
        times.learn(work(), Duration::from_millis(5));
        assert!(work().nanoseconds < 33_000.0);
        (0..10).for_each(|_| times.learn(work(), Duration::from_micros(5)));
        assert!(work().nanoseconds < 7_000.0, "{:?}", work());
    }

    #[test]
    fn all_kinds_of_a_mixed_call_are_corrected() {
        let times = RowTimes::default();
        let work = || {
            let mut work = times.of_row(RowKind::Greedy, false, VOCAB);
            work.add(times.of_row(RowKind::TopK(9), true, VOCAB));
            work
        };
        let before = work();
        times.learn(before, Duration::from_secs(1));
        assert!(work().nanoseconds > before.nanoseconds * 1.06);
    }

    #[test]
    fn helpers_that_come_late_get_another_chance() {
        let times = SharingTimes::default();
        (0..50).for_each(|_| times.learn_wake(Duration::from_millis(7)));
        assert!(times.wake() > 0.9 * MOST_WAKE);
        (0..300).for_each(|_| times.skip());
        assert!(times.wake() < 1.1 * WAKE);
        (0..50).for_each(|_| times.learn_wake(Duration::from_micros(1)));
        assert_eq!(times.wake(), LEAST_WAKE);
    }

    #[test]
    fn sharing_that_does_not_help_is_stopped_for_a_while() {
        let times = SharingTimes::default();
        (0..100).for_each(|_| times.learn_fraction(0.6));
        assert!(times.is_worthwhile());
        let shared = (0..100).take_while(|_| {
            times.learn_fraction(1.2);
            times.is_worthwhile()
        });
        assert!(shared.count() < 5);
        let skipped = (0..1000).take_while(|_| {
            times.skip();
            !times.is_worthwhile()
        });
        assert!((5..100).contains(&skipped.count()));
    }
}
