//! The DNS names and IP addresses of a server, and the name constraints (RFC 5280) of an authority for them.

use std::fmt;
use std::net::IpAddr;

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints, SanType};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree as ParsedSubtree, NameConstraints as ParsedConstraints};

use crate::config::error::Error;

/// The names of a server: DNS names in lower case, and IP addresses, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    /// Parses DNS names (`farm.lab`, `*.farm.lab`) and IP addresses (`::1`, `[::1]`).
    ///
    /// # Errors
    /// [`Error::Tls`] if a text is neither, or if the list is empty.
    pub fn parse(texts: &[String]) -> Result<Self, Error> {
        let mut names = Self { dns: Vec::new(), addresses: Vec::new() };
        for text in texts {
            if let Some(address) = address(text) {
                if !names.addresses.contains(&address) {
                    names.addresses.push(address);
                }
            } else {
                let name = dns_name(text)
                    .ok_or_else(|| Error::Tls(format!("names: {text:?} is neither a DNS name nor an IP address")))?;
                if !names.dns.contains(&name) {
                    names.dns.push(name);
                }
            }
        }
        if texts.is_empty() {
            return Err(Error::Tls("names: a certificate needs at least one DNS name or IP address".into()));
        }
        Ok(names)
    }

    /// Formats the names as texts, DNS names first.
    pub fn to_texts(&self) -> Vec<String> {
        self.dns.iter().cloned().chain(self.addresses.iter().map(ToString::to_string)).collect()
    }

    /// Whether both contain the same names, in any order.
    pub fn equals(&self, other: &Self) -> bool {
        let sorted = |names: &Self| {
            let mut texts = names.to_texts();
            texts.sort();
            texts
        };
        sorted(self) == sorted(other)
    }

    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self { dns: Vec::new(), addresses: Vec::new() };
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase()),
                    GeneralName::IPAddress(bytes) => names.addresses.extend(octets(bytes)),
                    _ => {}
                }
            }
        }
        names
    }

    pub(super) fn alternative_names(&self) -> Result<Vec<SanType>, rcgen::Error> {
        let dns = self.dns.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        dns.chain(self.addresses.iter().map(|address| Ok(SanType::IpAddress(*address)))).collect()
    }

    /// The name constraints of an authority for these names. They exclude every other DNS name.
    ///
    /// They exclude all IP addresses if the list has none. Otherwise addresses are not constrained: legacy devices use
    /// `BoringSSL`, which refuses a chain with addresses in both the certificate and the constraints (error 51).
    pub(super) fn constraints(&self) -> NameConstraints {
        // `*.farm.lab` is within the subtree `farm.lab`.
        let dns = |name: &String| GeneralSubtree::DnsName(name.trim_start_matches("*.").to_owned());
        let mut excluded = Vec::new();
        if self.dns.is_empty() {
            // The subtree of the empty name contains every DNS name.
            excluded.push(GeneralSubtree::DnsName(String::new()));
        }
        if self.addresses.is_empty() {
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
        }
        NameConstraints { permitted_subtrees: self.dns.iter().map(dns).collect(), excluded_subtrees: excluded }
    }

    /// Whether these constraints permit all names.
    pub(super) fn are_admitted(&self, constraints: &ParsedConstraints<'_>) -> bool {
        let permitted = constraints.permitted_subtrees.as_deref().unwrap_or_default();
        let excluded = constraints.excluded_subtrees.as_deref().unwrap_or_default();
        self.dns.iter().all(|name| admits(permitted, excluded, is_dns, |subtree| dns_is_below(name, subtree)))
            && self.addresses.iter().all(|a| admits(permitted, excluded, is_address, |tree| address_is_in(*a, tree)))
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_texts().join(", "))
    }
}

/// Whether a text is a DNS name or an IP address, so that a certificate can contain it.
pub fn is_name(text: &str) -> bool {
    address(text).is_some() || dns_name(text).is_some()
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

fn octets(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Returns the name in lower case if it is valid: labels of letters, digits, `-` and `_`; the first may be `*`.
fn dns_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let suffix = name.strip_prefix("*.").unwrap_or(&name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let ends_in_number = suffix.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    (name.len() <= 253 && suffix.split('.').all(is_label) && !ends_in_number).then_some(name)
}

/// Applies the rule of RFC 5280: a name has to be within a permitted subtree of its type, if there are any, and within
/// no excluded one.
fn admits(
    permitted: &[ParsedSubtree<'_>],
    excluded: &[ParsedSubtree<'_>],
    is_same_type: fn(&GeneralName<'_>) -> bool,
    is_below: impl Fn(&GeneralName<'_>) -> bool,
) -> bool {
    let mut permitted = permitted.iter().filter(|subtree| is_same_type(&subtree.base)).peekable();
    (permitted.peek().is_none() || permitted.any(|subtree| is_below(&subtree.base)))
        && !excluded.iter().any(|subtree| is_below(&subtree.base))
}

fn is_dns(name: &GeneralName<'_>) -> bool {
    matches!(name, GeneralName::DNSName(_))
}

fn is_address(name: &GeneralName<'_>) -> bool {
    matches!(name, GeneralName::IPAddress(_))
}

fn dns_is_below(name: &str, subtree: &GeneralName<'_>) -> bool {
    let GeneralName::DNSName(base) = subtree else { return false };
    let base = base.trim_start_matches('.').to_ascii_lowercase();
    let above = name.trim_start_matches("*.").strip_suffix(&base);
    base.is_empty() || above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

fn address_is_in(address: IpAddr, subtree: &GeneralName<'_>) -> bool {
    let GeneralName::IPAddress(subnet) = subtree else { return false };
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (network, mask) = subnet.split_at(subnet.len() / 2);
    network.len() == bytes.len() && (0..bytes.len()).all(|i| bytes[i] & mask[i] == network[i] & mask[i])
}
