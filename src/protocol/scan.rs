//! A JSON scanner: validates a text by RFC 8259 and finds where each value ends.
//!
//! # Why it exists
//!
//! The relay path needs three facts about a payload: where it ends, that it is valid JSON, and that it does not nest
//! deeper than the protocol allows. `serde_json` has no single call for all three. With it (`RawValue` for each field
//! of the envelope), a payload was read three times: for its depth, its end and its validity. That took half of the
//! 7,996 instructions that the core spent on a message. This scanner reads the text once, without a copy, and strings
//! in blocks of 16 or 64 bytes. It brought a message to 3,767 instructions; today it is 2,680 (250 bytes, `make
//! bench-instructions`).
//!
//! # Limits of its use
//!
//! `serde_json` still parses each value that the server interprets: strings with escapes, payload types, ICE servers.
//! `tests/core/properties.rs` and the fuzz target `envelope` check that the scanner and `serde_json` agree on any text.

use wide::u8x16;

/// Last of the characters that a string cannot contain unescaped (RFC 8259, 7).
const LAST_CONTROL: u8 = 0x1f;

/// Bytes that one instruction compares.
const LANES: usize = 16;

/// Bytes of a long string that are scanned together. One bit for each fits into a register.
const BLOCK: usize = 64;

/// The text is not JSON, or nests too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotJson;

