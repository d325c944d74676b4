//! The URL of an engine. It is parsed to be checked, and to be shown without its password.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use crate::config::allowances::Authority;

const REDIS: &str = "redis";
const REDIS_TLS: &str = "rediss";
const SENTINEL: &str = "redis+sentinel";
const SENTINEL_TLS: &str = "rediss+sentinel";

/// The forms of URLs, for errors.
const FORMS: &str = "write redis://HOST:6379, or redis+sentinel://HOST:26379,HOST:26379/MASTER; rediss instead of redis \
                     for TLS; USER:PASSWORD@ before the first host where the engine asks for a password; \
                     ?sentinel_password=PASSWORD at the end where Sentinels have another one";

/// The parts of the URL of an engine. `Display` leaves out user and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineUrl {
    scheme: &'static str,
    /// The hosts with their ports, as they were written: one, or those of Sentinels.
    hosts: Vec<String>,
    /// The number of the database, or the name of the master; it may be empty.
    path: String,
}

impl EngineUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// The reason and the forms that are allowed. It quotes nothing that may be a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("has no scheme: {FORMS}"))?;
        let known = [REDIS, REDIS_TLS, SENTINEL, SENTINEL_TLS].into_iter().find(|known| *known == scheme);
        // A text before `://` may be anything, a password included.
        let scheme = known.ok_or_else(|| format!("has an unknown scheme: {FORMS}"))?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
        let is_sentinel = [SENTINEL, SENTINEL_TLS].contains(&scheme);
        if path.contains('@') || rest.contains('#') || query.is_some_and(|query| !is_sentinel || is_ambiguous(query)) {
            return Err("has one of / @ ? # in its password, or a query: write %2F %40 %3F %23 for them".into());
        }
        query.map(sentinel_login).transpose()?;
        let hosts: Vec<_> = hosts.split(',').map(str::to_owned).collect();
        if hosts.iter().any(|host| Authority::parse(host).is_none_or(|host| host.port == Some(0))) {
            return Err(format!("has a host that is not HOST or HOST:PORT: {FORMS}"));
        }
        let url = Self { scheme, hosts, path: path.to_owned() };
        url.check_path()?;
        Ok(url)
    }

    /// Checks the hosts and the path of the scheme.
    fn check_path(&self) -> Result<(), String> {
        let Self { scheme, hosts, path } = self;
        if [SENTINEL, SENTINEL_TLS].contains(scheme) {
            let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
            let is_name = !path.is_empty() && path.bytes().all(plain);
            return if is_name { Ok(()) } else { Err(format!("has no name of a master after its hosts: {FORMS}")) };
        }
        if hosts.len() > 1 {
            return Err(format!("has {} hosts, and {scheme}:// has one: {FORMS}", hosts.len()));
        }
        if !path.is_empty() && path.parse::<u16>().is_err() {
            return Err("has a path that is not the number of a database, like redis://HOST:6379/0".into());
        }
        Ok(())
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        [REDIS_TLS, SENTINEL_TLS].contains(&self.scheme)
    }

    /// Whether all hosts are this machine.
    pub fn is_loopback(&self) -> bool {
        self.hosts.iter().all(|host| Authority::parse(host).is_some_and(|host| is_loopback(&host.host)))
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, hosts, path } = self;
        write!(f, "{scheme}://{}", hosts.join(","))?;
        if path.is_empty() { Ok(()) } else { write!(f, "/{path}") }
    }
}

/// Whether a query may be the rest of a password.
fn is_ambiguous(query: &str) -> bool {
    query.contains(['@', '?', '#'])
}

/// Reads the user and the password of the Sentinels: `sentinel_username=USER&sentinel_password=PASSWORD`.
///
/// # Errors
/// The reason. It quotes nothing of the query, which may be a part of a password.
pub(crate) fn sentinel_login(query: &str) -> Result<(Option<String>, Option<String>), String> {
    let (mut user, mut password) = (None, None);
    for pair in query.split('&') {
        let place = match pair.split_once('=') {
            Some(("sentinel_username", text)) => (&mut user, text),
            Some(("sentinel_password", text)) => (&mut password, text),
            _ => {
                return Err("has a query of another form than sentinel_username=USER&sentinel_password=PASSWORD".into());
            }
        };
        let text = percent_decode_str(place.1).decode_utf8();
        let text = text.map_err(|_| "has a user or a password of the Sentinels that is not UTF-8")?;
        if place.0.replace(text.into_owned()).is_some() {
            return Err("has two users or two passwords of the Sentinels".into());
        }
    }
    if user.is_some() && password.is_none() {
        return Err("has a sentinel_username without a sentinel_password".into());
    }
    Ok((user, password))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
