//! The names of programs' files.

use crate::kernels::program::ProgramSpec;

const EXTENSION: &str = ".nucprog";

/// The number of hexadecimal digits of a key.
pub(super) const KEY_DIGITS: usize = 32;

/// The name of a program's file. The key is a hash of everything that the executable depends on.
pub(super) fn of(spec: &ProgramSpec, key: &str) -> String {
    format!("{}-{key}{EXTENSION}", spec.name())
}

/// Whether a file with this name can be a program for `spec`.
pub(super) fn is_of(name: &str, spec: &ProgramSpec) -> bool {
    name.strip_prefix(&spec.name()).is_some_and(|rest| rest.starts_with('-')) && name.ends_with(EXTENSION)
}

/// Whether [`of`] can return this name, in any version of this library.
pub(super) fn is_program(name: &str) -> bool {
    let parts = name.strip_prefix("nucleus_").and_then(|rest| rest.strip_suffix(EXTENSION)?.rsplit_once('-'));
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    parts.is_some_and(|(program, key)| {
        !program.is_empty() && key.len() == KEY_DIGITS && key.as_bytes().iter().all(is_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::{Path, Source, Spec, Wanted};

    #[test]
    fn names_are_recognised() {
        let spec = Spec {
            path: Path::Arbitrary,
            batch: 8,
            vocab: 1000,
            dtype: Dtype::F32,
            stable: false,
            wanted: Wanted::default(),
            source: Source::Batch,
        };
        let program = spec.into();
        let name = of(&program, "0123456789abcdef0123456789abcdef");
        assert!(is_program(&name) && is_of(&name, &program), "{name}");
        assert!(!is_of(&name, &Spec { batch: 80, ..spec }.into()));
        for other in [
            name.trim_end_matches('g'),
            &name[1..],
            &format!(".{name}"),
            &format!("{name}.tmp"),
            &name.replace('f', "F"),
            "nucleus_a-0123456789abcdef.nucprog",
            "nucleus_-0123456789abcdef0123456789abcdef.nucprog",
            "nucleus_a.nucprog",
        ] {
            assert!(!is_program(other), "{other}");
        }
    }
}
