//! JSON Web Key Sets (RFC 7517). Keys for other purposes and of other algorithms are left out, as its section 5 wants it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::keys::{Algorithm, Key};
use super::strict;

type Jwk = Map<String, Value>;

/// Reads the keys of a set, or one key alone.
pub(super) fn parse(bytes: &[u8], most: usize) -> Result<Vec<Key>, String> {
    let document = strict::object(bytes)?;
    let entries = match document.get("keys") {
        Some(Value::Array(entries)) => entries.clone(),
        Some(_) => return Err("`keys` is no array".into()),
        None if document.contains_key("kty") => vec![Value::Object(document)],
        None => return Err("has no `keys`: it is no JSON Web Key Set".into()),
    };
    if entries.len() > most {
        return Err(format!("has {} keys, and {most} are allowed (Jwt.max_keys)", entries.len()));
    }
    let mut keys = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let Value::Object(jwk) = entry else { return Err(format!("keys[{index}] is no object")) };
        keys.extend(key_of(jwk).map_err(|what| format!("keys[{index}] {what}"))?);
    }
    if keys.is_empty() {
        return Err("has no key for signatures of RS256, ES256, EdDSA or HS256".into());
    }
    Ok(keys)
}

/// Reads a key. `None`: it is for something else.
fn key_of(jwk: &Jwk) -> Result<Option<Key>, String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let id = match jwk.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err("has a `kid` that is no string".into()),
    };
    let kind = text("kty").ok_or("has no `kty`")?;
    if !is_for_signatures(jwk) {
        return Ok(None);
    }
    if kind != "oct" && jwk.contains_key("d") {
        return Err("is a private key: give the public one".into());
    }
    let key = match (kind, text("crv")) {
        ("RSA", _) => Key::rsa(id, &bytes(jwk, "n")?, &bytes(jwk, "e")?)?,
        ("EC", Some("P-256")) => Key::p256(id, &[vec![4], bytes(jwk, "x")?, bytes(jwk, "y")?].concat())?,
        ("OKP", Some("Ed25519")) => Key::ed25519(id, &bytes(jwk, "x")?)?,
        ("oct", _) => Key::secret(id, &bytes(jwk, "k")?)?,
        _ => return Ok(None),
    };
    let is_same = |name: &str| Algorithm::of(name) == Some(key.algorithm());
    Ok(text("alg").is_none_or(is_same).then_some(key))
}

fn is_for_signatures(jwk: &Jwk) -> bool {
    let is_used = jwk.get("use").is_none_or(|it| it == "sig");
    let verifies = |operations: &Value| match operations {
        Value::Array(operations) => operations.iter().any(|it| it == "verify"),
        _ => false,
    };
    is_used && jwk.get("key_ops").is_none_or(verifies)
}

fn bytes(jwk: &Jwk, name: &str) -> Result<Vec<u8>, String> {
    let text = jwk.get(name).and_then(Value::as_str).ok_or_else(|| format!("has no `{name}`"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("has a `{name}` that is no base64url (RFC 4648, 5)"))
}
