//! URLs of engines.

use std::fmt;

use percent_encoding::percent_decode_str;
use redis::{ProtocolVersion, RedisConnectionInfo};

use crate::config::cluster::sentinel_login;

/// The user of a login that names none.
pub(super) const DEFAULT_USER: &str = "default";

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

/// A user and a password, as the command AUTH takes them. There is no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl Login {
    /// Returns the login with a password, if there is one.
    fn new(user: Option<String>, password: Option<String>) -> Option<Self> {
        Some(Self { user: user.unwrap_or_else(|| DEFAULT_USER.into()), password: password? })
    }
}

/// The engine that a URL names. `Debug` leaves out the password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    /// The server, or the Sentinels that know it.
    pub(super) hosts: Vec<Host>,
    /// Name of the master that the Sentinels watch.
    pub(super) master: Option<String>,
    pub(super) user: Option<String>,
    password: Option<String>,
    /// The login of the Sentinels, if it is another one.
    pub(super) sentinel_login: Option<Login>,
    pub(super) database: i64,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("hosts", &self.hosts).field("master", &self.master).finish_non_exhaustive()
    }
}

impl Target {
    /// Parses `redis://`, `rediss://` (TLS) or `redis+sentinel://HOST,HOST/MASTER`, each with `USER:PASSWORD@` or
    /// `:PASSWORD@` before the host, and the last with `?sentinel_username=USER&sentinel_password=PASSWORD` at its end.
    ///
    /// # Errors
    /// The reason, without the password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("write it as redis://HOST:6379")?;
        let (tls, sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            // The text may be a password, and is not shown.
            _ => return Err("the scheme is not redis, rediss, redis+sentinel or rediss+sentinel".into()),
        };
        let (rest, query) = rest.split_once('?').filter(|_| sentinel).unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, at)| (Some(user), at));
        let (user, password) = user_info.map(credentials).transpose()?.unwrap_or_default();
        let port = if sentinel { 26_379 } else { 6_379 };
        let hosts = hosts.split(',').map(|host| parse_host(host, port)).collect::<Result<Vec<_>, _>>()?;
        if !sentinel && hosts.len() > 1 {
            return Err("only redis+sentinel:// has more than one host".into());
        }
        let (master, database) = if sentinel {
            let name = Some(path).filter(|name| !name.is_empty());
            (Some(name.ok_or("write the name of the master after the hosts: redis+sentinel://HOST/MASTER")?), "")
        } else {
            (None, path)
        };
        let database = if database.is_empty() { Some(0) } else { database.parse().ok() };
        let database = database.filter(|number| *number >= 0).ok_or("the database is not a number")?;
        let sentinel_login =
            if query.is_empty() { None } else { sentinel_login(query).map(|(u, p)| Login::new(u, p))? };
        Ok(Self { tls, hosts, master: master.map(str::to_owned), user, password, sentinel_login, database })
    }

    /// Returns the login of the engine.
    pub(super) fn login(&self) -> Option<Login> {
        Login::new(self.user.clone(), self.password.clone())
    }

    /// Returns what a connection to the engine begins with.
    pub(super) fn setup(&self) -> RedisConnectionInfo {
        let mut setup = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name()
            .set_db(self.database);
        if let Some(user) = &self.user {
            setup = setup.set_username(user);
        }
        if let Some(password) = &self.password {
            setup = setup.set_password(password);
        }
        setup
    }
}

/// Reads `USER:PASSWORD`, `:PASSWORD` or `USER`.
fn credentials(text: &str) -> Result<(Option<String>, Option<String>), String> {
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "user or password is not UTF-8")?;
        Ok::<_, String>(Some(decoded.into_owned()).filter(|text| !text.is_empty()))
    };
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Ok((decode(user)?, decode(password)?))
}

/// Reads `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`. The text may be a password, and is not shown.
fn parse_host(text: &str, port: u16) -> Result<Host, String> {
    let wrong = || "a host is not HOST or HOST:PORT; in a password, write %2F for / and %40 for @".to_owned();
    let (name, given) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, after) = rest.split_once(']').ok_or_else(wrong)?;
            (name, after.strip_prefix(':').or(after.is_empty().then_some("")))
        }
        None => text.split_once(':').map_or((text, Some("")), |(name, port)| (name, Some(port))),
    };
    let given = given.ok_or_else(wrong)?;
    let port = if given.is_empty() { Some(port) } else { given.parse().ok().filter(|port| *port > 0) };
    let name = Some(name).filter(|name| !name.is_empty()).ok_or_else(wrong)?;
    Ok(Host { name: name.to_owned(), port: port.ok_or_else(wrong)? })
}
