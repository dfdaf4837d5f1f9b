//! The parameters of a batch whose logits are on the device. They stay on the device between calls. They are uploaded
//! again only after a change.

use std::sync::{Arc, Mutex, PoisonError};

#[cfg(doc)]
use super::failed_calls::FailedCalls;
use super::programs::KeptProgram;
use super::PjrtBackend;
use crate::batch::{CallOptions, RowSettings};
use crate::dtype::Dtype;
use crate::error::Error;
use crate::kernels::program::ProgramSpec;
use crate::kernels::{pack_seeds, Column, Path, Wanted, COLUMNS};
use crate::memory;
use crate::pjrt::{Buffer, ElementType};
use crate::plan::device::{DeviceCombine, DeviceGroup};
use crate::plan::{self, CallShape, Entry, LogitsPlace};
use crate::semantics::params::RowParams;

/// The purpose of the allocations in this file, for error messages.
const PURPOSE: &str = "the parameters of a device batch";

/// The parameters of the rows of a device batch. Thread-safe.
pub struct DeviceParameters {
    shape: Shape,
    state: Mutex<State>,
}

/// The properties of a batch that are fixed when its parameters are created.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) vocab: usize,
    pub(super) dtype: Dtype,
    pub(super) options: CallOptions,
}

struct State {
    rows: Vec<Row>,
    /// The number of changes so far. Two calls that saw the same number used the same parameters.
    version: u64,
    /// The uploaded parameters for each kind of call. They were uploaded after the last change. A batch has few kinds
    /// of calls, so a list is faster than a map.
    plans: Vec<(PlanKey, Arc<Plan>)>,
}

/// A row. `params` is an error if the parameters of the row are impossible.
#[derive(Clone)]
struct Row {
    params: Result<RowParams, Error>,
    seed: u64,
    offset: u64,
}

/// The kind of a call: the properties that decide how its rows are grouped.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PlanKey {
    pub(super) entry: Entry,
    pub(super) wanted: Wanted,
    /// Whether the logits have a middle dimension of length 1.
    pub(super) singleton: bool,
    /// Whether a row with impossible parameters gets a status. If not, the call fails.
    pub(super) reports_bad_rows: bool,
}

/// The programs of a call, and their parameters on the device.
pub(super) struct Plan {
    /// The number of failed calls before the upload: see [`FailedCalls`].
    failed_calls: u64,
    pub(super) groups: Vec<Group>,
    /// `None` if one group has all rows of the batch in their order. Then no program must join groups.
    pub(super) combine: Option<Combine>,
}

/// Rows that run in one program.
pub(super) struct Group {
    pub(super) spec: ProgramSpec,
    pub(super) program: KeptProgram,
    pub(super) parameters: Buffer,
}

/// The operands of the program that joins the groups.
pub(super) struct Combine {
    pub(super) spec: ProgramSpec,
    pub(super) program: KeptProgram,
    pub(super) places: Buffer,
    pub(super) replace_val: Buffer,
}

impl DeviceParameters {
    /// Creates the parameters of `rows` rows, all with the default settings.
    pub(crate) fn new(rows: usize, vocab: usize, dtype: Dtype, options: CallOptions) -> Result<Self, Error> {
        let defaults = Row::new(0, &RowSettings::default(), vocab);
        let rows_of_state = memory::filled(rows, defaults, PURPOSE)?;
        Ok(DeviceParameters {
            shape: Shape { rows, vocab, dtype, options },
            state: Mutex::new(State { rows: rows_of_state, version: 0, plans: Vec::new() }),
        })
    }

