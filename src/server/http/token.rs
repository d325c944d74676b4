//! Bearer tokens of requests, and those that are JSON Web Tokens (docs/tokens.md).

use hyper::header::{self, HeaderMap};

use crate::access::jwt::{self, JwtError};
use crate::config::jwt::Jwt;
use crate::core::peer::{Grant, Role};

/// The beginning of the sub-protocol that has the token of a browser.
const SUBPROTOCOL: &str = "bearer.";

/// The judgement of a token.
pub(super) enum Judgement {
    /// The peer has these rights.
    Granted(Grant),
    /// The token is refused.
    Refused(JwtError),
    /// There is no token, or it is none that a key could verify.
    NoJwt {
        /// Whether the role needs a token.
        is_needed: bool,
        /// Whether there is a token of another form.
        is_given: bool,
    },
}

/// Tokens of one request, with the keys that judge them.
pub(super) struct Token {
    jwt: Jwt,
    text: Option<Box<str>>,
}

impl Token {
    /// Copies the token of a request.
    pub(super) fn of(jwt: &Jwt, headers: &HeaderMap) -> Self {
        Self { jwt: jwt.clone(), text: bearer(headers).map(Box::from) }
    }

    /// Judges the token. `now`: seconds since 1970.
    pub(super) fn judge(&self, role: Role, now: f64) -> Judgement {
        match self.text.as_deref() {
            Some(text) if jwt::is_jwt(text) => match jwt::judge(&self.jwt, text, role, now) {
                Ok(judged) => Judgement::Granted(judged.grant),
                Err(reason) => Judgement::Refused(reason),
            },
            text => {
                let is_needed = self.jwt.settings.needed_for.contains(&role);
                Judgement::NoJwt { is_needed, is_given: text.is_some() }
            }
        }
    }
}

/// The token of `Authorization: Bearer TOKEN`, or of the sub-protocol `bearer.TOKEN`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some((scheme, token)) = authorization.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
        && !token.trim().is_empty()
    {
        return Some(token.trim());
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|line| line.split(',')).find_map(|name| name.trim().strip_prefix(SUBPROTOCOL))
}
