//! Polling: the paths of the current operator and those of the reference server (docs/protocol.md 5.3.10 to 5.3.31).

#![allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::StreamExt;
use hyper::body::{Body as _, Bytes};
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode, Uri};

use super::audited::recorded;
use super::auth::Caller;
use super::elsewhere::{self, Onward, TO_REACH};
use super::extract::PathId;
use super::respond::{STOPPING, error, json, status_of, too_many};
use crate::core::cluster::Incarnation;
use crate::core::party::Party;
use crate::core::peer::{Peer, Role};
use crate::observe::incidents::Incident;
use crate::protocol::refusal::Refusal;
use crate::protocol::{PollBody, Text, outbound};
use crate::server::http::polled::{self, ConnectError, PollError, PollQuery, Polled, PolledConnection};
use crate::server::shared::Shared;

/// The two sets of paths. They differ in the status of an unknown connection (docs/protocol.md 5.3.24) and in error
/// texts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// The `/polled_connections` paths of the current operator.
    Current,
    /// The paths of the reference server: `/connect`, `/forward`, `/poll_messages`.
    Reference,
}

impl Dialect {
    /// The status and the text for an unknown connection.
    fn unknown(self) -> (StatusCode, &'static str) {
        match self {
            Self::Current => (StatusCode::NOT_FOUND, "Unknown connection"),
            Self::Reference => (StatusCode::UNAUTHORIZED, "Error: Unknown connection ID"),
        }
    }

    /// The text of a refused `connect`. The current operator's does not name the id.
    fn text_of(self, refusal: &Refusal) -> Cow<'static, str> {
        match (self, refusal) {
            (Self::Current, Refusal::DeviceNotFound(_)) => "Device not found".into(),
            _ => refusal.text(),
        }
    }
}

/// The reference server's answer to a poll that names no connection.
///
/// Its answer to such a forward is [`Refusal::NotConnected`].
const POLL_WITHOUT_ID: &str = "Poll failed: No device associated to client";

