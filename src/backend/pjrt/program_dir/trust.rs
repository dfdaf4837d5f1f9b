//! Which files and directories of compiled programs are safe to use.
//!
//! A device executes the content of a file of compiled programs, so write access to the file is equivalent to code
//! execution in this process. As in ssh(1), a file or directory is not used if another user owns it or can write to it.
//! A directory with the sticky bit may be writable: only the owner of a file can replace the file there, and each file
//! is checked too.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::environment::{self, TRUST_PROGRAM_DIR_VARIABLE};

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
const ROOT: u32 = 0;

/// Returns the reason why the file or directory is not used. `None` if it is safe, or if the environment says to trust
/// it.
pub(super) fn distrust(metadata: &Metadata) -> Option<String> {
    let user = environment::effective_user();
    let danger = danger(metadata.uid(), metadata.mode(), metadata.is_dir(), user);
    unless_trusted(danger?, environment::variable(TRUST_PROGRAM_DIR_VARIABLE))
}

fn unless_trusted(danger: String, variable: Option<OsString>) -> Option<String> {
    let is_trusted = variable.is_some_and(|value| value == "1");
    (!is_trusted)
        .then(|| format!("{danger}; correct that, or set {TRUST_PROGRAM_DIR_VARIABLE}=1 to use it anyway"))
}

fn danger(owner: u32, mode: u32, is_dir: bool, user: u32) -> Option<String> {
    if owner != user && owner != ROOT {
        return Some(format!("it belongs to user {owner}, and this process runs as user {user}"));
    }
    let is_protected = is_dir && mode & STICKY != 0;
    (mode & WRITABLE_BY_OTHERS != 0 && !is_protected)
        .then(|| format!("other users can write to it (mode {:03o})", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_else_can_change_is_safe() {
        const FILE: bool = false;
        const DIRECTORY: bool = true;
        for (owner, mode, is_dir) in [
            (7, 0o100_644, FILE),
            (7, 0o100_400, FILE),
            (0, 0o100_755, FILE),
            (7, 0o040_755, DIRECTORY),
            (0, 0o041_777, DIRECTORY),
        ] {
            assert_eq!(danger(owner, mode, is_dir, 7), None, "{owner} {mode:o}");
        }
        for (owner, mode, is_dir, words) in [
            (8, 0o100_600, FILE, "belongs to user 8"),
            (8, 0o041_777, DIRECTORY, "belongs to user 8"),
            (7, 0o100_664, FILE, "mode 664"),
            (7, 0o100_646, FILE, "mode 646"),
            (0, 0o101_666, FILE, "mode 1666"),
            (7, 0o040_775, DIRECTORY, "mode 775"),
            (0, 0o040_777, DIRECTORY, "mode 777"),
        ] {
            let reason = danger(owner, mode, is_dir, 7);
            assert!(reason.as_ref().is_some_and(|text| text.contains(words)), "{owner} {mode:o}: {reason:?}");
        }
        // Root trusts only itself.
        assert!(danger(7, 0o100_644, FILE, 0).is_some());
    }

    #[test]
    fn the_environment_overrides_the_check() {
        let reason = |value: Option<&str>| unless_trusted("danger".to_owned(), value.map(OsString::from));
        assert_eq!(reason(Some("1")), None);
        for value in [None, Some("0"), Some("yes")] {
            assert!(reason(value)
                .unwrap()
                .contains("danger; correct that, or set NUCLEUS_TRUST_PROGRAM_DIR=1"));
        }
    }
}
