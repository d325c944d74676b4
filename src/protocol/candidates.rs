//! Rewrites the addresses of host candidates, for devices behind 1:1 NAT (RFC 8839, 5.1).
//!
//! A device in a container offers the address that it sees itself, which clients cannot reach. A rule replaces it with
//! the one at which they can. Only the characters of the address change: all other bytes of the payload stay.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

/// Greatest number of rules.
pub const MAX_RULES: usize = 256;

/// One rule: the addresses that the device sees, and those at which clients reach it. `Display` writes it as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRule {
    inner: IpNet,
    outer: IpNet,
}

/// Rules that neither overlap nor lead from one to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRules(Vec<AddressRule>);

impl AddressRule {
    /// Reads `INNER=OUTER`: two addresses, two networks of one size, or a network and an address.
    ///
    /// # Errors
    /// The reason and the fix, with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = "write INNER=OUTER, like 172.17.0.2=192.0.2.7 or 10.0.0.0/24=192.0.2.0/24";
        let (inner, outer) = text.split_once('=').ok_or_else(|| format!("{text:?} has no `=`: {wanted}"))?;
        let (inner, outer) = (network(inner, wanted)?, network(outer, wanted)?);
        if inner.addr().is_ipv4() != outer.addr().is_ipv4() {
            return Err(format!("{text:?} has an IPv4 and an IPv6 address: a candidate keeps its family"));
        }
        if outer.prefix_len() != inner.prefix_len() && outer.prefix_len() != outer.max_prefix_len() {
            return Err(format!("{text:?} has networks of two sizes: give both one prefix, or one outer address"));
        }
        Ok(Self { inner, outer })
    }

    /// Returns the address at which clients reach the one that the device sees; `None` if the rule is not for it.
    fn outer(&self, address: IpAddr) -> Option<IpAddr> {
        if !self.inner.contains(&address) {
            return None;
        }
        Some(match (address, self.outer.addr(), self.outer.hostmask()) {
            (IpAddr::V4(inner), IpAddr::V4(outer), IpAddr::V4(host)) => IpAddr::V4(outer | (inner & host)),
            (IpAddr::V6(inner), IpAddr::V6(outer), IpAddr::V6(host)) => IpAddr::V6(outer | (inner & host)),
            _ => return None,
        })
    }
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |net: IpNet| {
            let is_address = net.prefix_len() == net.max_prefix_len();
            if is_address { net.addr().to_string() } else { net.to_string() }
        };
        write!(f, "{}={}", side(self.inner), side(self.outer))
    }
}

impl AddressRules {
    /// Checks rules against each other.
    ///
    /// # Errors
    /// The reason and the fix, with the rules: there are too many, two have one inner address, or the outer address of
    /// one is the inner address of another.
    pub fn new(rules: Vec<AddressRule>) -> Result<Self, String> {
        if rules.len() > MAX_RULES {
            return Err(format!("{} rules, and at most {MAX_RULES} are allowed: use networks", rules.len()));
        }
        for (place, rule) in rules.iter().enumerate() {
            for other in &rules[..place] {
                if overlap(rule.inner, other.inner) {
                    return Err(format!("{other} and {rule} overlap: give each inner address one rule"));
                }
            }
            // A rule may map an address to itself: those of a network that needs no other.
            let loops = |other: &&AddressRule| overlap(rule.outer, other.inner) && rule.inner != rule.outer;
            if let Some(other) = rules.iter().find(loops) {
                return Err(format!(
                    "{rule} leads to an inner address of {other}: no outer address may be an inner one"
                ));
            }
        }
        Ok(Self(rules))
    }

    /// Reads rules, each `INNER=OUTER`. `None` if there are none.
    ///
    /// # Errors
    /// As [`AddressRule::parse`] and [`AddressRules::new`].
    pub fn parse(texts: &[impl AsRef<str>]) -> Result<Option<Self>, String> {
        if texts.is_empty() {
            return Ok(None);
        }
        let rules = texts.iter().map(|text| AddressRule::parse(text.as_ref())).collect::<Result<_, _>>()?;
        Self::new(rules).map(Some)
    }

    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the rules.
    pub fn rules(&self) -> &[AddressRule] {
        &self.0
    }

    /// Rewrites the addresses in a payload. Returns the new payload and the number of addresses that were replaced;
    /// `None` if there were none.
    ///
    /// `payload` is valid JSON text. Addresses are replaced in the strings `candidate` and `sdp`, at any depth: those of
    /// host candidates, related addresses (`raddr`), and the lines `c=` of an SDP.
    pub fn rewrite(&self, payload: &str) -> Option<(String, usize)> {
        let mut found = Vec::new();
        for value in values(payload) {
            let text = Unescaped::of(payload, value);
            for line in lines(&text.bytes) {
                for address in addresses(&text.bytes, line) {
                    let inner =
                        std::str::from_utf8(&text.bytes[address.clone()]).ok().and_then(|text| text.parse().ok());
                    let outer = inner.and_then(|inner| self.0.iter().find_map(|rule| rule.outer(inner)));
                    found.extend(outer.filter(|outer| Some(*outer) != inner).map(|outer| (text.raw(&address), outer)));
                }
            }
        }
        if found.is_empty() {
            return None;
        }
        let (mut rewritten, mut copied) = (String::with_capacity(payload.len() + 16 * found.len()), 0);
        for (place, outer) in &found {
            rewritten.push_str(&payload[copied..place.start]);
            rewritten.push_str(&outer.to_string());
            copied = place.end;
        }
        rewritten.push_str(&payload[copied..]);
        Some((rewritten, found.len()))
    }
}

