//! Reads the parts of a request that the origin policy judges, and refuses requests of foreign pages.

use std::borrow::Cow;
use std::sync::Arc;

use axum::response::Response;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode, Version};

use super::respond::error;
use crate::access::origin_policy::{Facts, Foreign};
use crate::observe::incidents::Incident;
use crate::observe::quoted::Quoted;
use crate::server::catch_panic::peer_name;
use crate::server::connect_info::ConnectInfo;
use crate::server::refusal_log::RefusalRecord;
use crate::server::shared::Shared;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The refusal of a page of another site. A request without `Origin` does not tell which one, so no list can admit it.
const CROSS_SITE: &str = "Pages of other sites are not allowed; --allow-origin admits one, for requests with an Origin";

/// The refusal of a request whose `Host`, `Origin` or `Sec-Fetch-Site` is not allowed.
pub(in crate::server) fn refusal<B>(
    shared: &Arc<Shared>,
    request: &Request<B>,
    connect_info: &ConnectInfo,
) -> Option<Response> {
    let (status, reason, hint) = match judge(shared, request, connect_info) {
        Ok(()) => return None,
        Err(Refused::Malformed(what)) => (StatusCode::BAD_REQUEST, what.into(), "RFC 9112, 3.2"),
        Err(Refused::Foreign(foreign)) => {
            let (what, hint) = match foreign {
                Foreign::Host(host) => (format!("Host not allowed: {host}; --allow-host admits it"), "allowed_hosts"),
                Foreign::Origin(origin) => {
                    (format!("Origin not allowed: {origin}; --allow-origin admits it"), "allowed_origins")
                }
                Foreign::CrossSite => (CROSS_SITE.into(), "allowed_origins"),
            };
            (StatusCode::FORBIDDEN, what, hint)
        }
    };
    shared.incidents.count(Incident::Foreign);
    let (peer, quoted) = (peer_name(connect_info.address), Quoted(&reason));
    let line = format_args!("refused a request of {peer}: {quoted}; if it is welcome, see {hint}");
    let record =
        RefusalRecord { peer: Some(&peer), reason: Some(&reason), ..RefusalRecord::new("request_foreign", line) };
    shared.log_refusal(&RefusalRecord { code: Some(status.as_u16()), ..record });
    Some(error(status, &reason))
}

/// The reason for a refusal.
enum Refused {
    /// The request does not name its host as RFC 9112 demands.
    Malformed(&'static str),
    /// The policy does not allow it.
    Foreign(Foreign),
}

/// Asks the policy about a request.
fn judge<B>(shared: &Shared, request: &Request<B>, connect_info: &ConnectInfo) -> Result<(), Refused> {
    let headers = request.headers();
    let named = host_of(request).map_err(Refused::Malformed)?;
    let host = connect_info.host.as_deref().map(Cow::Borrowed).or(named);
    let origins: Vec<_> = texts(headers, &header::ORIGIN).collect();
    let origins: Vec<_> = origins.iter().map(|origin| &**origin).collect();
    let navigates = texts(headers, &SEC_FETCH_MODE).any(|mode| mode == "navigate");
    let facts = Facts {
        path: request.uri().path(),
        scheme: connect_info.scheme,
        host: host.as_deref(),
        origins: &origins,
        is_cross_site: texts(headers, &SEC_FETCH_SITE).any(|site| site.eq_ignore_ascii_case("cross-site")),
        is_navigation: navigates && request.method() == Method::GET,
    };
    shared.settings().policy.check(&facts).map_err(Refused::Foreign)
}

/// The host and port that a request names: of an absolute target, which counts instead of `Host` (RFC 9112, 3.2.2),
/// otherwise of `Host`. HTTP/1.0 needs no `Host`.
fn host_of<B>(request: &Request<B>) -> Result<Option<Cow<'_, str>>, &'static str> {
    let mut hosts = texts(request.headers(), &header::HOST);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("More than one Host");
    }
    if host.is_none() && request.version() > Version::HTTP_10 {
        return Err("Host is missing");
    }
    let target = request.uri().authority().map(Authority::as_str);
    if target.is_some_and(|authority| authority.contains('@')) {
        // It has no place there (RFC 9110, 4.2.4), and the name of a refused host is logged.
        return Err("User information in the target");
    }
    Ok(target.map(Cow::from).or(host))
}

/// The values of a header, one for each line. A request has few headers: to compare their names costs less than a search.
fn texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Cow<'a, str>> {
    let lines = headers.iter().filter(move |(key, _)| *key == name);
    lines.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()))
}
