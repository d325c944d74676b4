//! The address by which a limit counts a peer, and the text of an address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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

/// Writes an address as [`SocketAddr`] does.
///
/// The records of a peer that comes and goes have its address three times. The formatter of the standard library takes
/// ten times the instructions for one of IPv4, since it can pad each number.
pub(super) fn write(f: &mut fmt::Formatter<'_>, address: SocketAddr) -> fmt::Result {
    let SocketAddr::V4(address) = address else { return write!(f, "{address}") };
    let mut digits = itoa::Buffer::new();
    for (octet, separator) in address.ip().octets().into_iter().zip(["", ".", ".", "."]) {
        f.write_str(separator)?;
        f.write_str(digits.format(octet))?;
    }
    f.write_str(":")?;
    f.write_str(digits.format(address.port()))
}
