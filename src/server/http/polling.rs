//! Clients that have HTTP only: today's polling, and the reference's (PROTOCOL.md 5.3).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::StreamExt;
use hyper::StatusCode;

use super::{Caller, InPath, Stay, error, json, status_of, too_many};
use crate::incidents::Incident;
use crate::peer::Role;
use crate::protocol::{MAX_DEVICE_MESSAGE, PollBody, Text, outbound};
use crate::refusal::Refusal;
use crate::server::Shared;
use crate::server::polled::{self, Mailbox, Over, Refused};

/// What a `client_msg` has around its payload, at most.
const AROUND_PAYLOAD: usize = 63;

/// Today's paths answer 404 where a connection is not known, the reference's 401.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Today,
    Reference,
}

pub(super) fn add_to(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    router
        // The colon stands in the path as it is.
        .without_v07_checks()
        .route("/polled_connections", post(connect_today))
        .route("/polled_connections/{id}/:forward", post(forward_today))
        .route("/polled_connections/{id}/messages", get(messages))
        .route("/connect", post(connect_as_reference))
        .route("/forward", post(forward_as_reference))
        .route("/poll_messages", post(poll_as_reference))
}

async fn connect_today(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    connect(&shared, Dialect::Today, request).await.unwrap_or_else(|refused| refused)
}

async fn connect_as_reference(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    connect(&shared, Dialect::Reference, request).await.unwrap_or_else(|refused| refused)
}

