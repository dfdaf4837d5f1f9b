//! Decides how many threads a call uses, and whether they also split rows.

/// A row is split only into parts of at least this many elements.
const PART_ELEMENTS: usize = 1 << 15;
/// A call uses helpers only if its estimated time on one thread is at least this multiple of the time that a helper
/// takes to wake. The calling thread works while the helpers wake, so a small multiple is sufficient.
const WAKES_PER_CALL: f32 = 2.0;
/// A row is split only if its estimated time is at least this multiple of the time that a helper takes to wake. This
/// multiple is larger, because the calling thread waits until the pool wakes, and every pass waits for its last part.
const WAKES_PER_SPLIT_ROW: f32 = 8.0;

/// How a call is spread over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// The number of threads that take rows, in addition to the first thread.
    pub(super) helpers: usize,
    /// The number of parts into which each pass over a row is split. If it is above 1, only threads of the pool work,
    /// and the calling thread waits.
    pub(super) parts: usize,
}

impl Schedule {
    /// Only the calling thread works.
    pub(super) const ALONE: Schedule = Schedule { helpers: 0, parts: 1 };

    /// Chooses how to sample `rows` rows of `vocab` elements with `threads` threads. `work` is the estimated time of
    /// the call on one thread, and `wake` is the time that a helper takes to wake, both in nanoseconds.
    ///
    /// It first spreads the rows over the threads, because rows do not wait for each other. It splits rows only if
    /// threads are left.
    pub(super) fn new(rows: usize, vocab: usize, threads: usize, work: f32, wake: f32) -> Schedule {
        if threads < 2 || work < WAKES_PER_CALL * wake {
            return Schedule::ALONE;
        }
        // The work of each thread takes at least as long as a helper takes to wake.
        let useful = (work / wake) as usize;
        let helpers = threads.min(rows).min(useful) - 1;
        let row_work = work / rows as f32;
        let parts = (threads / rows).min(vocab / PART_ELEMENTS).min((row_work / wake) as usize);
        if parts < 2 || row_work < WAKES_PER_SPLIT_ROW * wake {
            return Schedule { helpers, parts: 1 };
        }
        Schedule { helpers, parts }
    }

    /// The number of helpers that the call must reserve: all threads that it uses, except one.
    pub(super) fn reserved(self) -> usize {
        (self.helpers + 1) * self.parts - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAKE: f32 = 20_000.0;

    fn schedule(rows: usize, vocab: usize, threads: usize, microseconds: f32) -> (usize, usize) {
        let Schedule { helpers, parts } = Schedule::new(rows, vocab, threads, microseconds * 1e3, WAKE);
        (helpers, parts)
    }

    #[test]
    fn a_short_call_stays_on_its_thread() {
        // One row of 128,256 elements: k = 64, and top-p alone.
        assert_eq!(schedule(1, 128_256, 64, 6.0), (0, 1));
        assert_eq!(schedule(1, 128_256, 64, 33.0), (0, 1));
        assert_eq!(schedule(2, 128_256, 64, 12.0), (0, 1));
        assert_eq!(schedule(16, 128_256, 64, 39.0), (0, 1));
        assert_eq!(schedule(16, 128_256, 1, 90.0), (0, 1));
    }

    #[test]
    fn rows_are_spread_first() {
        assert_eq!(schedule(2, 128_256, 2, 66.0), (1, 1));
        assert_eq!(schedule(16, 128_256, 2, 90.0), (1, 1));
        assert_eq!(schedule(16, 128_256, 64, 90.0), (3, 1));
        assert_eq!(schedule(16, 1 << 24, 8, 1e6), (7, 1));
    }

    #[test]
    fn long_rows_are_split_among_the_threads_left() {
        assert_eq!(schedule(1, 1 << 24, 8, 8000.0), (0, 8));
        assert_eq!(schedule(3, 1 << 24, 8, 24_000.0), (2, 2));
        assert_eq!(schedule(1, 1 << 24, 64, 170.0), (0, 8));
        assert_eq!(schedule(1, 1 << 24, 64, 150.0), (0, 1));
        assert_eq!(schedule(1, 70_000, 64, 1000.0), (0, 2));
    }
}
