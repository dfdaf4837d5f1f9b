//! The first run of a program on a GPU.
//!
//! The driver of a GPU loads the kernels of a program, and translates their PTX, when a process runs the program for
//! the first time. A call would wait for this. So a prewarm runs each program once, with logits of zeros.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use super::inputs::element_of;
use crate::batch::CallOptions;
use crate::error::Error;
use crate::kernels::program::ProgramSpec;
use crate::kernels::{pack_seeds, Column, Source, Spec, Target, COLUMNS};
use crate::memory;
use crate::pjrt::{Buffer, Client, ElementType, Executable};
use crate::plan;
use crate::semantics::params::RowParams;

/// The purpose of allocations, for error messages.
const PURPOSE: &str = "the first run of a program";

/// The largest size of the logits, in bytes. A prewarm does not run a program with larger logits, because a prewarm
/// must not need much memory.
const LARGEST_LOGITS: usize = 256 << 20;

/// Whether a prewarm runs programs, and the number of programs that ran.
pub(super) struct FirstRuns {
    enabled: AtomicBool,
    count: AtomicU64,
}

impl FirstRuns {
    /// The first runs of a target. They are enabled on GPUs.
    pub(super) fn of(target: &Target) -> FirstRuns {
        let enabled = AtomicBool::new(matches!(target, Target::Gpu(_)));
        FirstRuns { enabled, count: AtomicU64::new(0) }
    }

    /// Enables the first runs.
    pub(super) fn enable(&self) {
        self.enabled.store(true, Ordering::Relaxed);
    }

    /// The number of programs that ran.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Runs a program once if its kernels are translated by a driver. A failure only writes a log message, because the
    /// first call with the program returns the error.
    pub(super) fn run(
        &self,
        client: &Arc<Client>,
        device: usize,
        spec: &ProgramSpec,
        program: &Arc<Executable>,
    ) {
        let (true, ProgramSpec::Sampling(sampling)) = (self.enabled.load(Ordering::Relaxed), spec) else {
            return;
        };
        match run_on_zeros(client, device, sampling, program) {
            Ok(()) => {
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => log::debug!("{} did not run before its first call: {error}", spec.name()),
        }
    }
}

fn run_on_zeros(
    client: &Arc<Client>,
    device: usize,
    spec: &Spec,
    program: &Arc<Executable>,
) -> Result<(), Error> {
    let upload = |bytes: &[u8], element: ElementType, dims: &[usize]| -> Result<Buffer, Error> {
        let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        Ok(client.buffer_from_host(bytes, element, &dims, device)?)
    };
    let dims = match spec.source {
        Source::Batch => vec![spec.batch, spec.vocab],
        Source::Buffer { rows, singleton: false, .. } => vec![rows, spec.vocab],
        Source::Buffer { rows, singleton: true, .. } => vec![rows, 1, spec.vocab],
    };
    let bytes = dims.iter().try_fold(spec.dtype.size(), |size, &dim| size.checked_mul(dim));
    let Some(bytes) = bytes.filter(|&bytes| bytes <= LARGEST_LOGITS) else {
        return Err(Error::Internal(format!("its logits have more than {LARGEST_LOGITS} bytes")));
    };
    let logits = upload(&memory::zeroed::<u8>(bytes, PURPOSE)?, element_of(spec.dtype), &dims)?;

    let row = RowParams::new(1, 1.0, 0.0, 1.0, [0; 4], spec.vocab);
    let row = plan::params_for(spec.path, spec.vocab, &row);
    let mut packed = memory::zeroed::<i32>(spec.batch * COLUMNS, PURPOSE)?;
    for (number, columns) in packed.chunks_mut(COLUMNS).enumerate() {
        columns.copy_from_slice(&pack_seeds(&row, 0, 0, CallOptions::default(), spec.dtype));
        // The index of a row of the buffer.
        columns[Column::Row as usize] = (number % dims[0]) as i32;
    }
    let parameters = upload(bytemuck::cast_slice(&packed), ElementType::S32, &[spec.batch, COLUMNS])?;
    let mut inputs = vec![logits, parameters];
    if let Source::Buffer { .. } = spec.source {
        for _ in 0..2 {
            inputs.push(upload(&0_u64.to_le_bytes(), ElementType::U64, &[])?);
        }
    }
    let inputs: Vec<&Buffer> = inputs.iter().collect();
    program.execute(&inputs)?;
    Ok(())
}
