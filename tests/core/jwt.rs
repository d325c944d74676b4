//! Tokens that others issue (docs/tokens.md): each is judged by a key that the server knows, and by nothing in it.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cuttlefish_signaling::access::jwt::{JwtError, MAX_TRIED, judge};
use cuttlefish_signaling::config::jwt::{Jwt, JwtSettings, Right};
use cuttlefish_signaling::protocol::{DeviceId, Role};
use proptest::prelude::*;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use ring::{hmac, rand::SystemRandom};
use serde_json::{Value, json};

const NOW: f64 = 1_800_000_000.0;
const SECRET: [u8; 32] = [7; 32];

/// The claims of the examples of RFC 7515.
const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const BEFORE: f64 = 1_300_819_379.0;

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn keys_of(settings: JwtSettings, keys: &[Value]) -> Result<Jwt, String> {
    let document = json!({ "keys": keys }).to_string().into_bytes();
    Jwt::of(settings, &[("jwks.json".into(), document)]).map_err(|error| error.to_string())
}

fn jwt(settings: JwtSettings, keys: &[Value]) -> Jwt {
    keys_of(settings, keys).expect("the keys are valid")
}

fn secret_key(id: Option<&str>) -> Value {
    let mut key = json!({ "kty": "oct", "k": b64(SECRET) });
    if let Some(id) = id {
        key["kid"] = json!(id);
    }
    key
}

/// A server with one HMAC key.
fn with_secret(settings: JwtSettings) -> Jwt {
    jwt(settings, &[secret_key(None)])
}

