//! Compiled programs in files, so that one process can load the programs that another process compiled.
//!
//! One file contains one program (`format`). Its name ends in a hash of everything that the executable depends on
//! ([`System`] and the text of the program). So the programs of several releases and devices can share a directory, and
//! each process finds the programs that fit it. The hash does not include a path. So a copy of a directory also works.
//!
//! Write access to this directory is equivalent to code execution in this process. So this module does not use files
//! and directories that other users can write to (`trust`).
//!
//! Reading a program sets the modification time of its file, which is the time of the last use. Writing a program
//! replaces the file of the same name, for example a damaged or untrusted one. If the directory has a capacity, the
//! least recently used programs are then removed (`eviction`). Temporary files that are more than an hour old and whose
//! process has died are removed too. The directory also has a list of the plugins that were identified
//! (`plugin_builds`). No other file is changed or removed.

mod compiler_flags;
mod compression;
mod eviction;
mod file_name;
mod format;
mod plugin_builds;
mod system;
mod temporary;
mod trust;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use log::Level;

use self::format::{sha256, Header, FORMAT};
use crate::error::Error;
use crate::kernels::program::ProgramSpec;
use crate::kernels::Target;
use crate::regular_file;

pub use self::format::{Metadata, Unusable};
pub(crate) use self::plugin_builds::PluginBuilds;
pub use self::system::System;

/// A directory of programs for one system. Thread-safe. Other processes may use the directory at the same time.
#[derive(Debug)]
pub struct ProgramDir {
    path: PathBuf,
    system: System,
    target: Target,
    /// The largest number of bytes of all files; 0 means unlimited.
    capacity: u64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    evicted: AtomicU64,
    bytes: AtomicU64,
}

/// Counters of a directory of programs. They do not include the work of other processes and samplers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramDirStats {
    /// Files that were removed because the directory exceeded its capacity.
    pub evicted: u64,
    /// The size of all programs in the directory, of all systems, in bytes. It was measured when the sampler was
    /// created or when it last wrote a program. 0 if the sampler does not write programs.
    pub bytes: u64,
}

/// A message for the log. It is logged later, by a thread that holds no lock and compiles nothing.
pub(crate) type Message = (Level, String);

/// Creates a directory that only this user can write to. Does nothing if the directory exists.
pub(crate) fn create(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(directory)
}

/// The absolute path of a directory, without symbolic links.
pub(crate) fn resolve(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.canonicalize()?;
    match path.is_dir() {
        true => Ok(path),
        false => Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory")),
    }
}

/// Returns the reason why a directory is not used; `None` if it is safe.
pub fn distrust(directory: &Path) -> io::Result<Option<String>> {
    Ok(trust::distrust(&fs::metadata(directory)?))
}

/// What [`inspect`] finds out about a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The reason why samplers do not use the directory; `None` if they use it.
    pub distrust: Option<String>,
    /// The number of program files, of all systems and versions.
    pub programs: usize,
    /// The size of these files in bytes.
    pub bytes: u64,
}

/// Describes a directory of programs without changing it.
pub fn inspect(directory: &Path) -> io::Result<Inspection> {
    let path = resolve(directory)?;
    let files = eviction::files(&path)?;
    Ok(Inspection { distrust: distrust(&path)?, programs: files.len(), bytes: eviction::bytes(&files) })
}

/// Returns the error for an option that names a directory: `InvalidArgument` if the path cannot be a directory,
/// otherwise `Io`. `create` says whether the library creates a directory that does not exist.
pub(crate) fn directory_error(
    option: &'static str,
    directory: &Path,
    create: bool,
    error: &io::Error,
) -> Error {
    use io::ErrorKind::{AlreadyExists, InvalidFilename, InvalidInput, NotADirectory, NotFound};
    let text = format!("{option} is {}: {error}", directory.display());
    match error.kind() {
        AlreadyExists | InvalidFilename | InvalidInput | NotADirectory | NotFound => {
            let correct = match create {
                true => "it must be a directory, or a path where a directory can be created",
                false => "it must be an existing directory; set write_programs to 1 to create it",
            };
            Error::named_argument(option, format!("{text}; {correct}"))
        }
        _ => Error::Io(text),
    }
}

impl ProgramDir {
    /// The directory at `path`, for programs for `system` with kernels for `target`.
    pub fn new(path: &Path, system: System, target: Target) -> ProgramDir {
        ProgramDir { path: path.to_owned(), system, target, capacity: 0, counters: Counters::default() }
    }

    /// Sets the capacity in bytes; 0 means unlimited, and is the default. See `ProgramDir::enforce_capacity`.
    pub fn with_capacity(self, capacity: u64) -> ProgramDir {
        ProgramDir { capacity, ..self }
    }

