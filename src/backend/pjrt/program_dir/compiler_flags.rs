//! Compiler flags in the environment. A flag can change any property of a compiled program, including its results.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::Error;
use crate::regular_file;

/// Every XLA compiler reads this variable. If its first non-space character is not `-`, the value is the name of a
/// file of flags (`ParseFlagsFromEnvAndDieIfUnknown` in `xla/parse_flags_from_env.cc`).
const XLA_FLAGS: &str = "XLA_FLAGS";

/// libtpu reads this variable. Its value always consists of flags.
const LIBTPU_INIT_ARGS: &str = "LIBTPU_INIT_ARGS";

/// The largest size of a file of flags. A larger file is rejected.
const LARGEST_FILE: u64 = 1 << 20;

/// Returns the flags in the environment, one `NAME=FLAGS` per variable that has any. The content of a file of flags
/// replaces the file's name, because the name has no effect on programs. A plugin reads the flags once, so a file must
/// not change while the process runs.
pub(super) fn from_environment() -> Result<Vec<String>, Error> {
    from_variables(|name| std::env::var_os(name).unwrap_or_default())
}

fn from_variables(value: impl Fn(&str) -> OsString) -> Result<Vec<String>, Error> {
    let xla = match value(XLA_FLAGS) {
        file if names_file(&file) => read_file(Path::new(&file))?,
        flags => flags,
    };
    Ok([(XLA_FLAGS, xla), (LIBTPU_INIT_ARGS, value(LIBTPU_INIT_ARGS))]
        .into_iter()
        .filter_map(|(name, flags)| Some(format!("{name}={}", normalized(&flags)?)))
        .collect())
}

fn names_file(value: &OsStr) -> bool {
    value.as_bytes().iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|&byte| byte != b'-')
}

fn read_file(path: &Path) -> Result<OsString, Error> {
    let failed = |problem: String| {
        Error::Io(format!("{XLA_FLAGS} names a file of compiler flags, {}: {problem}", path.display()))
    };
    let (file, metadata) = regular_file::open(path).map_err(|error| failed(error.to_string()))?;
    if metadata.len() > LARGEST_FILE {
        return Err(failed(format!("it has {} bytes, more than {LARGEST_FILE}", metadata.len())));
    }
    let mut flags = Vec::new();
    file.take(LARGEST_FILE).read_to_end(&mut flags).map_err(|error| failed(error.to_string()))?;
    Ok(OsStr::from_bytes(&flags).to_owned())
}

/// Returns the flags in a form that does not depend on the spaces between them; `None` if there are none. Spaces in
/// quotes belong to a flag, so text with quotes is only trimmed.
fn normalized(flags: &OsStr) -> Option<String> {
    let flags = String::from_utf8(flags.as_bytes().to_vec())
        .unwrap_or_else(|error| error.as_bytes().escape_ascii().to_string());
    let flags = match flags.contains(['"', '\'', '\\']) {
        true => flags.trim().to_owned(),
        false => flags.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    (!flags.is_empty()).then_some(flags)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Directory;
    use super::*;
    use std::fs;

    fn text(value: &str) -> Option<String> {
        normalized(OsStr::new(value))
    }

    #[test]
    fn spaces_between_flags_do_not_matter() {
        assert_eq!(text(" --a=1  --b\n").as_deref(), Some("--a=1 --b"));
        assert_eq!(text("  "), None);
        assert_ne!(text("--a='1 2'"), text("--a='1  2'"));
        assert_ne!(normalized(OsStr::from_bytes(b"--a=\xff")), normalized(OsStr::from_bytes(b"--a=\xfe")));
    }

    #[test]
    fn a_value_that_does_not_start_with_a_dash_names_a_file() {
        for (value, is_file) in [
            ("--a", false),
            (" \t--a", false),
            ("", false),
            ("  ", false),
            ("/flags", true),
            (" flags", true),
        ] {
            assert_eq!(names_file(OsStr::new(value)), is_file, "{value:?}");
        }
    }

    /// The content of a file of flags matters, its name does not.
    #[test]
    fn flags_in_a_file_count_like_flags_in_the_variable() {
        let directory = Directory::new("flag-files");
        let xla = |value: &OsStr| {
            from_variables(|name| if name == XLA_FLAGS { value.to_owned() } else { OsString::new() }).unwrap()
        };
        let file = |name: &str, flags: &str| {
            let path = directory.0.join(name);
            fs::write(&path, flags).unwrap();
            xla(path.as_os_str())
        };
        assert_eq!(file("one", "--a=1\n--b\n"), ["XLA_FLAGS=--a=1 --b"]);
        assert_eq!(file("one", "--a=1\n--b\n"), file("two", " --a=1 --b"));
        assert_eq!(file("one", "--a=1 --b"), xla(OsStr::new("--a=1 --b")));
        assert_ne!(file("one", "--a=1"), file("one", "--a=2"));
        assert!(file("one", "").is_empty());
        let libtpu = from_variables(|name| OsString::from(if name == XLA_FLAGS { "" } else { "--c /x" }));
        assert_eq!(libtpu.unwrap(), ["LIBTPU_INIT_ARGS=--c /x"]);
    }

    #[test]
    fn files_of_flags_are_read_within_bounds() {
        let directory = Directory::new("flags");
        let path = directory.0.join("file");
        fs::write(&path, "--a=1\n--b\n").unwrap();
        assert_eq!(read_file(&path).unwrap(), "--a=1\n--b\n");
        fs::File::create(&path).unwrap().set_len(LARGEST_FILE + 1).unwrap();
        for (path, words) in [
            (path, "more than 1048576"),
            (directory.0.clone(), "regular file"),
            ("/no/file".into(), "No such"),
        ] {
            let error = read_file(&path).unwrap_err();
            assert!(matches!(&error, Error::Io(text) if text.contains(words)), "{error}");
        }
    }
}
