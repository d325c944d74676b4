//! Passes requests on to the server behind a proxy: upgrades to a WebSocket, and all others.
//!
//! The path, the query, the body and the end-to-end headers stay as they are. So do the answers, refusals included. The
//! page, the metrics and the health of the proxy itself are below [`OWN`].

mod dial;
mod failure;
mod headers;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, StatusCode, Uri};

use self::failure::Failure;
use super::auth::Caller;
use super::extract::members;
use super::path::OriginalTarget;
use super::respond::{PassedOn, error, too_many};
use super::upgrade::place_of_sender;
use crate::config::upstream::Upstream;
use crate::core::peer::{Peer, Role};
use crate::observe::incidents::Incident;
use crate::observe::request_counts::RequestCounts;
use crate::observe::timings::{Handshake, since};
use crate::protocol::DeviceId;
use crate::server::connect_info::{ConnectInfo, Upgrade};
use crate::server::refusal_log::RefusalRecord;
use crate::server::shared::Shared;
use crate::server::ws::open::Purpose;
use crate::server::ws::proxied::Proxied;

/// The path in front of the proxy's own endpoints.
const OWN: &str = "/_proxy";

/// The proxy's own endpoints. All others go to the server with and without [`OWN`]: the viewer of the page needs that.
const OWN_ENDPOINTS: [&str; 8] = [
    "/",
    "/devices",
    "/devices/{id}",
    "/dashboard/{file}",
    "/js/server_connector.js",
    "/healthz",
    "/readyz",
    "/metrics",
];

/// The destination of a request to a proxy.
pub(super) enum Destination {
    /// An endpoint of this server. The path of the request is the one without [`OWN`].
    Own,
    /// The server behind it.
    Upstream,
    /// No endpoint: the answer.
    Nowhere(Response),
}

/// Decides where a request goes. All go to this server's endpoints if it is no proxy.
pub(super) fn destination<B>(shared: &Shared, request: &mut Request<B>) -> Destination {
    if shared.settings().upstream.is_none() {
        return Destination::Own;
    }
    let Some(rest) = request.uri().path().strip_prefix(OWN).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    else {
        return Destination::Upstream;
    };
    if rest.is_empty() {
        let mut answer = error(StatusCode::PERMANENT_REDIRECT, "The page is at /_proxy/");
        answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/_proxy/"));
        return Destination::Nowhere(answer);
    }
    let is_own = OWN_ENDPOINTS.contains(&RequestCounts::pattern_of(rest));
    let original = request.extensions_mut().remove::<OriginalTarget>();
    *request.uri_mut() = without_prefix(request.uri());
    // An encoded prefix leaves the decoded path.
    let original = original.map(|OriginalTarget(original)| original).filter(|it| it.path().starts_with(OWN));
    if let Some(original) = original {
        request.extensions_mut().insert(OriginalTarget(without_prefix(&original)));
    }
    if is_own { Destination::Own } else { Destination::Upstream }
}

/// Removes [`OWN`] from a target.
fn without_prefix(target: &Uri) -> Uri {
    let path = target.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut parts = target.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(path.strip_prefix(OWN).unwrap_or(path)).ok();
    Uri::from_parts(parts).unwrap_or_else(|_| target.clone())
}

/// Passes a request on, and returns the answer.
pub(super) async fn pass_on(shared: &Arc<Shared>, connect_info: ConnectInfo, request: Request<Incoming>) -> Response {
    let settings = shared.settings();
    let Some(upstream) = &settings.upstream else { return error(StatusCode::NOT_FOUND, "Not found") };
    let is_upgrade = members(request.headers(), &header::UPGRADE).any(|it| it.eq_ignore_ascii_case("websocket"));
    let (role, device) = if is_upgrade { place_of(request.uri().path()) } else { (Role::Http, None) };
    let place = match place_of_sender(shared, &connect_info).map_err(too_many) {
        Ok(place) => place.filter(|_| is_upgrade),
        Err(refused) => return refused,
    };
    let mut caller = Caller::from(shared, role, Some(&connect_info), &request);
    caller.peer.is_local = false;
    let peer = match admit(shared, caller).await {
        Ok(peer) => peer,
        Err(refused) => return refused,
    };
    let shown = peer.to_string();
    let passed = if is_upgrade {
        let began = shared.clock.now();
        upgrade(shared, upstream, &connect_info, request, role).await.map(|(response, ends)| {
            if let Some((transport, upstream)) = ends {
                if let Some(place) = place {
                    connect_info.permit.keep_sender(place);
                }
                let agreed_at = shared.clock.now();
                shared.timings.observe_handshake(Handshake::WebSocket, since(began, agreed_at));
                let purpose = Purpose::Proxied(Proxied { upstream, device });
                *connect_info.upgrade.lock() = Some(Upgrade { transport, peer, purpose, agreed_at });
            }
            response
        })
    } else {
        exchange(shared, upstream, &connect_info, request).await
    };
    passed.unwrap_or_else(|failure| failed(shared, upstream, &failure, &shown))
}

/// Admits a sender. The server behind the proxy gives out devices, so that a grant of some of them, or of one alone, cannot
/// be kept.
#[allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]
async fn admit(shared: &Arc<Shared>, caller: Caller) -> Result<Peer, Response> {
    let peer = caller.authorize(shared).await?;
    let why = match &peer.grant {
        grant if grant.devices.is_some() => "A proxy cannot grant single devices: authorize has to grant all",
        grant if grant.exclusive => "A proxy cannot keep other clients out: authorize has to grant shared use",
        _ => return Ok(peer),
    };
    Err(error(StatusCode::FORBIDDEN, why))
}