    /// The counters.
    pub fn stats(&self) -> ProgramDirStats {
        ProgramDirStats {
            evicted: self.counters.evicted.load(Ordering::Relaxed),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
        }
    }

    /// Returns the path of the file for a program. The file need not exist.
    pub fn file(&self, spec: &ProgramSpec, text: &str) -> PathBuf {
        self.path.join(file_name::of(spec, &self.system.key(FORMAT, text)))
    }

    /// The serialized executable of a program; `None` if the directory has no file for it. Sets the modification time
    /// of the file, if the process is permitted to do so.
    pub fn read(&self, spec: &ProgramSpec, text: &str) -> Result<Option<Vec<u8>>, Unusable> {
        let (mut file, header) = match open(&self.file(spec, text)) {
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let (metadata, executable) = format::read_verified(&mut file, &header)?;
        if let Some(difference) = self.system.difference(&metadata.system) {
            return Err(Unusable::Other(difference));
        }
        if metadata.spec != *spec || metadata.program_sha256 != sha256(text.as_bytes()) {
            return Err(Unusable::Other(format!("another program, {}", metadata.program)));
        }
        // The owner of a file may set the time through any descriptor. A failure is ignored: a process that cannot set
        // the time does not evict programs either.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(executable))
    }

    /// Describes why a file for the same calls does not fit this program. `None` if there is no file for the same
    /// calls.
    pub fn near_miss(&self, spec: &ProgramSpec) -> Option<String> {
        let is_near = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| file_name::is_of(name, spec))
        };
        let entries = fs::read_dir(&self.path).ok()?;
        let mut unreadable = None;
        for path in entries.flatten().map(|entry| entry.path()).filter(is_near) {
            let metadata = open(&path)
                .and_then(|(mut file, header)| format::read_unverified_metadata(&mut file, &header));
            let reason = match metadata {
                Err(unusable) => {
                    unreadable.get_or_insert_with(|| format!("{}: {unusable}", path.display()));
                    continue;
                }
                Ok(metadata) => match self.system.difference(&metadata.system) {
                    Some(difference) => Unusable::Other(difference).to_string(),
                    None => {
                        format!(
                            "version {} of this library wrote it for a different program",
                            metadata.library
                        )
                    }
                },
            };
            return Some(format!("{}: {reason}", path.display()));
        }
        unreadable
    }

    /// Writes the file of a program and replaces an existing one. Readers see the old file, no file, or the complete
    /// new file. When this function returns, the file survives a crash of the system.
    pub fn write(
        &self,
        spec: &ProgramSpec,
        text: &str,
        topology: Option<&str>,
        executable: &[u8],
    ) -> Result<PathBuf, Error> {
        let metadata = Metadata {
            library: env!("CARGO_PKG_VERSION").to_owned(),
            program: spec.name(),
            spec: spec.clone(),
            target: self.target.to_string(),
            system: self.system.clone(),
            topology: topology.map(str::to_owned),
            program_sha256: sha256(text.as_bytes()),
        };
        let parts = format::encode(&metadata, executable)?;
        let path = self.file(spec, text);
        replace(&self.path, &path, &parts)
            .map_err(|error| Error::Io(format!("{} cannot be written: {error}", path.display())))?;
        Ok(path)
    }

    /// Measures the size of all programs in the directory for [`ProgramDir::stats`].
    pub(crate) fn measure(&self) {
        if let Ok(files) = eviction::files(&self.path) {
            self.counters.bytes.store(eviction::bytes(&files), Ordering::Relaxed);
        }
    }

    /// Removes the least recently used programs, of all systems and versions, until the directory does not exceed its
    /// capacity. The files in `written` stay, and also files that any process used during the last minute. A failure
    /// is only a message, because the directory remains usable.
    #[must_use]
    pub(crate) fn enforce_capacity(&self, written: &[PathBuf]) -> Vec<Message> {
        let directory = self.path.display();
        let files = match eviction::files(&self.path) {
            Ok(files) => files,
            Err(error) => return vec![(Level::Warn, format!("{directory} cannot be listed: {error}"))],
        };
        let capacity = if self.capacity == 0 { u64::MAX } else { self.capacity };
        let outcome = eviction::evict(files, capacity, written, SystemTime::now());
        self.counters.evicted.fetch_add(outcome.removed, Ordering::Relaxed);
        self.counters.bytes.store(outcome.bytes, Ordering::Relaxed);
        let mut messages = Vec::new();
        if outcome.removed > 0 {
            messages.push((Level::Debug, format!("removed {} program(s) from {directory}", outcome.removed)));
        }
        if outcome.kept_bytes > capacity {
            let text = format!(
                "the program(s) just written to {directory} have {} bytes, more than its capacity of {capacity}; they \
                 stay",
                outcome.kept_bytes
            );
            messages.push((Level::Warn, text));
        } else if outcome.bytes > capacity {
            let text = format!(
                "{directory} has {} bytes, more than its capacity of {capacity}; files of the last minute stay",
                outcome.bytes
            );
            messages.push((Level::Debug, text));
        }
        let failures = outcome.failures.into_iter();
        messages
            .extend(failures.map(|text| (Level::Warn, format!("an old program cannot be removed: {text}"))));
        messages
    }

    /// Removes the temporary files of writers that died.
    pub(crate) fn remove_stale_temporaries(&self) {
        let removed = temporary::remove_stale(&self.path);
        if removed > 0 {
            log::info!("removed {removed} temporary file(s) of dead processes from {}", self.path.display());
        }
    }
}

