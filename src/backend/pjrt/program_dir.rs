//! Compiled programs in files, so that a process need not compile what another one did.
//!
//! A file holds one program: [`MAGIC`], the format's version and the length of the metadata (both `u32`, little-endian),
//! the metadata as JSON, and the plugin's serialized executable up to the end. Its name ends in a hash of all that the
//! executable depends on, so that programs of several releases and devices lie side by side in one folder and a host
//! finds its own. Where the folder is and where the plugin lies is no part of it: folders can be copied.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernels::{Spec, Target};
use crate::pjrt::{self, hex, Client, DeviceDescription, Plugin, Topology};

/// The first bytes of a file.
const MAGIC: &[u8; 8] = b"NUCPROG\n";

/// Changes when this module could no longer read what it used to write.
const FORMAT: u32 = 2;

const EXTENSION: &str = "nucprog";

/// What XLA's compilers take flags from beside their options. A flag can change anything, bits of results included.
const FLAG_VARIABLES: [&str; 2] = ["XLA_FLAGS", "LIBTPU_INIT_ARGS"];

/// More metadata than any version writes: a longer one is a damaged file.
const LARGEST_METADATA: usize = 1 << 20;

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

/// What a file says of its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Version of the library that wrote it.
    pub library: String,
    /// [`Spec::name`].
    pub program: String,
    /// What the program is written for.
    pub spec: Spec,
    /// The kernels it holds.
    pub target: String,
    /// What it was compiled for.
    pub system: System,
    /// The plugin's name of the topology, where it was compiled for one and not for a client's devices.
    pub topology: Option<String>,
    /// Of the program's text.
    pub program_sha256: String,
    /// Length of the executable.
    pub executable_bytes: usize,
    /// Of the executable.
    pub executable_sha256: String,
}

