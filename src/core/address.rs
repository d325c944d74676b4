//! The address by which a limit counts a peer, and the text of an address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::{fmt, iter};

/// The part of an IPv6 address that names the network: a host picks the other 64 bits itself (RFC 4291, 2.5.4).
const NETWORK: u128 = u128::MAX << 64;

/// Returns the address by which the limits count a peer: IPv6 by its /64, IPv4 as it is.
///
/// An IPv4 address that is mapped to IPv6 counts as the IPv4 address. Loopback and link-local addresses count as they
/// are: all hosts of a link share one link-local /64.
pub fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() && !ip.is_unicast_link_local() => {
            Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into()
        }
        address => address,
    }
}

/// The bytes of the longest IPv4 address with a port, and of one more character.
const LONGEST_V4: usize = "255.255.255.255:65535:".len();

/// Writes an address as [`SocketAddr`] does.
///
/// The records of a peer that comes and goes have its address three times. The formatter of the standard library takes
/// ten times the instructions for one of IPv4, since it can pad each number.
pub(super) fn write(f: &mut fmt::Formatter<'_>, address: SocketAddr) -> fmt::Result {
    let SocketAddr::V4(address) = address else { return write!(f, "{address}") };
    let (mut text, mut start) = ([0; LONGEST_V4], LONGEST_V4);
    // From the last digit to the first. The last separator is left out.
    let octets = address.ip().octets().into_iter().map(u16::from).rev();
    for (mut number, separator) in iter::once(address.port()).chain(octets).zip(*b"::...") {
        start -= 1;
        text[start] = separator;
        loop {
            let [_, digit] = (number % 10).to_be_bytes();
            start -= 1;
            text[start] = b'0' + digit;
            number /= 10;
            if number == 0 {
                break;
            }
        }
    }
    f.write_str(std::str::from_utf8(&text[start..LONGEST_V4 - 1]).unwrap_or_default())
}
