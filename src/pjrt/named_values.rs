//! Named values: options that this library passes to plugins, and attributes that plugins return.
//!
//! Both are arrays of `PJRT_NamedValue`. The API may append fields to that struct. The distance between the elements
//! of an array is then the size of the plugin's struct, which can be larger than the bindings' struct.

use std::ffi::c_char;
use std::marker::PhantomData;

use pjrt_sys::*;

use super::error::{Error, Result};
use super::plugin_data::{copied, name, slice};

/// The value of a named option or attribute.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum OptionValue {
    /// A string.
    Str(String),
    /// An integer.
    I64(i64),
    /// A list of integers.
    I64List(Vec<i64>),
    /// A single-precision number.
    F32(f32),
    /// A truth value.
    Bool(bool),
}

/// The size of the bindings' struct.
const KNOWN_SIZE: usize = size_of::<PJRT_NamedValue>();

/// A plugin that reports a larger struct is assumed to return garbage.
const LARGEST_SIZE: usize = 1024;

/// An array of named values to pass to a plugin. It points into the options from which it was created.
pub(super) struct NamedValues<'a> {
    /// The structs, each padded with zeros to the plugin's size.
    words: Vec<usize>,
    len: usize,
    options: PhantomData<&'a [(String, OptionValue)]>,
}

impl<'a> NamedValues<'a> {
    /// `plugin_size` is the size of the plugin's struct, if the plugin reports it.
    pub(super) fn new(options: &'a [(String, OptionValue)], plugin_size: Option<usize>) -> Self {
        let size = plugin_size.unwrap_or(KNOWN_SIZE).max(KNOWN_SIZE);
        let stride = size.div_ceil(size_of::<usize>());
        let mut words = vec![0; stride * options.len()];
        for (slot, (name, value)) in words.chunks_exact_mut(stride).zip(options) {
            let mut raw = named_value(name, value);
            raw.struct_size = size;
            // SAFETY: a slot is at least as long as the struct and aligned for its widest field, a word.
            unsafe { slot.as_mut_ptr().cast::<PJRT_NamedValue>().write(raw) };
        }
        Self { words, len: options.len(), options: PhantomData }
    }

