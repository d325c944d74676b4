//! JSON Web Tokens: any text as a token, as the claims of a valid one, and as a file of keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cuttlefish_signaling::access::jwt::{self, judge};
use cuttlefish_signaling::config::jwt::{Jwt, JwtSettings};
use cuttlefish_signaling::protocol::Role;
use ring::hmac;

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const NOW: f64 = 1_800_000_000.0;

/// Checks that a text is no token, that claims grant only what they have, and that nothing panics.
pub fn tokens(data: &[u8]) {
    let key = format!(r#"{{"kty":"oct","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(SECRET));
    let settings = JwtSettings { devices: Some("/d/e".into()), rights: Some("scope".into()), ..JwtSettings::default() };
    let jwt = Jwt::of(settings.clone(), &[("key".into(), key.into_bytes())]).expect("the key is valid");
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(judge(&jwt, text, Role::Client, NOW).is_err(), "{text:?} is signed by no key");
        assert_eq!(jwt::is_jwt(text), text.split('.').count() == 3);
    }
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(data));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    if let Ok(judged) = judge(&jwt, &token, Role::Client, NOW) {
        let claims: serde_json::Value = serde_json::from_slice(data).expect("claims are JSON");
        assert!(judged.expires.is_some_and(|end| end > NOW), "{claims}");
        assert!(judged.grant.devices.is_some() && claims.pointer("/d/e").is_some(), "{claims}");
        assert!(claims["scope"].to_string().contains("client"), "{claims}");
    }
    if let Ok(keys) = Jwt::of(settings, &[("file".into(), data.to_vec())]) {
        keys.with_keys(|keys| assert!((1..=100).contains(&keys.len())));
    }
}
