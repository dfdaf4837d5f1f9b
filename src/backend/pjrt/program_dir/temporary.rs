//! Temporary files: their names, and the removal of files whose writers died.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SUFFIX: &str = ".nucprog.tmp";

/// The minimum age of a file that is removed. The writer of a younger file may run on another host or in another
/// container.
const STALE_AGE: Duration = Duration::from_secs(3600);

/// Returns a path that no other writer uses, including writers on other hosts that share the file system. The name
/// starts with the id of this process.
pub(super) fn path(directory: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    directory.join(format!(".{process}-{count}-{}{SUFFIX}", clock.as_nanos()))
}

/// Removes old temporary files whose writers no longer run. Returns their number. Files that cannot be examined or
/// removed stay.
pub(super) fn remove_stale(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let stale = |entry: &fs::DirEntry| {
        let writer = entry.file_name().to_str().and_then(writer);
        let modified =
            entry.metadata().ok().filter(fs::Metadata::is_file).and_then(|data| data.modified().ok());
        let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        age.is_some_and(|age| age > STALE_AGE) && writer.is_some_and(|writer| !is_running(writer))
    };
    entries.flatten().filter(stale).filter(|entry| fs::remove_file(entry.path()).is_ok()).count()
}

/// The process id in the name of a temporary file.
fn writer(name: &str) -> Option<u32> {
    let numbers = name.strip_prefix('.')?.strip_suffix(SUFFIX)?;
    let mut numbers = numbers.split('-').map(|number| number.parse::<u128>().ok());
    let writer = numbers.next()??;
    let (Some(Some(_)), Some(Some(_)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
        return None;
    };
    u32::try_from(writer).ok()
}

fn is_running(process: u32) -> bool {
    // Without procfs, it is unknown which processes run. So every writer is assumed to be running.
    !Path::new("/proc/self").exists() || Path::new("/proc").join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Directory;
    use super::*;

    #[test]
    fn only_old_files_of_dead_writers_are_removed() {
        let directory = Directory::new("stale");
        // No process has an id this large: the limit of Linux is 2^22.
        let (dead, alive) = (4_194_999, std::process::id());
        let own = path(&directory.0).file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(writer(&own), Some(alive));
        let old = SystemTime::now() - STALE_AGE - Duration::from_secs(60);
        let cases = [
            (format!(".{dead}-0-1{SUFFIX}"), old, false),
            (format!(".{dead}-1-1{SUFFIX}"), SystemTime::now(), true),
            (format!(".{alive}-0-1{SUFFIX}"), old, true),
            (format!(".{dead}-0-1.tmp"), old, true),
            (format!(".{dead}-0-1-2{SUFFIX}"), old, true),
            (format!(".{dead}-x-1{SUFFIX}"), old, true),
            (format!("{dead}-0-1{SUFFIX}"), old, true),
            ("program.nucprog".to_owned(), old, true),
        ];
        for (name, modified, _) in &cases {
            let file = fs::File::create(directory.0.join(name)).unwrap();
            file.set_modified(*modified).unwrap();
        }
        assert_eq!(remove_stale(&directory.0), 1);
        for (name, _, stays) in &cases {
            assert_eq!(directory.0.join(name).exists(), *stays, "{name}");
        }
    }
}
