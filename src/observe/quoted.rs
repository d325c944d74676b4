//! Text of a peer in a log line: quoted, escaped and cut.

use std::fmt;

/// The bytes of a peer's text that a log line has.
///
/// No setting: it holds a line readable, and nothing is kept by it. The journal has whole texts, and the number of lines has a
/// bound that is a setting (`limits.refusals_logged_per_second`).
pub const MAX_QUOTED: usize = 128;

/// Formats a text of a peer for the log: in quotes, with control characters and line separators escaped, and cut to
/// [`MAX_QUOTED`] bytes.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        if text.len() <= MAX_QUOTED {
            return fmt::Debug::fmt(text, f);
        }
        let end = (0..=MAX_QUOTED).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
        write!(f, "{:?} (the first {end} of {} bytes)", &text[..end], text.len())
    }
}
