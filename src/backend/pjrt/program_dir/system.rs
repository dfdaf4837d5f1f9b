//! The system that a program was compiled for.

use std::fs;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::compiler_flags;
use crate::error::Error;
use crate::kernels::Target;
use crate::pjrt::{self, hex, Client, DeviceDescription, Plugin, Topology};

/// The system for which a program is compiled. The program runs only on a system that is equal in everything except
/// `platform_version`.
///
/// A topology and a client that describe the same system produce equal values, so a sampler finds the programs that
/// were compiled ahead of time. The value does not include the id of the device. A program is always loaded for the
/// sampler's device, even if it was compiled for another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// The plugin's name for its platform.
    pub platform: String,
    /// The plugin's version string, only for people to read. All CPU plugins of XLA have the same string.
    pub platform_version: String,
    /// The build of the plugin ([`Plugin::fingerprint`]).
    pub plugin: String,
    /// The plugin's name for the kind of device.
    pub device_kind: String,
    /// The number of cores of the device, if the plugin reports it.
    pub device_cores: Option<usize>,
    /// The number of devices in the whole topology, including those of other hosts.
    pub num_devices: usize,
    /// The extent of the topology along each coordinate, if the devices have coordinates. libtpu compiles different
    /// programs for 2x4 and for 4x2 chips.
    pub extents: Vec<i64>,
    /// The model and the instruction sets of the processor, only on CPUs. A compiler uses them, and a plugin may not
    /// check them.
    pub processor: Option<String>,
    /// Compiler flags in the environment, each as `NAME=FLAGS`.
    pub flags: Vec<String>,
}

impl System {
    /// The system of a client, as seen from one of its devices.
    pub fn of_client(client: &Arc<Client>, device: usize) -> Result<System, Error> {
        let devices = client.devices();
        let device = devices.get(device).ok_or_else(|| {
            Error::argument(format!(
                "there is no device {device}: the client has {} device(s)",
                devices.len()
            ))
        })?;
        let all = match client.topology().and_then(|topology| topology.devices()) {
            Err(error) if error.is_unimplemented() => {
                devices.iter().map(|device| device.description().clone()).collect()
            }
            other => other?,
        };
        let (name, version) = (client.platform_name(), client.platform_version());
        System::new(client.plugin(), name, version, device.description(), &all)
    }

    /// The system that a topology describes.
    pub fn of_topology(plugin: &Plugin, topology: &Topology) -> Result<System, Error> {
        let devices = topology.devices()?;
        let first = devices
            .first()
            .ok_or_else(|| pjrt::Error::Misbehaved("its topology has no devices".to_owned()))?;
        let (name, version) = (topology.platform_name()?, topology.platform_version()?);
        System::new(plugin, &name, &version, first, &devices)
    }

    fn new(
        plugin: &Plugin,
        platform: &str,
        platform_version: &str,
        device: &DeviceDescription,
        all: &[DeviceDescription],
    ) -> Result<System, Error> {
        Ok(System {
            platform: platform.to_owned(),
            platform_version: platform_version.to_owned(),
            plugin: plugin.fingerprint()?.to_owned(),
            device_kind: device.kind.clone(),
            device_cores: device.num_cores(),
            num_devices: all.len(),
            extents: extents(all),
            processor: (platform == "cpu").then(processor),
            flags: compiler_flags::from_environment()?,
        })
    }

    /// The target of the kernels for this system.
    pub fn target(&self) -> Target {
        Target::of(&self.platform, &self.device_kind, self.device_cores)
    }

    /// Describes the first difference that prevents a program for `other` from running here.
    pub(super) fn difference(&self, other: &System) -> Option<String> {
        type Show<'a> = &'a dyn Fn(&System) -> String;
        let parts: [(bool, &str, Show<'_>); 8] = [
            (self.platform != other.platform, "platform", &|system| system.platform.clone()),
            (self.plugin != other.plugin, "build of the plugin", &|system| {
                format!("{} ({})", system.plugin, system.platform_version.replace('\n', ", "))
            }),
            (self.device_kind != other.device_kind, "kind of device", &|system| system.device_kind.clone()),
            (self.device_cores != other.device_cores, "number of cores per device", &|system| {
                system.device_cores.map_or("unknown".to_owned(), |cores| cores.to_string())
            }),
            (self.num_devices != other.num_devices, "number of devices", &|system| {
                system.num_devices.to_string()
            }),
            (self.extents != other.extents, "arrangement of devices", &|system| {
                format!("{:?}", system.extents)
            }),
            (self.processor != other.processor, "processor", &|system| {
                system.processor.clone().unwrap_or("unknown".to_owned())
            }),
            (self.flags != other.flags, "set of compiler flags in the environment", &|system| {
                if system.flags.is_empty() {
                    "none".to_owned()
                } else {
                    system.flags.join(" ")
                }
            }),
        ];
        let (_, name, show) = parts.into_iter().find(|(differs, ..)| *differs)?;
        Some(format!("another {name}: {}; here: {}", show(other), show(self)))
    }

    /// The hash at the end of a file's name, for a program with this text and this version of the file format.
    pub(super) fn key(&self, format: u32, text: &str) -> String {
        let System {
            platform,
            platform_version: _,
            plugin,
            device_kind,
            device_cores,
            num_devices,
            extents,
            processor,
            flags,
        } = self;
        let devices = (device_kind, device_cores, num_devices, extents, processor);
        let parts = (format, platform, plugin, devices, flags);
        let mut hash = Sha256::new();
        // JSON delimits its values, so different parts never produce the same bytes in the hash.
        hash.update(serde_json::json!(parts).to_string());
        hash.update(text);
        hex(&hash.finalize()[..16])
    }
}

/// The extent along each coordinate; empty unless all devices have the same number of coordinates.
fn extents(devices: &[DeviceDescription]) -> Vec<i64> {
    let Some(coords) = devices.iter().map(DeviceDescription::coords).collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    let dimensions = coords.first().map_or(0, |first| first.len());
    if coords.iter().any(|coords| coords.len() != dimensions) {
        return Vec::new();
    }
    let along = |dimension| {
        let (least, most) = coords.iter().fold((i64::MAX, i64::MIN), |(least, most), coords| {
            (least.min(coords[dimension]), most.max(coords[dimension]))
        });
        most.saturating_sub(least).saturating_add(1)
    };
    (0..dimensions).map(along).collect()
}

/// The model of the first processor, and a hash of the model and its features. Both are empty if the system does not
/// report them.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = info.split("\n\n").next().unwrap_or_default();
    let field = |line: &&str| {
        let names =
            ["vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU variant", "CPU part"];
        names.iter().any(|name| line.starts_with(name))
    };
    let fields: Vec<&str> = first.lines().filter(field).collect();
    let model =
        fields.iter().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let hash = hex(&Sha256::digest(fields.join("\n"))[..8]);
    format!("{} {} {hash}", std::env::consts::ARCH, model.unwrap_or_default())
}
