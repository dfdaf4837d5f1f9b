//! Keeps a directory of programs within its capacity.
//!
//! The least recently used files are removed first. The time of the last use is the modification time, which
//! `ProgramDir::read` refreshes. The access time is not used, because many systems do not maintain it.
//!
//! Several processes may do this at the same time, without a lock. Then a process may find that another one removed,
//! replaced or used a file, and it continues with the next file. In the worst case, a file that another process has
//! just used or replaced is removed, and that program is compiled once more.

use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::file_name;
use super::format;
use crate::regular_file;

/// A file that was used during this time is not removed.
const YOUNG_AGE: Duration = Duration::from_secs(60);

/// A program's file.
#[derive(Debug)]
pub(super) struct ProgramFile {
    path: PathBuf,
    bytes: u64,
    last_use: SystemTime,
}

/// The result of an eviction.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The number of files that this call removed.
    pub(super) removed: u64,
    /// The number of bytes of the files in the directory now.
    pub(super) bytes: u64,
    /// The number of bytes of the files that the caller asked to keep.
    pub(super) kept_bytes: u64,
    /// Files that could not be removed, and why.
    pub(super) failures: Vec<String>,
}

/// Lists the files that this library wrote, of all versions and systems. The name and the first bytes identify them.
pub(super) fn files(directory: &Path) -> io::Result<Vec<ProgramFile>> {
    Ok(fs::read_dir(directory)?.flatten().filter_map(|entry| program_file(&entry)).collect())
}

/// The number of bytes of files.
pub(super) fn bytes(files: &[ProgramFile]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}

fn program_file(entry: &DirEntry) -> Option<ProgramFile> {
    if !file_name::is_program(entry.file_name().to_str()?) {
        return None;
    }
    // This does not follow symbolic links.
    let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
    let path = entry.path();
    let (mut file, _) = regular_file::open(&path).ok()?;
    format::has_magic(&mut file).then_some(())?;
    Some(ProgramFile { path, bytes: metadata.len(), last_use: metadata.modified().ok()? })
}

/// Removes the least recently used of `files` until the others have at most `capacity` bytes. Does not remove the files
/// in `keep`, and files that were used during the last minute before `now`.
pub(super) fn evict(files: Vec<ProgramFile>, capacity: u64, keep: &[PathBuf], now: SystemTime) -> Outcome {
    let mut outcome = Outcome { bytes: bytes(&files), ..Outcome::default() };
    let (kept, mut others): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| keep.contains(&file.path));
    outcome.kept_bytes = bytes(&kept);
    others.retain(|file| !is_young(file.last_use, now));
    others.sort_by(|a, b| (a.last_use, &a.path).cmp(&(b.last_use, &b.path)));
    for file in others {
        if outcome.bytes <= capacity {
            break;
        }
        match remove(&file) {
            Ok(Removal::Done) => outcome.removed += 1,
            Ok(Removal::Vanished) => {}
            Ok(Removal::InUse) => continue,
            Err(error) => {
                outcome.failures.push(format!("{}: {error}", file.path.display()));
                continue;
            }
        }
        outcome.bytes -= file.bytes;
    }
    outcome
}

/// A time in the near future counts as young, because the clock of a file server may be ahead of this one.
fn is_young(last_use: SystemTime, now: SystemTime) -> bool {
    let distance = now.duration_since(last_use).unwrap_or_else(|ahead| ahead.duration());
    distance < YOUNG_AGE
}

enum Removal {
    Done,
    /// Another process removed the file.
    Vanished,
    /// Another process used or replaced the file after it was listed.
    InUse,
}

