//! Which web pages may use a server. A page from anywhere runs in a browser on a developer's machine, and reaches what
//! listens there: `Origin` says whose page it is, and `Host` what it believes to talk to (DNS rebinding).
//!
//! Both are checked before anything else is looked at. Programs that are no browsers send no `Origin`. A device sends one
//! that equals the server's address, but may get the scheme or the port wrong: on `/register_device` the host of an
//! `Origin` has to be that of the request (docs/protocol.md 3). A web page of another host must not become a device.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::Config;

/// Allows everything, in either list.
const ANY: &str = "*";

/// What one server allows.
pub struct Policy {
    hosts: Vec<String>,
    origins: Vec<String>,
}

/// What is not allowed.
#[derive(Debug, PartialEq, Eq)]
pub enum Foreign {
    /// This name.
    Host(String),
    /// This origin.
    Origin(String),
    /// More than one `Host`.
    Ambiguous,
}

impl Policy {
    /// What the settings say, and the names of a certificate that was made here.
    pub fn new(config: &Config) -> Self {
        let lower = |text: &String| text.trim_end_matches('/').to_ascii_lowercase();
        let mut hosts: Vec<_> = config.allowed_hosts.iter().map(lower).collect();
        if let Some(tls) = &config.tls {
            hosts.extend(tls.names().iter().map(lower));
        }
        Self { hosts, origins: config.allowed_origins.iter().map(lower).collect() }
    }

    /// Whether a request to this path may go on, with these `Host` and `Origin` headers.
    ///
    /// # Errors
    /// [`Foreign`], which names what is not allowed.
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

    /// Addresses are always themselves: a name is what can be made to point elsewhere.
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

/// Whether an origin has the host of the request, whatever its scheme and port.
fn is_of_host(origin: &str, host: Option<&str>) -> bool {
    let (Some((_, authority)), Some(host)) = (origin.split_once("://"), host) else { return false };
    without_port(authority).eq_ignore_ascii_case(without_port(host))
}

/// `name:80` and `[::1]:80` without the port.
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
