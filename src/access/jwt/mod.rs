//! Judges JSON Web Tokens (RFC 7515, RFC 7519), with the recommendations of RFC 8725.
//!
//! No state, no I/O, and no clock: the time is an argument. The cost of a token is that of one signature, or of
//! [`MAX_TRIED`] for a token that names no key.

mod error;
mod grant;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

pub use self::error::{JwtError, MAX_TRIED};
use crate::config::jwt::{Algorithm, Jwt, JwtSettings, Key, strict};
use crate::core::peer::Grant;
use crate::protocol::Role;

/// A grant, and the time at which its token expires.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The rights of the peer.
    pub grant: Grant,
    /// Seconds since 1970, the leeway included. `None`: never.
    pub expires: Option<f64>,
}

/// Whether a bearer token has the form of a signed JSON Web Token: three parts.
pub fn is_jwt(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Judges a token of a peer with a role. `now`: seconds since 1970.
///
/// # Errors
/// The reason to refuse it.
pub fn judge(jwt: &Jwt, token: &str, role: Role, now: f64) -> Result<Judged, JwtError> {
    let settings = &jwt.settings;
    let claims = verify(jwt, token)?;
    let expires = check_times(settings, &claims, now)?;
    check_issuer_and_audience(settings, &claims)?;
    let valid_for = expires.and_then(|end| Duration::try_from_secs_f64(end - now).ok());
    let grant = Grant { valid_for, ..grant::of(settings, claims, role)? };
    Ok(Judged { grant, expires })
}

/// Returns the claims of a token with a valid signature.
fn verify(jwt: &Jwt, token: &str) -> Result<Map<String, Value>, JwtError> {
    let most = jwt.settings.max_token;
    if token.len() > most {
        return Err(JwtError::TooLong(token.len(), most));
    }
    let malformed = |what: &'static str, why: &str| JwtError::Malformed(what, why.into());
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("token", "has no three parts"))?;
    let (header, payload) = signed.split_once('.').ok_or_else(|| malformed("token", "has no three parts"))?;
    let header = part("header", header)?;
    let algorithm = check_header(&header)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("signature", "is no base64url"))?;
    jwt.with_keys(|keys| {
        let id = header.get("kid").and_then(Value::as_str);
        let is_candidate =
            |key: &&Key| key.algorithm() == algorithm && (id.is_none() || key.id.is_none() || key.id.as_deref() == id);
        let candidates = keys.iter().filter(is_candidate);
        match candidates.clone().count() {
            0 => return Err(JwtError::UnknownKey),
            count if count > MAX_TRIED => return Err(JwtError::NoKeyId(count)),
            _ => {}
        }
        let mut candidates = candidates;
        let is_right = candidates.any(|key| key.verifies(signed.as_bytes(), &signature));
        is_right.then_some(()).ok_or(JwtError::Signature)
    })?;
    // After the signature: an issuer that is not trusted reaches no more code than that.
    part("payload", payload)
}

fn part(what: &'static str, text: &str) -> Result<Map<String, Value>, JwtError> {
    let malformed = |why: String| JwtError::Malformed(what, why);
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed("is no base64url".into()))?;
    strict::object(&json).map_err(malformed)
}

fn check_header(header: &Map<String, Value>) -> Result<Algorithm, JwtError> {
    if header.contains_key("crit") {
        return Err(JwtError::Critical);
    }
    if header.get("kid").is_some_and(|id| !id.is_string()) {
        return Err(JwtError::Malformed("header", "has a `kid` that is no string".into()));
    }
    header.get("alg").and_then(Value::as_str).and_then(Algorithm::of).ok_or(JwtError::Algorithm)
}

fn check_times(settings: &JwtSettings, claims: &Map<String, Value>, now: f64) -> Result<Option<f64>, JwtError> {
    let leeway = settings.leeway.as_secs_f64();
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| JwtError::Claim(name.into(), "is no number")),
    };
    time("iat")?;
    if time("nbf")?.is_some_and(|begins| now < begins - leeway) {
        return Err(JwtError::NotYet);
    }
    let expires = time("exp")?.map(|end| end + leeway);
    if expires.is_none() && !settings.allow_no_exp {
        return Err(JwtError::NoExpiry);
    }
    if expires.is_some_and(|end| now >= end) {
        return Err(JwtError::Expired);
    }
    Ok(expires)
}

fn check_issuer_and_audience(settings: &JwtSettings, claims: &Map<String, Value>) -> Result<(), JwtError> {
    let issuer = claims.get("iss").and_then(Value::as_str);
    if !settings.issuers.is_empty() && !issuer.is_some_and(|it| settings.issuers.iter().any(|known| known == it)) {
        return Err(JwtError::Issuer);
    }
    let is_own = |it: &Value| it.as_str().is_some_and(|it| settings.audiences.iter().any(|own| own == it));
    let is_right = match claims.get("aud") {
        // A token for an audience is refused by a server that has none (RFC 7519, 4.1.3).
        Some(Value::Array(audiences)) => audiences.iter().any(is_own),
        Some(audience) => is_own(audience),
        None => settings.audiences.is_empty(),
    };
    is_right.then_some(()).ok_or(JwtError::Audience)
}
