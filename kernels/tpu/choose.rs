//! The way through a block: over few survivors where a bound leaves few, else over the whole rows.

use super::block::{Block, Outcome};
use super::cells::{Cells, Summary, Survivors};
use super::few::{Few, Slices};
use super::nucleus::Nucleus;
use super::whole::Whole;
use crate::kernels::Column;
use crate::mosaic::{Memory, Value, LANES};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{order_key, NEG_INF_KEY};

/// Memory of all stages.
pub(super) struct Stages {
    pub(super) cells: Cells,
    survivors: Survivors,
    whole: Whole,
    slices: Option<Slices>,
}

impl Stages {
    pub(super) fn new(b: &Block<'_>, slices: Option<Slices>) -> Stages {
        Stages { cells: Cells::new(b), survivors: Survivors::new(b), whole: Whole::new(b), slices }
    }

    /// `bound` is a key that as many logits of each row reach as its top-k keeps.
    pub(super) fn choose(&self, b: &Block<'_>, summary: &Summary, bound: Value) -> Outcome {
        let k = b.k;
        let max_key = summary.max_key;
        let no_candidate = k.eq(max_key, k.i32(NEG_INF_KEY));
        let nucleus = Nucleus::new(b, max_key, no_candidate);

        k.comment("survivors: what top-k can keep and what can weigh anything");
        let max = k.from_bits(order_key(k, max_key));
        let reach = k.from_bits(b.param(Column::Reach));
        let weighs = super::threshold::keys(k, k.fsub(max, reach));
        let top_k = k.lt(k.i32(0), b.param(Column::K));
        // An entry that weighs nothing matters only to those who look at top-k itself.
        let with_top_k = if b.shows_top_k() { bound } else { k.max(bound, weighs) };
        let threshold = k.max(k.choose(top_k, with_top_k, weighs), k.i32(NEG_INF_KEY + 1));
        let gathered = self.cells.survivors(b, &self.survivors, threshold);
        let few = Few::new(b, &gathered);
        let room = k.not(gathered.overflow);
        let enough = if b.shows_top_k() { k.both(room, few.enough(b)) } else { room };
        let flat = k.if_else(
            "few survivors",
            enough,
            || few.choose(b, &nucleus, max_key, threshold, self.slices.as_ref()).flat(),
            || self.whole.choose(b, &nucleus, max_key, bound, self.slices.as_ref()).flat(),
        );
        let outcome = Outcome::from_flat(&flat);
        let none = k.i32(-1);
        Outcome {
            next: k.choose(no_candidate, none, outcome.next),
            greedy: k.choose(no_candidate, none, outcome.greedy),
            ..outcome
        }
    }

    /// Writes a block's results, a lane each, in the order of [`Lane`](super::Lane).
    pub(super) fn write(&self, b: &Block<'_>, results: &Memory, summary: &Summary, outcome: &Outcome) {
        use crate::problem::{ROW_HAD_NAN, ROW_NO_CANDIDATE};
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
