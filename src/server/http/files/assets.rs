//! Static files: those of the server (`web/`), and those of a host package whose directory the settings name.
//!
//! The server's own files are public, so `authorize` is not asked about them.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Request, State};
use axum::response::Response;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use sha1::{Digest, Sha1};
use tower_http::services::ServeDir;
use tower_service::Service;

use crate::core::peer::Role;
use crate::server::http::auth::Caller;
use crate::server::http::extract::members;
use crate::server::http::respond::{error, method_not_allowed};
use crate::server::shared::Shared;

/// The dashboard's Content-Security-Policy: resources of this server only.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The caching of files that `authorize` admits to: by the browser alone, which asks each time whether they have
/// changed.
pub(super) const PRIVATE: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));

/// A file of `web/`, embedded in the binary.
pub(in crate::server) struct Embedded {
    /// The content type.
    kind: &'static str,
    /// The content.
    text: &'static str,
    /// The entity tag, computed on first use.
    tag: LazyLock<HeaderValue>,
}

/// Embeds a file of `web/`.
macro_rules! embedded {
    ($kind:literal, $file:expr) => {{
        const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/", $file));
        static FILE: Embedded = Embedded { kind: $kind, text: TEXT, tag: LazyLock::new(|| tag_of(TEXT)) };
        &FILE
    }};
}

/// The module through which Cuttlefish's web client reaches the server.
pub(in crate::server) fn server_connector() -> &'static Embedded {
    embedded!("text/javascript; charset=utf-8", "server_connector.js")
}

/// The dashboard's files by path.
fn page() -> [(&'static str, &'static Embedded); 18] {
    macro_rules! script {
        ($name:literal) => {{
            let file = embedded!("text/javascript; charset=utf-8", concat!("dashboard/", $name));
            (concat!("/dashboard/", $name), file)
        }};
    }
    [
        ("/", embedded!("text/html; charset=utf-8", "dashboard/index.html")),
        ("/dashboard/style.css", embedded!("text/css; charset=utf-8", "dashboard/style.css")),
        ("/dashboard/device.css", embedded!("text/css; charset=utf-8", "dashboard/device.css")),
        ("/dashboard/icon.svg", embedded!("image/svg+xml", "dashboard/icon.svg")),
        script!("main.js"),
        script!("dom.js"),
        script!("words.js"),
        script!("feed.js"),
        script!("health.js"),
        script!("nodes.js"),
        script!("rates.js"),
        script!("devices.js"),
        script!("details.js"),
        script!("conversation.js"),
        script!("transcript.js"),
        script!("actions.js"),
        script!("welcome.js"),
        script!("viewer.js"),
    ]
}

/// The entity tag of a text.
fn tag_of(text: &str) -> HeaderValue {
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha1::digest(text)));
    HeaderValue::try_from(tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

impl Embedded {
    /// Responds with the file, or with 304 if the client has it (RFC 9110, 13.1.2).
    pub(in crate::server) fn answer(&self, headers: &HeaderMap) -> Response {
        let known = members(headers, &header::IF_NONE_MATCH).map(|tag| tag.trim_start_matches("W/"));
        let fresh = known.into_iter().any(|tag| tag == "*" || tag.as_bytes() == self.tag.as_bytes());
        let mut response = Response::new(if fresh { Body::empty() } else { Body::from(self.text) });
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.tag.clone());
        // Clients may store the file but must revalidate it, so that a newer server takes effect at once.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        if self.kind.starts_with("text/html") {
            headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        if fresh {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    }
}

/// Adds the routes of the server's own files: the connector always, the dashboard if it is enabled.
pub(in crate::server) fn add_to<S>(mut router: Router<S>, dashboard: bool) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Shared>: FromRef<S>,
{
    let pages = if dashboard { &page()[..] } else { &[] };
    let connector = ("/js/server_connector.js", server_connector());
    for &(path, file) in [connector].iter().chain(pages) {
        router = router.route(path, get(async move |headers: HeaderMap| file.answer(&headers)));
    }
    router
}

/// The fallback route: a file of the assets directory, if the settings name one.
pub(in crate::server) async fn of_directory(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let settings = shared.settings();
    let Some(directory) = &settings.assets_dir else { return error(StatusCode::NOT_FOUND, "Not found") };
    let caller = Caller::of(&shared, Role::Http, &request);
    let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
    drop(request);
    if let Err(refused) = caller.authorize(&shared).await {
        return refused;
    }
    if matches!(method, Method::GET | Method::HEAD) {
        return file_of(directory, method, &uri, headers).await;
    }
    // A file allows GET and HEAD only. A path without a file is 404 for every method.
    let found = file_of(directory, Method::HEAD, &uri, HeaderMap::new()).await;
    if found.status() == StatusCode::NOT_FOUND {
        return found;
    }
    method_not_allowed("GET,HEAD", "Method not allowed")
}

/// Responds with a file of the directory.
async fn file_of(directory: &Path, method: Method, uri: &Uri, headers: HeaderMap) -> Response {
    if uri.path().contains("%00") {
        // No file has a NUL in its name, and opening one would be another error than 404.
        return error(StatusCode::NOT_FOUND, "Not found");
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = if uri.path() == "/" { Uri::from_static("/index.html") } else { uri.clone() };
    *request.headers_mut() = headers;
    let served = ServeDir::new(directory).append_index_html_on_directories(false).call(request).await;
    let response = match served {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let reason = if status == StatusCode::NOT_FOUND { None } else { status.canonical_reason() };
        let mut refused = error(status, reason.unwrap_or("Not found"));
        // The size of the file, where the requested range is outside of it (RFC 9110, 15.5.17).
        let range = response.headers().get(header::CONTENT_RANGE).cloned();
        refused.headers_mut().extend(range.map(|range| (header::CONTENT_RANGE, range)));
        return refused;
    }
    let mut response = response.map(Body::new);
    response.headers_mut().extend([PRIVATE]);
    response
}