/// Signs a header and claims, given as texts, with HMAC.
fn signed(header: &str, claims: &str, secret: &[u8]) -> String {
    let text = format!("{}.{}", b64(header), b64(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", b64(tag))
}

fn token(claims: &Value) -> String {
    signed(r#"{"alg":"HS256"}"#, &claims.to_string(), &SECRET)
}

fn refused(jwt: &Jwt, token: &str) -> JwtError {
    judge(jwt, token, Role::Client, NOW).expect_err("the token is refused")
}

fn of_joe() -> JwtSettings {
    JwtSettings { identity: "iss".into(), leeway: std::time::Duration::ZERO, ..JwtSettings::default() }
}

const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

fn rsa_key() -> Value {
    json!({ "kty": "RSA", "n": RSA_N, "e": "AQAB" })
}

fn ed25519_key() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

#[test]
fn examples_of_rfc_7515_are_verified() {
    let hs = json!({ "kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" });
    let es = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
    let examples = [
        (hs, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        (
            rsa_key(),
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            es,
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ];
    for (key, header, signature) in &examples {
        let jwt = jwt(of_joe(), std::slice::from_ref(key));
        let token = format!("{header}.{CLAIMS}.{signature}");
        let judged = judge(&jwt, &token, Role::Client, BEFORE).expect("the example is valid");
        assert_eq!(judged.grant.identity.as_deref(), Some(r#""joe""#));
        assert_eq!(judged.expires, Some(1_300_819_380.0));
        assert_eq!(judge(&jwt, &token, Role::Client, BEFORE + 1.0).expect_err("it has expired"), JwtError::Expired);
        let other = format!("{header}.{}.{signature}", CLAIMS.replacen("qb2", "qb3", 1));
        assert_eq!(judge(&jwt, &other, Role::Client, BEFORE).expect_err("it was changed"), JwtError::Signature);
    }
}

#[test]
fn example_of_rfc_8037_is_verified_before_its_payload_is_read() {
    let jwt = jwt(of_joe(), &[ed25519_key()]);
    let text = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(matches!(refused(&jwt, &format!("{text}.{signature}")), JwtError::Malformed("payload", _)));
    let wrong = signature.replacen('h', "i", 1);
    assert_eq!(refused(&jwt, &format!("{text}.{wrong}")), JwtError::Signature);
}

#[test]
fn no_algorithm_and_unknown_ones_are_refused() {
    let jwt = with_secret(JwtSettings::default());
    let claims = json!({ "sub": "a", "exp": NOW + 1.0 }).to_string();
    for algorithm in ["none", "None", "NONE", "", "hs256", "HS384", "HS512", "RS512", "PS256", "ES384"] {
        let header = json!({ "alg": algorithm }).to_string();
        assert_eq!(refused(&jwt, &signed(&header, &claims, &SECRET)), JwtError::Algorithm, "{algorithm}");
        assert_eq!(refused(&jwt, &format!("{}.{}.", b64(&header), b64(&claims))), JwtError::Algorithm);
    }
    for header in ["{}", r#"{"alg":1}"#, r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#] {
        assert_eq!(refused(&jwt, &signed(header, &claims, &SECRET)), JwtError::Algorithm, "{header}");
    }
}

#[test]
fn hmac_with_a_public_key_is_refused() {
    let modulus = URL_SAFE_NO_PAD.decode(RSA_N).expect("base64");
    let ed25519 = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").expect("base64");
    let jwt = jwt(JwtSettings::default(), &[rsa_key(), ed25519_key()]);
    let claims = json!({ "sub": "a", "exp": NOW + 1.0 }).to_string();
    for public in [&modulus[..], &ed25519, RSA_N.as_bytes(), rsa_key().to_string().as_bytes()] {
        assert_eq!(refused(&jwt, &signed(r#"{"alg":"HS256"}"#, &claims, public)), JwtError::UnknownKey);
    }
}

#[test]
fn keys_are_chosen_by_their_id() {
    let other = json!({ "kty": "oct", "k": b64([8; 32]), "kid": "b" });
    let jwt = jwt(JwtSettings::default(), &[secret_key(Some("a")), other]);
    let claims = json!({ "sub": "x", "exp": NOW + 1.0 }).to_string();
    let with = |header: &str| judge(&jwt, &signed(header, &claims, &SECRET), Role::Client, NOW).map(|_| ());
    assert_eq!(with(r#"{"alg":"HS256","kid":"a"}"#), Ok(()));
    assert_eq!(with(r#"{"alg":"HS256"}"#), Ok(()), "without an id, the keys are tried");
    assert_eq!(with(r#"{"alg":"HS256","kid":"b"}"#), Err(JwtError::Signature));
    assert_eq!(with(r#"{"alg":"HS256","kid":"c"}"#), Err(JwtError::UnknownKey));
    assert!(matches!(with(r#"{"alg":"HS256","kid":7}"#), Err(JwtError::Malformed("header", _))));
    assert_eq!(with(r#"{"alg":"HS256","kid":"a","crit":["exp"]}"#), Err(JwtError::Critical));
    assert!(matches!(with(r#"{"alg":"HS256","alg":"HS256"}"#), Err(JwtError::Malformed("header", _))));
}

#[test]
fn few_keys_are_tried_for_a_token_without_key_id() {
    let keys: Vec<_> = (0..=MAX_TRIED).map(|number| secret_key(Some(&number.to_string()))).collect();
    let claims = json!({ "sub": "x", "exp": NOW + 1.0 });
    let few = jwt(JwtSettings::default(), &keys[..MAX_TRIED]);
    assert!(judge(&few, &token(&claims), Role::Client, NOW).is_ok());
    let many = jwt(JwtSettings::default(), &keys);
    assert_eq!(refused(&many, &token(&claims)), JwtError::NoKeyId(MAX_TRIED + 1));
}

#[test]
fn times_count_with_their_leeway() {
    let jwt = with_secret(JwtSettings::default());
    let at = |claims: Value, now: f64| judge(&jwt, &token(&claims), Role::Client, now).map(|judged| judged.expires);
    let exp = json!({ "sub": "a", "exp": NOW });
    assert_eq!(at(exp.clone(), NOW + 59.9), Ok(Some(NOW + 60.0)));
    assert_eq!(at(exp, NOW + 60.0), Err(JwtError::Expired));
    let nbf = json!({ "sub": "a", "exp": NOW + 999.0, "nbf": NOW });
    assert_eq!(at(nbf.clone(), NOW - 60.0), Ok(Some(NOW + 1059.0)));
    assert_eq!(at(nbf, NOW - 60.1), Err(JwtError::NotYet));
    for name in ["exp", "nbf", "iat"] {
        let mut claims = json!({ "sub": "a", "exp": NOW + 1.0 });
        claims[name] = json!("1800000000");
        assert_eq!(at(claims, NOW), Err(JwtError::Claim(name.into(), "is no number")));
    }
    assert_eq!(at(json!({ "sub": "a" }), NOW), Err(JwtError::NoExpiry));
    let allowed = with_secret(JwtSettings { allow_no_exp: true, ..JwtSettings::default() });
    let judged = judge(&allowed, &token(&json!({ "sub": "a" })), Role::Client, NOW).expect("it is allowed");
    assert_eq!(judged.expires, None);
}

#[test]
fn issuer_and_audience_have_to_be_listed() {
    let settings = JwtSettings {
        issuers: vec!["https://id.lab".into(), "other".into()],
        audiences: vec!["signaling".into(), "farm".into()],
        ..JwtSettings::default()
    };
    let jwt = with_secret(settings);
    let with = |issuer: Value, audience: Value| {
        let mut claims = json!({ "sub": "a", "exp": NOW + 1.0, "iss": issuer, "aud": audience });
        claims.as_object_mut().expect("object").retain(|_, value| !value.is_null());
        judge(&jwt, &token(&claims), Role::Client, NOW).map(|_| ())
    };
    assert_eq!(with(json!("https://id.lab"), json!("signaling")), Ok(()));
    assert_eq!(with(json!("other"), json!(["x", "farm"])), Ok(()));
    for issuer in [Value::Null, json!("https://id.lab/"), json!("HTTPS://id.lab"), json!(["other"]), json!(7)] {
        assert_eq!(with(issuer, json!("farm")), Err(JwtError::Issuer));
    }
    for audience in [Value::Null, json!("Farm"), json!([]), json!(["x", ["farm"]]), json!({ "farm": 1 })] {
        assert_eq!(with(json!("other"), audience), Err(JwtError::Audience));
    }
    let none = with_secret(JwtSettings::default());
    let foreign = token(&json!({ "sub": "a", "exp": NOW + 1.0, "aud": "elsewhere" }));
    assert_eq!(refused(&none, &foreign), JwtError::Audience, "a token for an audience needs the setting");
}

#[test]
fn duplicate_claims_are_refused() {
    let jwt = with_secret(JwtSettings::default());
    for claims in [
        r#"{"sub":"a","sub":"b","exp":1900000000}"#,
        r#"{"sub":"a","exp":1900000000,"e\u0078p":1900000001}"#,
        r#"{"sub":{"name":"a","name":"b"},"exp":1900000000}"#,
    ] {
        let error = refused(&jwt, &signed(r#"{"alg":"HS256"}"#, claims, &SECRET));
        assert_eq!(error, JwtError::Malformed("payload", "has a key twice".into()), "{claims}");
    }
}

#[test]
fn claims_become_identity_devices_and_rights() {
    let manage = ("farm-admin".to_owned(), Right::Manage);
    let values =
        vec![manage, ("use".into(), Right::Role(Role::Client)), ("farm-admin".into(), Right::Role(Role::Http))]
            .into_iter()
            .chain([("alone".into(), Right::Exclusive)])
            .collect();
    let jwt = with_secret(JwtSettings {
        identity: "/user/name".into(),
        devices: Some("https://lab/devices".into()),
        rights: Some("/realm_access/roles".into()),
        values,
        ..JwtSettings::default()
    });
    let with = |roles: Value, devices: Value, role| {
        let claims = json!({
            "exp": NOW + 1.0, "user": { "name": "alice" }, "realm_access": { "roles": roles },
            "https://lab/devices": devices,
        });
        judge(&jwt, &token(&claims), role, NOW).map(|judged| judged.grant)
    };
    let id = |id: &str| DeviceId::new(id);
    let grant = with(json!(["farm-admin", "use"]), json!(["alice-*", "x"]), Role::Client).expect("granted");
    assert_eq!(grant.identity.as_deref(), Some(r#""alice""#));
    assert!(grant.manage && grant.covers(&id("alice-1")) && grant.covers(&id("x")) && !grant.covers(&id("bob-1")));
    let grant = with(json!("other use"), json!("alice-* x"), Role::Client).expect("granted");
    assert!(!grant.manage && grant.covers(&id("x")) && !grant.covers(&id("alice")));
    assert!(!grant.exclusive && with(json!("use alone"), json!("x"), Role::Client).expect("granted").exclusive);
    let none = with(json!("use"), json!([]), Role::Client).expect("granted");
    assert!(!none.covers(&id("alice-1")), "an empty list grants no device");
    assert_eq!(with(json!(["use"]), json!([]), Role::Device).expect_err("role"), JwtError::Role(Role::Device));
    assert_eq!(with(json!([]), json!([]), Role::Http).expect_err("role").status(), 403);
    for wrong in [json!(7), json!([7]), json!({}), Value::Null] {
        assert!(matches!(with(wrong.clone(), json!([]), Role::Client), Err(JwtError::Claim(..))));
        assert!(matches!(with(json!("use"), wrong, Role::Client), Err(JwtError::Claim(..))));
    }
    let plain = with_secret(JwtSettings::default());
    let nobody = token(&json!({ "exp": NOW + 1.0, "sub": null }));
    assert_eq!(refused(&plain, &nobody), JwtError::Claim("sub".into(), "is missing"));
}

#[test]
fn token_of_a_megabyte_is_refused_before_it_is_read() {
    let jwt = with_secret(JwtSettings::default());
    let name = "a".repeat(1 << 20);
    let long = token(&json!({ "sub": name, "exp": NOW + 1.0 }));
    assert_eq!(refused(&jwt, &long), JwtError::TooLong(long.len(), 8192));
    let fits = token(&json!({ "sub": "a".repeat(6000), "exp": NOW + 1.0 }));
    assert!(judge(&jwt, &fits, Role::Client, NOW).is_ok());
    let wide = with_secret(JwtSettings { max_token: 1 << 20, ..JwtSettings::default() });
    let dots = ".".repeat(1 << 20);
    let nested = signed(r#"{"alg":"HS256"}"#, &"[".repeat(700_000), &SECRET);
    let started = Instant::now();
    assert!(judge(&wide, &dots, Role::Client, NOW).is_err());
    assert!(judge(&wide, &nested, Role::Client, NOW).is_err());
    assert!(started.elapsed().as_secs() < 30, "depth and length cost a bounded time");
}

#[test]
fn faulty_key_sets_are_named() {
    let faulty = |document: &str, max_keys: usize| {
        let settings = JwtSettings { max_keys, ..JwtSettings::default() };
        let made = Jwt::of(settings, &[("f.json".into(), document.as_bytes().to_vec())]);
        made.expect_err("the keys are refused").to_string()
    };
    let small = b64([[0x80].as_slice(), &[1; 127]].concat());
    let cases = [
        (r#"{"keys":[]}"#.to_owned(), "f.json: has no key for signatures of RS256, ES256, EdDSA or HS256"),
        (r#"{"keys":7}"#.into(), "f.json: `keys` is no array"),
        (r#"{"key":[]}"#.into(), "f.json: has no `keys`: it is no JSON Web Key Set"),
        (r#"{"keys":[],"keys":[]}"#.into(), "f.json: has a key twice"),
        (r#"{"keys":[7]}"#.into(), "f.json: keys[0] is no object"),
        (r#"{"keys":[{}]}"#.into(), "f.json: keys[0] has no `kty`"),
        ("{".into(), "f.json: is no valid JSON at line 1, column 1"),
        ("text".into(), "f.json: has no key: neither PEM"),
        (String::new(), "f.json: has no key: neither PEM"),
        (
            json!({ "keys": [{ "kty": "RSA", "n": small, "e": "AQAB" }] }).to_string(),
            "keys[0] is an RSA key of 1024 bits",
        ),
        (json!({ "keys": [{ "kty": "RSA", "n": RSA_N, "e": "AQ" }] }).to_string(), "keys[0] is no RSA key"),
        (json!({ "keys": [{ "kty": "RSA", "n": RSA_N }] }).to_string(), "keys[0] has no `e`"),
        (
            json!({ "keys": [{ "kty": "RSA", "n": "+/", "e": "AQAB" }] }).to_string(),
            "keys[0] has a `n` that is no base64url",
        ),
        (
            json!({ "keys": [{ "kty": "RSA", "n": RSA_N, "e": "AQAB", "d": "x" }] }).to_string(),
            "keys[0] is a private key",
        ),
        (json!({ "keys": [{ "kty": "oct", "k": b64([1; 31]) }] }).to_string(), "keys[0] is an HMAC key of 31 bytes"),
        (
            json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": b64([1; 31]) }] }).to_string(),
            "keys[0] is no Ed25519",
        ),
        (json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }] }).to_string(), "keys[0] is no point"),
        (
            json!({ "keys": [{ "kty": "oct", "k": b64(SECRET), "use": "enc" }] }).to_string(),
            "has no key for signatures",
        ),
        (
            json!({ "keys": [{ "kty": "oct", "k": b64(SECRET), "alg": "HS512" }] }).to_string(),
            "has no key for signatures",
        ),
        (
            json!({ "keys": [{ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }] }).to_string(),
            "has no key for signatures",
        ),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".into(), "block 1 is a private key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".into(), "block 1 is no public key"),
    ];
    for (document, words) in &cases {
        let said = faulty(document, 100);
        assert!(said.contains(words), "{document}: {said}");
    }
    let many = json!({ "keys": vec![secret_key(None); 10_000] }).to_string();
    assert!(faulty(&many, 100).contains("has 10000 keys, and 100 are allowed (Jwt.max_keys)"));
    assert!(!format!("{:?}", with_secret(JwtSettings::default())).contains(&format!("{SECRET:?}")));
}

#[test]
fn signatures_of_other_keys_are_refused() {
    let random = SystemRandom::new();
    let ec = || EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let ec_pair =
        |pkcs8: &[u8]| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).expect("a key");
    let (own, other) = (ec_pair(ec().as_ref()), ec_pair(ec().as_ref()));
    let point = own.public_key().as_ref();
    let key = json!({ "kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]) });
    let ed = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
    let ed_key = json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(ed(1).public_key()) });
    let jwt = jwt(JwtSettings::default(), &[key, ed_key]);
    let claims = b64(json!({ "sub": "a", "exp": NOW + 1.0 }).to_string());
    let text = |algorithm: &str| format!("{}.{claims}", b64(json!({ "alg": algorithm }).to_string()));
    let result = |text: String, signature: &[u8]| {
        judge(&jwt, &format!("{text}.{}", b64(signature)), Role::Client, NOW).map(|_| ())
    };
    let es = text("ES256");
    let sign = |pair: &EcdsaKeyPair| pair.sign(&random, es.as_bytes()).expect("a signature");
    assert_eq!(result(es.clone(), sign(&own).as_ref()), Ok(()));
    assert_eq!(result(es.clone(), sign(&other).as_ref()), Err(JwtError::Signature));
    assert_eq!(result(es.clone(), &[0; 64]), Err(JwtError::Signature), "zeros are no signature (CVE-2022-21449)");
    let eddsa = text("EdDSA");
    assert_eq!(result(eddsa.clone(), ed(1).sign(eddsa.as_bytes()).as_ref()), Ok(()));
    assert_eq!(result(eddsa.clone(), ed(2).sign(eddsa.as_bytes()).as_ref()), Err(JwtError::Signature));
    assert_eq!(result(eddsa, &[]), Err(JwtError::Signature));
}

proptest! {
    #[test]
    fn no_text_is_a_token(text in "[ -~]{0,200}|[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,80}") {
        prop_assert!(judge(&with_secret(JwtSettings::default()), &text, Role::Client, NOW).is_err());
    }

    #[test]
    fn changed_token_is_refused(at in 0usize..140, byte in prop::sample::select(b"ABab01_-.=".to_vec())) {
        let valid = token(&json!({ "sub": "alice", "exp": NOW + 1.0 })).into_bytes();
        let at = at % valid.len();
        let mut changed = valid.clone();
        changed[at] = byte;
        prop_assume!(changed != valid);
        let changed = String::from_utf8(changed).expect("ASCII");
        prop_assert!(judge(&with_secret(JwtSettings::default()), &changed, Role::Client, NOW).is_err(), "{}", changed);
    }

    #[test]
    fn any_claims_are_judged_without_a_panic(claims in "\\{(\"(exp|sub|aud|nbf|iss)\":(1e999|-1|\"a\"|\\[\\]|null|9e18|0.5),?){0,4}\\}") {
        let jwt = with_secret(JwtSettings { devices: Some("aud".into()), rights: Some("iss".into()), ..JwtSettings::default() });
        let _ = judge(&jwt, &signed(r#"{"alg":"HS256"}"#, &claims, &SECRET), Role::Client, NOW);
    }
}