async fn connect(shared: &Arc<Shared>, dialect: Dialect, request: Request) -> Result<Response, Response> {
    let caller = Caller::of(shared, Role::Client, &request);
    let peer = caller.authorize(shared).await?;
    let body = read(shared, request).await?;
    let Some(device) = parse(&body)?.device_id else {
        return Err(error(StatusCode::BAD_REQUEST, &Refusal::ConnectWithoutId.text()));
    };
    let (id, info) = polled::connect(shared, peer, device).await.map_err(|refused| match refused {
        Refused::By(refusal) => error(status_of(&refusal), &said_by(&refusal)),
        Refused::Stopping => error(StatusCode::SERVICE_UNAVAILABLE, "Server stopping"),
        Refused::Full => {
            shared.incidents.count(Incident::TurnedAway);
            too_many("Too many polled connections")
        }
        Refused::Failed => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    })?;
    let message_type = if dialect == Dialect::Reference { r#""message_type":"device_info","# } else { "" };
    // Behind the brace that `{"device_info":…}` begins with.
    let rest = info.as_str().get(1..).unwrap_or("}");
    Ok(json(StatusCode::OK, format!(r#"{{"connection_id":"{id}",{message_type}{rest}"#)))
}

/// What the error says: on these paths a device that is not there has shorter words.
fn said_by(refusal: &Refusal) -> String {
    match refusal {
        Refusal::DeviceNotFound(_) => "Device not found".into(),
        _ => refusal.text().into_owned(),
    }
}

async fn forward_today(State(shared): State<Arc<Shared>>, InPath(id): InPath, request: Request) -> Response {
    forward(&shared, Dialect::Today, Some(id), request).await.unwrap_or_else(|refused| refused)
}

async fn forward_as_reference(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    forward(&shared, Dialect::Reference, None, request).await.unwrap_or_else(|refused| refused)
}

async fn forward(
    shared: &Arc<Shared>,
    dialect: Dialect,
    id: Option<String>,
    request: Request,
) -> Result<Response, Response> {
    Caller::of(shared, Role::Client, &request).authorize(shared).await?;
    let body = read(shared, request).await?;
    let body = parse(&body)?;
    let mailbox = find(shared, dialect, id.as_deref().or(body.connection_id.as_deref()))?;
    let Some(payload) = body.payload else {
        return Err(error(StatusCode::BAD_REQUEST, &Refusal::ClientForwardWithoutPayload.text()));
    };
    if payload.len() + AROUND_PAYLOAD > MAX_DEVICE_MESSAGE {
        let refusal = Refusal::ForwardTooLarge { size: payload.len() + AROUND_PAYLOAD, limit: MAX_DEVICE_MESSAGE };
        return Err(error(StatusCode::PAYLOAD_TOO_LARGE, &refusal.text()));
    }
    mailbox.say(payload.to_owned()).map_err(|over| is_over(dialect, over, Some(&mailbox)))?;
    Ok(json(StatusCode::OK, r#""ok""#.into()))
}

/// `GET /polled_connections/{id}/messages?start=&count=&wait=`
async fn messages(State(shared): State<Arc<Shared>>, InPath(id): InPath, request: Request) -> Response {
    let fetch = async {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let stay = Stay::of(&request);
        let caller = Caller::of(&shared, Role::Client, &request);
        drop(request);
        caller.authorize(&shared).await?;
        let Wanted { start, count, wait } = Wanted::parse(&query)?;
        let mailbox = find(&shared, Dialect::Today, Some(&id))?;
        stay.granted();
        let wait = wait.min(shared.config.limits.polled_timeout);
        let found = mailbox.fetch(start, count, wait).await;
        let found = found.map_err(|over| is_over(Dialect::Today, over, Some(&mailbox)))?;
        Ok(json(StatusCode::OK, array(found.iter().map(Text::as_str))))
    };
    fetch.await.unwrap_or_else(|refused| refused)
}

async fn poll_as_reference(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let poll = async {
        Caller::of(&shared, Role::Client, &request).authorize(&shared).await?;
        let body = read(&shared, request).await?;
        let mailbox = find(&shared, Dialect::Reference, parse(&body)?.connection_id.as_deref())?;
        let found = mailbox.take_all().map_err(|over| is_over(Dialect::Reference, over, Some(&mailbox)))?;
        let payloads = found.iter().filter_map(outbound::payload_of);
        Ok(json(StatusCode::OK, array(payloads)))
    };
    poll.await.unwrap_or_else(|refused| refused)
}

/// What a poll asks for.
struct Wanted {
    start: u64,
    count: usize,
    wait: Duration,
}

impl Wanted {
    fn parse(query: &str) -> Result<Self, Response> {
        let mut wanted = Self { start: 0, count: usize::MAX, wait: Duration::ZERO };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let understood = match &*key {
                "start" => value.parse().map(|start| wanted.start = start).is_ok(),
                "count" => value.parse().map(|count| wanted.count = count).is_ok(),
                "wait" => value
                    .parse()
                    .ok()
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .map(|wait| wanted.wait = wait)
                    .is_some(),
                _ => true,
            };
            if !understood {
                return Err(error(StatusCode::BAD_REQUEST, &format!("{key}: must be a number, 0 or more")));
            }
        }
        Ok(wanted)
    }
}

fn find(shared: &Shared, dialect: Dialect, id: Option<&str>) -> Result<Arc<Mailbox>, Response> {
    id.and_then(|id| shared.polled.find(id)).ok_or_else(|| is_over(dialect, Over::Gone, None))
}

fn is_over(dialect: Dialect, over: Over, mailbox: Option<&Mailbox>) -> Response {
    let status = match (over, dialect) {
        (Over::Full, _) => return too_many("Too many messages at once"),
        (Over::Gone, Dialect::Today) => StatusCode::NOT_FOUND,
        (Over::Gone, Dialect::Reference) => StatusCode::UNAUTHORIZED,
    };
    error(status, &mailbox.and_then(Mailbox::why).unwrap_or("Unknown connection".into()))
}

fn parse(body: &str) -> Result<PollBody<'_>, Response> {
    PollBody::parse(body).map_err(|malformed| error(StatusCode::BAD_REQUEST, &Refusal::from(malformed).text()))
}

/// The body of a request: as large as a message may be, and in as much time as its head had.
async fn read(shared: &Shared, request: Request) -> Result<String, Response> {
    let limits = &shared.config.limits;
    let read = collect(request.into_body(), limits.max_message_size);
    let body = shared.alarm.timeout(limits.request_head_timeout, read).await;
    let body = body.ok_or_else(|| error(StatusCode::REQUEST_TIMEOUT, "The body took too long"))??;
    String::from_utf8(body).map_err(|_| error(StatusCode::BAD_REQUEST, &Refusal::InvalidJson.text()))
}

async fn collect(body: Body, limit: usize) -> Result<Vec<u8>, Response> {
    let (mut stream, mut whole) = (body.into_data_stream(), Vec::new());
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| error(StatusCode::BAD_REQUEST, "The body broke off"))?;
        if whole.len() + part.len() > limit {
            return Err(error(StatusCode::PAYLOAD_TOO_LARGE, &format!("Body too large: at most {limit} bytes")));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

/// A JSON array of JSON texts.
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
