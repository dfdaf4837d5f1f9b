//! Named values: options of clients and topologies, and what plugins say of themselves.

use std::ffi::c_char;
use std::marker::PhantomData;

use pjrt_sys::*;

use super::error::{Error, Result};
use super::plugin_data::{slice, string};

/// The value of a named option.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum OptionValue {
    /// A string.
    Str(String),
    /// An integer.
    I64(i64),
    /// A list of integers.
    I64List(Vec<i64>),
    /// A single precision number.
    F32(f32),
    /// A truth value.
    Bool(bool),
}

/// Named values for the plugin. They point into the options they were made from.
pub(super) struct NamedValues<'a> {
    values: Vec<PJRT_NamedValue>,
    options: PhantomData<&'a [(String, OptionValue)]>,
}

impl<'a> NamedValues<'a> {
    pub(super) fn new(options: &'a [(String, OptionValue)]) -> Self {
        let values = options.iter().map(|(name, value)| named_value(name, value)).collect();
        Self { values, options: PhantomData }
    }

    pub(super) fn as_ptr(&self) -> *const PJRT_NamedValue {
        self.values.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

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
        struct_size: size_of::<PJRT_NamedValue>(),
        name: name.as_ptr().cast(),
        name_size: name.len(),
        type_,
        __bindgen_anon_1: value,
        value_size,
        ..Default::default()
    }
}

/// Copies named values out of the plugin. Values of types that are not known here are left out.
///
/// # Safety
/// `values` must be null or good for `len` named values, with what they point to.
pub(super) unsafe fn read_named_values(
    values: *const PJRT_NamedValue,
    len: usize,
) -> Result<Vec<(String, OptionValue)>> {
    // SAFETY: the caller's promise.
    let values = unsafe { slice(values, len) };
    // The first one is in its place whatever its size; the next ones only if the plugin's struct is as long as ours.
    if let Some(first) = values.first() {
        if first.struct_size != size_of::<PJRT_NamedValue>() {
            return Err(Error::Misbehaved(format!(
                "a PJRT_NamedValue of {} bytes, expected {}",
                first.struct_size,
                size_of::<PJRT_NamedValue>()
            )));
        }
    }
    let read = |raw: &PJRT_NamedValue| {
        let value = &raw.__bindgen_anon_1;
        // SAFETY: the tag says which member of the union is set, and the caller promises what it points to.
        let value = unsafe {
            match raw.type_ {
                PJRT_NamedValue_Type_PJRT_NamedValue_kString => {
                    OptionValue::Str(string(value.string_value, raw.value_size))
                }
                PJRT_NamedValue_Type_PJRT_NamedValue_kInt64 => OptionValue::I64(value.int64_value),
                PJRT_NamedValue_Type_PJRT_NamedValue_kInt64List => {
                    OptionValue::I64List(slice(value.int64_array_value, raw.value_size).to_vec())
                }
                PJRT_NamedValue_Type_PJRT_NamedValue_kFloat => OptionValue::F32(value.float_value),
                PJRT_NamedValue_Type_PJRT_NamedValue_kBool => OptionValue::Bool(value.bool_value),
                _ => return None,
            }
        };
        // SAFETY: the caller's promise.
        Some((unsafe { string(raw.name, raw.name_size) }, value))
    };
    Ok(values.iter().filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_values_come_back_as_they_went() {
        let options = vec![
            ("name".to_string(), OptionValue::Str("välue".into())),
            ("count".into(), OptionValue::I64(-3)),
            ("list".into(), OptionValue::I64List(vec![1, 2, i64::MAX])),
            ("empty".into(), OptionValue::I64List(vec![])),
            ("fraction".into(), OptionValue::F32(0.75)),
            ("on".into(), OptionValue::Bool(true)),
        ];
        let raw = NamedValues::new(&options);
        // SAFETY: the values point into `options`, which is alive.
        let back = unsafe { read_named_values(raw.as_ptr(), raw.len()) }.unwrap();
        assert_eq!(back, options);
        // SAFETY: null is allowed.
        assert_eq!(unsafe { read_named_values(std::ptr::null(), 3) }.unwrap(), vec![]);
    }
}
