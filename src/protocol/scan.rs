//! JSON by RFC 8259, read to know where a value ends and that it is one: a relay looks no further.
//!
//! One pass, no copy. `serde_json` does the same in three, which took half of the core's instructions for a message; it
//! still reads whatever is looked into, and the tests compare the two.

use wide::u8x16;

/// The last of the characters that a string can not have as they are (RFC 8259, 7).
const LAST_CONTROL: u8 = 0x1f;

/// Bytes that are compared by one instruction.
const LANES: usize = 16;

/// Bytes of a long string that are looked at together: a bit for each fits into a register.
const BLOCK: usize = 64;

/// The text is not JSON, or nests too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotJson;

/// Goes through a text from value to value.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// How many more arrays and objects may begin within each other.
    depth_left: usize,
}

impl<'a> Scanner<'a> {
    /// At the start of a text, whose arrays and objects may nest so deep.
    pub(super) fn new(text: &'a str, depth: usize) -> Self {
        Self { text, at: 0, depth_left: depth }
    }

    /// The next value as it stands, without the white space around it.
    pub(super) fn value(&mut self) -> Result<&'a str, NotJson> {
        self.skip_space();
        let start = self.at;
        match self.next()? {
            b'"' => self.string()?,
            b'{' => self.members(|_, _| ())?,
            b'[' => self.items()?,
            b't' => self.rest(b"rue")?,
            b'f' => self.rest(b"alse")?,
            b'n' => self.rest(b"ull")?,
            b'-' => {
                let first = self.next()?;
                self.number(first)?;
            }
            first => self.number(first)?,
        }
        self.text.get(start..self.at).ok_or(NotJson)
    }

    /// Whether an object begins; if so, its members come next.
    pub(super) fn begins_object(&mut self) -> bool {
        self.skip_space();
        self.takes(b'{')
    }

    /// The members of an object, behind its brace: keys and values as they stand, quotes included.
    pub(super) fn members(&mut self, mut each: impl FnMut(&'a str, &'a str)) -> Result<(), NotJson> {
        self.deeper()?;
        self.skip_space();
        let mut is_over = self.takes(b'}');
        while !is_over {
            self.skip_space();
            let start = self.at;
            self.expect(b'"')?;
            self.string()?;
            let key = self.text.get(start..self.at).ok_or(NotJson)?;
            self.skip_space();
            self.expect(b':')?;
            each(key, self.value()?);
            is_over = self.ends_or_goes_on(b'}')?;
        }
        self.depth_left += 1;
        Ok(())
    }

    /// Nothing but white space is left.
    pub(super) fn end(mut self) -> Result<(), NotJson> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(NotJson) }
    }

    fn items(&mut self) -> Result<(), NotJson> {
        self.deeper()?;
        self.skip_space();
        let mut is_over = self.takes(b']');
        while !is_over {
            self.value()?;
            is_over = self.ends_or_goes_on(b']')?;
        }
        self.depth_left += 1;
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), NotJson> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(NotJson)?;
        Ok(())
    }

    fn ends_or_goes_on(&mut self, end: u8) -> Result<bool, NotJson> {
        self.skip_space();
        match self.next()? {
            b',' => Ok(false),
            byte if byte == end => Ok(true),
            _ => Err(NotJson),
        }
    }

    /// A string, behind its first quote: most keys end within a few bytes, and what is long goes by in blocks.
    fn string(&mut self) -> Result<(), NotJson> {
        let mut is_over = self.block::<LANES>()?.unwrap_or(false);
        while !is_over && let Some(ends) = self.block::<BLOCK>()? {
            is_over = ends;
        }
        while !is_over && let Some(ends) = self.block::<LANES>()? {
            is_over = ends;
        }
        while !is_over {
            is_over = match self.next()? {
                byte @ (b'"' | b'\\' | 0..=LAST_CONTROL) => self.ends_by(byte)?,
                _ => false,
            };
        }
        Ok(())
    }

    /// The next bytes of a string, if there are so many, as far as nothing stops it. True where it ends with them.
    #[inline]
    fn block<const N: usize>(&mut self) -> Result<Option<bool>, NotJson> {
        let Some(block) = self.ahead().first_chunk::<N>() else { return Ok(None) };
        let (passed, stop) = pass(block);
        self.at += passed;
        stop.map_or(Ok(false), |stop| self.ends_by(stop)).map(Some)
    }

    /// What a quote, a backslash or a control character that has been passed means for its string.
    #[inline]
    fn ends_by(&mut self, stop: u8) -> Result<bool, NotJson> {
        match stop {
            b'"' => Ok(true),
            b'\\' => self.escape().map(|()| false),
            _ => Err(NotJson),
        }
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        match self.next()? {
            // Half of a surrogate pair is JSON by its grammar.
            b'u' => (0..4).try_for_each(|_| if self.next()?.is_ascii_hexdigit() { Ok(()) } else { Err(NotJson) }),
            byte if stands_for_one(byte) => Ok(()),
            _ => Err(NotJson),
        }
    }

    /// A number, behind its sign and its first digit.
    fn number(&mut self, first: u8) -> Result<(), NotJson> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return Err(NotJson),
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _sign = self.takes(b'+') || self.takes(b'-');
            self.digits()?;
        }
        Ok(())
    }

    /// One digit at least.
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

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn rest(&mut self, word: &[u8]) -> Result<(), NotJson> {
        word.iter().try_for_each(|&byte| self.expect(byte))
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.next()? == byte { Ok(()) } else { Err(NotJson) }
    }

    fn takes(&mut self, byte: u8) -> bool {
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

/// How much of a string's next bytes can be passed, and the quote, backslash or control character that stops it, which is
/// passed as well. Escapes of two characters do not stop it: every line of an SDP ends in two of them.
#[inline]
fn pass<const N: usize>(block: &[u8; N]) -> (usize, Option<u8>) {
    let mut special = special_in(block);
    while special != 0 {
        let at = special.trailing_zeros() as usize;
        let escapes = block[at] == b'\\' && block.get(at + 1).is_some_and(|&byte| stands_for_one(byte));
        if !escapes {
            return (at + 1, Some(block[at]));
        }
        special &= !(0b11 << at);
    }
    (N, None)
}

/// A bit for each byte that is a quote, a backslash or a control character, the first byte's the lowest.
#[inline]
fn special_in<const N: usize>(block: &[u8; N]) -> u64 {
    let (parts, _) = block.as_chunks::<LANES>();
    parts.iter().rfold(0, |special, part| {
        let bytes = u8x16::new(*part);
        // A quote is put behind the control characters, which stay among themselves: one comparison finds both.
        let moved = bytes ^ u8x16::splat(b'"' ^ (LAST_CONTROL + 1));
        let stops = moved.simd_eq(moved.min(u8x16::splat(LAST_CONTROL + 1))) | bytes.simd_eq(u8x16::splat(b'\\'));
        special << LANES | u64::from(stops.to_bitmask())
    })
}

/// What a backslash may have behind it but for `u` (RFC 8259, 7).
fn stands_for_one(byte: u8) -> bool {
    /// A table: a `match` becomes a jump that is guessed wrongly as often as not.
    static STANDS: [bool; 256] = {
        let mut stands = [false; 256];
        let mut letters: &[u8] = b"\"\\/bfnrt";
        while let [letter, others @ ..] = letters {
            stands[*letter as usize] = true;
            letters = others;
        }
        stands
    };
    STANDS[usize::from(byte)]
}
