//! Programs to embed: turns raw arguments into a function and its parameters.

use super::arrays::Array;
use super::calls::{Inputs, Shape};
use super::enums::{dtype, entry, flag, wanted};
use super::memory::Memory;
use super::options::{call_options, or_default};
use super::pointers::{bad, check_pointer, string, Result};
use super::structs::read_struct;
use super::types::*;
use crate::batch::{CallOptions, RandomSource};
use crate::embedding::{self, Embedding, DEFAULT_NAME};
use crate::kernels::{Target, COLUMNS};
use crate::memory;
use crate::plan::{CallShape, LogitsPlace, DEFAULT_MAX_K};

const _: () = assert!(NUC_PARAMETER_COLUMNS as usize == COLUMNS);

/// # Safety
/// `options` points to a nuc_emit_options whose strings are null or NUL-terminated.
pub(super) unsafe fn emit_options(
    memory: &mut Memory,
    options: *const nuc_emit_options,
) -> Result<Embedding> {
    // SAFETY: the caller guarantees the struct and its strings.
    let (options, target, name) = unsafe {
        let options = read_struct(memory, options)?;
        (options, string(options.target, "target", "target")?, string(options.name, "name", "name")?)
    };
    let target = match target.filter(|name| !name.is_empty()) {
        None => Target::Portable,
        Some(name) => embedding::target(name)?,
    };
    let calls = CallShape {
        entry: entry(options.path)?,
        batch: options.num_rows,
        vocab: options.vocab,
        dtype: dtype(options.dtype)?,
        stable: !flag(options.keep_ties, "keep_ties")?,
        wanted: wanted(options.debug_arrays)?,
        logits: LogitsPlace::Host,
    };
    let name = name.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_NAME).to_owned();
    Ok(Embedding { calls, max_k: or_default(options.max_k, DEFAULT_MAX_K), target, name })
}

/// The arguments of `nuc_pack_parameters`.
pub(super) struct Pack {
    pub(super) function: *const nuc_emit_options,
    pub(super) batch: *const nuc_batch,
    pub(super) options: *const nuc_call_options,
    pub(super) parameters: *mut i32,
}

impl Pack {
    /// # Safety
    /// As for `nuc_pack_parameters`.
    pub(super) unsafe fn run(&self, memory: &mut Memory) -> Result<()> {
        // SAFETY: the caller guarantees the structs.
        let (function, batch, options) = unsafe {
            (
                emit_options(memory, self.function)?,
                read_struct(memory, self.batch)?,
                call_options(memory, self.options)?,
            )
        };
        function.spec()?;
        let shape = Shape::new(&batch, function.max_k)?;
        self.check_agreement(&function, &batch, &shape, options)?;
        let inputs = Inputs::new(memory, &batch, &shape)?;
        check_pointer(self.parameters, "parameters")?;
        let length = shape.rows.checked_mul(COLUMNS);
        let packed = Array::written(memory, "parameters", self.parameters, length)?;
        memory.check_overlap()?;
        // SAFETY: the overlap check has passed, and the caller guarantees the memory for the whole call.
        let (packed, (_, rows)) = unsafe { (packed.get_mut().unwrap_or_default(), inputs.get()) };
        if let RandomSource::Words(_) = rows.random {
            return bad(
                "random_words",
                "random_words is set; it must be null, because the function computes the words",
            );
        }
        // Check all rows before the first one is written, so that a failed call writes nothing.
        let columns = (0..shape.rows).map(|row| function.pack(row, &rows.settings(row), options.replace_val));
        let columns = memory::collected(shape.rows, "the parameters of the rows", columns)?;
        packed.copy_from_slice(columns.as_flattened());
        Ok(())
    }

    /// Checks that the batch is one that the function samples.
    fn check_agreement(
        &self,
        function: &Embedding,
        batch: &nuc_batch,
        shape: &Shape,
        options: CallOptions,
    ) -> Result<()> {
        let calls = &function.calls;
        let differs = |name: &'static str, found: String, right: String| {
            bad(name, format!("{name} of the batch is {found}; it must be that of the function, {right}"))
        };
        if !batch.logits.is_null() {
            return bad("logits", "logits is set; it must be null, because the function receives the logits");
        }
        if shape.rows != calls.batch {
            return differs("num_rows", shape.rows.to_string(), calls.batch.to_string());
        }
        if shape.vocab != calls.vocab {
            return differs("vocab", shape.vocab.to_string(), calls.vocab.to_string());
        }
        if shape.dtype != calls.dtype {
            return differs("dtype", format!("{:?}", shape.dtype), format!("{:?}", calls.dtype));
        }
        if !self.options.is_null() && options.stable != calls.stable {
            let (found, right) = (i32::from(!options.stable), i32::from(!calls.stable));
            return differs("keep_ties", found.to_string(), right.to_string());
        }
        options.check()
    }
}
