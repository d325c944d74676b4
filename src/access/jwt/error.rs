//! The reasons to refuse a token.

use crate::protocol::Role;

/// The keys that are tried for one token.
pub const MAX_TRIED: usize = 4;

/// The reason why a token is refused. It has no part of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// The token is longer than the setting allows.
    #[error("the token has {0} bytes, and {1} are allowed")]
    TooLong(usize, usize),
    /// It has not the form of a token.
    #[error("the {0} {1}")]
    Malformed(&'static str, String),
    /// Its algorithm is none of those that are allowed.
    #[error("the algorithm is none of RS256, ES256, EdDSA and HS256")]
    Algorithm,
    /// It needs an extension (RFC 7515, 4.1.11).
    #[error("the header has `crit`, and no extension is understood")]
    Critical,
    /// No key has its id and its algorithm.
    #[error("no key of the server has this `kid` and this algorithm")]
    UnknownKey,
    /// It has no key id, and there are too many keys to try.
    #[error("the header has no `kid`, and there are {0} keys of its algorithm: at most {MAX_TRIED} are tried")]
    NoKeyId(usize),
    /// The signature is of another key or another text.
    #[error("the signature is wrong")]
    Signature,
    /// It has no `exp`.
    #[error("the token has no `exp`: it would not expire")]
    NoExpiry,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the token is not valid yet (`nbf`)")]
    NotYet,
    /// It is of another issuer.
    #[error("the token has another issuer (`iss`)")]
    Issuer,
    /// It is for another audience.
    #[error("the token is for another audience (`aud`)")]
    Audience,
    /// A claim that grants something is missing or has another type.
    #[error("the claim `{0}` {1}")]
    Claim(String, &'static str),
    /// Its rights do not have the role.
    #[error("the token is not for the role '{}'", .0.as_str())]
    Role(Role),
}

impl JwtError {
    /// The HTTP status: 403 for a valid token without the right, otherwise 401.
    pub fn status(&self) -> u16 {
        if matches!(self, Self::Role(_)) { 403 } else { 401 }
    }
}