/// Why a file's program is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is not a file of compiled programs")]
    NoProgram,
    /// Another library wrote it.
    #[error("its format is version {0}, and this library reads version {FORMAT}")]
    Format(u32),
    /// Bytes are missing or wrong.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It was made for something else.
    #[error("it was made for {0}")]
    Other(String),
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
    fn difference(&self, other: &System) -> Option<String> {
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
    fn key(&self, text: &str) -> String {
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

/// A folder of programs for one system.
#[derive(Debug)]
pub struct ProgramDir {
    path: PathBuf,
    system: System,
    target: Target,
}

impl ProgramDir {
    /// The programs for `system`, with kernels for `target`, in the folder at `path`.
    pub fn new(path: &Path, system: System, target: Target) -> ProgramDir {
        ProgramDir { path: path.to_owned(), system, target }
    }

    /// Where the program lies, if it is there.
    pub fn file(&self, spec: &Spec, text: &str) -> PathBuf {
        self.path.join(format!("{}-{}.{EXTENSION}", spec.name(), self.system.key(text)))
    }

    /// The serialized executable of a program; `None` if the folder has no file for it.
    pub fn read(&self, spec: &Spec, text: &str) -> Result<Option<Vec<u8>>, Unusable> {
        let mut file = match File::open(self.file(spec, text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let metadata = read_metadata(&mut file)?;
        if let Some(difference) = self.system.difference(&metadata.system) {
            return Err(Unusable::Other(difference));
        }
        if metadata.spec != *spec || metadata.program_sha256 != sha256(text.as_bytes()) {
            return Err(Unusable::Other(format!("another program, {}", metadata.program)));
        }
        let mut executable = Vec::new();
        file.read_to_end(&mut executable)?;
        if executable.len() != metadata.executable_bytes {
            let (there, wanted) = (executable.len(), metadata.executable_bytes);
            return Err(Unusable::Damaged(format!("its program has {there} bytes instead of {wanted}")));
        }
        // Plugins trust what they are given: a flipped bit could do anything.
        if sha256(&executable) != metadata.executable_sha256 {
            return Err(Unusable::Damaged("its program's checksum is wrong".to_owned()));
        }
        Ok(Some(executable))
    }

    /// Why a program that is not there might have been expected: what the folder's files for the same calls were made
    /// for.
    pub fn near_miss(&self, spec: &Spec) -> Option<String> {
        let prefix = format!("{}-", spec.name());
        let is_near = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&prefix) && name.ends_with(EXTENSION)
        };
        let entries = fs::read_dir(&self.path).ok()?;
        let path = entries.flatten().map(|entry| entry.path()).find(|path| is_near(path))?;
        let reason = match File::open(&path)
            .map_err(Unusable::from)
            .and_then(|mut file| read_metadata(&mut file))
        {
            Err(error) => error.to_string(),
            Ok(metadata) => match self.system.difference(&metadata.system) {
                Some(difference) => Unusable::Other(difference).to_string(),
                None => {
                    format!("version {} of this library wrote it, whose program differs", metadata.library)
                }
            },
        };
        Some(format!("{}: {reason}", path.display()))
    }

    /// Writes a program's file, in place of one that is there. Readers see the old file, none, or the whole new one.
    pub fn write(
        &self,
        spec: &Spec,
        text: &str,
        topology: Option<&str>,
        executable: &[u8],
    ) -> io::Result<PathBuf> {
        let metadata = Metadata {
            library: env!("CARGO_PKG_VERSION").to_owned(),
            program: spec.name(),
            spec: *spec,
            target: self.target.to_string(),
            system: self.system.clone(),
            topology: topology.map(str::to_owned),
            program_sha256: sha256(text.as_bytes()),
            executable_bytes: executable.len(),
            executable_sha256: sha256(executable),
        };
        let metadata = serde_json::to_vec(&metadata)?;
        let metadata_size = u32::try_from(metadata.len()).map_err(io::Error::other)?;

        let path = self.file(spec, text);
        let temporary = self.temporary();
        let written =
            OpenOptions::new().write(true).create_new(true).open(&temporary).and_then(|mut file| {
                file.write_all(MAGIC)?;
                file.write_all(&FORMAT.to_le_bytes())?;
                file.write_all(&metadata_size.to_le_bytes())?;
                file.write_all(&metadata)?;
                file.write_all(executable)?;
                // The new name must not survive a crash that the content does not.
                file.sync_all()?;
                fs::rename(&temporary, &path)
            });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map(|()| path)
    }

    /// A name that no other writer has, other hosts on the same file system included.
    fn temporary(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let (id, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.path.join(format!(".{id}-{count}-{}.tmp", clock.unwrap_or_default().as_nanos()))
    }
}

/// Reads up to where the executable starts.
fn read_metadata(file: &mut File) -> Result<Metadata, Unusable> {
    let mut head = [0; 16];
    file.read_exact(&mut head).map_err(|_| Unusable::NoProgram)?;
    if !head.starts_with(MAGIC) {
        return Err(Unusable::NoProgram);
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(8) != FORMAT {
        return Err(Unusable::Format(word(8)));
    }
    let size = word(12) as usize;
    if size > LARGEST_METADATA {
        return Err(Unusable::Damaged(format!("{size} bytes of metadata")));
    }
    let mut metadata = vec![0; size];
    file.read_exact(&mut metadata).map_err(|error| Unusable::Damaged(error.to_string()))?;
    serde_json::from_slice(&metadata).map_err(|error| Unusable::Damaged(error.to_string()))
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::{Path as KernelPath, Wanted};

    const TEXT: &str = "module {}";

    fn system() -> System {
        System {
            platform: "tpu".to_owned(),
            platform_version: "TFRT TPU v5 lite\nBuilt on a day".to_owned(),
            plugin: "build-id:12".to_owned(),
            device_kind: "TPU v5 lite".to_owned(),
            device_cores: Some(1),
            num_devices: 4,
            extents: vec![2, 2, 1],
            processor: None,
            flags: vec![],
        }
    }

    fn spec() -> Spec {
        Spec {
            path: KernelPath::Bounded(128),
            batch: 8,
            vocab: 1000,
            dtype: Dtype::Bf16,
            stable: true,
            wanted: Wanted::default(),
        }
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("nucleus-programs-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn of(&self, system: System) -> ProgramDir {
            ProgramDir::new(&self.0, system, Target::Portable)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is_left() {
        let folder = Folder::new("written");
        let dir = folder.of(system());
        assert!(dir.read(&spec(), TEXT).unwrap().is_none());
        assert_eq!(dir.near_miss(&spec()), None);
        for content in [&b"first"[..], b"", b"\0\xff"] {
            let file = dir.write(&spec(), TEXT, Some("v5e:2x2"), content).unwrap();
            assert_eq!(file, dir.file(&spec(), TEXT));
            assert_eq!(dir.read(&spec(), TEXT).unwrap().as_deref(), Some(content));
        }
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    /// Every part of the system but the version string leads to another file; the folder's path does not.
    #[test]
    fn names_follow_from_what_a_program_fits() {
        let (here, there) = (Folder::new("here"), Folder::new("there"));
        let name = |folder: &Folder, system, text| {
            folder.of(system).file(&spec(), text).file_name().unwrap().to_str().unwrap().to_owned()
        };
        let known = name(&here, system(), TEXT);
        assert!(known.starts_with("nucleus_bounded128_8x1000_bf16-"), "{known}");
        assert_eq!(known, name(&there, system(), TEXT));
        assert_eq!(known, name(&here, System { platform_version: "other".into(), ..system() }, TEXT));
        let changed = [
            System { platform: "gpu".into(), ..system() },
            System { plugin: "build-id:13".into(), ..system() },
            System { device_kind: "TPU v4".into(), ..system() },
            System { device_cores: Some(2), ..system() },
            System { device_cores: None, ..system() },
            System { num_devices: 1, ..system() },
            System { extents: vec![4, 1, 1], ..system() },
            System { processor: Some("x".into()), ..system() },
            System { flags: vec!["XLA_FLAGS=--xla_a=1".into()], ..system() },
        ];
        here.of(system()).write(&spec(), TEXT, None, b"program").unwrap();
        for other in changed {
            assert_ne!(known, name(&here, other.clone(), TEXT), "{other:?}");
            let near = here.of(other.clone()).near_miss(&spec()).unwrap();
            assert!(near.contains(&known) && near.contains("it was made for"), "{near}");
        }
        assert_ne!(known, name(&here, system(), "module { }"));
        let near = here.of(system()).near_miss(&spec()).unwrap();
        assert!(near.contains("whose program differs"), "{near}");
    }

    /// No change of a byte, and no cut, gives a program, and each is told apart from a file that is not there.
    #[test]
    fn damage_is_noticed() {
        let folder = Folder::new("damage");
        let dir = folder.of(system());
        let file = dir.write(&spec(), TEXT, None, b"a program").unwrap();
        let whole = fs::read(&file).unwrap();
        let read = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            dir.read(&spec(), TEXT)
        };
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut to {length}");
        }
        assert!(read(&[&whole[..], b"x"].concat()).is_err());
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            // Some of the metadata is for people; the program is whole then.
            if let Ok(program) = read(&bytes) {
                assert_eq!(program.as_deref(), Some(&b"a program"[..]), "changed at {at}");
            }
        }
        let mut newer = whole.clone();
        newer[8] = 9;
        assert!(matches!(read(&newer), Err(Unusable::Format(9))));
        assert!(matches!(read(b"something else, of some length"), Err(Unusable::NoProgram)));
        assert_eq!(read(&whole).unwrap().as_deref(), Some(&b"a program"[..]));
    }

    #[test]
    fn flags_are_alike_however_they_are_spaced() {
        assert_eq!(flags("XLA_FLAGS", " --a=1  --b ".into()).as_deref(), Some("XLA_FLAGS=--a=1 --b"));
        assert_eq!(flags("XLA_FLAGS", "  ".into()), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_an_error_and_leaves_nothing() {
        let folder = Folder::new("missing");
        let dir = ProgramDir::new(&folder.0.join("not there"), system(), Target::Portable);
        assert!(dir.write(&spec(), TEXT, None, b"program").is_err());
        assert!(dir.read(&spec(), TEXT).unwrap().is_none());
    }
}