/// Opens a program's file, checks that it is safe to use, and reads its header.
fn open(path: &Path) -> Result<(File, Header), Unusable> {
    let (mut file, metadata) = regular_file::open(path)?;
    if let Some(reason) = trust::distrust(&metadata) {
        return Err(Unusable::Untrusted(reason));
    }
    let header = Header::read(&mut file, metadata.len())?;
    Ok((file, header))
}

/// Writes `parts` to `path` in `directory`, atomically and durably.
fn replace(directory: &Path, path: &Path, parts: &[Vec<u8>]) -> io::Result<()> {
    let temporary = temporary::path(directory);
    // Other users must not be able to write to the file, even if the umask allows it.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary);
    let written = file.and_then(|mut file| {
        parts.iter().try_for_each(|part| file.write_all(part))?;
        // The content must be on the disk before the file gets its name.
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    match File::open(directory)?.sync_all() {
        // Some file systems cannot flush a directory.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::{Path as KernelPath, Source, Spec, Wanted};
    use std::os::unix::fs::FileExt;

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

    fn spec() -> ProgramSpec {
        ProgramSpec::Sampling(Spec {
            path: KernelPath::Bounded(128),
            batch: 8,
            vocab: 1000,
            dtype: Dtype::Bf16,
            stable: true,
            wanted: Wanted::default(),
            source: Source::Batch,
        })
    }

    /// A new directory, removed when the value is dropped.
    pub(super) struct Directory(pub(super) PathBuf);

    impl Directory {
        pub(super) fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("nucleus-programs-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            create(&path).unwrap();
            Directory(path)
        }

        fn of(&self, system: System) -> ProgramDir {
            ProgramDir::new(&self.0, system, Target::Portable)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_written_program_is_read_and_nothing_else_is_left() {
        let directory = Directory::new("written");
        let dir = directory.of(system());
        assert!(dir.read(&spec(), TEXT).unwrap().is_none());
        assert_eq!(dir.near_miss(&spec()), None);
        for content in [&b"first"[..], b"", b"\0\xff"] {
            let file = dir.write(&spec(), TEXT, Some("v5e:2x2"), content).unwrap();
            assert_eq!(file, dir.file(&spec(), TEXT));
            assert_eq!(dir.read(&spec(), TEXT).unwrap().as_deref(), Some(content));
        }
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1);
    }

    /// Every part of the system except the version string changes the name of the file. The path of the directory
    /// does not.
    #[test]
    fn names_depend_on_the_system_and_the_program() {
        let (here, there) = (Directory::new("here"), Directory::new("there"));
        let name = |directory: &Directory, system, text| {
            directory.of(system).file(&spec(), text).file_name().unwrap().to_str().unwrap().to_owned()
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
        assert!(near.contains("for a different program"), "{near}");
    }

    /// Every truncation and every changed byte is detected, and none is mistaken for a missing file.
    #[test]
    fn damage_is_noticed() {
        let directory = Directory::new("damage");
        let dir = directory.of(system());
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
            bytes[at] ^= 1 << (at % 8);
            assert!(read(&bytes).is_err(), "changed at {at}");
        }
        let mut newer = whole.clone();
        newer[8] = 9;
        assert!(matches!(read(&newer), Err(Unusable::Format(9))));
        assert!(matches!(read(b"something else, of some length"), Err(Unusable::NoProgram)));
        assert_eq!(read(&whole).unwrap().as_deref(), Some(&b"a program"[..]));
    }

    /// Sizes are compared before the content is read: a header can declare terabytes that the file does not contain.
    #[test]
    fn a_huge_sparse_file_is_not_read() {
        let directory = Directory::new("sparse");
        let dir = directory.of(system());
        let file = dir.write(&spec(), TEXT, None, b"a program").unwrap();
        let sparse = OpenOptions::new().write(true).open(&file).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let error = dir.read(&spec(), TEXT).unwrap_err();
        assert!(error.to_string().contains("1099511627776 bytes instead of"), "{error}");
        // A header that declares all of these bytes.
        sparse.write_all_at(&(1_u64 << 40).to_le_bytes(), 24).unwrap();
        let error = dir.read(&spec(), TEXT).unwrap_err();
        assert!(error.to_string().contains("its header promises"), "{error}");
    }

    /// Builds a file with the metadata of `whole`, another compressed executable, and a correct checksum.
    fn with_stored(whole: &[u8], executable_bytes: u64, stored: &[u8]) -> Vec<u8> {
        let metadata_bytes = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
        let metadata = &whole[64..64 + metadata_bytes];
        let sizes = [executable_bytes.to_le_bytes(), (stored.len() as u64).to_le_bytes()].concat();
        let fields = [&whole[..16], &sizes].concat();
        let checksum = <sha2::Sha256 as sha2::Digest>::digest([&fields, metadata, stored].concat());
        [&fields, &checksum[..], metadata, stored].concat()
    }

    /// A hostile file can have a correct checksum. The reader allocates only memory of the declared size, and the
    /// decompressed stream must have exactly this size.
    #[test]
    fn decompression_bombs_are_refused() {
        let directory = Directory::new("bombs");
        let dir = directory.of(system());
        let file = dir.write(&spec(), TEXT, None, b"a program").unwrap();
        let whole = fs::read(&file).unwrap();
        let zeros = compression::compress(&vec![0; 1 << 20]).unwrap();
        let read = |executable_bytes: u64, stored: &[u8]| {
            fs::write(&file, with_stored(&whole, executable_bytes, stored)).unwrap();
            dir.read(&spec(), TEXT)
        };
        assert_eq!(read(1 << 20, &zeros).unwrap().unwrap().len(), 1 << 20);
        let trailing = [&zeros[..], b"x"].concat();
        for (executable_bytes, stored, words) in [
            (u64::MAX, &zeros[..], "its header promises"),
            (1 << 40, &zeros, "its header promises"),
            ((1 << 30) + 1, &zeros, "its header promises"),
            // Less than the limit, but more than any stream of this length represents.
            (1 << 29, &zeros, "its header promises"),
            (1, &[], "its header promises"),
            (9, &zeros, "became 9 bytes of program instead of 9"),
            ((1 << 20) - 1, &zeros, "bytes of program instead of"),
            ((1 << 20) + 1, &zeros, "bytes of program instead of"),
            (1 << 20, &zeros[..zeros.len() - 5], "bytes of program instead of"),
            (1 << 20, &trailing, "stored bytes became"),
            (100, b"this is not a zlib stream", "damaged"),
        ] {
            let error = read(executable_bytes, stored).unwrap_err();
            assert!(
                matches!(&error, Unusable::Damaged(_)) && error.to_string().contains(words),
                "{executable_bytes}, {words}: {error}"
            );
        }
    }

    /// Version 3 did not compress executables. Its header was shorter.
    #[test]
    fn files_of_the_old_version_are_ignored() {
        let directory = Directory::new("old");
        let dir = directory.of(system());
        let file = dir.write(&spec(), TEXT, None, b"a program").unwrap();
        let mut old = fs::read(&file).unwrap();
        old.drain(24..32);
        old[8] = 3;
        fs::remove_file(&file).unwrap();
        let other_name = file_name::of(&spec(), &"0".repeat(file_name::KEY_DIGITS));
        fs::write(directory.0.join(other_name), &old).unwrap();
        assert!(dir.read(&spec(), TEXT).unwrap().is_none());
        let near = dir.near_miss(&spec()).unwrap();
        let expected = format!("its format is version 3, and this library reads version {FORMAT}");
        assert!(near.contains(&expected), "{near}");
        fs::write(&file, &old).unwrap();
        assert!(matches!(dir.read(&spec(), TEXT), Err(Unusable::Format(3))));
    }

    fn set_age(file: &Path, seconds: u64) {
        let time = SystemTime::now() - std::time::Duration::from_secs(seconds);
        File::open(file).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn the_capacity_is_enforced() {
        let directory = Directory::new("capacity");
        let dir = directory.of(system());
        let texts = ["a", "b", "c"];
        let files = texts.map(|text| dir.write(&spec(), text, None, b"a program").unwrap());
        let size = fs::metadata(&files[0]).unwrap().len();
        dir.measure();
        assert_eq!(dir.stats(), ProgramDirStats { evicted: 0, bytes: 3 * size });
        files.iter().zip([300, 200, 100]).for_each(|(file, age)| set_age(file, age));
        assert_eq!(dir.enforce_capacity(&[]), [], "0 means unlimited");

        // A read is a use. So the first file is the newest one now.
        dir.read(&spec(), texts[0]).unwrap().unwrap();
        let dir = dir.with_capacity(2 * size);
        let messages = dir.enforce_capacity(&files[2..]);
        assert!(messages.len() == 1 && messages[0].0 == Level::Debug, "{messages:?}");
        assert_eq!(files.each_ref().map(|file| file.exists()), [true, false, true]);
        assert_eq!(dir.stats(), ProgramDirStats { evicted: 1, bytes: 2 * size });

        // No file can be removed: the first one was used during the last minute, and the third one is listed as new.
        let dir = dir.with_capacity(size - 1);
        set_age(&files[2], 100);
        let messages = dir.enforce_capacity(&files[2..]);
        assert!(messages.len() == 1 && messages[0].0 == Level::Warn, "{messages:?}");
        assert!(messages[0]
            .1
            .contains(&format!("have {size} bytes, more than its capacity of {}", size - 1)));
        set_age(&files[0], 100);
        assert_eq!(dir.enforce_capacity(&files[2..]).len(), 2);
        assert_eq!(files.each_ref().map(|file| file.exists()), [false, false, true]);
        assert_eq!(dir.stats(), ProgramDirStats { evicted: 2, bytes: size });
    }

    #[test]
    fn a_directory_that_cannot_be_listed_is_a_warning() {
        let directory = Directory::new("unlisted");
        let dir =
            ProgramDir::new(&directory.0.join("not there"), system(), Target::Portable).with_capacity(1);
        let messages = dir.enforce_capacity(&[]);
        assert!(messages.len() == 1 && messages[0].1.contains("cannot be listed"), "{messages:?}");
    }

    /// Opening a FIFO for reading blocks until a writer opens it, unless O_NONBLOCK is set.
    #[test]
    fn files_that_are_not_regular_are_skipped_without_waiting() {
        let directory = Directory::new("fifo");
        let dir = directory.of(system());
        let expected = dir.file(&spec(), TEXT);
        let other = dir.path.join(file_name::of(&spec(), "other"));
        for path in [&expected, &other] {
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        }
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let read = dir.read(&spec(), TEXT).unwrap_err().to_string();
            done.send((read, dir.near_miss(&spec()).unwrap())).unwrap();
        });
        let (read, near_miss) = wait.recv_timeout(std::time::Duration::from_secs(20)).expect("nothing waits");
        assert_eq!(read, "it is a FIFO, not a regular file");
        assert!(near_miss.ends_with(": it is a FIFO, not a regular file"), "{near_miss}");

        // A readable file explains more than a FIFO.
        fs::remove_file(&expected).unwrap();
        let dir = directory.of(System { device_cores: Some(2), ..system() });
        dir.write(&spec(), TEXT, None, b"program").unwrap();
        let near_miss = directory.of(system()).near_miss(&spec()).unwrap();
        assert!(near_miss.contains("another number of cores per device: 2; here: 1"), "{near_miss}");
    }

    #[test]
    fn files_that_others_can_write_are_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new("writable");
        let dir = directory.of(system());
        let file = dir.write(&spec(), TEXT, None, b"program").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o022, 0);
        for mode in [0o664, 0o646] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = dir.read(&spec(), TEXT).unwrap_err();
            assert!(matches!(error, Unusable::Untrusted(_)), "{error}");
            let text = error.to_string();
            assert!(
                text.contains(&format!("mode {mode:o}")) && text.contains("NUCLEUS_TRUST_PROGRAM_DIR=1"),
                "{text}"
            );
        }
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(distrust(&directory.0).unwrap().is_some());
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(distrust(&directory.0).unwrap(), None);
        // Writing replaces the file with one that is safe.
        dir.write(&spec(), TEXT, None, b"program").unwrap();
        assert!(dir.read(&spec(), TEXT).unwrap().is_some());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_io_error() {
        let directory = Directory::new("missing");
        let dir = ProgramDir::new(&directory.0.join("not there"), system(), Target::Portable);
        let error = dir.write(&spec(), TEXT, None, b"program").unwrap_err();
        assert!(matches!(&error, Error::Io(text) if text.contains("not there")), "{error}");
        assert!(dir.read(&spec(), TEXT).unwrap().is_none());
    }
}
