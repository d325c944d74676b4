//! Admits requests: within the rates, of a program and not of a page, with the token, and with room for it.

#![allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Control;
use super::problem::{Problem, coded};
use crate::observe::incidents::Incident;
use crate::server::catch_panic::peer_name;
use crate::server::connect_info::ConnectInfo;
use crate::server::http::service::TurnedAway;
use crate::server::http::{origin, rate};
use crate::server::refusal_log::RefusalRecord;

/// Headers that browsers send, and programs do not. `Sec-Fetch-Mode` is not one: the `fetch` of Node.js sends it.
const OF_PAGES: [HeaderName; 2] = [header::ORIGIN, HeaderName::from_static("sec-fetch-site")];

/// Tells one start of a server from another.
const INSTANCE: HeaderName = HeaderName::from_static("cuttlefish-instance");

/// One of the requests that may be under way. Its slot is free again when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Slot(#[allow(dead_code, reason = "its drop frees the slot")] Arc<Held>);

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Control {
    /// Takes a slot.
    fn take_slot(&self) -> Option<Slot> {
        let most = self.shared.settings().control.max_requests;
        let taken = self
            .requests
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| if held < most { Some(held + 1) } else { None });
        taken.ok().map(|_| Slot(Arc::new(Held(Arc::clone(&self.requests)))))
    }

    /// Checks the sender of a request.
    fn check_sender(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if let Some(name) = OF_PAGES.iter().find(|name| headers.contains_key(*name)) {
            self.shared.incidents.count(Incident::Foreign);
            let error =
                format!("The control API is for programs, and not for pages: the request has the header {name}");
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", error));
        }
        let unauthorized = |code, error: &'static str| {
            self.shared.incidents.count(Incident::Unauthorized);
            Err(Problem::new(StatusCode::UNAUTHORIZED, code, error))
        };
        let Some(given) = token_of(headers) else {
            return unauthorized("token_missing", "A token is needed: send Authorization: Bearer TOKEN");
        };
        let settings = self.shared.settings();
        if !settings.control.token.as_ref().is_some_and(|token| token.is(given)) {
            return unauthorized("token_wrong", "This token is not that of the server");
        }
        Ok(())
    }

    /// Checks everything that is the same for all routes, except the rates.
    fn check(&self, request: &Request) -> Result<Slot, Response> {
        if let Some(connect_info) = request.extensions().get::<ConnectInfo>()
            && let Some(refused) = origin::refusal(&self.shared, request, connect_info)
        {
            return Err(coded(refused));
        }
        if let Some(TurnedAway(why)) = request.extensions().get() {
            return Err(Problem::busy(*why).into_response());
        }
        if let Err(problem) = self.check_sender(request.headers()) {
            self.log(request, &problem);
            return Err(problem.into_response());
        }
        if self.shared.stopping.is_cancelled() {
            return Err(Problem::stopping().into_response());
        }
        self.take_slot().ok_or_else(|| {
            self.shared.incidents.count(Incident::TurnedAway);
            Problem::busy("Too many requests at once: limits.max_control_api_requests bounds them").into_response()
        })
    }

    fn log(&self, request: &Request, problem: &Problem) {
        let address = request.extensions().get::<ConnectInfo>().and_then(|info| info.address);
        let (peer, reason) = (peer_name(address), problem.text());
        let line = format_args!("refused a request of {peer} to the control API: {reason}");
        let record = RefusalRecord { peer: Some(&peer), ..RefusalRecord::new("control_refused", line) };
        let code = Some(problem.status().as_u16());
        self.shared.log_refusal(&RefusalRecord { code, reason: Some(&reason), ..record });
    }
}

/// Admits a request, or answers it.
pub(super) async fn admit(State(control): State<Arc<Control>>, mut request: Request, next: Next) -> Response {
    let (connect_info, path) = (request.extensions().get::<ConnectInfo>().cloned(), request.uri().path().to_owned());
    let exceeded = connect_info.and_then(|connect_info| rate::exceeded(&control.shared, &connect_info, &path));
    let admitted = match exceeded {
        Some(rate) => Err(coded(rate::refusal(&control.shared, rate).await)),
        None => control.check(&request),
    };
    let mut response = match admitted {
        Ok(slot) => {
            // A stream holds it until it ends.
            request.extensions_mut().insert(slot.clone());
            coded(next.run(request).await)
        }
        Err(refused) => refused,
    };
    if let Ok(instance) = HeaderValue::from_str(&control.instance) {
        response.headers_mut().insert(INSTANCE, instance);
    }
    response
}

/// The token of a request with one `Authorization` of the scheme `Bearer`.
fn token_of(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}
