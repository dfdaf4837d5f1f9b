//! The way through a block: over few survivors where a bound leaves few, else over the whole rows.

use super::candidate_list::List;
use super::context::{Block, Outcome};
use super::passes::{Source, Whole};
use super::prefilter::{Cells, Gathered, Summary, Survivors};
use super::sampling::Nucleus;
use super::survivors::{Few, Slices};
use super::threshold_search::{just_below, keys};
use crate::kernels::Column;
use crate::mlir::mosaic::{Memory, Value, LANES};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{order_key, MAX_FINITE_BITS, NEG_INF_KEY};

/// Survivors of a row up to which their way is tried: their lanes have room for that many if they spread evenly.
const FEW: i32 = 384;
/// One in so many cells may hold an entry of the list.
const LISTED: i32 = 4;

/// Memory of all stages.
pub(super) struct Stages {
    pub(super) cells: Cells,
    survivors: Survivors,
    list: Option<List>,
    whole: Whole,
    slices: Option<Slices>,
}

impl Stages {
    pub(super) fn new(b: &Block<'_>, slices: Option<Slices>) -> Stages {
        let list = b.layout.list.then(|| List::new(b));
        Stages { cells: Cells::new(b), survivors: Survivors::new(b), list, whole: Whole::new(b), slices }
    }

    /// `bound` is a key that as many logits of each row reach as its top-k keeps.
    pub(super) fn choose(&self, b: &Block<'_>, summary: &Summary, bound: Value) -> Outcome {
        let k = b.k;
        let max_key = summary.max_key;
        let no_candidate = k.eq(max_key, k.i32(NEG_INF_KEY));
        let nucleus = &Nucleus::new(b, max_key, no_candidate);

        k.comment("what top-k can keep and what can weigh anything");
        let max = k.from_bits(order_key(k, max_key));
        let reach = k.from_bits(b.param(Column::Reach));
        let weighs = keys(k, k.fsub(max, reach));
        let top_k = k.lt(k.i32(0), b.param(Column::K));
        // An entry that weighs nothing matters only to those who look at top-k itself.
        let with_top_k = if b.shows_top_k() { bound } else { k.max(bound, weighs) };
        let threshold = k.max(k.choose(top_k, with_top_k, weighs), k.i32(NEG_INF_KEY + 1));

        let slices = self.slices.as_ref();
        let over = |source: Source<'_>| {
            // What cleans to zero, or to the largest number, a cell may have told apart.
            let unclear = k.either(k.eq(max_key, k.i32(0)), k.eq(max_key, k.i32(MAX_FINITE_BITS)));
            let greedy = k.if_else(
                "which of the maxima is first is unclear",
                k.any(unclear),
                || vec![self.whole.greedy(b, max_key)],
                || vec![self.cells.greedy(b, max_key)],
            )[0];
            self.whole.choose(b, source, nucleus, max_key, greedy, bound, slices).flat()
        };
        let flat = match &self.list {
            // Bounded: the bound leaves few, unless ties are many.
            None => self.few_or(b, nucleus, max_key, threshold, || over(Source::Rows)),
            Some(list) => {
                let above = self.cells.count_above(b, just_below(k, threshold));
                let most = |limit: i32| k.not(k.any(k.lt(k.i32(limit), above)));
                let many = || {
                    let short = most(b.layout.cells() as i32 * LANES as i32 / LISTED);
                    let listed = k.if_else(
                        "some hundredths of the row",
                        short,
                        || vec![k.choose(list.fill(b, threshold), k.i32(0), k.i32(1))],
                        || vec![k.i32(0)],
                    );
                    k.if_else(
                        "over the list",
                        k.eq(listed[0], k.i32(1)),
                        || over(Source::List(list)),
                        || over(Source::Rows),
                    )
                };
                let flag = |flat: Vec<Value>, done: i32| [flat, vec![k.splat(k.i32(done))]].concat();
                let blank = || flag(vec![k.splat(k.i32(0)); Outcome::VALUES], 0);
                let few = k.if_else(
                    "few above the bound",
                    most(FEW),
                    || {
                        let gathered = self.cells.survivors(b, &self.survivors, threshold);
                        let few = Few::new(b, &gathered);
                        k.if_else(
                            "few survivors",
                            self.enough(b, &few, &gathered),
                            || flag(few.choose(b, nucleus, max_key, threshold, slices).flat(), 1),
                            blank,
                        )
                    },
                    blank,
                );
                let done = k.any(k.eq(few[Outcome::VALUES], k.i32(1)));
                k.if_else("done", done, || few[..Outcome::VALUES].to_vec(), many)
            }
        };
        let outcome = Outcome::from_flat(&flat);
        let none = k.i32(-1);
        Outcome {
            next: k.choose(no_candidate, none, outcome.next),
            greedy: k.choose(no_candidate, none, outcome.greedy),
            ..outcome
        }
    }

    /// Whether a block's survivors are all there, and enough: a scalar.
    fn enough(&self, b: &Block<'_>, few: &Few, gathered: &Gathered) -> Value {
        let room = b.k.not(gathered.overflow);
        if b.shows_top_k() {
            b.k.both(room, few.enough(b))
        } else {
            room
        }
    }

    fn few_or(
        &self,
        b: &Block<'_>,
        nucleus: &Nucleus,
        max_key: Value,
        threshold: Value,
        otherwise: impl FnOnce() -> Vec<Value>,
    ) -> Vec<Value> {
        let gathered = self.cells.survivors(b, &self.survivors, threshold);
        let few = Few::new(b, &gathered);
        let enough = self.enough(b, &few, &gathered);
        let chosen = || few.choose(b, nucleus, max_key, threshold, self.slices.as_ref()).flat();
        b.k.if_else("few survivors", enough, chosen, otherwise)
    }

    /// Writes a block's results, a lane each, in the order of [`Lane`](super::Lane).
    pub(super) fn write(&self, b: &Block<'_>, results: &Memory, summary: &Summary, outcome: &Outcome) {
        use crate::outputs::{ROW_HAD_NAN, ROW_NO_CANDIDATE};
        let k = b.k;
        let no_candidate = k.eq(summary.max_key, k.i32(NEG_INF_KEY));
        let flag = |mask, flag: u32| k.choose(mask, k.i32(flag as i32), k.i32(0));
        let had_nan = k.lt(k.i32(0), summary.had_nan);
        let status = k.or(flag(no_candidate, ROW_NO_CANDIDATE), flag(had_nan, ROW_HAD_NAN));
        let lanes = [
            outcome.next,
            outcome.greedy,
            outcome.remainder.high,
            outcome.remainder.low,
            status,
            summary.max_key,
            outcome.threshold,
            outcome.last_tie,
            outcome.least_weight,
        ];
        let lane = k.lane();
        let mut row = k.splat(k.i32(0));
        for (number, value) in lanes.into_iter().enumerate() {
            row = k.choose(k.eq(lane, k.i32(number as i32)), value, row);
        }
        debug_assert!(lanes.len() <= LANES);
        k.store(results, k.i32(0), row);
    }
}
