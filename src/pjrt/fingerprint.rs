//! Fingerprints of plugin builds. A compiled program fits only the build that compiled it.
//!
//! The version string of a plugin does not identify a build: XLA's CPU plugins of all releases return `cpu`.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::elf::{self, number, Elf};
use crate::panics::{joined, Inherited};
use crate::signals;

/// The largest number of bytes that are read from a note segment. A build id takes 16 to 36 bytes.
const LARGEST_NOTES: u64 = 1 << 16;

/// A file is hashed in pieces of this size, so that several threads can work on it.
const PIECE_BYTES: u64 = 4 << 20;

/// Each thread reads this many bytes at a time. They stay in the processor's cache until they are hashed.
const READ_BYTES: usize = 1 << 18;

/// More threads would not be faster, because the memory bandwidth is the limit.
const MOST_THREADS: usize = 8;

/// If a file changed less than this many seconds ago, it could change again and keep the same time of the change,
/// because file systems store times with limited precision.
const SETTLED_SECONDS: i64 = 2;

/// The start of a fingerprint that is a hash.
const HASH_PREFIX: &str = "sha256-pieces:";

type Hash = [u8; 32];

/// The state of a file. If the state is the same at two times, the contents are the same. At each change of the
/// contents, the system sets the time of the inode's last change. A program cannot choose this time, unless it can set
/// the system's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    /// Returns the state from the metadata of a file.
    pub fn of(metadata: &Metadata) -> FileState {
        FileState {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns whether both states belong to the same file, possibly at different times.
    pub fn is_same_file(&self, other: &FileState) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether a change of the file after `time` also changes its state.
    fn is_settled_at(&self, time: SystemTime) -> bool {
        // Some read-only file systems of container images (squashfs, erofs) do not store the time of the inode's
        // change. They report the time of the modification instead, which is the same in many images.
        if self.changed == self.modified {
            return false;
        }
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
        seconds.saturating_sub(self.changed.0) > SETTLED_SECONDS
    }
}

/// The fingerprint of a file.
pub(super) struct Fingerprint {
    pub(super) text: String,
    /// If the file was hashed, its state. A later process can use the fingerprint if the file still has this state.
    pub(super) hashed: Option<FileState>,
}

/// Returns the linker's build id, or a hash of the whole file if there is none. A prefix distinguishes the two.
///
/// `known` returns the hash of a file that an earlier process has hashed in this state.
pub(super) fn fingerprint(
    mut file: &File,
    known: &dyn Fn(&FileState) -> Option<String>,
) -> io::Result<Fingerprint> {
    if let Some(id) = build_id(&mut file)? {
        return Ok(Fingerprint { text: format!("build-id:{}", hex(&id)), hashed: None });
    }
    let (now, state) = (SystemTime::now(), FileState::of(&file.metadata()?));
    if let Some(text) = known(&state).filter(|text| is_hash(text)) {
        return Ok(Fingerprint { text, hashed: None });
    }
    let text = format!("{HASH_PREFIX}{}", hex(&hash(file)?));
    let is_stable = state.is_settled_at(now) && state == FileState::of(&file.metadata()?);
    Ok(Fingerprint { text, hashed: is_stable.then_some(state) })
}

fn is_hash(text: &str) -> bool {
    let digits = text.strip_prefix(HASH_PREFIX);
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Returns the SHA-256 of the file's size and of the SHA-256 of each piece. Most plugins have no build id and a size of
/// hundreds of megabytes. If a process loads compiled programs, hashing the plugin on one thread would take most of its
/// startup time.
fn hash(file: &File) -> io::Result<Hash> {
    let bytes = file.metadata()?.len();
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let helpers = (cores.min(MOST_THREADS) as u64).min(bytes.div_ceil(PIECE_BYTES)).saturating_sub(1);
    let next = AtomicU64::new(0);
    let outcomes = on_threads(helpers, || hash_pieces(file, bytes, &next));
    let mut pieces = outcomes.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
    pieces.sort_unstable();
    let mut hash = Sha256::new_with_prefix(bytes.to_le_bytes());
    pieces.iter().for_each(|(_, piece)| hash.update(piece));
    Ok(hash.finalize().into())
}

/// Runs `work` on the calling thread and on `helpers` more threads. A panic of a thread continues on the calling
/// thread. If a thread cannot be started, the others do its work.
fn on_threads<R: Send>(helpers: u64, work: impl Fn() -> R + Sync) -> Vec<R> {
    let panics = Inherited::from_this_thread();
    thread::scope(|scope| {
        let builder = || thread::Builder::new().name("nuc-hash".to_owned());
        let start = |_| builder().spawn_scoped(scope, || panics.catch(&work)).ok();
        let threads: Vec<_> = signals::blocked_while(|| (0..helpers).map_while(start).collect());
        let own = work();
        threads.into_iter().map(|thread| joined(thread.join())).chain([own]).collect()
    })
}

/// Hashes pieces that no other thread hashes, until none is left. Returns them with their numbers.
fn hash_pieces(file: &File, bytes: u64, next: &AtomicU64) -> io::Result<Vec<(u64, Hash)>> {
    let mut buffer = vec![0; READ_BYTES];
    let mut pieces = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let (mut at, end) = (number * PIECE_BYTES, bytes.min((number + 1) * PIECE_BYTES));
        if at >= end {
            return Ok(pieces);
        }
        let mut hash = Sha256::new();
        while at < end {
            let part = &mut buffer[..READ_BYTES.min((end - at) as usize)];
            file.read_exact_at(part, at)?;
            hash.update(&*part);
            at += part.len() as u64;
        }
        pieces.push((number, hash.finalize().into()));
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of the note `NT_GNU_BUILD_ID`.
fn build_id(file: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
    let Some(elf) = Elf::read(file)? else { return Ok(None) };
    for segment in elf.segments.iter().filter(|segment| segment.kind == elf::NOTE) {
        let notes = elf::read_at(file, segment.offset, segment.size.min(LARGEST_NOTES))?;
        if let Some(id) = gnu_build_id(&notes) {
            return Ok(Some(id.to_vec()));
        }
    }
    Ok(None)
}

fn gnu_build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const GNU_BUILD_ID: u64 = 3;
    while notes.len() >= 12 {
        let (name_size, size) = (number(&notes[..4]) as usize, number(&notes[4..8]) as usize);
        let kind = number(&notes[8..12]);
        // Name and content are padded to four bytes each.
        let body = 12usize.checked_add(name_size.checked_next_multiple_of(4)?)?;
        let name = notes.get(12..12usize.checked_add(name_size)?)?;
        let content = notes.get(body..body.checked_add(size)?)?;
        if kind == GNU_BUILD_ID && name == b"GNU\0" && !content.is_empty() {
            return Some(content);
        }
        notes = notes.get(body.checked_add(size.checked_next_multiple_of(4)?)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn fingerprint_at(path: &Path) -> String {
        fingerprint(&File::open(path).unwrap(), &|_| None).unwrap().text
    }

    /// A file that changed very recently could change again without a change of its state. So its state is not
    /// returned.
    #[test]
    fn the_hash_of_a_settled_file_is_used_again() {
        let path = std::env::temp_dir().join(format!("nucleus-fingerprint-known-{}", std::process::id()));
        std::fs::write(&path, "text").unwrap();
        let file = File::open(&path).unwrap();
        let hashed = fingerprint(&file, &|_| None).unwrap();
        assert!(hashed.hashed.is_none(), "the file is new");
        // Files of packages are older than their installation.
        let earlier = SystemTime::now() - std::time::Duration::from_secs(3600);
        File::options().write(true).open(&path).unwrap().set_modified(earlier).unwrap();
        let state = FileState::of(&file.metadata().unwrap());
        let after = |seconds| SystemTime::now() + std::time::Duration::from_secs(seconds);
        assert!(!state.is_settled_at(after(0)) && state.is_settled_at(after(60)));
        let without_change_time = FileState { changed: state.modified, ..state };
        assert!(!without_change_time.is_settled_at(after(60)));
        let other = format!("{HASH_PREFIX}{}", "0".repeat(64));
        let known = fingerprint(&file, &|asked| (*asked == state).then(|| other.clone())).unwrap();
        assert!(known.text == other && known.hashed.is_none());
        for invalid in ["", "build-id:00", HASH_PREFIX, &other[1..]] {
            let again = fingerprint(&file, &|_| Some(invalid.to_owned())).unwrap();
            assert_eq!(again.text, hashed.text);
        }
        std::fs::remove_file(&path).unwrap();
    }

    /// The panic hook stores the source location only if it does not print the panic.
    #[test]
    fn a_panic_of_a_helper_is_not_printed_and_continues_on_the_calling_thread() {
        let caller = thread::current().id();
        let work = || assert_eq!(thread::current().id(), caller, "on a helper");
        let panic = Inherited::SILENT.catch(|| on_threads(1, work)).map(drop).unwrap_err().to_string();
        assert!(panic.contains("on a helper") && panic.contains("(src/pjrt/fingerprint.rs:"), "{panic}");
        assert_eq!(on_threads(2, || 7), [7; 3]);
    }

    fn library(directory: &Path, name: &str, source: &str, id: &str) -> String {
        let (c, library) = (directory.join(format!("{name}.c")), directory.join(format!("{name}.so")));
        std::fs::write(&c, source).unwrap();
        let build = format!("-Wl,--build-id={id}");
        let status =
            Command::new("cc").args(["-shared", "-fPIC", &build, "-o"]).arg(&library).arg(&c).status();
        assert!(status.expect("cc runs").success());
        fingerprint_at(&library)
    }

    #[test]
    fn a_build_is_identified_by_its_id_or_by_all_its_bytes() {
        let directory = std::env::temp_dir().join(format!("nucleus-fingerprint-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        assert_eq!(library(&directory, "with", "int a;", "0x00ab12cd"), "build-id:00ab12cd");
        let (one, other) =
            (library(&directory, "one", "int a;", "none"), library(&directory, "two", "int b;", "none"));
        assert!(one.starts_with("sha256-pieces:") && one.len() == 14 + 64 && one != other, "{one} {other}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// The result does not depend on the number of threads, and depends on every piece, its place and the size.
    #[test]
    fn every_piece_of_a_large_file_counts() {
        let path = std::env::temp_dir().join(format!("nucleus-fingerprint-large-{}", std::process::id()));
        let piece = PIECE_BYTES as usize;
        let mut content: Vec<u8> = (0..2 * piece + 1000).map(|i| (i / piece) as u8).collect();
        let hash_of = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            let file = File::open(&path).unwrap();
            let alone = hash_pieces(&file, content.len() as u64, &AtomicU64::new(0)).unwrap();
            let sha256 = |bytes: &[u8]| -> Hash { Sha256::digest(bytes).into() };
            assert!(alone.iter().map(|(_, hash)| *hash).eq(content.chunks(piece).map(sha256)));
            let hash = hash(&file).unwrap();
            let expected: Vec<u8> = content.chunks(piece).flat_map(sha256).collect();
            assert_eq!(hash, sha256(&[&content.len().to_le_bytes()[..], &expected].concat()));
            hash
        };
        let mut found = vec![hash_of(&content)];
        for at in [0, piece - 1, piece, 2 * piece, content.len() - 1] {
            content[at] ^= 1;
            found.push(hash_of(&content));
            content[at] ^= 1;
        }
        content.rotate_left(piece);
        found.push(hash_of(&content));
        found.push(hash_of(&content[..2 * piece]));
        found.push(hash_of(&content[..piece]));
        let count = found.len();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), count);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn files_that_are_not_libraries_have_fingerprints_too() {
        let path = std::env::temp_dir().join(format!("nucleus-fingerprint-file-{}", std::process::id()));
        // Program headers and notes that extend past the end of the file or of the address space.
        let mut broken = b"\x7fELF\x02\x01".to_vec();
        broken.resize(64, 0xff);
        for content in [&b""[..], b"\x7fELF\x02\x01", b"text", &broken] {
            std::fs::write(&path, content).unwrap();
            assert!(fingerprint_at(&path).starts_with("sha256-pieces:"));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(gnu_build_id(&[0xff; 40]), None);
    }
}