    pub(super) fn as_ptr(&self) -> *const PJRT_NamedValue {
        self.words.as_ptr().cast()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

const _: () = assert!(align_of::<PJRT_NamedValue>() == align_of::<usize>());

fn named_value(name: &str, value: &OptionValue) -> PJRT_NamedValue {
    type Value = PJRT_NamedValue__bindgen_ty_1;
    let (type_, value, value_size) = match value {
        OptionValue::Str(value) => (
            PJRT_NamedValue_Type_PJRT_NamedValue_kString,
            Value { string_value: value.as_ptr().cast::<c_char>() },
            value.len(),
        ),
        OptionValue::I64(value) => {
            (PJRT_NamedValue_Type_PJRT_NamedValue_kInt64, Value { int64_value: *value }, 1)
        }
        OptionValue::I64List(value) => (
            PJRT_NamedValue_Type_PJRT_NamedValue_kInt64List,
            Value { int64_array_value: value.as_ptr() },
            value.len(),
        ),
        OptionValue::F32(value) => {
            (PJRT_NamedValue_Type_PJRT_NamedValue_kFloat, Value { float_value: *value }, 1)
        }
        OptionValue::Bool(value) => {
            (PJRT_NamedValue_Type_PJRT_NamedValue_kBool, Value { bool_value: *value }, 1)
        }
    };
    PJRT_NamedValue {
        struct_size: KNOWN_SIZE,
        name: name.as_ptr().cast(),
        name_size: name.len(),
        type_,
        __bindgen_anon_1: value,
        value_size,
        ..Default::default()
    }
}

/// Returns the size of the structs in a plugin's array. The first field of each element states it. `None` for an empty
/// array.
///
/// # Safety
/// `values` must be null, or misaligned, or point to `len` named values, each of the size that its first field
/// states.
pub(super) unsafe fn struct_size(values: *const PJRT_NamedValue, len: usize) -> Result<Option<usize>> {
    // SAFETY: the caller guarantees this. An element of any size starts with its size.
    let Some(&size) = unsafe { slice(values.cast::<usize>(), len.min(1), "the plugin")? }.first() else {
        return Ok(None);
    };
    if size % align_of::<PJRT_NamedValue>() != 0 || !(KNOWN_SIZE..=LARGEST_SIZE).contains(&size) {
        return Err(Error::Misbehaved(format!(
            "the plugin returned a PJRT_NamedValue of {size} bytes; the API has {KNOWN_SIZE} or more"
        )));
    }
    if len > isize::MAX as usize / size {
        return Err(Error::Misbehaved(format!("the plugin returned {len} named values")));
    }
    Ok(Some(size))
}

/// Copies a plugin's named values. Skips values of types that this library does not know.
///
/// # Safety
/// As for [`struct_size`], and everything that the values point to must be valid.
pub(super) unsafe fn read_named_values(
    values: *const PJRT_NamedValue,
    len: usize,
) -> Result<Vec<(String, OptionValue)>> {
    // SAFETY: the caller guarantees this.
    let Some(size) = (unsafe { struct_size(values, len)? }) else { return Ok(Vec::new()) };
    let mut read = Vec::new();
    for place in 0..len {
        // SAFETY: the caller promises `len` elements, which are `size` bytes apart. The offset does not overflow: see
        // `struct_size`.
        let raw = unsafe { &*values.byte_add(place * size) };
        if raw.struct_size != size {
            return Err(Error::Misbehaved(format!(
                "the plugin returned an array of PJRT_NamedValue with {size} and {} bytes",
                raw.struct_size
            )));
        }
        // SAFETY: the caller guarantees this.
        if let Some(value) = unsafe { read_value(raw)? } {
            // SAFETY: the caller guarantees this.
            let name = unsafe { name(raw.name, raw.name_size, "the plugin")? };
            read.push((name, value));
        }
    }
    Ok(read)
}

/// Copies the value of a named value; `None` if its type is unknown.
///
/// # Safety
/// Everything that the value points to must be valid.
unsafe fn read_value(raw: &PJRT_NamedValue) -> Result<Option<OptionValue>> {
    let value = &raw.__bindgen_anon_1;
    // SAFETY: the type says which member of the union is set, and the caller guarantees that its pointers are valid.
    let value = unsafe {
        match raw.type_ {
            PJRT_NamedValue_Type_PJRT_NamedValue_kString => {
                OptionValue::Str(name(value.string_value, raw.value_size, "the plugin")?)
            }
            PJRT_NamedValue_Type_PJRT_NamedValue_kInt64 => OptionValue::I64(value.int64_value),
            PJRT_NamedValue_Type_PJRT_NamedValue_kInt64List => {
                let list = slice(value.int64_array_value, raw.value_size, "the plugin")?;
                OptionValue::I64List(copied(list, "an attribute of the plugin")?)
            }
            PJRT_NamedValue_Type_PJRT_NamedValue_kFloat => OptionValue::F32(value.float_value),
            // The value is read as a byte, because a `bool` other than 0 and 1 would be undefined behaviour.
            PJRT_NamedValue_Type_PJRT_NamedValue_kBool => {
                OptionValue::Bool(std::ptr::addr_of!(value.bool_value).cast::<u8>().read() != 0)
            }
            _ => return Ok(None),
        }
    };
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pjrt::ErrorKind;

    fn examples() -> Vec<(String, OptionValue)> {
        vec![
            ("name".to_string(), OptionValue::Str("välue".into())),
            ("count".into(), OptionValue::I64(-3)),
            ("list".into(), OptionValue::I64List(vec![1, 2, i64::MAX])),
            ("empty".into(), OptionValue::I64List(vec![])),
            ("fraction".into(), OptionValue::F32(0.75)),
            ("on".into(), OptionValue::Bool(true)),
        ]
    }

    #[test]
    fn named_values_survive_the_round_trip_at_any_struct_size() {
        let options = examples();
        for plugin_size in [None, Some(0), Some(KNOWN_SIZE), Some(KNOWN_SIZE + 8), Some(200)] {
            let raw = NamedValues::new(&options, plugin_size);
            // SAFETY: the values point into `options`, which is alive.
            unsafe {
                let size = struct_size(raw.as_ptr(), raw.len()).unwrap();
                assert_eq!(size, Some(plugin_size.unwrap_or(0).max(KNOWN_SIZE)));
                assert_eq!(read_named_values(raw.as_ptr(), raw.len()).unwrap(), options);
            }
        }
        let none = NamedValues::new(&[], Some(64));
        // SAFETY: an array without elements.
        assert_eq!(unsafe { read_named_values(none.as_ptr(), none.len()) }.unwrap(), vec![]);
    }

    #[test]
    fn impossible_arrays_are_errors() {
        let options = examples();
        let mut raw = NamedValues::new(&options, None);
        let start = raw.words.as_mut_ptr();
        let misbehaved = |values: *const PJRT_NamedValue, len| {
            // SAFETY: a wrong size or length is rejected before the elements after the first one are read.
            let error = unsafe { read_named_values(values, len) }.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misbehaved, "{error}");
        };
        misbehaved(std::ptr::null(), 3);
        misbehaved(start.cast(), usize::MAX / 8);
        // SAFETY: the words are alive, and no reference to them exists during the writes.
        unsafe {
            misbehaved(start.byte_add(1).cast(), 1);
            for size in [0, KNOWN_SIZE - 8, KNOWN_SIZE + 4, 1 << 20] {
                start.write(size);
                misbehaved(start.cast(), options.len());
            }
            // Two elements with different sizes.
            start.write(KNOWN_SIZE);
            start.add(KNOWN_SIZE / 8).write(KNOWN_SIZE + 8);
            misbehaved(start.cast(), options.len());
            // A string with an impossible length.
            start.add(KNOWN_SIZE / 8).write(KNOWN_SIZE);
            start.add(3).write(usize::MAX);
            misbehaved(start.cast(), options.len());
        }
    }
}
