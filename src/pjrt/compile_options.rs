//! Options for compiling. The C API takes them as a serialized protocol buffer.

use pjrt_sys::protos::xla::device_assignment_proto::ComputationDevice;
use pjrt_sys::protos::xla::{CompileOptionsProto, DeviceAssignmentProto, ExecutableBuildOptionsProto};
use prost::Message;

/// The options of a compilation. They name the device that the program is compiled for.
#[derive(Clone, PartialEq, Debug)]
pub struct CompileOptions {
    device: i32,
}

impl CompileOptions {
    /// For one device, given by its global id ([`Device::id`](super::Device::id)).
    pub fn for_device(id: i32) -> Self {
        Self { device: id }
    }

    /// The global id of the device.
    pub fn device(&self) -> i32 {
        self.device
    }

    /// The serialized `CompileOptionsProto`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let device = ComputationDevice { replica_device_ids: vec![i64::from(self.device)] };
        let assignment = DeviceAssignmentProto {
            replica_count: 1,
            computation_count: 1,
            computation_devices: vec![device],
        };
        let build = ExecutableBuildOptionsProto {
            // The assignment below selects the device. -1 leaves the ordinal unset; 0 would mean the first device.
            device_ordinal: -1,
            num_replicas: 1,
            num_partitions: 1,
            device_assignment: Some(assignment),
            allow_spmd_sharding_propagation_to_parameters: vec![false],
            allow_spmd_sharding_propagation_to_output: vec![false],
            ..Default::default()
        };
        let options = CompileOptionsProto { executable_build_options: Some(build), ..Default::default() };
        options.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compile_options_assign_the_device() {
        let options = CompileOptions::for_device(4);
        let proto = CompileOptionsProto::decode(&options.encode()[..]).unwrap();
        let build = proto.executable_build_options.unwrap();
        assert_eq!((build.num_replicas, build.num_partitions, build.use_spmd_partitioning), (1, 1, false));
        let devices = build.device_assignment.unwrap().computation_devices;
        assert_eq!(devices.iter().map(|d| d.replica_device_ids[0]).collect::<Vec<_>>(), [4]);
    }
}
