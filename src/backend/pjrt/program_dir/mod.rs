//! Compiled programs in files, so that a process need not compile what another one did.
//!
//! A file holds one program: [`MAGIC`], the format's version and the length of the metadata (both `u32`, little-endian),
//! the metadata as JSON, and the plugin's serialized executable up to the end. Its name ends in a hash of all that the
//! executable depends on, so that programs of several releases and devices lie side by side in one folder and a host
//! finds its own. Where the folder is and where the plugin lies is no part of it: folders can be copied.

mod format;
mod system;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use self::format::{read_metadata, sha256, FORMAT, MAGIC};
use crate::kernels::{Spec, Target};

pub use self::format::{Metadata, Unusable};
pub use self::system::System;

const EXTENSION: &str = "nucprog";

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
    fn a_folder_that_cannot_be_written_to_is_an_error_and_leaves_nothing() {
        let folder = Folder::new("missing");
        let dir = ProgramDir::new(&folder.0.join("not there"), system(), Target::Portable);
        assert!(dir.write(&spec(), TEXT, None, b"program").is_err());
        assert!(dir.read(&spec(), TEXT).unwrap().is_none());
    }
}
