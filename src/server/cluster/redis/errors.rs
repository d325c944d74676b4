//! Errors of the engine: what failed, and what to change. None has a password.

use redis::{ErrorKind, RedisError};

use super::keys::{Keys, SCHEMA};
use super::reply::Unreadable;
use super::sentinel::has_no_users;
use super::stream::DialError;
use super::url::{DEFAULT_USER, Host, Target};
use crate::server::cluster::engine::EngineError;

/// Commands that a user of the engine needs, as `ACL SETUSER` takes them.
const COMMANDS: &str = "+hello +select +ping +role +subscribe +script|load +evalsha +multi +exec +time +publish +get +set +hget \
                        +hset +hsetnx +hmget +hdel +hexists +hlen +hscan +zadd +zrem +zscore +zrange +zrangebyscore +zrangebylex +del";

/// Words of an error of the engine, the name of the error, and the fix. The first that fits counts.
const KNOWN: &[(&str, &str, &str)] = &[
    ("WRONGPASS", "wrong_password", "the engine refuses the user or the password: change them in the URL"),
    (
        "NOAUTH",
        "no_password",
        "the engine asks for a password: write redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST",
    ),
    ("NOPERM", "no_permission", ""),
    ("No permissions to access", "no_permission", ""),
    ("has no permissions", "no_permission", ""),
    ("can't run this command", "no_permission", ""),
    (
        "READONLY",
        "read_only",
        "the engine is a replica: name the master in the URL, or its Sentinels with redis+sentinel://",
    ),
    (
        "MASTERDOWN",
        "master_down",
        "the engine is a replica without its master: start the master, or name another engine",
    ),
    ("LOADING", "loading", "the engine reads its data after a start: it is ready when it has done so"),
    (
        "OOM",
        "full",
        "the engine has no memory left: raise its maxmemory, or remove other data from it; its \
                     maxmemory-policy has to be noeviction",
    ),
    (
        "MISCONF",
        "not_writable",
        "the engine cannot save its data, and refuses writes: see its log, or turn snapshots off \
                                 (the registry needs none)",
    ),
    ("NOREPLICAS", "no_replicas", "the engine has fewer replicas than its min-replicas-to-write: start them"),
    ("NOSCRIPT", "scripts_lost", "the engine has forgotten its scripts: they are loaded again"),
    ("BUSY", "busy", "the engine executes a script of another program that does not end: end it with SCRIPT KILL"),
    ("CLUSTERDOWN", "cluster_down", "the Redis Cluster is down: see CLUSTER INFO"),
    ("MOVED", "moved", "another node of this Redis Cluster has the keys: name that one in the URL"),
    ("WRONGTYPE", "foreign_data", ""),
    ("is no version", "foreign_data", ""),
    ("max number of clients", "too_many_clients", "the engine has no place for a client: raise its maxclients"),
    (
        "Protected mode",
        "protected",
        "the engine runs in protected mode: give it a password, or let it listen on this address",
    ),
    ("DENIED", "protected", "the engine runs in protected mode: give it a password, or let it listen on this address"),
    ("SENTINEL", "no_sentinel", "the server is no Sentinel: write redis://HOST for a server itself"),
    ("NOPROTO", "too_old", "the engine has no RESP3: use Redis 6 or later, or Valkey"),
    (
        "unknown command 'SCRIPT'",
        "sentinel",
        "the server is a Sentinel: write redis+sentinel://HOST:26379/MASTER, with the name that it gives the master",
    ),
    ("unknown command", "too_old", "the engine is too old, or no Redis: use Redis 6 or later, or Valkey"),
];

/// Explains the errors of one engine.
#[derive(Debug, Clone)]
pub(super) struct Explainer {
    keys: Keys,
    user: String,
    /// The server, or the Sentinels.
    place: String,
    /// The scheme of a URL with TLS.
    tls: &'static str,
    /// The one without.
    plain: &'static str,
}

impl Explainer {
    pub(super) fn new(target: &Target, keys: &Keys) -> Self {
        let hosts: Vec<_> = target.hosts.iter().map(Host::to_string).collect();
        let place = match &target.master {
            Some(master) => format!("{master:?}, by the Sentinels {}", hosts.join(",")),
            None => hosts.join(","),
        };
        let user = target.user.clone().unwrap_or_else(|| DEFAULT_USER.into());
        let (plain, tls) = match target.master {
            Some(_) => ("redis+sentinel://", "rediss+sentinel://"),
            None => ("redis://", "rediss://"),
        };
        Self { keys: keys.clone(), user, place, tls, plain }
    }

    /// Explains an error.
    pub(super) fn error(&self, kind: &'static str, what: &str) -> EngineError {
        EngineError { kind, what: format!("engine {}: {what}", self.place) }
    }

