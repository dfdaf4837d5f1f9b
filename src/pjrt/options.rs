//! Options: of clients and topologies, as named values; of compiles, as a protocol buffer.

use std::ffi::c_char;
use std::marker::PhantomData;

use pjrt_sys::protos::xla::device_assignment_proto::ComputationDevice;
use pjrt_sys::protos::xla::{
    option_override_proto, CompileOptionsProto, DeviceAssignmentProto, ExecutableBuildOptionsProto,
    OptionOverrideProto,
};
use pjrt_sys::*;
use prost::Message;

use super::plugin::{slice, string};
use super::{Error, Result};

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

/// How to compile a program: for which devices, with which compiler flags.
#[derive(Clone, PartialEq, Debug)]
pub struct CompileOptions {
    devices: Vec<i32>,
    flags: Vec<(String, OptionValue)>,
}

impl CompileOptions {
    /// For one device, given by its global id ([`Device::id`](super::Device::id)).
    pub fn for_device(id: i32) -> Self {
        Self { devices: vec![id], flags: Vec::new() }
    }

    /// For one program partitioned over several devices, given by their global ids: partition i runs on `ids[i]`, and
    /// XLA's SPMD partitioner follows the program's sharding annotations.
    pub fn partitioned(ids: &[i32]) -> Self {
        Self { devices: ids.to_vec(), flags: Vec::new() }
    }

    /// Adds a compiler flag (such as `xla_llvm_disable_expensive_passes`) for this compile only. Lists are not flags
    /// and are refused when compiling.
    pub fn flag(mut self, name: impl Into<String>, value: OptionValue) -> Self {
        self.flags.push((name.into(), value));
        self
    }

    /// The global ids of the devices, one per partition.
    pub fn devices(&self) -> &[i32] {
        &self.devices
    }

    /// The serialized `CompileOptionsProto`. Its bytes are not a key: flags may come in any order.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        if self.devices.is_empty() {
            return Err(Error::Argument("compile options name no device; name one per partition".into()));
        }
        let partitions = i32::try_from(self.devices.len())
            .map_err(|_| Error::Argument(format!("{} partitions are too many", self.devices.len())))?;
        let assignment = DeviceAssignmentProto {
            replica_count: 1,
            computation_count: partitions,
            computation_devices: self
                .devices
                .iter()
                .map(|&id| ComputationDevice { replica_device_ids: vec![i64::from(id)] })
                .collect(),
        };
        let build = ExecutableBuildOptionsProto {
            // The assignment below says where; -1 leaves the ordinal unset, where 0 would mean the first device.
            device_ordinal: -1,
            num_replicas: 1,
            num_partitions: i64::from(partitions),
            use_spmd_partitioning: partitions > 1,
            device_assignment: Some(assignment),
            allow_spmd_sharding_propagation_to_parameters: vec![false],
            allow_spmd_sharding_propagation_to_output: vec![false],
            ..Default::default()
        };
        let flags = self.flags.iter().map(|(name, value)| Ok((name.clone(), flag_value(name, value)?)));
        let options = CompileOptionsProto {
            executable_build_options: Some(build),
            env_option_overrides: flags.collect::<Result<_>>()?,
            ..Default::default()
        };
        Ok(options.encode_to_vec())
    }
}

fn flag_value(name: &str, value: &OptionValue) -> Result<OptionOverrideProto> {
    use option_override_proto::Value;
    let value = match value {
        OptionValue::Str(value) => Value::StringField(value.clone()),
        OptionValue::I64(value) => Value::IntField(*value),
        OptionValue::F32(value) => Value::DoubleField(f64::from(*value)),
        OptionValue::Bool(value) => Value::BoolField(*value),
        OptionValue::I64List(_) => {
            return Err(Error::Argument(format!(
                "the compiler flag {name} is a list; flags take single values"
            )))
        }
    };
    Ok(OptionOverrideProto { value: Some(value) })
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

    #[test]
    fn compile_options_assign_each_partition_a_device() {
        let options = CompileOptions::partitioned(&[4, 2]).flag("xla_test", OptionValue::I64(7));
        let proto = CompileOptionsProto::decode(&options.encode().unwrap()[..]).unwrap();
        let build = proto.executable_build_options.unwrap();
        assert_eq!((build.num_replicas, build.num_partitions, build.use_spmd_partitioning), (1, 2, true));
        let devices = build.device_assignment.unwrap().computation_devices;
        assert_eq!(devices.iter().map(|d| d.replica_device_ids[0]).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(proto.env_option_overrides.len(), 1);

        assert!(CompileOptions::partitioned(&[]).encode().is_err());
        let list = CompileOptions::for_device(0).flag("f", OptionValue::I64List(vec![]));
        assert!(list.encode().unwrap_err().to_string().contains("flag f"));
    }
}
