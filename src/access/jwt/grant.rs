//! From the claims of a token to a grant. A claim that is missing grants nothing.

use serde_json::{Map, Value};

use super::error::JwtError;
use crate::config::jwt::{JwtSettings, Right};
use crate::core::peer::Grant;
use crate::protocol::Role;

/// Returns the grant of claims for a role.
pub(super) fn of(settings: &JwtSettings, claims: Map<String, Value>, role: Role) -> Result<Grant, JwtError> {
    let claims = Value::Object(claims);
    let identity = claim(&claims, &settings.identity).ok_or_else(|| missing(&settings.identity))?;
    let identity = Some(identity.to_string().into());
    let rights = settings.rights.as_deref().map(|name| rights(settings, &claims, name)).transpose()?;
    if rights.as_ref().is_some_and(|rights| !rights.contains(&Right::Role(role))) {
        return Err(JwtError::Role(role));
    }
    let has = |right| rights.as_ref().is_some_and(|rights| rights.contains(&right));
    let (manage, exclusive) = (has(Right::Manage), has(Right::Exclusive));
    let grant = match &settings.devices {
        Some(name) => Grant::of(identity, &words(&claims, name)?),
        None => Grant { identity, ..Grant::default() },
    };
    Ok(Grant { manage, exclusive, ..grant })
}

fn rights(settings: &JwtSettings, claims: &Value, name: &str) -> Result<Vec<Right>, JwtError> {
    let given = words(claims, name)?;
    let is_given = |value: &String| given.contains(value);
    Ok(settings.values.iter().filter(|(value, _)| is_given(value)).map(|(_, right)| *right).collect())
}

/// The claim of a name, or of a JSON pointer.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    let found = claims.get(name).or_else(|| name.starts_with('/').then(|| claims.pointer(name)).flatten());
    found.filter(|value| !value.is_null())
}

/// The words of a claim: an array of strings, or a string with spaces between them, as `scope` is (RFC 8693, 4.2).
fn words(claims: &Value, name: &str) -> Result<Vec<String>, JwtError> {
    let wrong = || JwtError::Claim(name.into(), "is neither a string nor an array of strings");
    match claim(claims, name).ok_or_else(|| missing(name))? {
        Value::String(text) => Ok(text.split_ascii_whitespace().map(str::to_owned).collect()),
        Value::Array(items) => items.iter().map(|it| it.as_str().map(str::to_owned).ok_or_else(wrong)).collect(),
        _ => Err(wrong()),
    }
}

fn missing(name: &str) -> JwtError {
    JwtError::Claim(name.into(), "is missing")
}