    /// Explains why no connection could be made.
    pub(super) fn dial(&self, host: &Host, error: &DialError) -> EngineError {
        match error {
            DialError::Name(error) => self.error(
                "no_address",
                &format!("the name {} has no address ({error}): see the DNS, or name an IP address", host.name),
            ),
            DialError::Tcp(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                self.error("refused", &format!("no server listens on {host}: start it, or change the port in the URL"))
            }
            DialError::Tcp(error) => self
                .error("unreachable", &format!("{host} cannot be reached ({error}): see the network and the firewall")),
            DialError::Tls(error) => self.error(
                "tls",
                &format!(
                    "{host} refuses TLS, or its certificate is not trusted ({error}): name the authority of the \
                     certificate with --cluster-ca, or write {} if it has no TLS",
                    self.plain
                ),
            ),
        }
    }

    /// Explains an error of the crate or of the engine.
    pub(super) fn explain(&self, error: &RedisError) -> EngineError {
        // An error may quote a whole script.
        let text = error.to_string();
        let text = text.split_once(", with args beginning with").map_or(text.as_str(), |(command, _)| command);
        let text: String = text.chars().take(200).collect();
        // Redis 6 has the name of a command in backticks.
        let reason = format!("{} {text}", error.code().unwrap_or_default()).replace('`', "'");
        if let Some((_, kind, fix)) = KNOWN.iter().find(|(words, ..)| reason.contains(words)) {
            return match *kind {
                "no_permission" => self.no_permission(&text),
                "foreign_data" => self.foreign_data(&text),
                kind => self.error(kind, &format!("{fix} ({text})")),
            };
        }
        match error.kind() {
            ErrorKind::RESP3NotSupported => {
                self.error("too_old", &format!("the engine has no RESP3: use Redis 6 or later, or Valkey ({text})"))
            }
            ErrorKind::Parse => self.error(
                "not_redis",
                &format!("the server does not answer as Redis does; if it has TLS, write {} ({text})", self.tls),
            ),
            ErrorKind::AuthenticationFailed => {
                self.error("wrong_password", &format!("the engine refuses the user or the password ({text})"))
            }
            ErrorKind::Io => self.error(
                "lost",
                &format!("the connection is lost; if the port is one of TLS, write {} ({text})", self.tls),
            ),
            _ => self.error("refused_command", &text),
        }
    }

    /// Explains an error of a Sentinel.
    pub(super) fn sentinel(&self, sentinel: &Host, error: &RedisError) -> EngineError {
        let fix = "write ?sentinel_password=PASSWORD, or ?sentinel_username=USER&sentinel_password=PASSWORD, at the end of \
                   the URL";
        let (kind, what) = match error.code() {
            Some("NOAUTH") => ("no_sentinel_password", format!("asks for a password: {fix}")),
            Some("WRONGPASS") => ("wrong_sentinel_password", format!("refuses the user or the password: {fix}")),
            Some("NOPERM") => {
                let command = "ACL SETUSER USER +sentinel|get-master-addr-by-name";
                ("no_sentinel_permission", format!("does not let the user ask for the master: run {command} on it"))
            }
            _ if has_no_users(error) => {
                ("no_sentinel_users", "has no users: leave out sentinel_username, or run Redis 6.2 or later".into())
            }
            _ => return self.explain(error),
        };
        self.error(kind, &format!("the Sentinel {sentinel} {what} ({})", error.detail().unwrap_or_default()))
    }

    /// Explains an answer of another form.
    pub(super) fn unreadable(&self, unreadable: &Unreadable) -> EngineError {
        match unreadable {
            Unreadable::Schema(found) => self.error(
                "schema",
                &format!(
                    "the registry {} has version {found:?}, and this node knows version {SCHEMA}: run one release on all \
                     nodes, or give the service another name",
                    self.keys.prefix()
                ),
            ),
            Unreadable::Form => self.foreign_data("an answer of another form"),
        }
    }

    fn no_permission(&self, text: &str) -> EngineError {
        let (user, prefix) = (&self.user, self.keys.prefix());
        let what = format!(
            "the user {user} lacks a permission ({text}): leave out the word with & before Redis 6.2; on the engine, run \
             ACL SETUSER {user} ~{prefix}* &{prefix}* {COMMANDS}"
        );
        self.error("no_permission", &what)
    }

    fn foreign_data(&self, text: &str) -> EngineError {
        let prefix = self.keys.prefix();
        let what = format!(
            "another program has written to the keys {prefix}* ({text}): give the service another name, or delete the keys"
        );
        self.error("foreign_data", &what)
    }
}
