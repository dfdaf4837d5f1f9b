//! Options of compiles, as a protocol buffer.

use pjrt_sys::protos::xla::device_assignment_proto::ComputationDevice;
use pjrt_sys::protos::xla::{
    option_override_proto, CompileOptionsProto, DeviceAssignmentProto, ExecutableBuildOptionsProto,
    OptionOverrideProto,
};
use prost::Message;

use super::error::{Error, Result};
use super::named_values::OptionValue;

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