/// The role of the peer by its path, and the device that the path names.
fn place_of(path: &str) -> (Role, Option<DeviceId>) {
    let device = || path.split('/').nth(2).map(DeviceId::new);
    match RequestCounts::pattern_of(path) {
        "/register_device" => (Role::Device, None),
        "/connect_client" => (Role::Client, None),
        "/devices/{id}/connect" => (Role::Client, device()),
        _ => (Role::Http, None),
    }
}

/// Answers a request that cannot be passed on, and logs the reason.
fn failed(shared: &Arc<Shared>, upstream: &Upstream, failure: &Failure, peer: &str) -> Response {
    shared.incidents.count(Incident::UpstreamFailed);
    let reason = format!("The upstream {upstream} {failure}");
    let status = failure.status();
    let line = format_args!("cannot pass on a request of {peer}: {reason}");
    let record =
        RefusalRecord { peer: Some(&peer), reason: Some(&reason), ..RefusalRecord::new("upstream_failed", line) };
    shared.log_refusal(&RefusalRecord { code: Some(status.as_u16()), ..record });
    error(status, &reason)
}

/// Both ends of an upgrade that was accepted.
type Ends = (hyper::upgrade::OnUpgrade, hyper::upgrade::OnUpgrade);

/// Passes an upgrade on. With the answer 101, both connections are returned as well.
async fn upgrade(
    shared: &Arc<Shared>,
    upstream: &Upstream,
    connect_info: &ConnectInfo,
    mut request: Request<Incoming>,
    role: Role,
) -> Result<(Response, Option<Ends>), Failure> {
    let transport = hyper::upgrade::on(&mut request);
    let mut to_upstream = rewritten(shared, upstream, connect_info, &request, role, Body::empty())?;
    let asked = to_upstream.headers_mut();
    asked.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    asked.extend(request.headers().get(header::UPGRADE).map(|value| (header::UPGRADE, value.clone())));
    drop(request);
    let mut answer = dial::send(shared, upstream, to_upstream, upstream.timeout).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let place = answer.headers().get(header::LOCATION).filter(|_| answer.status().is_redirection());
        if let Some(place) = place {
            return Err(Failure::Redirects(String::from_utf8_lossy(place.as_bytes()).into_owned()));
        }
        return Ok((passed(upstream, answer), None));
    }
    let accepted = hyper::upgrade::on(&mut answer);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    // The peer judges the answer, as if it had asked the server itself.
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    *response.extensions_mut() = std::mem::take(answer.extensions_mut());
    response.extensions_mut().insert(PassedOn);
    Ok((response, Some((transport, accepted))))
}

/// Passes any other request on, with its body.
async fn exchange(
    shared: &Arc<Shared>,
    upstream: &Upstream,
    connect_info: &ConnectInfo,
    request: Request<Incoming>,
) -> Result<Response, Failure> {
    let mut to_upstream = rewritten(shared, upstream, connect_info, &request, Role::Http, Body::empty())?;
    to_upstream.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    *to_upstream.body_mut() = Body::new(request.into_body());
    // A request for messages may be answered when there is one.
    let limit = upstream.timeout.max(shared.settings().limits.polled_timeout);
    Ok(passed(upstream, dial::send(shared, upstream, to_upstream, limit).await?))
}

/// Returns the request as the server gets it.
fn rewritten<B>(
    shared: &Shared,
    upstream: &Upstream,
    connect_info: &ConnectInfo,
    request: &Request<B>,
    role: Role,
    body: Body,
) -> Result<Request<Body>, Failure> {
    let via = via(shared);
    if members(request.headers(), &header::VIA).any(|seen| seen.as_bytes() == via.as_bytes()) {
        return Err(Failure::Loop);
    }
    let original = request.extensions().get::<OriginalTarget>();
    let target = original.map_or(request.uri(), |OriginalTarget(original)| original);
    let target = target.path_and_query().map_or("/", PathAndQuery::as_str);
    let target =
        format!("{}{target}", upstream.path).parse().map_err(|_| Failure::Request("its path is none".into()))?;
    let mut rewritten = Request::new(body);
    (*rewritten.method_mut(), *rewritten.uri_mut()) = (request.method().clone(), target);
    let is_device = role == Role::Device;
    // They have the letter case of the names.
    *rewritten.extensions_mut() = request.extensions().clone();
    *rewritten.headers_mut() = headers::of_request(request.headers(), upstream, connect_info, is_device, &via);
    Ok(rewritten)
}

/// The name of this proxy in `Via`, by which it knows a request that comes back (RFC 9110, 7.6.3).
fn via(shared: &Shared) -> HeaderValue {
    let via = format!("1.1 cuttlefish-signaling-proxy-{:x}", shared.proxied.token());
    HeaderValue::try_from(via).unwrap_or_else(|_| HeaderValue::from_static("1.1 cuttlefish-signaling-proxy"))
}

/// Returns an answer of the server as the peer gets it.
fn passed(upstream: &Upstream, answer: hyper::Response<Incoming>) -> Response {
    let (head, body) = answer.into_parts();
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = head.status;
    let mut headers: HeaderMap = headers::of_answer(&head.headers, upstream);
    if head.status == StatusCode::UPGRADE_REQUIRED {
        headers.extend(head.headers.get(header::UPGRADE).map(|value| (header::UPGRADE, value.clone())));
    }
    (*response.headers_mut(), *response.extensions_mut()) = (headers, head.extensions);
    response.extensions_mut().insert(PassedOn);
    response
}
