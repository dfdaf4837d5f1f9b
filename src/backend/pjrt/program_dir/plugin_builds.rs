//! The builds of plugins that processes have identified, in a file of the directory of programs.
//!
//! Most plugins have no build id, and the size of their files is hundreds of megabytes. If the directory contains all
//! programs, hashing the plugin takes longer than the rest of the start. So the directory keeps the hash together with
//! the state of the file (`FileState`).

use std::fs::Metadata;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use log::Level;
use serde::{Deserialize, Serialize};

use super::{distrust, replace, trust, Message};
use crate::pjrt::FileState;
use crate::regular_file;

/// The name of the file.
const NAME: &str = "nucleus_plugins.json";

/// The largest number of files of plugins in the list. The oldest entries are removed.
const LARGEST_COUNT: usize = 16;

/// A file of this many bytes or more is not read. An entry has about 250 bytes.
const LARGEST_FILE: u64 = 1 << 16;

/// The plugins that are known in a directory.
#[derive(Debug, Default)]
pub(crate) struct PluginBuilds {
    /// The newest first.
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    file: FileState,
    build: String,
}

impl PluginBuilds {
    /// Reads the file in a directory. Returns an empty list if there is no file, if the file cannot be used, or if
    /// other users can write to it.
    pub(crate) fn read(directory: &Path) -> PluginBuilds {
        // A process that cannot use the file hashes the plugin instead. So an error is ignored.
        let is_safe = || Some(distrust(directory).ok()?.is_none());
        let entries = || -> Option<Vec<Entry>> {
            let (file, metadata) = regular_file::open(&path(directory)).ok()?;
            let is_usable =
                |metadata: &Metadata| trust::distrust(metadata).is_none() && metadata.len() < LARGEST_FILE;
            let mut text = String::new();
            is_usable(&metadata).then(|| file.take(LARGEST_FILE).read_to_string(&mut text))?.ok()?;
            serde_json::from_str(&text).ok()
        };
        let entries = is_safe().filter(|&is_safe| is_safe).and_then(|_| entries());
        PluginBuilds { entries: entries.unwrap_or_default() }
    }

    /// The build that a file contains, if a process has hashed it in this state.
    pub(crate) fn find(&self, file: &FileState) -> Option<String> {
        self.entries.iter().find(|entry| entry.file == *file).map(|entry| entry.build.clone())
    }

    /// Adds files, and writes the list to a directory. If two processes write at the same time, one list replaces the
    /// other. Then a later process hashes the missing files again. Returns a message if the file cannot be written.
    #[must_use]
    pub(crate) fn add(directory: &Path, hashed: &[(FileState, String)]) -> Option<Message> {
        if hashed.is_empty() {
            return None;
        }
        let known = PluginBuilds::read(directory);
        if hashed.iter().all(|(file, build)| known.find(file).as_ref() == Some(build)) {
            return None;
        }
        let mut entries = known.entries;
        for (file, build) in hashed {
            entries.retain(|entry| !entry.file.is_same_file(file));
            entries.insert(0, Entry { file: file.clone(), build: build.clone() });
        }
        entries.truncate(LARGEST_COUNT);
        let path = path(directory);
        let text = serde_json::to_string_pretty(&entries).map_err(std::io::Error::from);
        let written = text.and_then(|text| replace(directory, &path, &[text.into_bytes()]));
        written.err().map(|error| (Level::Warn, format!("{} cannot be written: {error}", path.display())))
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::tests::Directory;
    use super::*;

    fn add(directory: &Path, file: &FileState, build: &str) {
        assert_eq!(PluginBuilds::add(directory, &[(file.clone(), build.to_owned())]), None);
    }

    fn find(directory: &Path, file: &FileState) -> Option<String> {
        PluginBuilds::read(directory).find(file)
    }

    #[test]
    fn a_build_is_found_while_its_file_does_not_change() {
        let directory = Directory::new("builds");
        let dir = &directory.0;
        let plugin = dir.join("plugin.so");
        fs::write(&plugin, "one").unwrap();
        let state = || FileState::of(&fs::metadata(&plugin).unwrap());
        let first = state();
        assert_eq!(find(dir, &first), None);
        add(dir, &first, "a");
        assert_eq!(find(dir, &first).unwrap(), "a");
        // The contents have the same size, and the time of the modification is restored.
        let modified = fs::metadata(&plugin).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&plugin, "two").unwrap();
        fs::File::options().write(true).open(&plugin).unwrap().set_modified(modified).unwrap();
        assert_eq!(find(dir, &state()), None);
        add(dir, &state(), "b");
        assert_eq!((find(dir, &state()).unwrap(), find(dir, &first)), ("b".to_owned(), None));
        // Another file with the same contents.
        fs::copy(&plugin, dir.join("new")).unwrap();
        fs::rename(dir.join("new"), &plugin).unwrap();
        assert_eq!(find(dir, &state()), None);
    }

    #[test]
    fn the_list_is_bounded() {
        let directory = Directory::new("many-builds");
        let dir = &directory.0;
        let states: Vec<FileState> = (0..LARGEST_COUNT + 2)
            .map(|number| {
                let file = dir.join(format!("{number}.so"));
                fs::write(&file, "plugin").unwrap();
                FileState::of(&fs::metadata(&file).unwrap())
            })
            .collect();
        states.iter().for_each(|state| add(dir, state, "a"));
        let known = states.iter().map(|state| find(dir, state).is_some());
        assert!(known.eq((0..states.len()).map(|number| number >= 2)));
        assert!(fs::metadata(path(dir)).unwrap().len() < LARGEST_FILE / 4);
    }

    #[test]
    fn files_that_cannot_be_used_are_ignored_and_replaced() {
        let directory = Directory::new("bad-builds");
        let dir = &directory.0;
        let state = FileState::of(&fs::metadata(dir).unwrap());
        add(dir, &state, "a");
        let good = fs::read(path(dir)).unwrap();
        for bad in [&b""[..], b"[{\"file\":1}]", b"{}", &good[1..], &vec![b' '; LARGEST_FILE as usize]] {
            fs::write(path(dir), bad).unwrap();
            assert_eq!(find(dir, &state), None);
            add(dir, &state, "b");
            assert_eq!(find(dir, &state).unwrap(), "b");
        }
        fs::set_permissions(path(dir), fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(find(dir, &state), None, "other users can write to the file");
        add(dir, &state, "b");
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(find(dir, &state), None, "other users can write to the directory");
        let message = PluginBuilds::add(&dir.join("not there"), &[(state, "a".to_owned())]).unwrap();
        assert!(message.0 == Level::Warn && message.1.contains("cannot be written"), "{message:?}");
        assert_eq!(PluginBuilds::add(dir, &[]), None);
    }
}
