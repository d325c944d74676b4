//! The origin policy: which web pages may use the server.
//!
//! A page of any site runs in a browser on a developer's machine, and can reach servers on loopback there. `Origin` names
//! the site of the page. `Host` names the server that the page believes to talk to, which matters for DNS rebinding.
//!
//! The server checks both headers before it does anything else with a request. Programs other than browsers send no
//! `Origin`, but a device sends the server's address, possibly with the wrong scheme or port. So on `/register_device`
//! only the host of the `Origin` has to equal the host of the request (docs/protocol.md 3.9, docs/protocol.md 3.10).

use std::net::{IpAddr, Ipv6Addr};

use crate::config::Config;

/// The list entry that allows everything.
const ANY: &str = "*";

/// The origin policy of one server.
pub struct Policy {
    hosts: Vec<String>,
    origins: Vec<String>,
}

/// The header that the policy refuses.
#[derive(Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The host name is not allowed.
    Host(String),
    /// The origin is not allowed.
    Origin(String),
    /// The request has more than one `Host` header.
    Ambiguous,
}

impl Policy {
    /// Creates the policy from the settings. The names of a certificate that was created here are allowed too.
    pub fn new(config: &Config) -> Self {
        let lower = |text: &String| text.trim_end_matches('/').to_ascii_lowercase();
        let mut hosts: Vec<_> = config.allowed_hosts.iter().map(lower).collect();
        if let Some(tls) = &config.tls {
            hosts.extend(tls.names().iter().map(lower));
        }
        Self { hosts, origins: config.allowed_origins.iter().map(lower).collect() }
    }

    /// Checks the `Host` and `Origin` headers of a request to this path.
    ///
    /// # Errors
    /// [`Foreign`], the header that is not allowed.
    pub fn check(&self, path: &str, hosts: &[&str], origins: &[&str]) -> Result<(), Foreign> {
        let host = match hosts {
            [] => None,
            [host] => Some(*host),
            _ => return Err(Foreign::Ambiguous),
        };
        if let Some(host) = host
            && !self.allows_host(host)
        {
            return Err(Foreign::Host(host.to_owned()));
        }
        let from_device = path == "/register_device";
        let allowed = |origin: &str| self.allows_origin(origin, host) || (from_device && is_of_host(origin, host));
        match origins.iter().find(|origin| !allowed(origin)) {
            Some(origin) => Err(Foreign::Origin((*origin).to_owned())),
            None => Ok(()),
        }
    }

    /// IP addresses are always allowed: DNS rebinding needs a name.
    fn allows_host(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        name.parse::<IpAddr>().is_ok()
            || name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).is_some_and(|n| n.parse::<Ipv6Addr>().is_ok())
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.hosts.iter().any(|allowed| allowed == ANY || allowed == name)
    }

    fn allows_origin(&self, origin: &str, host: Option<&str>) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self.origins.iter().any(|allowed| allowed == ANY || *allowed == origin) {
            return true;
        }
        let (Some((scheme, authority)), Some(host)) = (origin.split_once("://"), host) else { return false };
        let default_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return false,
        };
        let host = host.to_ascii_lowercase();
        let bare = |authority: &str| authority.strip_suffix(default_port).unwrap_or(authority).to_owned();
        bare(authority) == bare(&host)
    }
}

/// Whether an origin has the host of the request. Scheme and port do not count.
fn is_of_host(origin: &str, host: Option<&str>) -> bool {
    let (Some((_, authority)), Some(host)) = (origin.split_once("://"), host) else { return false };
    without_port(authority).eq_ignore_ascii_case(without_port(host))
}

/// Removes the port: `name:80` to `name`, `[::1]:80` to `[::1]`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.chars().all(|c| c.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}
