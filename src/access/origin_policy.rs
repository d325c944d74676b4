//! The origin policy: which web pages may use the server.
//!
//! A page of any site runs in a browser on a developer's machine, and can reach servers on loopback there. `Origin` names
//! the site of the page. `Host` names the server that the page believes to talk to, which matters for DNS rebinding.
//! Images, scripts and frames have no `Origin`: there `Sec-Fetch-Site` says whether a page of another site asks.
//!
//! The server checks these headers before it does anything else with a request. Programs other than browsers send no
//! `Origin`, but a device sends the server's address, possibly with the wrong scheme or port. So on `/register_device`
//! only the host of the `Origin` has to equal the host of the request (docs/protocol.md 3.9, docs/protocol.md 3.10).

use crate::config::Config;
use crate::config::allowances::{AllowedHost, AllowedOrigin, Authority, Origin, default_port, parse_each};
use crate::config::error::ConfigError;

/// Endpoints that no link leads to, so that a navigation from another site is refused as well. Each event stream holds a
/// slot for as long as a frame shows it, and a file of payloads would be saved on the machine of the viewer.
const NOT_NAVIGABLE: [&str; 2] = ["/dashboard/events", "/dashboard/cassette"];

/// The origin policy of one server.
pub struct Policy {
    hosts: Vec<AllowedHost>,
    origins: Vec<AllowedOrigin>,
}

/// The scheme by which a peer reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain text. TLS may end at a proxy before the server.
    Http,
    /// TLS.
    Https,
}

/// The parts of a request that the policy judges.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The decoded path.
    pub path: &'a str,
    /// The scheme of the listener.
    pub scheme: Scheme,
    /// The host and port that the request names: of an absolute target, otherwise of `Host`. `None` in HTTP/1.0.
    pub host: Option<&'a str>,
    /// The values of `Origin`. A browser sends one at most.
    pub origins: &'a [&'a str],
    /// Whether a page of another site caused the request: `Sec-Fetch-Site: cross-site`.
    pub is_cross_site: bool,
    /// Whether a browser shows the answer as a page: `GET` with `Sec-Fetch-Mode: navigate`.
    pub is_navigation: bool,
}

/// The header that the policy refuses.
#[derive(Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The host name is not allowed.
    Host(String),
    /// The origin is not allowed.
    Origin(String),
    /// A page of another site made the request, without an `Origin`.
    CrossSite,
}

impl Policy {
    /// Creates the policy from the settings. The names of a certificate that was created here are allowed too.
    ///
    /// # Errors
    /// [`ConfigError`] for a host or an origin that no request can match.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut hosts = parse_each("allowed_hosts", &config.allowed_hosts, AllowedHost::parse)?;
        if let Some(tls) = &config.tls {
            hosts.extend(tls.names().iter().filter_map(|name| AllowedHost::parse(name).ok()));
        }
        Ok(Self { hosts, origins: parse_each("allowed_origins", &config.allowed_origins, AllowedOrigin::parse)? })
    }

    /// Decides on a request.
    ///
    /// # Errors
    /// [`Foreign`], the header that is not allowed.
    pub fn check(&self, request: &Facts<'_>) -> Result<(), Foreign> {
        let host = request.host.and_then(Authority::parse);
        if let Some(text) = request.host
            && !self.allows_host(host.as_ref())
        {
            return Err(Foreign::Host(text.to_owned()));
        }
        let from_device = request.path == "/register_device";
        let allowed = |origin: &str| {
            self.origins.iter().any(|allowed| allowed.matches(origin))
                || host
                    .as_ref()
                    .is_some_and(|host| is_own(origin, host, request.scheme) || (from_device && has_host(origin, host)))
        };
        if let Some(origin) = request.origins.iter().find(|origin| !allowed(origin)) {
            return Err(Foreign::Origin((*origin).to_owned()));
        }
        let is_link = request.is_navigation && !NOT_NAVIGABLE.contains(&request.path);
        if request.is_cross_site && request.origins.is_empty() && !from_device && !is_link {
            return Err(Foreign::CrossSite);
        }
        Ok(())
    }

    /// IP addresses are always allowed: DNS rebinding needs a name.
    fn allows_host(&self, host: Option<&Authority>) -> bool {
        let Some(authority) = host else { return self.hosts.contains(&AllowedHost::Any) };
        let name = &*authority.host;
        authority.is_address()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.hosts.iter().any(|allowed| allowed.matches(name))
    }
}

/// Whether an origin is that of the server itself, as the request names it.
///
/// `https` is the server's own on a plain listener as well: TLS ends at a proxy before it. A host without a port has the
/// default port of the origin's scheme.
fn is_own(origin: &str, host: &Authority, scheme: Scheme) -> bool {
    let Some(origin) = Origin::parse(origin) else { return false };
    let may_be = match (&*origin.scheme, scheme) {
        ("https", _) | ("http", Scheme::Http) => true,
        (_, _) => false,
    };
    may_be && origin.host == host.host && origin.port == host.port.or_else(|| default_port(&origin.scheme))
}

/// Whether an origin has the host of the request. Scheme and port do not count, and a device may send neither.
fn has_host(origin: &str, host: &Authority) -> bool {
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    Authority::parse(authority).is_some_and(|authority| authority.host == host.host)
}
