//! Message texts for C.
//!
//! Messages quote paths and plugins, so this library does not control their length and their content.

use std::borrow::Cow;

use crate::text::{escaped, escaped_except};

/// Longer words, most often paths, are shortened first.
const LARGEST_WORD: usize = 100;
/// Replaces the text that was cut.
const CUT: &str = "[...]";

/// The message as one line without control characters, of at most `limit` bytes.
pub(super) fn one_line(message: &str, limit: usize) -> String {
    shortened(&escaped(message), limit).into_owned()
}

/// The whole message. Its lines stay; other control characters are escaped.
pub(super) fn whole(message: &str) -> Cow<'_, str> {
    escaped_except(message, |character| matches!(character, '\n' | '\t'))
}

/// The first `limit` bytes of the text, or fewer, so that no character is split.
pub(super) fn prefix(text: &str, limit: usize) -> &str {
    let limit = limit.min(text.len());
    let end = (0..=limit).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

/// Shortens the text to at most `limit` bytes. It first cuts the middle of long words, then the middle of the text.
/// The start of a message says what failed, and its end says why and what to do.
fn shortened(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let words: Vec<Cow<'_, str>> = text.split(' ').map(|word| without_middle(word, LARGEST_WORD)).collect();
    Cow::Owned(without_middle(&words.join(" "), limit).into_owned())
}

/// Shortens the text to at most `limit` bytes by cutting its middle. Multi-byte characters are not split.
fn without_middle(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let half = (limit - CUT.len()) / 2;
    let start = (0..=half).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let end = (text.len() - half..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    Cow::Owned(format!("{}{CUT}{}", &text[..start], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_message_stays_as_it_is() {
        let text = "x".repeat(507);
        assert_eq!(shortened(&text, 507), text);
    }

    #[test]
    fn the_reason_survives_a_long_path() {
        for path in ["/directory".repeat(400), "/a directory with spaces".repeat(400), "ä/".repeat(2000)] {
            let text = format!(
                "no PJRT plugin at {path}: No such file; give the path of the plugin's shared library"
            );
            let short = shortened(&text, 507);
            assert!(short.len() <= 507 && short.starts_with("no PJRT plugin at "), "{short}");
            assert!(short.contains(": No such file; give the path"), "{short}");
            let twice = format!("cannot load {path}: {path}: file too short; check that it is a PJRT plugin");
            let short = shortened(&twice, 507);
            assert!(short.len() <= 507 && short.contains("file too short; check that"), "{short}");
        }
    }

    #[test]
    fn a_prefix_splits_no_character() {
        assert_eq!([0, 1, 2, 3, 9].map(|limit| prefix("aäb", limit)), ["", "a", "a", "aä", "aäb"]);
    }

    #[test]
    fn the_whole_message_keeps_its_lines() {
        assert_eq!(whole("a\n\tb\r\u{1b}"), "a\n\tb\\r\\u{1b}");
        assert_eq!(one_line("a\nb", 9), "a\\nb");
    }

    #[test]
    fn no_character_is_cut_in_half() {
        for length in 500..530 {
            for text in ["ä".repeat(length), format!("a{}", "ä".repeat(length)), "🙂 ".repeat(length)] {
                let short = shortened(&text, 507);
                assert!(short.len() <= 507 && short.chars().all(|c| "aä🙂 [.]".contains(c)), "{short}");
            }
        }
    }
}