    /// Sets the parameters of a row for later calls. Calls that have already started are not affected.
    pub fn set(&self, row: usize, settings: &RowSettings) -> Result<(), Error> {
        if row >= self.shape.rows {
            return Err(Error::named_argument(
                "row",
                format!("row is {row}; the parameters have {} rows, counted from 0", self.shape.rows),
            ));
        }
        let new = Row::new(row, settings, self.shape.vocab);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.rows[row] = new;
        state.version += 1;
        let plans = std::mem::take(&mut state.plans);
        drop(state);
        // Freeing the buffers calls the plugin, so it happens after the lock was released.
        drop(plans);
        Ok(())
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Returns the plan for a kind of call. Uploads the parameters if they were changed since the last upload, or if a
    /// call has failed since then.
    pub(super) fn plan(&self, backend: &PjrtBackend, max_k: usize, key: PlanKey) -> Result<Arc<Plan>, Error> {
        let failed_calls = backend.failed_calls.count();
        let (rows, version) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, plan)) = state.plans.iter().find(|(known, _)| *known == key) {
                if plan.failed_calls == failed_calls {
                    return Ok(plan.clone());
                }
            }
            (memory::collected(state.rows.len(), PURPOSE, state.rows.iter().cloned().map(Ok))?, state.version)
        };
        // The upload calls the plugin, so the lock is released before the upload.
        let (groups, combine) = self.make_plan(backend, max_k, key, &rows)?;
        let plan = Arc::new(Plan { failed_calls, groups, combine });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut replaced = None;
        if state.version == version {
            replaced =
                state.plans.iter().position(|(known, _)| *known == key).map(|at| state.plans.remove(at));
            state.plans.push((key, plan.clone()));
        }
        drop(state);
        // Freeing the buffers calls the plugin, so it happens after the lock was released.
        drop(replaced);
        Ok(plan)
    }

    fn make_plan(
        &self,
        backend: &PjrtBackend,
        max_k: usize,
        key: PlanKey,
        rows: &[Row],
    ) -> Result<(Vec<Group>, Option<Combine>), Error> {
        let Shape { rows: batch, vocab, dtype, options } = self.shape;
        let PlanKey { entry, wanted, singleton, reports_bad_rows: bad_rows } = key;
        let logits = LogitsPlace::Device { singleton, bad_rows };
        let calls = CallShape { entry, batch, vocab, dtype, stable: options.stable, wanted, logits };
        let paths = plan::paths_of_rows(&calls, max_k, rows.iter().map(|row| row.params.as_ref()))?;
        if let (false, Some(error)) = (bad_rows, paths.iter().find_map(|path| path.as_ref().err())) {
            return Err(error.clone());
        }
        let planned = plan::device::plan(&calls, max_k, backend.buckets(), singleton, &paths)?;
        let groups = planned.groups.iter().map(|group| self.group(backend, group, &paths, rows));
        let groups = groups.collect::<Result<_, Error>>()?;
        let combine = match planned.combine {
            None => None,
            Some(DeviceCombine { spec, places }) => {
                let replace_val = [dtype.round(options.replace_val) as i32];
                let places = backend.upload_ints(&places, &[batch])?;
                let replace_val = backend.upload_ints(&replace_val, &[1])?;
                Some(Combine { spec: spec.into(), program: KeptProgram::default(), places, replace_val })
            }
        };
        Ok((groups, combine))
    }

    /// Uploads the parameters of a group. Repeats the last row as padding. A row that cannot be sampled gets the
    /// parameters of another row of the group. Its results are not used.
    fn group(
        &self,
        backend: &PjrtBackend,
        group: &DeviceGroup,
        paths: &[Result<Path, Error>],
        rows: &[Row],
    ) -> Result<Group, Error> {
        let DeviceGroup { spec, members } = group;
        let Some(&valid) = members.iter().find(|&&row| paths[row].is_ok()) else {
            return Err(Error::Internal(format!("{} has no row that can be sampled", spec.name())));
        };
        let mut packed = memory::zeroed::<i32>(spec.batch * COLUMNS, PURPOSE)?;
        let padded = members.iter().chain(members.last().into_iter().cycle());
        for (columns, &row) in packed.chunks_mut(COLUMNS).zip(padded) {
            let Row { params, seed, offset } = &rows[if paths[row].is_ok() { row } else { valid }];
            let params = params.as_ref().map_err(Clone::clone)?;
            let params = plan::params_for(spec.path, spec.vocab, params);
            columns.copy_from_slice(&pack_seeds(&params, *seed, *offset, self.shape.options, spec.dtype));
            columns[Column::Row as usize] = row as i32;
        }
        let parameters = backend.upload_ints(&packed, &[spec.batch, COLUMNS])?;
        Ok(Group { spec: (*spec).into(), program: KeptProgram::default(), parameters })
    }
}

impl Row {
    fn new(row: usize, settings: &RowSettings, vocab: usize) -> Row {
        let RowSettings { seed, offset, .. } = *settings;
        let params = settings.params(row, [0; 4], vocab);
        Row { params, seed, offset }
    }
}

impl PjrtBackend {
    /// Copies numbers to the device. Later calls use the buffer again, until a call fails: see [`FailedCalls`].
    fn upload_ints(&self, values: &[i32], dims: &[usize]) -> Result<Buffer, Error> {
        let mut long = [0_i64; 2];
        for (long, &dim) in long.iter_mut().zip(dims) {
            *long = dim as i64;
        }
        let bytes = bytemuck::cast_slice(values);
        Ok(self.client.buffer_from_host(bytes, ElementType::S32, &long[..dims.len()], self.device)?)
    }
}
