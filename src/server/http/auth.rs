//! The sender of a request, and the `authorize` hook that admits it.

#![allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};

use super::audited::{self, Place};
use super::token::{Judgement, Token};
use super::{proxy, respond::error};
use crate::access::hooks::{AuthorizeRequest, HookError};
use crate::config::OnTokenExpiry;
use crate::core::peer::{Grant, KeptRequest, Peer, Role};
use crate::observe::incidents::Incident;
use crate::observe::quoted::Quoted;
use crate::protocol::refusal::Refusal;
use crate::server::connect_info::ConnectInfo;
use crate::server::refusal_log::RefusalRecord;
use crate::server::shared::Shared;

/// The sender of a request, as the node has admitted it that has passed the request on. It is not asked for again.
#[derive(Clone)]
pub(in crate::server) struct PassedOn(pub(in crate::server) Arc<Peer>);

/// The sender of a request, copied out of the request before anything is awaited.
pub(in crate::server) struct Caller {
    /// The sender.
    pub(in crate::server) peer: Peer,
    /// The request, if a hook wants to see it.
    request: Option<Arc<KeptRequest>>,
    /// Its token, if the server knows issuers of tokens.
    token: Option<Token>,
    /// Its parts in the audit log. A request that another node has admitted has none.
    place: Place,
}

impl Caller {
    /// Reads the sender of a request to a route.
    pub(in crate::server) fn of(shared: &Shared, role: Role, request: &Request) -> Self {
        Self::from(shared, role, request.extensions().get(), request)
    }

    /// Reads the sender of a request whose [`ConnectInfo`] is known.
    pub(in crate::server) fn from<B>(
        shared: &Shared,
        role: Role,
        connect_info: Option<&ConnectInfo>,
        request: &hyper::Request<B>,
    ) -> Self {
        if let Some(PassedOn(sender)) = request.extensions().get() {
            let (certificate, grant) = (sender.certificate.clone(), sender.grant.clone());
            let peer = Peer { address: sender.address, certificate, grant, ..Peer::anonymous(role) };
            return Self { peer, request: None, token: None, place: Place::default() };
        }
        let mut peer = Peer::anonymous(role);
        if let Some(connect_info) = connect_info {
            peer.address = connect_info.address;
            let is_loopback = |address: SocketAddr| address.ip().to_canonical().is_loopback();
            peer.is_local = connect_info.address.is_some_and(is_loopback) && !comes_from_proxy(request);
            peer.certificate.clone_from(&connect_info.certificate);
        }
        let token = shared.settings().jwt.as_ref().map(|jwt| Token::of(jwt, request.headers()));
        let place = Place::of(shared, request, peer.address, connect_info);
        Self { peer, request: shared.hooks.wants_requests().then(|| Arc::new(kept(request))), token, place }
    }

    /// Judges the token, or asks the `authorize` hook, if there is one. `Err` is the response that refuses the request.
    pub(in crate::server) async fn authorize(mut self, shared: &Arc<Shared>) -> Result<Peer, Response> {
        self.peer.request.clone_from(&self.request);
        let decision = match self.by_token(shared) {
            Some(decision) => decision,
            None => self.by_hook(shared).await,
        };
        let Self { mut peer, place, .. } = self;
        match decision {
            Ok(grant) => {
                let closes = shared.settings().on_token_expiry == OnTokenExpiry::Close;
                let valid_for = grant.valid_for.filter(|_| closes);
                peer.expires = valid_for.and_then(|time| shared.clock.now().checked_add(time));
                peer.grant = grant;
                place.decided(shared, &peer, None);
                Ok(peer)
            }
            Err(hook_error) => {
                shared.incidents.count(Incident::Unauthorized);
                let refusal = denied(shared, hook_error, &peer);
                place.decided(shared, &peer, Some(&refusal));
                Err(audited::recorded(refusal))
            }
        }
    }

    /// The decision by the token alone. `None`: the hook decides.
    fn by_token(&self, shared: &Shared) -> Option<Result<Grant, HookError>> {
        let refused = |reason: String, status| Some(Err(HookError::Refused { reason: Some(reason), status }));
        match self.token.as_ref()?.judge(self.peer.role, shared.clock.unix_now()) {
            Judgement::Granted(grant) => Some(Ok(grant)),
            Judgement::Refused(error) => refused(format!("Invalid token: {error}"), error.status()),
            Judgement::NoJwt { .. } if shared.hooks.authenticates() => None,
            Judgement::NoJwt { is_needed: true, is_given: false } => refused("A token is needed".into(), 401),
            Judgement::NoJwt { is_given: true, .. } => refused("Invalid token: it is no JSON Web Token".into(), 401),
            Judgement::NoJwt { .. } => Some(Ok(Grant::default())),
        }
    }

    /// The decision of the hook. Without a hook, the grant of the peer stays.
    async fn by_hook(&self, shared: &Arc<Shared>) -> Result<Grant, HookError> {
        let Self { peer, request: Some(request), .. } = self else { return Ok(self.peer.grant.clone()) };
        let (certificate, request) = (peer.certificate.clone(), Arc::clone(request));
        let request = AuthorizeRequest { role: peer.role, address: peer.address, certificate, request };
        match shared.call_hook("authorize", |hooks| hooks.authorize(&request)) {
            // Boxed: without a hook, a request needs no room for it.
            Some(call) => Box::pin(shared.wait_for_hook(call, peer)).await,
            None => Ok(peer.grant.clone()),
        }
    }
}

/// Whether a proxy has passed the request on, as far as it says so (RFC 7239, RFC 9110 7.6.3).
fn comes_from_proxy<B>(request: &hyper::Request<B>) -> bool {
    let tells = |name| proxy::NAMES.contains(name) || *name == header::VIA || name == "x-real-ip";
    request.headers().keys().any(tells)
}

/// The response to a refusing or failed hook.
pub(in crate::server) fn denied(shared: &Arc<Shared>, hook_error: HookError, peer: &Peer) -> Response {
    let HookError::Refused { reason, status } = hook_error else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, &Refusal::HookFailed.text());
    };
    let refusal = Refusal::NotAuthorized(reason);
    let reason = refusal.text();
    let role = peer.role.as_str();
    let line = format_args!("refused {role} {peer}: {} [{status}]", Quoted(&reason));
    let record =
        RefusalRecord { role: Some(role), peer: Some(peer), ..RefusalRecord::new("request_unauthorized", line) };
    shared.log_refusal(&RefusalRecord { code: Some(status), reason: Some(&reason), ..record });
    refused(&reason, status)
}

/// 401 or 403 with the reason.
fn refused(reason: &str, status: u16) -> Response {
    if status != 401 {
        return error(StatusCode::FORBIDDEN, reason);
    }
    let mut response = error(StatusCode::UNAUTHORIZED, reason);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Copies the parts of a request that a hook may read.
fn kept<B>(request: &hyper::Request<B>) -> KeptRequest {
    let (uri, headers) = (request.uri(), request.headers());
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    KeptRequest::pack(path, query, || headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
}