fn remove(file: &ProgramFile) -> io::Result<Removal> {
    let removed = fs::symlink_metadata(&file.path).and_then(|metadata| {
        if metadata.modified()? != file.last_use {
            return Ok(Removal::InUse);
        }
        fs::remove_file(&file.path).map(|()| Removal::Done)
    });
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Removal::Vanished),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Directory;
    use super::*;
    use std::os::unix::fs::symlink;

    const HOUR: Duration = Duration::from_secs(3600);

    fn name(number: u64) -> String {
        format!("nucleus_arbitrary_1x{number}_f32-{number:032x}.nucprog")
    }

    /// Creates a file of 100 bytes that begins like a program and was last used `age` ago.
    fn add(directory: &Directory, name: &str, age: Duration) -> PathBuf {
        let path = directory.0.join(name);
        let mut content = format::MAGIC.to_vec();
        content.resize(100, 0);
        // The file is renamed last. Otherwise, another thread could remove it before its age is set.
        let unnamed = directory.0.join(format!("{name}.new"));
        fs::write(&unnamed, content).unwrap();
        set_age(&unnamed, age);
        fs::rename(&unnamed, &path).unwrap();
        path
    }

    fn set_age(path: &Path, age: Duration) {
        fs::File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    fn run(directory: &Directory, capacity: u64, keep: &[PathBuf]) -> Outcome {
        evict(files(&directory.0).unwrap(), capacity, keep, SystemTime::now())
    }

    #[test]
    fn the_least_recently_used_files_are_removed_first() {
        let directory = Directory::new("evict-order");
        let ages = [3, 1, 5, 2, 4];
        let paths: Vec<PathBuf> =
            (0..5).map(|i| add(&directory, &name(i), HOUR * ages[i as usize])).collect();
        let left = || (0..5).filter(|&i| paths[i].exists()).collect::<Vec<_>>();
        let outcome = run(&directory, 500, &[]);
        assert_eq!((outcome.removed, outcome.bytes, left()), (0, 500, vec![0, 1, 2, 3, 4]));
        let outcome = run(&directory, 499, &[]);
        assert_eq!((outcome.removed, outcome.bytes, left()), (1, 400, vec![0, 1, 3, 4]));
        // A use makes the oldest file the newest.
        set_age(&paths[4], HOUR / 2);
        let outcome = run(&directory, 250, &[]);
        assert_eq!((outcome.removed, outcome.bytes, left()), (2, 200, vec![1, 4]));
        let outcome = run(&directory, 0, &[]);
        assert_eq!((outcome.removed, outcome.bytes, left()), (2, 0, vec![]));
        assert!(outcome.failures.is_empty());
    }

    #[test]
    fn new_and_kept_files_are_never_removed() {
        let directory = Directory::new("evict-keep");
        let young = add(&directory, &name(1), Duration::from_secs(30));
        let kept = add(&directory, &name(2), HOUR * 9);
        let old = add(&directory, &name(3), HOUR);
        // The clock of a file server may be ahead. A time far in the future is not the time of a use.
        let ahead = add(&directory, &name(4), Duration::ZERO);
        fs::File::open(&ahead).unwrap().set_modified(SystemTime::now() + YOUNG_AGE / 2).unwrap();
        let future = add(&directory, &name(5), Duration::ZERO);
        fs::File::open(&future).unwrap().set_modified(SystemTime::now() + HOUR).unwrap();
        let outcome = run(&directory, 10, std::slice::from_ref(&kept));
        assert_eq!((outcome.removed, outcome.bytes, outcome.kept_bytes), (2, 300, 100));
        assert!(young.exists() && kept.exists() && ahead.exists() && !old.exists() && !future.exists());
    }

    #[test]
    fn other_files_are_neither_counted_nor_removed() {
        let directory = Directory::new("evict-foreign");
        let old = HOUR * 24;
        let mut foreign = vec![
            add(&directory, "notes.nucprog", old),
            add(&directory, ".1-2-3.nucprog.tmp", old),
            add(&directory, &format!("{}.bak", name(1)), old),
        ];
        let not_a_program = add(&directory, &name(2), old);
        fs::write(&not_a_program, b"#!/bin/sh\n").unwrap();
        set_age(&not_a_program, old);
        let short = add(&directory, &name(3), old);
        fs::write(&short, b"NUC").unwrap();
        set_age(&short, old);
        let nested = directory.0.join(name(4));
        fs::create_dir(&nested).unwrap();
        let fifo = directory.0.join(name(5));
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let elsewhere = Directory::new("evict-elsewhere");
        let target = add(&elsewhere, "target", old);
        let link = directory.0.join(name(6));
        symlink(&target, &link).unwrap();
        foreign.extend([not_a_program, short, nested, fifo, link, target]);
        assert_eq!(bytes(&files(&directory.0).unwrap()), 0);
        add(&directory, &name(7), old);
        let outcome = run(&directory, 0, &[]);
        assert_eq!((outcome.removed, outcome.bytes), (1, 0));
        for path in foreign {
            assert!(path.symlink_metadata().is_ok(), "{}", path.display());
        }
    }

    /// A process may use, replace or remove a file after this process listed it.
    #[test]
    fn files_that_changed_after_the_listing_are_left_alone() {
        let directory = Directory::new("evict-race");
        let [used, gone, old] = [1, 2, 3].map(|i| add(&directory, &name(i), HOUR * (9 - i as u32)));
        let listed = files(&directory.0).unwrap();
        set_age(&used, Duration::ZERO);
        fs::remove_file(&gone).unwrap();
        let outcome = evict(listed, 150, &[], SystemTime::now());
        assert_eq!((outcome.removed, outcome.bytes), (1, 100));
        assert!(used.exists() && !old.exists() && outcome.failures.is_empty());
    }

    /// Every file is removed and counted by exactly one of the threads, and no race is an error.
    #[test]
    fn several_writers_share_a_directory() {
        const WRITERS: u64 = 4;
        const ROUNDS: u64 = 40;
        const CAPACITY: u64 = 500;
        let directory = Directory::new("evict-writers");
        let later = SystemTime::now() + HOUR;
        let write = |writer: u64| {
            let mut removed = 0;
            for round in 0..ROUNDS {
                let own = add(&directory, &name(writer * ROUNDS + round), Duration::ZERO);
                let listed = files(&directory.0).unwrap();
                let outcome = evict(listed, CAPACITY, std::slice::from_ref(&own), later);
                assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
                removed += outcome.removed;
            }
            removed
        };
        let removed: u64 = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        let left = files(&directory.0).unwrap();
        assert_eq!(removed + left.len() as u64, WRITERS * ROUNDS);
        assert!(bytes(&left) <= CAPACITY, "{left:?}");
    }

    #[test]
    fn failures_are_reported_and_the_next_file_is_tried() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new("evict-failure");
        let [first, second] = [1, 2].map(|i| add(&directory, &name(i), HOUR * (9 - i as u32)));
        let listed = files(&directory.0).unwrap();
        // A directory with the same modification time cannot be removed as a file, even by the superuser.
        let last_use = first.metadata().unwrap().modified().unwrap();
        fs::remove_file(&first).unwrap();
        fs::create_dir(&first).unwrap();
        fs::set_permissions(&first, fs::Permissions::from_mode(0o755)).unwrap();
        fs::File::open(&first).unwrap().set_modified(last_use).unwrap();
        let outcome = evict(listed, 100, &[], SystemTime::now());
        assert_eq!((outcome.removed, outcome.bytes, outcome.failures.len()), (1, 100, 1));
        assert!(outcome.failures[0].contains(first.to_str().unwrap()) && !second.exists());
    }
}
