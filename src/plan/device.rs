//! Groups the rows of a batch whose logits are on the device. Each group runs in one program.
//!
//! A program addresses the rows of the buffer by index, so no row is copied. If all rows take one path, one program
//! samples all of them. Otherwise there is one group per path, and a further program joins the results of the groups.
//!
//! A row with impossible parameters counts as a row of the last group. Its results are not used. So the numbers of rows
//! of the groups, without padding, add up to the number of rows of the batch. This keeps the set of programs small. If
//! no row of the batch can be sampled, there is no group.

use super::buckets::Buckets;
use super::distinct::Distinct;
use super::paths::{paths, program};
use super::CallShape;
use crate::error::Error;
use crate::kernels::combine::CombineSpec;
use crate::kernels::{Path, Source, Spec};
use crate::memory;

/// The purpose of the allocations in this file, for error messages.
const PURPOSE: &str = "the plan of a batch";

/// Rows that run in one program.
#[derive(Debug)]
pub(crate) struct DeviceGroup {
    pub(crate) spec: Spec,
    /// The rows that the program samples, in ascending order. If there are fewer than `spec.batch` rows, the program
    /// also has rows of padding.
    pub(crate) members: Vec<usize>,
}

/// The program that joins the groups.
#[derive(Debug)]
pub(crate) struct DeviceCombine {
    pub(crate) spec: CombineSpec,
    /// For each row of the batch, its index in the concatenation of the groups; see
    /// [`combine::emit`](crate::kernels::combine::emit).
    pub(crate) places: Vec<i32>,
}

/// The programs of a call whose logits are on the device.
#[derive(Debug)]
pub(crate) struct DevicePlan {
    pub(crate) groups: Vec<DeviceGroup>,
    /// `None` if one group has all rows of the batch in their order, and all of them can be sampled.
    pub(crate) combine: Option<DeviceCombine>,
}

/// Groups the rows of a batch. `rows` contains the path of each row, or the error if the row cannot be sampled; see
/// [`paths_of_rows`](super::paths_of_rows). `singleton` is the field of [`Source::Buffer`].
pub(crate) fn plan(
    calls: &CallShape,
    max_k: usize,
    buckets: &Buckets,
    singleton: bool,
    rows: &[Result<Path, Error>],
) -> Result<DevicePlan, Error> {
    let present = distinct(rows);
    if let ([path], true) = (present.as_slice(), rows.iter().all(Result::is_ok)) {
        let members = memory::collected(rows.len(), PURPOSE, (0..rows.len()).map(Ok))?;
        let group = DeviceGroup { spec: whole(calls, *path, singleton), members };
        return Ok(DevicePlan { groups: vec![group], combine: None });
    }
    let mut places = memory::filled(rows.len(), 0_i32, PURPOSE)?;
    let (mut groups, mut parts, mut before, mut left) = (Vec::new(), [0; 2], 0, rows.len());
    for (number, &path) in present.iter().enumerate() {
        let is_last = number + 1 == present.len();
        let takes = |row: &Result<Path, Error>| match row {
            Ok(of_row) => *of_row == path,
            Err(_) => is_last,
        };
        let mut members = memory::with_capacity(rows.len(), PURPOSE)?;
        members.extend((0..rows.len()).filter(|&row| takes(&rows[row])));
        left -= members.len();
        let spec = match present.len() {
            1 => whole(calls, path, singleton),
            _ => gathered(calls, path, buckets, singleton, members.len()),
        };
        for (place, &row) in members.iter().enumerate() {
            places[row] = (before + place) as i32;
        }
        parts[number] = spec.batch;
        before += spec.batch;
        groups.push(DeviceGroup { spec, members });
    }
    debug_assert!(left == 0 || present.is_empty());
    for (place, _) in places.iter_mut().zip(rows).filter(|(_, row)| row.is_err()) {
        *place = before as i32;
    }
    let spec = combine(calls, max_k, parts);
    Ok(DevicePlan { groups, combine: Some(DeviceCombine { spec, places }) })
}

/// Returns every program that calls of this shape can need, for any parameters of the rows. `bad_rows` is true if the
/// calls report rows with impossible parameters.
pub(super) fn programs(
    calls: &CallShape,
    max_k: usize,
    buckets: &Buckets,
    singleton: bool,
    bad_rows: bool,
) -> Result<(Vec<Spec>, Vec<CombineSpec>), Error> {
    let paths = paths(calls, max_k);
    let (mut samplers, mut combines) = (Distinct::new(), Distinct::new());
    samplers.extend(paths.iter().map(|&path| whole(calls, path, singleton)))?;
    if let [first, second] = paths[..] {
        for rows in 1..calls.batch {
            let pair = [
                gathered(calls, first, buckets, singleton, rows),
                gathered(calls, second, buckets, singleton, calls.batch - rows),
            ];
            combines.extend([combine(calls, max_k, pair.map(|spec| spec.batch))])?;
            samplers.extend(pair)?;
        }
    }
    if bad_rows && !paths.is_empty() {
        combines.extend([[calls.batch, 0], [0, 0]].map(|parts| combine(calls, max_k, parts)))?;
    }
    Ok((samplers.into_vec(), combines.into_vec()))
}

