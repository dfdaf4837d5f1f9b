//! Options for compiling. The C API takes them as a serialized protocol buffer.

use pjrt_sys::protos::xla::device_assignment_proto::ComputationDevice;
use pjrt_sys::protos::xla::{CompileOptionsProto, DeviceAssignmentProto, ExecutableBuildOptionsProto};
use prost::Message;

use super::error::{Error, Result};

/// Which devices to compile a program for.
#[derive(Clone, PartialEq, Debug)]
pub struct CompileOptions {
    devices: Vec<i32>,
}

impl CompileOptions {
    /// For one device, given by its global id ([`Device::id`](super::Device::id)).
    pub fn for_device(id: i32) -> Self {
        Self { devices: vec![id] }
    }

    /// For one program that is partitioned over several devices, given by their global ids. Partition i runs on
    /// `ids[i]`, and XLA's SPMD partitioner follows the sharding annotations of the program.
    pub fn partitioned(ids: &[i32]) -> Self {
        Self { devices: ids.to_vec() }
    }

    /// The global ids of the devices, one per partition.
    pub fn devices(&self) -> &[i32] {
        &self.devices
    }

    /// The serialized `CompileOptionsProto`.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        if self.devices.is_empty() {
            return Err(Error::Argument("the compile options name no device; name one per partition".into()));
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
            // The assignment below selects the devices. -1 leaves the ordinal unset; 0 would mean the first device.
            device_ordinal: -1,
            num_replicas: 1,
            num_partitions: i64::from(partitions),
            use_spmd_partitioning: partitions > 1,
            device_assignment: Some(assignment),
            allow_spmd_sharding_propagation_to_parameters: vec![false],
            allow_spmd_sharding_propagation_to_output: vec![false],
            ..Default::default()
        };
        let options = CompileOptionsProto { executable_build_options: Some(build), ..Default::default() };
        Ok(options.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compile_options_assign_a_device_to_each_partition() {
        let options = CompileOptions::partitioned(&[4, 2]);
        let proto = CompileOptionsProto::decode(&options.encode().unwrap()[..]).unwrap();
        let build = proto.executable_build_options.unwrap();
        assert_eq!((build.num_replicas, build.num_partitions, build.use_spmd_partitioning), (1, 2, true));
        let devices = build.device_assignment.unwrap().computation_devices;
        assert_eq!(devices.iter().map(|d| d.replica_device_ids[0]).collect::<Vec<_>>(), [4, 2]);
        assert!(CompileOptions::partitioned(&[]).encode().is_err());
    }
}
