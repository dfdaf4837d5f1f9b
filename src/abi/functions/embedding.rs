//! Programs to embed.

use libc::c_char;

use crate::abi::arrays::Array;
use crate::abi::embedding::{emit_options, Pack};
use crate::abi::guard::guard;
use crate::abi::memory::Memory;
use crate::abi::pointers::{bad, check_pointer};
use crate::abi::types::{nuc_batch, nuc_call_options, nuc_emit_options, nuc_error, nuc_status};

/// Writes the text of a function to embed: StableHLO in MLIR's text form, NUL-terminated.
///
/// `*text_length` receives the length of the text without the terminator. `text` has space for `text_size` bytes. To
/// learn the length, pass null for `text` and 0 for `text_size`; the call then writes only `*text_length`. Equal
/// options give an equal text. The caller owns all memory. Any thread may call this function.
///
/// Errors: NUC_INVALID_ARGUMENT, also if `text` is not null and `text_size` is not larger than the length of the
/// text; NUC_OUT_OF_MEMORY.
///
/// # Safety
/// `options` points to a nuc_emit_options whose strings are NUL-terminated. `text` is null or points to `text_size`
/// writable bytes, and `text_length` to a writable size_t. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_emit(
    options: *const nuc_emit_options,
    text: *mut c_char,
    text_size: usize,
    text_length: *mut usize,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        check_pointer(text_length, "text_length")?;
        // SAFETY: the caller guarantees the struct and its strings.
        let function = unsafe { emit_options(memory, options)? };
        let length = Array::written(memory, "text_length", text_length, Some(1))?;
        let buffer = Array::written(memory, "text", text.cast::<u8>(), Some(text_size))?;
        memory.check_overlap()?;
        let emitted = function.emit()?;
        // SAFETY: the overlap check has passed, and the caller guarantees the memory.
        let (length, buffer) = unsafe { (length.get_mut(), buffer.get_mut()) };
        if let Some(buffer) = buffer {
            let Some((end, start)) = buffer.get_mut(..=emitted.len()).and_then(<[u8]>::split_last_mut) else {
                return bad(
                    "text_size",
                    format!(
                        "text_size is {text_size}; the text and its terminator need {} bytes",
                        emitted.len() + 1
                    ),
                );
            };
            start.copy_from_slice(emitted.as_bytes());
            *end = 0;
        }
        if let Some([length]) = length {
            *length = emitted.len();
        }
        Ok(())
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Fills the array of parameters that an embedded function takes, `[num_rows][NUC_PARAMETER_COLUMNS]`.
///
/// `function` has the options that were passed to nuc_emit. `batch` has the parameters of the rows. Its `num_rows`,
/// `vocab` and `dtype` must be those of the function, and its `logits` and `random_words` must be null. `options` may
/// be null; otherwise its `keep_ties` must be that of the function. The caller owns all memory. Any thread may call
/// this function.
///
/// Errors: NUC_INVALID_ARGUMENT, also if a row has an impossible parameter, or a `top_k` that the path of the
/// function does not accept. `error` then names the argument and the row. A call that fails writes nothing.
///
/// # Safety
/// `function` points to a nuc_emit_options, `batch` to a nuc_batch with arrays of the documented sizes, and
/// `parameters` to `num_rows * NUC_PARAMETER_COLUMNS` writable elements. `options` is null or points to a
/// nuc_call_options. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_pack_parameters(
    function: *const nuc_emit_options,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    parameters: *mut i32,
    error: *mut nuc_error,
) -> nuc_status {
    let pack = Pack { function, batch, options, parameters };
    // SAFETY: the caller guarantees the memory and `error`.
    unsafe { guard(error, |memory| pack.run(memory)) }
}
