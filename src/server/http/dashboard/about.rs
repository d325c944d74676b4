//! The event `about`: what does not change with the peers. The rights of the viewer, and the ICE servers that peers are told.

use serde::{Deserialize, Serialize};

use crate::config::IceSource;
use crate::core::peer::Peer;
use crate::protocol::{IceServers, Text};
use crate::server::shared::Shared;

/// The maximum number of URLs of ICE servers in an event.
const MOST_URLS: usize = 32;

/// The event `about`.
#[derive(Serialize)]
pub(super) struct About {
    /// Whether the viewer may disconnect peers and export payloads.
    may_manage: bool,
    /// The source of ICE servers: `none`, `settings`, `turn`, `command` or `hook`.
    ice_source: &'static str,
    /// The URLs of the ICE servers, without credentials. Those of a hook are not known before it is called.
    ice_urls: Vec<String>,
    /// The socket of this machine through which devices reach the server, if there is one.
    device_socket: Option<String>,
}

impl About {
    /// Reads the settings for a viewer.
    pub(super) fn of(shared: &Shared, viewer: &Peer) -> Self {
        let (ice_source, servers) = match &*shared.ice.read() {
            IceSource::Fixed(servers) => ("settings", Some(servers.clone())),
            IceSource::TurnRest(turn) => ("turn", turn.credentials(shared.clock.system_now()).ok()),
            IceSource::Command(command) => ("command", shared.known_ice_servers(command).map(|(servers, _)| servers)),
            IceSource::Hook => ("hook", None),
        };
        let ice_urls = servers.as_ref().map(IceServers::config).map(|config| ice_urls(&config)).unwrap_or_default();
        let ice_source = if ice_source == "settings" && ice_urls.is_empty() { "none" } else { ice_source };
        // A path of this machine is for viewers that see all of it.
        let settings = shared.settings();
        let socket = settings.device_socket.as_ref().filter(|_| viewer.grant.devices.is_none());
        let device_socket = socket.map(|path| path.display().to_string());
        Self { may_manage: may_manage(shared, viewer), ice_source, ice_urls, device_socket }
    }
}

/// Whether a viewer may disconnect peers and export payloads.
///
/// Where `authorize` or tokens of an issuer decide on peers, the `Grant` has to say so. Otherwise, only programs of this
/// machine may.
pub(super) fn may_manage(shared: &Shared, viewer: &Peer) -> bool {
    let has_grants = shared.hooks.authenticates() || shared.settings().jwt.is_some();
    if has_grants { viewer.grant.manage } else { viewer.is_local }
}

/// Returns the URLs of a `config` message, up to the maximum. Never its usernames and credentials.
pub(super) fn ice_urls(config: &Text) -> Vec<String> {
    #[derive(Deserialize)]
    struct Config {
        ice_servers: Vec<Urls>,
    }
    #[derive(Deserialize)]
    struct Urls {
        urls: Vec<String>,
    }
    let config = serde_json::from_str(config.as_str()).unwrap_or(Config { ice_servers: Vec::new() });
    config.ice_servers.into_iter().flat_map(|server| server.urls).take(MOST_URLS).collect()
}