/// Returns the programs of calls whose rows all take one path.
pub(super) fn whole_programs(calls: &CallShape, max_k: usize, singleton: bool) -> Vec<Spec> {
    paths(calls, max_k).into_iter().map(|path| whole(calls, path, singleton)).collect()
}

/// Returns the paths in the list, without duplicates. The bounded path is first.
fn distinct(rows: &[Result<Path, Error>]) -> Vec<Path> {
    let mut found: Vec<Path> = Vec::new();
    for path in rows.iter().flatten() {
        if !found.contains(path) {
            found.push(*path);
        }
    }
    found.sort_by_key(|path| *path == Path::Arbitrary);
    found
}

/// Returns the program that samples all rows of the buffer in their order.
fn whole(calls: &CallShape, path: Path, singleton: bool) -> Spec {
    let source = Source::Buffer { rows: calls.batch, singleton, in_order: true };
    Spec { source, ..program(calls, path, calls.batch) }
}

/// Returns the program that samples `rows` rows of the buffer.
fn gathered(calls: &CallShape, path: Path, buckets: &Buckets, singleton: bool, rows: usize) -> Spec {
    let source = Source::Buffer { rows: calls.batch, singleton, in_order: false };
    Spec { source, ..program(calls, path, buckets.of_group(rows, calls.batch)) }
}

fn combine(calls: &CallShape, max_k: usize, parts: [usize; 2]) -> CombineSpec {
    let CallShape { batch: rows, vocab, dtype, wanted, .. } = *calls;
    let slots = if wanted.slices { max_k.min(vocab) } else { 0 };
    CombineSpec { parts, rows, vocab, dtype, wanted, slots }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::Wanted;
    use crate::plan::{Entry, LogitsPlace};

    const MAX_K: usize = 8;

    fn calls(batch: usize) -> CallShape {
        let (dtype, wanted, logits) = (Dtype::F32, Wanted::default(), LogitsPlace::Host);
        CallShape { entry: Entry::Automatic, batch, vocab: 100, dtype, stable: true, wanted, logits }
    }

    fn bad() -> Result<Path, Error> {
        Err(Error::argument("bad"))
    }

    /// For every combination of rows, the plan uses only programs of the list. Each row that can be sampled is in one
    /// group, and `places` contains its index in the concatenation of the groups.
    #[test]
    fn every_plan_uses_programs_of_the_list() {
        let rows_of = [Ok(Path::Bounded(MAX_K)), Ok(Path::Arbitrary), bad()];
        for (buckets, batch) in [(&[][..], 7), (&[2, 4], 7), (&[3], 7), (&[1, 100], 5), (&[2], 1)] {
            let buckets = Buckets::new(buckets).unwrap();
            let calls = calls(batch);
            let (samplers, combines) = programs(&calls, MAX_K, &buckets, false, true).unwrap();
            let (_, without_bad) = programs(&calls, MAX_K, &buckets, false, false).unwrap();
            for number in 0..3_usize.pow(batch as u32) {
                let rows: Vec<_> =
                    (0..batch as u32).map(|row| rows_of[number / 3_usize.pow(row) % 3].clone()).collect();
                let plan = plan(&calls, MAX_K, &buckets, false, &rows).unwrap();
                assert!(plan.groups.iter().all(|group| samplers.contains(&group.spec)), "{plan:?}");
                check(&plan, &rows);
                let Some(combine) = plan.combine else { continue };
                assert!(combines.contains(&combine.spec), "{combine:?}");
                assert!(rows.iter().any(Result::is_err) || without_bad.contains(&combine.spec));
            }
        }
    }

    fn check(plan: &DevicePlan, rows: &[Result<Path, Error>]) {
        let mut sampled = Vec::new();
        for group in &plan.groups {
            assert!((1..=group.spec.batch).contains(&group.members.len()), "{plan:?}");
            assert!(group
                .members
                .iter()
                .all(|&row| rows[row].as_ref().map_or(true, |p| *p == group.spec.path)));
            let padding = group.spec.batch - group.members.len();
            sampled.extend(group.members.iter().map(|&row| Some(row)));
            sampled.extend(vec![None; padding]);
        }
        match &plan.combine {
            None => assert_eq!(sampled, (0..rows.len()).map(Some).collect::<Vec<_>>()),
            Some(combine) => {
                assert_eq!(combine.spec.parts.iter().sum::<usize>(), sampled.len());
                for (row, place) in combine.places.iter().enumerate() {
                    match rows[row].is_ok() {
                        true => assert_eq!(sampled[*place as usize], Some(row)),
                        false => assert_eq!(*place as usize, sampled.len()),
                    }
                }
            }
        }
    }

    #[test]
    fn the_number_of_programs_is_small() {
        let count = |batch, buckets: &[usize]| {
            let (samplers, combines) =
                programs(&calls(batch), MAX_K, &Buckets::new(buckets).unwrap(), false, true).unwrap();
            (samplers.len(), combines.len())
        };
        assert_eq!(count(8, &[]), (2 + 8, 7 + 2));
        assert_eq!(count(128, &[]), (2 + 16, 15 + 2));
        assert_eq!(count(128, &[16, 128]), (2 + 4, 3 + 2));
        assert_eq!(count(1, &[]), (2, 2));
    }
}
