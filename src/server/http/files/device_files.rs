//! `GET /devices/{id}/files/{path}`: a proxy to the web server of a device, for Cuttlefish's page.
//!
//! It is off by default, because it lets clients reach a local port.

#![allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::Response;
use futures_util::{Stream, StreamExt, stream};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::assets;
use super::device_target::behind_files;
use crate::core::cluster::Incarnation;
use crate::core::hub::Device;
use crate::core::peer::{Peer, Role};
use crate::observe::quoted::Quoted;
use crate::protocol::DeviceId;
use crate::server::http::auth::Caller;
use crate::server::http::elsewhere::{self, Onward, TO_REACH};
use crate::server::http::extract::members;
use crate::server::http::path::OriginalTarget;
use crate::server::http::respond::error;
use crate::server::refusal_log::RefusalRecord;
use crate::server::shared::Shared;

/// Request headers that the device's web server gets.
const FORWARDED_HEADERS: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::RANGE,
];

/// Response headers that the browser gets: they describe the content.
///
/// All others concern one connection (RFC 9110, 7.6.1) or the whole origin, which is that of this server: cookies,
/// credentials, caches, service workers, redirects. Caching is decided here.
const PASSED_HEADERS: [HeaderName; 10] = [
    header::ACCEPT_RANGES,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// The name of this server in `Via` (RFC 9110, 7.6.3).
const VIA: &str = "1.1 cuttlefish-signaling";

/// The path that the server answers itself.
const CONNECTOR: &str = "js/server_connector.js";

/// `GET /devices/{id}/files/{path}`.
pub(in crate::server) async fn device_file(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(&shared, request).await.unwrap_or_else(|refused| refused)
}

/// Answers the request; `Err` is the error response.
async fn serve(shared: &Arc<Shared>, request: Request) -> Result<Response, Response> {
    if !shared.settings().proxy_device_files {
        return Err(error(StatusCode::NOT_FOUND, "Not found"));
    }
    let was_passed_on = elsewhere::was_passed_on(&request);
    let caller = Caller::of(shared, Role::Http, &request);
    let (mut parts, body) = request.into_parts();
    drop(body);
    let Path((id, path)) = Path::<(String, String)>::from_request_parts(&mut parts, shared)
        .await
        .map_err(|_| error(StatusCode::BAD_REQUEST, "The path is no UTF-8"))?;
    let peer = caller.authorize(shared).await?;
    let id = DeviceId::new(&id);
    if let Some(node) = elsewhere::node_of_device(shared, &id, was_passed_on) {
        return Ok(pass_on(shared, node, &peer, parts).await);
    }
    let Some(device) = shared.hub.find(&id).filter(|device| peer.grant.covers(&device.id)) else {
        return Err(error(StatusCode::NOT_FOUND, "Device not found"));
    };
    let port = port_of(shared, &device, &parts.headers)?;
    if path == CONNECTOR {
        return Ok(assets::server_connector().answer(&parts.headers));
    }
    let target =
        behind_files(&original_of(&mut parts)).ok_or_else(|| error(StatusCode::BAD_REQUEST, "This is no path"))?;
    answer_of(shared, &id, port, fetch(shared, port, parts.method, target, &parts.headers)).await
}

/// Waits for the response of the device's web server.
async fn answer_of(
    shared: &Arc<Shared>,
    id: &DeviceId,
    port: u16,
    fetch: impl Future<Output = Fetched>,
) -> Result<Response, Response> {
    let limit = shared.settings().limits.proxy_timeout;
    let response = match shared.timers.timeout(limit, fetch).await {
        Some(Ok(response)) if response.status().is_informational() => {
            let line = format_args!("the web server of device {id:?} on port {port} answered {}", response.status());
            tracing::info!(event = "device_files_failed", device_id = id.as_str(), reason = %line, "{line}");
            return Err(error(StatusCode::BAD_GATEWAY, "The device's web server gives no final answer"));
        }
        Some(Ok(response)) => response,
        Some(Err(why)) => {
            log_unreachable(shared, id, port, &why);
            return Err(error(StatusCode::BAD_GATEWAY, "The device's web server cannot be reached"));
        }
        None => return Err(error(StatusCode::GATEWAY_TIMEOUT, "The device's web server does not answer")),
    };
    Ok(passed(shared, response))
}

/// The target as the client sent it.
fn original_of(parts: &mut Parts) -> Uri {
    let original = parts.extensions.remove::<OriginalTarget>().map(|OriginalTarget(original)| original);
    original.unwrap_or_else(|| parts.uri.clone())
}

/// Passes the request on to the node of the device.
async fn pass_on(shared: &Arc<Shared>, node: Incarnation, sender: &Peer, mut parts: Parts) -> Response {
    let mut headers = HeaderMap::new();
    copy(&FORWARDED_HEADERS, &parts.headers, &mut headers);
    copy(&[header::VIA], &parts.headers, &mut headers);
    let (target, within) = (original_of(&mut parts), shared.settings().limits.proxy_timeout + TO_REACH);
    let onward = Onward { method: parts.method, target, headers, body: Bytes::new() };
    elsewhere::pass_on(shared, node, sender, onward, within).await
}

/// Logs that a device's web server cannot be reached.
fn log_unreachable(shared: &Arc<Shared>, id: &DeviceId, port: u16, why: &dyn fmt::Display) {
    let quoted = Quoted(id.as_str());
    let line = format_args!("the web server of device {quoted} on port {port} cannot be reached: {why}");
    let record = RefusalRecord::new("device_files_failed", line);
    shared.log_refusal(&RefusalRecord { device_id: Some(id.as_str()), reason: Some(why), ..record });
}

/// The response as the browser gets it.
fn passed(shared: &Arc<Shared>, response: hyper::Response<hyper::body::Incoming>) -> Response {
    let (head, body) = response.into_parts();
    let mut response = Response::new(Body::from_stream(with_timeout(Arc::clone(shared), Body::new(body))));
    *response.status_mut() = head.status;
    copy(&PASSED_HEADERS, &head.headers, response.headers_mut());
    response.headers_mut().extend([assets::PRIVATE]);
    response
}

/// The port of the device's web server. `Err` is the response to a request that must not go there.
fn port_of(shared: &Shared, device: &Device, headers: &HeaderMap) -> Result<u16, Response> {
    let Some(port) = device.port else { return Err(error(StatusCode::NOT_FOUND, "This device has no files")) };
    if shared.own_ports.contains(&port) {
        return Err(error(StatusCode::BAD_GATEWAY, "The device names a port of this server"));
    }
    // Through the port of another server, a request could come back here without end.
    if members(headers, &header::VIA).any(|via| via.eq_ignore_ascii_case(VIA)) {
        return Err(error(StatusCode::LOOP_DETECTED, "The request has passed a signaling server already"));
    }
    Ok(port)
}

/// Copies these headers.
fn copy(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

/// The response of a device's web server.
type Fetched = Result<hyper::Response<hyper::body::Incoming>, Box<dyn std::error::Error + Send + Sync>>;

/// Requests the target from the device's web server.
async fn fetch(shared: &Arc<Shared>, port: u16, method: Method, target: Uri, headers: &HeaderMap) -> Fetched {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = hyper::Request::new(Body::empty());
    (*request.method_mut(), *request.uri_mut()) = (method, target);
    copy(&FORWARDED_HEADERS, headers, request.headers_mut());
    request.headers_mut().insert(header::HOST, HeaderValue::try_from(address.to_string())?);
    request.headers_mut().insert(header::VIA, HeaderValue::from_static(VIA));
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    // The connection ends with the body. The server stops only after that.
    let over = shared.over.clone();
    shared.tasks.spawn(async move { over.run_until_cancelled(connection).await });
    Ok(sender.send_request(request).await?)
}

/// A body that fails if the next chunk exceeds the timeout.
fn with_timeout(shared: Arc<Shared>, body: Body) -> impl Stream<Item = Result<Bytes, io::Error>> {
    stream::unfold((shared, Some(body.into_data_stream())), async |(shared, parts)| {
        let mut parts = parts?;
        match shared.timers.timeout(shared.settings().limits.proxy_timeout, parts.next()).await {
            Some(Some(Ok(part))) => Some((Ok(part), (shared, Some(parts)))),
            Some(Some(Err(why))) => Some((Err(io::Error::other(why)), (shared, None))),
            Some(None) => None,
            None => Some((Err(io::ErrorKind::TimedOut.into()), (shared, None))),
        }
    })
}