/// Adds the routes of polling.
pub(in crate::server) fn add_to<S>(router: Router<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Shared>: FromRef<S>,
    Arc<Polled>: FromRef<S>,
{
    router
        // Without this call axum panics at `:forward`, which was the syntax of parameters in axum 0.7.
        .without_v07_checks()
        .route("/polled_connections", post(connect_current))
        .route("/polled_connections/{id}/:forward", post(forward_current))
        .route("/polled_connections/{id}/messages", get(messages))
        .route("/connect", post(connect_as_reference))
        .route("/forward", post(forward_as_reference))
        .route("/poll_messages", post(poll_as_reference))
}

/// `POST /polled_connections` (docs/protocol.md 5.3.10).
async fn connect_current(
    State(shared): State<Arc<Shared>>,
    State(polled): State<Arc<Polled>>,
    request: Request,
) -> Response {
    connect(&shared, &polled, Dialect::Current, request).await.unwrap_or_else(|refused| refused)
}

/// `POST /connect` (docs/protocol.md 5.3.20).
async fn connect_as_reference(
    State(shared): State<Arc<Shared>>,
    State(polled): State<Arc<Polled>>,
    request: Request,
) -> Response {
    connect(&shared, &polled, Dialect::Reference, request).await.unwrap_or_else(|refused| refused)
}

/// Opens a polled connection.
async fn connect(
    shared: &Arc<Shared>,
    polled: &Arc<Polled>,
    dialect: Dialect,
    request: Request,
) -> Result<Response, Response> {
    let caller = Caller::of(shared, Role::Client, &request);
    let peer = caller.authorize(shared).await?;
    let body = read_body(shared, request).await?;
    let Some(device) = parse(&body)?.device_id else {
        return Err(error(StatusCode::BAD_REQUEST, &Refusal::ConnectWithoutId.text()));
    };
    let (id, info) = polled::connect(shared, polled, peer, device).await.map_err(|refused| match refused {
        ConnectError::Refused(refusal) => recorded(error(status_of(&refusal), &dialect.text_of(&refusal))),
        ConnectError::Stopping => error(StatusCode::SERVICE_UNAVAILABLE, STOPPING),
        ConnectError::Full(party) => {
            shared.incidents.count(Incident::TurnedAway);
            too_many(match party {
                None => "Too many polled connections",
                Some(Party::Address) => "Too many polled connections from one address",
                Some(Party::Identity) => "Too many polled connections with one identity",
                Some(Party::Connection) => "Too many polled connections over one HTTP connection",
            })
        }
        ConnectError::Failed => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    })?;
    let message_type = if dialect == Dialect::Reference { r#""message_type":"device_info","# } else { "" };
    // The rest of `{"device_info":…}`, without its opening brace.
    let rest = info.as_str().get(1..).unwrap_or("}");
    Ok(json(StatusCode::OK, format!(r#"{{"connection_id":"{id}",{message_type}{rest}"#)))
}

/// `POST /polled_connections/{id}/:forward` (docs/protocol.md 5.3.11).
async fn forward_current(
    State(shared): State<Arc<Shared>>,
    State(polled): State<Arc<Polled>>,
    PathId(id): PathId,
    request: Request,
) -> Response {
    match forward(&shared, &polled, Dialect::Current, Some(id), request).await {
        Ok(_) => json(StatusCode::OK, r#""ok""#),
        Err(refused) => refused,
    }
}

/// `POST /forward`. The answer contains the pending payloads (docs/protocol.md 5.3.21).
async fn forward_as_reference(
    State(shared): State<Arc<Shared>>,
    State(polled): State<Arc<Polled>>,
    request: Request,
) -> Response {
    match forward(&shared, &polled, Dialect::Reference, None, request).await {
        // A connection that has just ended has none.
        Ok(connection) => payloads(&connection.take_all().unwrap_or_default()),
        Err(refused) => refused,
    }
}

/// Takes a payload for the device. Returns the sender's connection. `Err` is any other answer: an error, or that of the node
/// which has the connection.
async fn forward(
    shared: &Arc<Shared>,
    polled: &Polled,
    dialect: Dialect,
    id: Option<String>,
    request: Request,
) -> Result<Arc<PolledConnection>, Response> {
    let target = request.uri().clone();
    let caller = Caller::of(shared, Role::Client, &request).authorize(shared).await?;
    let text = read_body(shared, request).await?;
    let body = parse(&text)?;
    let id = id.as_deref().or(body.connection_id.as_deref());
    let id = id.ok_or_else(|| error(StatusCode::UNAUTHORIZED, &Refusal::NotConnected.text()))?;
    if let Some(node) = elsewhere::node_of_connection(shared, id) {
        let within = shared.settings().limits.write_timeout;
        return Err(pass_on(shared, node, &caller, (Method::POST, target, text.into()), within).await);
    }
    let connection = find(polled, dialect, id, &caller)?;
    let Some(payload) = body.payload else {
        return Err(error(StatusCode::BAD_REQUEST, &Refusal::ClientForwardWithoutPayload.text()));
    };
    connection.forward(payload).await.map_err(|failure| poll_error(dialect, failure, &connection))?;
    Ok(connection)
}

/// `GET /polled_connections/{id}/messages?start=&count=&wait=` (docs/protocol.md 5.3.12 to 5.3.17).
async fn messages(
    State(shared): State<Arc<Shared>>,
    State(polled): State<Arc<Polled>>,
    PathId(id): PathId,
    request: Request,
) -> Response {
    let fetch = async {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let (method, target) = (request.method().clone(), request.uri().clone());
        let is_head = method == Method::HEAD;
        let caller = Caller::of(&shared, Role::Client, &request);
        drop(request);
        let caller = caller.authorize(&shared).await?;
        let mut query = parse_query(&query)?;
        if let Some(node) = elsewhere::node_of_connection(&shared, &id) {
            let within = shared.settings().limits.polled_timeout;
            return Ok(pass_on(&shared, node, &caller, (method, target, Bytes::new()), within).await);
        }
        let connection = find(&polled, Dialect::Current, &id, &caller)?;
        query.wait = query.wait.min(shared.settings().limits.polled_timeout);
        // HEAD has no body, so it must not mark a message as delivered.
        let messages = if is_head { connection.peek(&query) } else { connection.fetch(&query).await };
        let messages = messages.map_err(|failure| poll_error(Dialect::Current, failure, &connection))?;
        Ok(json(StatusCode::OK, array(messages.iter().map(Text::as_str))))
    };
    fetch.await.unwrap_or_else(|refused| refused)
}

/// `POST /poll_messages` (docs/protocol.md 5.3.21).
async fn poll_as_reference(
    State(shared): State<Arc<Shared>>,
    State(polled): State<Arc<Polled>>,
    request: Request,
) -> Response {
    let poll = async {
        let target = request.uri().clone();
        let caller = Caller::of(&shared, Role::Client, &request).authorize(&shared).await?;
        let text = read_body(&shared, request).await?;
        let body = parse(&text)?;
        let id = body.connection_id.as_deref();
        let id = id.ok_or_else(|| error(StatusCode::UNAUTHORIZED, POLL_WITHOUT_ID))?;
        if let Some(node) = elsewhere::node_of_connection(&shared, id) {
            let request = (Method::POST, target, text.into());
            return Ok(pass_on(&shared, node, &caller, request, Duration::ZERO).await);
        }
        let connection = find(&polled, Dialect::Reference, id, &caller)?;
        let messages = connection.take_all().map_err(|failure| poll_error(Dialect::Reference, failure, &connection))?;
        Ok(payloads(&messages))
    };
    poll.await.unwrap_or_else(|refused| refused)
}

/// Passes a request on to the node that has the connection, which has this time and that to reach it.
async fn pass_on(
    shared: &Arc<Shared>,
    node: Incarnation,
    caller: &Peer,
    (method, target, body): (Method, Uri, Bytes),
    within: Duration,
) -> Response {
    let onward = Onward { method, target, headers: HeaderMap::new(), body };
    elsewhere::pass_on(shared, node, caller, onward, within.saturating_add(TO_REACH)).await
}

/// Parses the query of a poll. An empty value and `count=-1` count as absent (docs/protocol.md 5.3.15).
fn parse_query(text: &str) -> Result<PollQuery, Response> {
    let mut query = PollQuery { start: None, count: usize::MAX, wait: Duration::ZERO };
    for (key, value) in form_urlencoded::parse(text.as_bytes()) {
        let valid = match (&*key, &*value) {
            ("start" | "count" | "wait", "") | ("count", "-1") => true,
            ("start", value) => number(value).map(|start| query.start = Some(start)).is_some(),
            ("count", value) => {
                number(value).map(|count| query.count = count.try_into().unwrap_or(usize::MAX)).is_some()
            }
            ("wait", value) => seconds(value).map(|wait| query.wait = wait).is_some(),
            _ => true,
        };
        if !valid {
            return Err(error(StatusCode::BAD_REQUEST, &format!("{key}: must be a number, 0 or more")));
        }
    }
    Ok(query)
}

/// Parses a whole number. One that is too large becomes the largest.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Parses a number of seconds, 0 or more.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Finds a connection by its id. To another identity than the one that opened it, it does not exist.
fn find(polled: &Polled, dialect: Dialect, id: &str, caller: &Peer) -> Result<Arc<PolledConnection>, Response> {
    let (status, text) = dialect.unknown();
    polled.find(id).filter(|found| found.belongs_to(caller)).ok_or_else(|| error(status, text))
}

/// The response to a failed poll or forward. The reference server's text precedes the reason of the end.
fn poll_error(dialect: Dialect, failure: PollError, connection: &PolledConnection) -> Response {
    let (status, unknown) = dialect.unknown();
    match (failure, dialect, connection.end_reason()) {
        (PollError::Refused(refusal), ..) => error(status_of(&refusal), &refusal.text()),
        (PollError::Busy, ..) => too_many("Too many messages wait for the device"),
        (PollError::Acknowledged { start, first }, ..) => {
            let text = format!("start={start}: messages before {first} are gone, a later start has acknowledged them");
            error(StatusCode::GONE, &text)
        }
        (PollError::Gone, _, None) => error(status, unknown),
        (PollError::Gone, _, Some(end_reason)) => {
            // As a close frame with 1001: the client may connect again.
            let status = if end_reason == STOPPING { StatusCode::SERVICE_UNAVAILABLE } else { status };
            match dialect {
                Dialect::Current => error(status, &end_reason),
                Dialect::Reference => error(status, &format!("{unknown}: {end_reason}")),
            }
        }
    }
}

/// Parses the body of a `POST`.
fn parse(body: &str) -> Result<PollBody<'_>, Response> {
    PollBody::parse(body).map_err(|malformed| error(StatusCode::BAD_REQUEST, &Refusal::from(malformed).text()))
}

/// Reads the body of a request, within the size of a message and the timeout of a request head.
async fn read_body(shared: &Shared, request: Request) -> Result<String, Response> {
    let settings = shared.settings();
    let limits = &settings.limits;
    // From the head, before the body is asked for: a client that expects `100 Continue` need not send it.
    if request.body().size_hint().lower() > limits.max_message_size as u64 {
        return Err(too_large(limits.max_message_size));
    }
    let whole = collect(request.into_body(), limits.max_message_size);
    let body = shared.timers.timeout(limits.request_head_timeout, whole).await;
    let body = body.ok_or_else(|| error(StatusCode::REQUEST_TIMEOUT, "The body took too long"))??;
    String::from_utf8(body).map_err(|_| error(StatusCode::BAD_REQUEST, &Refusal::InvalidJson.text()))
}

/// Reads a body of at most `limit` bytes.
async fn collect(body: Body, limit: usize) -> Result<Vec<u8>, Response> {
    let (mut stream, mut whole) = (body.into_data_stream(), Vec::new());
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| error(StatusCode::BAD_REQUEST, "The body broke off"))?;
        if whole.len() + part.len() > limit {
            return Err(too_large(limit));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

/// 413 with the largest size.
fn too_large(limit: usize) -> Response {
    error(StatusCode::PAYLOAD_TOO_LARGE, &format!("Body too large: at most {limit} bytes"))
}

/// Responds with the payloads of messages.
fn payloads(messages: &[Text]) -> Response {
    json(StatusCode::OK, array(messages.iter().filter_map(outbound::payload_of)))
}

/// Joins JSON texts to a JSON array.
fn array<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut array = String::from("[");
    for text in texts {
        if array.len() > 1 {
            array.push(',');
        }
        array.push_str(text);
    }
    array.push(']');
    array
}
