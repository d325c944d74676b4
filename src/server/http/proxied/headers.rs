//! The headers that a proxy passes on, and those that it writes (RFC 9110, 7.6; docs/standing-between.md).

use std::net::SocketAddr;

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::access::origin_policy::Scheme;
use crate::config::allowances::{Authority, Origin, default_port};
use crate::config::upstream::Upstream;
use crate::server::connect_info::ConnectInfo;
use crate::server::http::extract::members;
use crate::server::http::proxy;

/// Headers of one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns the headers of a request as the server gets them. `via` names this proxy.
pub(super) fn of_request(
    from: &HeaderMap,
    upstream: &Upstream,
    connect_info: &ConnectInfo,
    is_device: bool,
    via: &HeaderValue,
) -> HeaderMap {
    let mut headers = end_to_end(from);
    // A compressed message could not be read here, and no Cuttlefish device or server uses extensions.
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    // The headers of a trusted proxy are read already; those of others say nothing.
    for name in &proxy::NAMES {
        headers.remove(name);
    }
    if let Some(address) = connect_info.address.and_then(forwarded) {
        headers.insert(X_FORWARDED_FOR, address);
    }
    let host = connect_info.host.clone().or_else(|| Some(from.get(header::HOST)?.to_str().ok()?.to_owned()));
    let is_own = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(Origin::parse);
        let host = host.as_deref().and_then(Authority::parse);
        origin.zip(host).is_some_and(|(origin, host)| is_same(&origin, &host, connect_info.scheme, is_device))
    };
    if headers.get(header::ORIGIN).is_some_and(is_own) {
        insert(&mut headers, header::ORIGIN, &upstream.origin());
    }
    insert(&mut headers, header::HOST, &upstream.authority);
    headers.append(header::VIA, via.clone());
    headers
}

/// Returns the headers of an answer as the peer gets them.
pub(super) fn of_answer(from: &HeaderMap, upstream: &Upstream) -> HeaderMap {
    let mut headers = end_to_end(from);
    let place = headers.get(header::LOCATION).and_then(|place| place.to_str().ok()).and_then(|place| {
        let path = place.strip_prefix(&upstream.origin()).filter(|path| path.starts_with('/'))?;
        path.strip_prefix(&upstream.path).map(str::to_owned)
    });
    if let Some(place) = place {
        insert(&mut headers, header::LOCATION, &place);
    }
    headers
}

/// Returns the headers that do not belong to one connection.
fn end_to_end(from: &HeaderMap) -> HeaderMap {
    let named: Vec<_> = members(from, &header::CONNECTION).map(str::to_ascii_lowercase).collect();
    let mut headers = from.clone();
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    for name in named {
        headers.remove(&name);
    }
    headers
}

/// Whether an origin is that of this proxy. A device may name another scheme or port (docs/protocol.md 3.10).
fn is_same(origin: &Origin, host: &Authority, scheme: Scheme, is_device: bool) -> bool {
    let scheme = if scheme == Scheme::Https { "https" } else { "http" };
    origin.host == host.host && (is_device || origin.port == host.port.or_else(|| default_port(scheme)))
}

fn forwarded(address: SocketAddr) -> Option<HeaderValue> {
    HeaderValue::try_from(address.ip().to_canonical().to_string()).ok()
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
