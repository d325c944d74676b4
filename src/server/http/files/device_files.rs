//! `GET /devices/{id}/files/{path}`: a proxy to the web server of a device, for Cuttlefish's page.
//!
//! It is off by default, because it lets clients reach a local port.

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
use hyper::{Method, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::assets;
use crate::core::peer::Role;
use crate::protocol::DeviceId;
use crate::server::http::auth::Caller;
use crate::server::http::path::OriginalTarget;
use crate::server::http::respond::error;
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

/// Response headers that the browser does not get: they concern one connection (RFC 9110, 7.6.1) or the whole origin.
const STRIPPED_HEADERS: [HeaderName; 8] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("keep-alive"),
];

/// The path that the server answers itself.
const CONNECTOR: &str = "js/server_connector.js";

/// `GET /devices/{id}/files/{path}`.
pub(in crate::server) async fn device_file(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(&shared, request).await.unwrap_or_else(|refused| refused)
}

/// Answers the request; `Err` is the error response.
async fn serve(shared: &Arc<Shared>, request: Request) -> Result<Response, Response> {
    if !shared.config.proxy_device_files {
        return Err(error(StatusCode::NOT_FOUND, "Not found"));
    }
    let caller = Caller::of(shared, Role::Http, &request);
    let (mut parts, body) = request.into_parts();
    drop(body);
    let Path((id, path)) = Path::<(String, String)>::from_request_parts(&mut parts, shared)
        .await
        .map_err(|_| error(StatusCode::BAD_REQUEST, "The path is no UTF-8"))?;
    let peer = caller.authorize(shared).await?;
    let id = DeviceId::new(&id);
    let Some(device) = shared.hub.device(&id).filter(|_| peer.grant.covers(&id)) else {
        return Err(error(StatusCode::NOT_FOUND, "Device not found"));
    };
    let Some(port) = device.port else { return Err(error(StatusCode::NOT_FOUND, "This device has no files")) };
    if path == CONNECTOR {
        return Ok(assets::server_connector().answer(&parts.headers));
    }
    let original = parts.extensions.remove::<OriginalTarget>().map_or(parts.uri, |OriginalTarget(original)| original);
    let target = behind_files(&original).ok_or_else(|| error(StatusCode::BAD_REQUEST, "This is no path"))?;
    let limit = shared.config.limits.proxy_timeout;
    let fetched = shared.timers.timeout(limit, fetch(shared, port, parts.method, target, &parts.headers)).await;
    let response = match fetched {
        Some(Ok(response)) => response,
        Some(Err(why)) => {
            tracing::info!("the web server of device {id:?} on port {port} cannot be reached: {why}");
            return Err(error(StatusCode::BAD_GATEWAY, "The device's web server cannot be reached"));
        }
        None => return Err(error(StatusCode::GATEWAY_TIMEOUT, "The device's web server does not answer")),
    };
    let (mut head, body) = response.into_parts();
    for name in STRIPPED_HEADERS {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Body::from_stream(with_timeout(Arc::clone(shared), Body::new(body)))))
}

/// The part of the target behind `/devices/{id}/files`, as it was sent, with its query.
fn behind_files(uri: &Uri) -> Option<Uri> {
    let whole = uri.path_and_query()?.as_str();
    let (slash, _) = whole.match_indices('/').nth(3)?;
    let rest = whole.get(slash..)?;
    // The device's web server must not get a path that it might resolve to a parent directory.
    let path = rest.split('?').next().unwrap_or_default();
    let is_dot_segment = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split(['/', '\\']).any(is_dot_segment) || path.to_ascii_lowercase().contains("%5c") {
        return None;
    }
    rest.parse().ok()
}

/// Requests the target from the device's web server.
async fn fetch(
    shared: &Arc<Shared>,
    port: u16,
    method: Method,
    target: Uri,
    headers: &HeaderMap,
) -> Result<hyper::Response<hyper::body::Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = hyper::Request::new(Body::empty());
    (*request.method_mut(), *request.uri_mut()) = (method, target);
    for name in FORWARDED_HEADERS {
        for value in headers.get_all(&name) {
            request.headers_mut().append(&name, value.clone());
        }
    }
    request.headers_mut().insert(header::HOST, HeaderValue::try_from(address.to_string())?);
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
        match shared.timers.timeout(shared.config.limits.proxy_timeout, parts.next()).await {
            Some(Some(Ok(part))) => Some((Ok(part), (shared, Some(parts)))),
            Some(Some(Err(why))) => Some((Err(io::Error::other(why)), (shared, None))),
            Some(None) => None,
            None => Some((Err(io::ErrorKind::TimedOut.into()), (shared, None))),
        }
    })
}
