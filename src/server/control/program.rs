//! Requests that only the program around the server can answer: a reload, its errors, and transcripts.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use serde::Serialize;

use super::Control;
use super::about::Answer;
use super::problem::Problem;
use super::query::Query;
use crate::access::hooks::{HookError, ProgramAnswer};
use crate::protocol::ClientId;
use crate::server::http::respond;

/// How long the program may take. A reload may load hooks and run commands.
const PATIENCE: Duration = Duration::from_secs(60);

/// `POST /control/v1/reload`: the program reads its settings again.
pub(super) async fn reload(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    control.ask("reload", "{}".into()).await
}

/// `GET /control/v1/errors`: the last errors that hooks and the server have caused.
pub(super) async fn errors(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    control.ask("errors", "{}".into()).await
}

#[derive(Serialize)]
struct Transcript {
    format: String,
    device: Option<String>,
    client: Option<u32>,
    after: u64,
}

/// `GET /control/v1/journal/transcript`: the conversation as text.
pub(super) async fn transcript(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let mut query = Query::of(&request)?;
    let known = |text: &str| ["text", "mermaid", "jsonl"].contains(&text).then(|| text.to_owned());
    let format = query.read("format", "text, mermaid or jsonl", known)?.unwrap_or_else(|| "text".into());
    let client = query.number::<u32>("client")?.map(|id| {
        let wanted = "must be a client id, from 0 to 2147483647";
        ClientId::new(id).map(ClientId::get).ok_or_else(|| Problem::bad_request("?client", wanted))
    });
    let (device, after) = (query.text("device"), query.number("after")?.unwrap_or(0));
    query.done()?;
    control.journal()?;
    let arguments = Transcript { format, device, client: client.transpose()?, after };
    control.ask("transcript", serde_json::to_string(&arguments).unwrap_or_default()).await
}

impl Control {
    async fn ask(&self, question: &'static str, arguments: String) -> Answer {
        let shared = &self.shared;
        let Some(call) = shared.hooks.ask_program(question, arguments) else {
            let error = "The program around this server does not answer this";
            return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not_supported", error));
        };
        let answered = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return Err(Problem::stopping()),
            answered = shared.timers.timeout(PATIENCE, call) => answered,
        };
        let ProgramAnswer { status, is_text, body } = match answered {
            Some(Ok(answer)) => answer,
            Some(Err(HookError::Refused { .. } | HookError::Failed | HookError::NotCalled)) => {
                return Err(Problem::stopping());
            }
            None => {
                let error = "The program has not answered in time; it may do so later";
                return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "too_slow", error));
            }
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if !is_text {
            return Ok(respond::json(status, body));
        }
        let mut response = Response::new(body.into());
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
}