/// Scans a text from value to value.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Number of arrays and objects that may still open inside each other.
    depth_left: usize,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of a text. `depth` limits how deep its arrays and objects nest.
    pub(super) fn new(text: &'a str, depth: usize) -> Self {
        Self { text, at: 0, depth_left: depth }
    }

    /// Scans the next value. Returns its text without the white space around it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "so that a text which is not used costs nothing")]
    pub(super) fn value(&mut self) -> Result<&'a str, NotJson> {
        self.skip_space();
        let start = self.at;
        if self.consume_if(b'"') {
            self.string()?;
        } else {
            self.value_but_string()?;
        }
        Ok(self.since(start))
    }

    fn value_but_string(&mut self) -> Result<(), NotJson> {
        match self.next()? {
            b'{' => self.members(|_, _| ()),
            b'[' => self.items(),
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            b'-' => {
                let first = self.next()?;
                self.number(first)
            }
            first => self.number(first),
        }
    }

    /// Returns the text from an earlier position on. Both ends are at ASCII characters, or at an end of the text.
    #[inline]
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Consumes the opening brace if the next value is an object; [`Scanner::members`] is to follow.
    pub(super) fn begins_object(&mut self) -> bool {
        self.skip_space();
        self.consume_if(b'{')
    }

    /// Scans the members of an object, after its opening brace.
    ///
    /// `each` gets the text of each key and value, the quotes included.
    pub(super) fn members(&mut self, mut each: impl FnMut(&'a str, &'a str)) -> Result<(), NotJson> {
        self.descend()?;
        self.skip_space();
        let mut ended = self.consume_if(b'}');
        while !ended {
            self.skip_space();
            let start = self.at;
            self.expect(b'"')?;
            self.string()?;
            let key = self.since(start);
            self.skip_space();
            self.expect(b':')?;
            each(key, self.value()?);
            ended = self.is_last(b'}')?;
        }
        self.depth_left += 1;
        Ok(())
    }

    /// Checks that only white space is left.
    pub(super) fn end(mut self) -> Result<(), NotJson> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(NotJson) }
    }

    fn items(&mut self) -> Result<(), NotJson> {
        self.descend()?;
        self.skip_space();
        let mut ended = self.consume_if(b']');
        while !ended {
            self.value()?;
            ended = self.is_last(b']')?;
        }
        self.depth_left += 1;
        Ok(())
    }

    fn descend(&mut self) -> Result<(), NotJson> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(NotJson)?;
        Ok(())
    }

    fn is_last(&mut self, end: u8) -> Result<bool, NotJson> {
        self.skip_space();
        match self.next()? {
            b',' => Ok(false),
            byte if byte == end => Ok(true),
            _ => Err(NotJson),
        }
    }

    /// Scans a string, after its opening quote.
    ///
    /// Most keys end within 16 bytes, so one short block comes first. Long strings then go in blocks of 64 bytes.
    fn string(&mut self) -> Result<(), NotJson> {
        let mut ended = self.block::<LANES>()?.unwrap_or(false);
        while !ended && let Some(ends) = self.block::<BLOCK>()? {
            ended = ends;
        }
        while !ended && let Some(ends) = self.block::<LANES>()? {
            ended = ends;
        }
        while !ended {
            ended = match self.next()? {
                byte @ (b'"' | b'\\' | 0..=LAST_CONTROL) => self.handle_special(byte)?,
                _ => false,
            };
        }
        Ok(())
    }

    /// Scans the next `N` bytes of a string, up to the first special character.
    ///
    /// `None` if fewer bytes are left. Otherwise whether the string has ended.
    #[inline]
    fn block<const N: usize>(&mut self) -> Result<Option<bool>, NotJson> {
        let Some(block) = self.ahead().first_chunk::<N>() else { return Ok(None) };
        let (passed, special) = scan_block(block);
        self.at += passed;
        special.map_or(Ok(false), |special| self.handle_special(special)).map(Some)
    }

    /// Handles a special character that was passed. True if it ends the string, an error if a string cannot contain it.
    #[inline]
    fn handle_special(&mut self, special: u8) -> Result<bool, NotJson> {
        match special {
            b'"' => Ok(true),
            b'\\' => self.escape().map(|()| false),
            _ => Err(NotJson),
        }
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        match self.next()? {
            // An unpaired surrogate is valid by the grammar of RFC 8259.
            b'u' => (0..4).try_for_each(|_| if self.next()?.is_ascii_hexdigit() { Ok(()) } else { Err(NotJson) }),
            byte if is_short_escape(byte) => Ok(()),
            _ => Err(NotJson),
        }
    }

    /// Scans a number, after its sign. `first` is its first digit.
    fn number(&mut self, first: u8) -> Result<(), NotJson> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return Err(NotJson),
        }
        if self.consume_if(b'.') {
            self.digits()?;
        }
        if self.consume_if(b'e') || self.consume_if(b'E') {
            let _sign = self.consume_if(b'+') || self.consume_if(b'-');
            self.digits()?;
        }
        Ok(())
    }

    /// Scans one digit or more.
    fn digits(&mut self) -> Result<(), NotJson> {
        if !self.next()?.is_ascii_digit() {
            return Err(NotJson);
        }
        self.skip_digits();
        Ok(())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), NotJson> {
        word.iter().try_for_each(|&byte| self.expect(byte))
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.next()? == byte { Ok(()) } else { Err(NotJson) }
    }

    fn consume_if(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn next(&mut self) -> Result<u8, NotJson> {
        let byte = self.peek().ok_or(NotJson)?;
        self.at += 1;
        Ok(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn ahead(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }
}

/// Scans a block of a string. Returns the number of bytes passed, and the special character at which it stopped.
///
/// A special character is a quote, a backslash or a control character; it counts as passed. Escapes of two characters
/// do not stop the scan, since each line of an SDP ends in two of them.
#[inline]
fn scan_block<const N: usize>(block: &[u8; N]) -> (usize, Option<u8>) {
    let mut special = special_in(block);
    while special != 0 {
        let at = special.trailing_zeros() as usize;
        let escapes = block[at] == b'\\' && block.get(at + 1).is_some_and(|&byte| is_short_escape(byte));
        if !escapes {
            return (at + 1, Some(block[at]));
        }
        special &= !(0b11 << at);
    }
    (N, None)
}

/// Returns a bit for each byte that is a quote, a backslash or a control character. The first byte has the lowest bit.
#[inline]
fn special_in<const N: usize>(block: &[u8; N]) -> u64 {
    let (parts, _) = block.as_chunks::<LANES>();
    parts.iter().rfold(0, |special, part| {
        let bytes = u8x16::new(*part);
        // The XOR maps the quote to the value after the control characters, which are only permuted. So one comparison
        // finds both.
        let mapped = bytes ^ u8x16::splat(b'"' ^ (LAST_CONTROL + 1));
        let stops = mapped.simd_eq(mapped.min(u8x16::splat(LAST_CONTROL + 1))) | bytes.simd_eq(u8x16::splat(b'\\'));
        special << LANES | u64::from(stops.to_bitmask())
    })
}

/// Returns whether a backslash may stand before this character, `u` excepted (RFC 8259, 7).
fn is_short_escape(byte: u8) -> bool {
    /// A table, since the branch of a `match` would be mispredicted about every second time.
    static SHORT_ESCAPES: [bool; 256] = {
        let mut is_short = [false; 256];
        let mut letters: &[u8] = b"\"\\/bfnrt";
        while let [letter, others @ ..] = letters {
            is_short[*letter as usize] = true;
            letters = others;
        }
        is_short
    };
    SHORT_ESCAPES[usize::from(byte)]
}
