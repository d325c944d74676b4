//! The sender of a request that a proxy has passed on, as a trusted proxy tells it (`X-Forwarded-*`, RFC 7239).
//!
//! Each proxy adds the address that it was connected from at the end of the list. So the list is read from its end: the
//! first address that is no trusted proxy's is the sender's, and what stands before it may be forged.

use std::net::{IpAddr, SocketAddr};

use crate::access::origin_policy::Scheme;
use crate::config::error::ConfigError;

/// The name for peers on a Unix socket, which have no address.
const UNIX: &str = "unix";

/// The proxies whose headers count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<(IpAddr, u8)>,
    unix: bool,
}

/// The headers of one request that proxies write, each with its lines in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProxyHeaders<'a> {
    /// `Forwarded`
    pub forwarded: &'a [&'a str],
    /// `X-Forwarded-For`
    pub x_for: &'a [&'a str],
    /// `X-Forwarded-Proto`
    pub x_proto: &'a [&'a str],
    /// `X-Forwarded-Host`
    pub x_host: &'a [&'a str],
}

/// The sender of a request, as far as trusted proxies tell it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sender {
    /// Its address. The port is 0 where only the address is told.
    pub address: Option<SocketAddr>,
    /// The scheme of its request.
    pub scheme: Option<Scheme>,
    /// The host and port that it has named.
    pub host: Option<String>,
}

/// Headers that contradict each other: a proxy passes on one of them that it does not write itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

impl ProxyHeaders<'_> {
    /// Whether the request has none of them.
    pub fn is_empty(&self) -> bool {
        self.forwarded.is_empty() && self.x_for.is_empty() && self.x_proto.is_empty() && self.x_host.is_empty()
    }
}

impl TrustedProxies {
    /// Reads networks (`10.0.0.0/8`), addresses, and `unix` for all peers on Unix sockets.
    ///
    /// # Errors
    /// [`ConfigError`], which names the entry.
    pub fn parse(entries: &[String]) -> Result<Self, ConfigError> {
        let mut found = Self::default();
        for entry in entries {
            if entry == UNIX {
                found.unix = true;
                continue;
            }
            let invalid = || {
                let what = format!("{entry:?} is no address, no network such as 10.0.0.0/8, and not `{UNIX}`");
                ConfigError::new("trusted_proxies", what)
            };
            let (address, prefix) = entry.split_once('/').map_or((&**entry, None), |(ip, prefix)| (ip, Some(prefix)));
            let address: IpAddr = address.parse().map_err(|_| invalid())?;
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let prefix =
                prefix.map_or(Ok(bits), str::parse).ok().filter(|prefix| *prefix <= bits).ok_or_else(invalid)?;
            if masked(address, prefix) != address {
                let what = format!("{entry:?} has bits behind its prefix: {}/{prefix}", masked(address, prefix));
                return Err(ConfigError::new("trusted_proxies", what));
            }
            found.networks.push((address, prefix));
        }
        Ok(found)
    }

    /// Whether the headers of this peer count. A peer on a Unix socket has no address.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return self.unix };
        let holds =
            |(network, prefix): &(IpAddr, u8)| network.is_ipv4() == peer.is_ipv4() && masked(peer, *prefix) == *network;
        self.networks.iter().any(holds)
    }

    /// Returns the sender that the headers of a trusted proxy tell.
    ///
    /// # Errors
    /// [`Ambiguous`] for `Forwarded` beside `X-Forwarded-*`: one of them may be the sender's own.
    pub fn sender(&self, headers: &ProxyHeaders<'_>) -> Result<Sender, Ambiguous> {
        if headers.forwarded.is_empty() {
            let hops = split(headers.x_for, ',').map(|hop| Sender { address: address(&hop), ..Sender::default() });
            let mut sender = self.nearest_unknown(hops.collect());
            sender.scheme = split(headers.x_proto, ',').last().and_then(|scheme| scheme_of(&scheme));
            sender.host = split(headers.x_host, ',').last().filter(|host| !host.is_empty());
            return Ok(sender);
        }
        if !(headers.x_for.is_empty() && headers.x_proto.is_empty() && headers.x_host.is_empty()) {
            return Err(Ambiguous);
        }
        Ok(self.nearest_unknown(split(headers.forwarded, ',').map(|hop| element(&hop)).collect()))
    }

    /// The last hop that is no trusted proxy. A hop without an address ends the search: what stands before it is not
    /// known.
    fn nearest_unknown(&self, hops: Vec<Sender>) -> Sender {
        let mut nearest = Sender::default();
        for hop in hops.into_iter().rev() {
            let Some(address) = hop.address else { return nearest };
            nearest = hop;
            if !self.trusts(Some(address.ip())) {
                break;
            }
        }
        nearest
    }
}

/// The network part of an address.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            IpAddr::V4((u32::from(ip) & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).into())
        }
        IpAddr::V6(ip) => {
            IpAddr::V6((u128::from(ip) & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)).into())
        }
    }
}

/// The parts of a list in several lines, trimmed. A separator in quotes separates nothing.
fn split(lines: &[&str], separator: char) -> impl Iterator<Item = String> {
    let whole = lines.join(&*separator.to_string());
    let (mut parts, mut is_quoted, mut part) = (Vec::new(), false, String::new());
    for c in whole.chars() {
        is_quoted ^= c == '"';
        if c == separator && !is_quoted {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    if !lines.is_empty() {
        parts.push(part);
    }
    parts.into_iter().map(|part| part.trim().to_owned())
}

/// Reads an element of `Forwarded`: `for=192.0.2.60;proto=https;host=panel.lab`.
fn element(text: &str) -> Sender {
    let mut sender = Sender::default();
    for pair in split(&[text], ';') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match &*name.trim().to_ascii_lowercase() {
            "for" => sender.address = address(value),
            "proto" => sender.scheme = scheme_of(value),
            "host" if !value.is_empty() => sender.host = Some(value.to_owned()),
            _ => {}
        }
    }
    sender
}

/// Reads an address, with or without a port: `192.0.2.60`, `192.0.2.60:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let whole = text.parse().ok();
    whole.or_else(|| bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0)))
}

fn scheme_of(text: &str) -> Option<Scheme> {
    match &*text.to_ascii_lowercase() {
        "http" | "ws" => Some(Scheme::Http),
        "https" | "wss" => Some(Scheme::Https),
        _ => None,
    }
}