/// Reads an address or a network.
fn network(text: &str, wanted: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from).ok();
    let network = address.or_else(|| text.parse().ok()).ok_or_else(|| format!("{text:?} is no address: {wanted}"))?;
    if network.trunc() != network {
        return Err(format!("{text:?} has bits behind its prefix: write {}", network.trunc()));
    }
    Ok(network)
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// The places of the strings whose key is `candidate` or `sdp`, without their quotes.
fn values(payload: &str) -> Vec<Range<usize>> {
    let (mut found, mut at, mut wanted) = (Vec::new(), 0, false);
    while let Some(begin) = payload[at..].find('"').map(|quote| at + quote + 1) {
        let end = string_end(payload, begin);
        at = end + 1;
        let is_key = payload.get(at..).is_some_and(|rest| rest.trim_start().starts_with(':'));
        if is_key {
            wanted = is_wanted(&payload[begin..end]);
        } else if wanted {
            found.push(begin..end);
        }
        at = at.min(payload.len());
    }
    found
}

/// The place of the closing quote of the string that begins here.
fn string_end(payload: &str, begin: usize) -> usize {
    let mut escaped = false;
    let quote = payload.as_bytes()[begin..].iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    quote.map_or(payload.len(), |quote| begin + quote)
}

/// Whether a key, which may have escapes, is one of those whose strings have addresses.
fn is_wanted(key: &str) -> bool {
    matches!(&*Unescaped::of(key, 0..key.len()).bytes, b"candidate" | b"sdp")
}

/// A JSON string without its escapes, and where each of its bytes stands.
struct Unescaped {
    /// The bytes. A character that is no ASCII and was escaped is a `?`: no address has one.
    bytes: Vec<u8>,
    /// The place of each byte in the payload, and the place of the end.
    places: Vec<usize>,
}

impl Unescaped {
    fn of(payload: &str, value: Range<usize>) -> Self {
        let (mut bytes, mut places) = (Vec::with_capacity(value.len()), Vec::with_capacity(value.len() + 1));
        let raw = payload.as_bytes();
        let mut at = value.start;
        while at < value.end {
            let (byte, length) = match (raw[at], raw.get(at + 1)) {
                (b'\\', Some(b'u')) => (hex(payload.get(at + 2..at + 6)), 6),
                (b'\\', Some(b'n')) => (b'\n', 2),
                (b'\\', Some(b'r')) => (b'\r', 2),
                (b'\\', Some(b't')) => (b'\t', 2),
                (b'\\', Some(b'b' | b'f')) => (b'?', 2),
                (b'\\', Some(&byte)) => (byte, 2),
                (byte, _) => (byte, 1),
            };
            bytes.push(byte);
            places.push(at);
            at += length;
        }
        places.push(value.end);
        Self { bytes, places }
    }

    /// The place in the payload of some of the bytes.
    fn raw(&self, bytes: &Range<usize>) -> Range<usize> {
        self.places[bytes.start]..self.places[bytes.end]
    }
}

/// The ASCII character of four hexadecimal digits; `?` for any other.
fn hex(digits: Option<&str>) -> u8 {
    let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    code.and_then(|code| u8::try_from(code).ok()).filter(u8::is_ascii).unwrap_or(b'?')
}

/// The lines of an SDP. A candidate is one line.
fn lines(bytes: &[u8]) -> Vec<Range<usize>> {
    split(bytes, 0..bytes.len(), |byte| matches!(byte, b'\r' | b'\n'))
}

/// The parts of a range between bytes that separate them, without empty ones.
fn split(bytes: &[u8], within: Range<usize>, separates: impl Fn(u8) -> bool) -> Vec<Range<usize>> {
    let (mut parts, mut begin) = (Vec::new(), within.start);
    for at in within.clone() {
        if separates(bytes[at]) {
            parts.push(begin..at);
            begin = at + 1;
        }
    }
    parts.push(begin..within.end);
    parts.retain(|part| !part.is_empty());
    parts
}

/// The places of the addresses in a line that a rule may replace.
fn addresses(bytes: &[u8], line: Range<usize>) -> Vec<Range<usize>> {
    let words = split(bytes, line, |byte| byte == b' ');
    let word = |place: usize| words.get(place).map_or(&b""[..], |word| &bytes[word.clone()]);
    let first = word(0);
    // c=IN IP4 192.0.2.7, or with a time to live behind a slash (RFC 8866, 5.7).
    if first == b"c=IN" && matches!(word(1), b"IP4" | b"IP6") {
        let parts = words.get(2).map(|word| split(bytes, word.clone(), |byte| byte == b'/'));
        return parts.into_iter().flatten().take(1).collect();
    }
    // candidate:1 1 udp 2122260223 172.17.0.2 43210 typ host generation 0 (RFC 8839, 5.1).
    let first = first.strip_prefix(b"a=").unwrap_or(first);
    if !first.starts_with(b"candidate:") || word(6) != b"typ" {
        return Vec::new();
    }
    let own = words.get(4).filter(|_| word(7) == b"host").cloned();
    let related = (8..words.len()).step_by(2).find(|&place| word(place) == b"raddr").and_then(|at| words.get(at + 1));
    own.into_iter().chain(related.cloned()).collect()
}
