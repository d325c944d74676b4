//! Applies the headers of trusted proxies to a request: its address, its scheme and its host.

use std::sync::Arc;

use axum::response::Response;
use hyper::header::{self, HeaderName};
use hyper::{Request, StatusCode};

use super::respond::error;
use crate::access::trusted_proxies::{Ambiguous, ProxyHeaders, Sender};
use crate::observe::incidents::Incident;
use crate::server::connect_info::ConnectInfo;
use crate::server::shared::Shared;

/// The headers in which a proxy tells the sender of a request.
pub(super) static NAMES: [HeaderName; 4] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
];

/// Replaces the address, scheme and host of a request by those that a trusted proxy tells. Headers of others are ignored
/// and counted.
///
/// # Errors
/// The response to a request whose headers contradict each other.
#[allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]
pub(super) fn apply<B>(
    shared: &Arc<Shared>,
    request: &Request<B>,
    mut connect_info: ConnectInfo,
) -> Result<ConnectInfo, Response> {
    // Most requests have none: to compare a few names costs less than four searches.
    if !request.headers().keys().any(|name| NAMES.contains(name)) {
        return Ok(connect_info);
    }
    let lines = |name| request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    let [forwarded, x_for, x_proto, x_host]: [Vec<&str>; 4] = NAMES.each_ref().map(lines);
    let headers = ProxyHeaders { forwarded: &forwarded, x_for: &x_for, x_proto: &x_proto, x_host: &x_host };
    if headers.is_empty() {
        return Ok(connect_info);
    }
    let settings = shared.settings();
    if !settings.trusted_proxies.trusts(connect_info.address.map(|address| address.ip())) {
        shared.incidents.count(Incident::ForwardedIgnored);
        return Ok(connect_info);
    }
    let Sender { address, scheme, host } = settings.trusted_proxies.sender(&headers).map_err(|Ambiguous| {
        let what = "Forwarded and X-Forwarded-* in one request: the proxy has to remove the one that it does not write";
        error(StatusCode::BAD_REQUEST, what)
    })?;
    connect_info.is_forwarded = address.is_some();
    connect_info.address = address.or(connect_info.address);
    connect_info.scheme = scheme.unwrap_or(connect_info.scheme);
    connect_info.host = host;
    Ok(connect_info)
}
