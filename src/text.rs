//! Makes text safe to print. It replaces control characters with Rust escapes. It also replaces other characters that
//! change how a terminal shows a line.

use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Marks of the writing direction, and the line separators of Unicode.
const INVISIBLE: [RangeInclusive<char>; 4] =
    ['\u{61c}'..='\u{61c}', '\u{200e}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}'];

/// The text as one line.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    escaped_except(text, |_| false)
}

/// Escapes every character that a terminal would not show, except the characters that `keep` accepts.
pub(crate) fn escaped_except(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_special =
        |c: char| (c.is_control() || INVISIBLE.iter().any(|range| range.contains(&c))) && !keep(c);
    if !text.contains(is_special) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match is_special(c) {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_disturbs_a_terminal_is_escaped() {
        assert!(matches!(escaped("tokens: ä, 中"), Cow::Borrowed(_)));
        assert_eq!(escaped("a\r\n\x1b[31mb\u{202e}c\u{200f}"), r"a\r\n\u{1b}[31mb\u{202e}c\u{200f}");
        assert_eq!(escaped_except("a\n\t", |c| c == '\n'), "a\n\\t");
    }
}
