//! Makes text from plugins, the loader and paths safe to print. It escapes control characters, replaces invalid UTF-8,
//! and limits the length of text in errors.

use std::fmt;
use std::path::Path;

use crate::text::{escaped, escaped_except};

/// The largest number of bytes that an error quotes from a message. It is enough for messages of compilers.
const LONGEST_MESSAGE: usize = 64 << 10;

/// Messages omit the middle of a long path. They show this number of characters of its start and of its end.
const PATH_START: usize = 40;
const PATH_END: usize = 120;

/// A name, version or description. Line breaks stay, because a platform's version may have several lines.
pub(super) fn name(bytes: &[u8]) -> String {
    escaped_except(&String::from_utf8_lossy(bytes), |character| character == '\n').into_owned()
}

/// A message as an error quotes it: shortened if it is very long. Line breaks are kept.
pub(super) fn message(bytes: &[u8]) -> String {
    let quoted = String::from_utf8_lossy(&bytes[..prefix(bytes, LONGEST_MESSAGE)]);
    let mut text =
        escaped_except(quoted.trim_end(), |character| matches!(character, '\n' | '\t')).into_owned();
    if bytes.len() > LONGEST_MESSAGE {
        text.push_str(&format!("... [{} bytes in all]", bytes.len()));
    }
    text
}

/// The length of the longest prefix of at most `limit` bytes that does not split a UTF-8 character.
fn prefix(bytes: &[u8], limit: usize) -> usize {
    if bytes.len() <= limit {
        return bytes.len();
    }
    let starts_character = |&end: &usize| bytes[end] & 0xC0 != 0x80;
    (limit.saturating_sub(3)..=limit).rev().find(starts_character).unwrap_or(limit)
}

/// Shows a path in a message. The middle of a long path is cut, so that the reason after it stays visible.
pub(super) struct Shown<'a>(pub(super) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.to_string_lossy();
        let path = escaped(&path);
        let count = path.chars().count();
        if count <= PATH_START + PATH_END {
            return f.write_str(&path);
        }
        let byte_of = |place: usize| path.char_indices().nth(place).map_or(path.len(), |(byte, _)| byte);
        write!(f, "{}[...]{}", &path[..byte_of(PATH_START)], &path[byte_of(count - PATH_END)..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(name(b"TFRT\nBuilt \x1b[31mtoday\t\0"), "TFRT\nBuilt \\u{1b}[31mtoday\\t\\u{0}");
        assert_eq!(message("a\r\nb\u{202e}c\u{2028}ä\n\n".as_bytes()), "a\\r\nb\\u{202e}c\\u{2028}ä");
        assert_eq!(name(b"\xff ok"), "\u{fffd} ok");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = format!("{}äöü", "x".repeat(LONGEST_MESSAGE - 1));
        let shown = message(text.as_bytes());
        assert_eq!(shown, format!("{}... [{} bytes in all]", "x".repeat(LONGEST_MESSAGE - 1), text.len()));
        // Bytes that are not UTF-8 at all.
        assert!(message(&[0x80; 5 * LONGEST_MESSAGE]).starts_with("\u{fffd}\u{fffd}"));
        assert_eq!(message(&[b'y'; LONGEST_MESSAGE]), "y".repeat(LONGEST_MESSAGE));
    }

    #[test]
    fn long_paths_lose_their_middle() {
        let short = "/opt/plugins/plügin.so";
        assert_eq!(Shown(Path::new(short)).to_string(), short);
        let long = format!("/start/{}/plugin.so", "ü".repeat(300));
        let shown = Shown(Path::new(&long)).to_string();
        assert!(shown.starts_with("/start/üü") && shown.ends_with("üü/plugin.so"), "{shown}");
        assert_eq!(shown.chars().count(), PATH_START + PATH_END + "[...]".len());
        assert_eq!(Shown(Path::new("/a\nb")).to_string(), r"/a\nb");
    }
}
