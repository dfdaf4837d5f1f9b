//! What a compiled program was made for.

use std::ffi::OsString;
use std::fs;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::format::FORMAT;
use crate::kernels::Target;
use crate::pjrt::{self, hex, Client, DeviceDescription, Plugin, Topology};

/// What XLA's compilers take flags from beside their options. A flag can change anything, bits of results included.
const FLAG_VARIABLES: [&str; 2] = ["XLA_FLAGS", "LIBTPU_INIT_ARGS"];

/// What a compiled program was made for, and fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// The plugin's name of its platform.
    pub platform: String,
    /// The plugin's version string, for people: XLA's CPU plugins all have the same.
    pub platform_version: String,
    /// The build of the plugin ([`Plugin::fingerprint`]).
    pub plugin: String,
    /// The plugin's name of the kind of device.
    pub device_kind: String,
    /// Cores of the device, where the plugin says.
    pub device_cores: Option<usize>,
    /// Devices of the whole topology, other hosts' included.
    pub num_devices: usize,
    /// How far they extend along each of their coordinates, where they have such: libtpu's programs for 2x4 and 4x2 chips
    /// differ.
    pub extents: Vec<i64>,
    /// Where the host's processor is the device: its model and instruction sets, which a compiler makes use of and a
    /// plugin need not check.
    pub processor: Option<String>,
    /// Compiler flags in the environment, `NAME=VALUE` each.
    pub flags: Vec<String>,
}

impl System {
    /// The system of a client, as seen from one of its devices.
    pub fn of_client(client: &Arc<Client>, device: usize) -> pjrt::Result<System> {
        let Some(device) = client.devices().get(device) else {
            return Err(pjrt::Error::Argument(format!("the client has no device {device}")));
        };
        let devices = match client.topology().and_then(|topology| topology.devices()) {
            Err(error) if error.is_unimplemented() => {
                client.devices().iter().map(|device| device.description().clone()).collect()
            }
            other => other?,
        };
        let (name, version) = (client.platform_name(), client.platform_version());
        System::new(client.plugin(), name, version, device.description(), &devices)
    }

    /// The system that a topology describes.
    pub fn of_topology(plugin: &Plugin, topology: &Topology) -> pjrt::Result<System> {
        let devices = topology.devices()?;
        let first = devices
            .first()
            .ok_or_else(|| pjrt::Error::Misbehaved("a topology without devices".to_owned()))?;
        let (name, version) = (topology.platform_name()?, topology.platform_version()?);
        System::new(plugin, &name, &version, first, &devices)
    }

    fn new(
        plugin: &Plugin,
        platform: &str,
        platform_version: &str,
        device: &DeviceDescription,
        all: &[DeviceDescription],
    ) -> pjrt::Result<System> {
        Ok(System {
            platform: platform.to_owned(),
            platform_version: platform_version.to_owned(),
            plugin: plugin.fingerprint()?.to_owned(),
            device_kind: device.kind.clone(),
            device_cores: device.num_cores(),
            num_devices: all.len(),
            extents: extents(all),
            processor: (platform == "cpu").then(processor),
            flags: FLAG_VARIABLES.iter().filter_map(|name| flags(name, std::env::var_os(name)?)).collect(),
        })
    }

    /// What kernels to write for it.
    pub fn target(&self) -> Target {
        Target::of(&self.platform, &self.device_kind, self.device_cores)
    }

    /// What sets `other` apart, if a program for one does not fit the other.
    pub(super) fn difference(&self, other: &System) -> Option<String> {
        let show = |version: &str| version.replace('\n', ", ");
        let cores = |cores: Option<usize>| cores.map_or("unknown".to_owned(), |cores| cores.to_string());
        if self.platform != other.platform {
            return Some(format!("platform {:?}, and this is {:?}", other.platform, self.platform));
        }
        if self.plugin != other.plugin {
            let (theirs, ours) = (show(&other.platform_version), show(&self.platform_version));
            return Some(format!(
                "another build of the plugin ({theirs}; {}), and this one is ({ours}; {})",
                other.plugin, self.plugin
            ));
        }
        if self.device_kind != other.device_kind {
            return Some(format!("device {:?}, and this is {:?}", other.device_kind, self.device_kind));
        }
        if self.device_cores != other.device_cores {
            let (theirs, ours) = (cores(other.device_cores), cores(self.device_cores));
            return Some(format!("devices of {theirs} core(s), and these have {ours}"));
        }
        if self.num_devices != other.num_devices {
            let (theirs, ours) = (other.num_devices, self.num_devices);
            return Some(format!("a topology of {theirs} device(s), and this one has {ours}"));
        }
        if self.extents != other.extents {
            let (theirs, ours) = (&other.extents, &self.extents);
            return Some(format!("a topology of extents {theirs:?}, and this one has {ours:?}"));
        }
        if self.processor != other.processor {
            let show = |processor: &Option<String>| processor.clone().unwrap_or_default();
            let (theirs, ours) = (show(&other.processor), show(&self.processor));
            return Some(format!("another processor ({theirs}), and this is ({ours})"));
        }
        if self.flags != other.flags {
            let show = |flags: &[String]| match flags {
                [] => "none".to_owned(),
                _ => flags.join(" "),
            };
            let (theirs, ours) = (show(&other.flags), show(&self.flags));
            return Some(format!("compiler flags in the environment: {theirs}; here: {ours}"));
        }
        None
    }

    /// The hash that a file's name ends in.
    pub(super) fn key(&self, text: &str) -> String {
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
        let parts = (FORMAT, platform, plugin, devices, flags);
        let mut hash = Sha256::new();
        // JSON ends where it ends, so that no two lists of parts hash alike.
        hash.update(serde_json::json!(parts).to_string());
        hash.update(text);
        hex(&hash.finalize()[..16])
    }
}

/// How far devices extend along each coordinate; empty unless all of them have as many.
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

/// A variable with compiler flags; none if there are none in it.
fn flags(name: &str, value: OsString) -> Option<String> {
    let value = value.to_string_lossy();
    let flags: Vec<&str> = value.split_whitespace().collect();
    (!flags.is_empty()).then(|| format!("{name}={}", flags.join(" ")))
}

/// The first processor's model, and a hash of that and its features; empty where the system does not tell.
fn processor() -> String {
    let told = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = told.split("\n\n").next().unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_alike_however_they_are_spaced() {
        assert_eq!(flags("XLA_FLAGS", " --a=1  --b ".into()).as_deref(), Some("XLA_FLAGS=--a=1 --b"));
        assert_eq!(flags("XLA_FLAGS", "  ".into()), None);
    }
}
