//! JSON by RFC 8259, read to know where a value ends and that it is one: a relay looks no further.
//!
//! One pass, no copy. `serde_json` does the same in three, which took half of the core's instructions for a message; it
//! still reads whatever is looked into, and the tests compare the two.

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

    /// A string, behind its first quote.
    fn string(&mut self) -> Result<(), NotJson> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                ..b' ' => return Err(NotJson),
                _ => self.at += plain(self.ahead()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            // Half of a surrogate pair is JSON by its grammar.
            b'u' => (0..4).try_for_each(|_| if self.next()?.is_ascii_hexdigit() { Ok(()) } else { Err(NotJson) }),
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

/// How many bytes stand for themselves in a string, up to a quote, a backslash or a control character.
///
/// Eight at a time: a byte of a word is zero where subtracting one borrows from its highest bit and it had none. What
/// borrows further can strike bytes above it wrongly, never below: the lowest is right.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHEST: u64 = u64::from_le_bytes([0x80; 8]);
    let borrows = |word: u64, least: u8| word.wrapping_sub(ONES * u64::from(least));
    let zeroed_by = |word: u64, byte: u8| word ^ (ONES * u64::from(byte));
    let (words, rest) = bytes.as_chunks();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let special = (borrows(word, b' ') | borrows(zeroed_by(word, b'"'), 1) | borrows(zeroed_by(word, b'\\'), 1))
            & !word
            & HIGHEST;
        if special != 0 {
            return number * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| matches!(byte, ..b' ' | b'"' | b'\\');
    bytes.len() - rest.len() + rest.iter().position(is_special).unwrap_or(rest.len())
}
