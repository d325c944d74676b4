//! The token of the control API.

use cuttlefish_signaling::Config;
use cuttlefish_signaling::config::control::{Control, ControlToken};
use cuttlefish_signaling::listen::Listen;

const TOKEN: &str = "token-of-the-tests";

#[test]
fn token_is_only_itself() {
    let token = ControlToken::new(TOKEN).unwrap();
    assert!(token.is(TOKEN));
    for other in ["", "token-of-the-test", "token-of-the-testss", "Token-of-the-tests", "token-of-the-tests "] {
        assert!(!token.is(other), "{other}");
    }
    assert_eq!(format!("{token:?}"), "ControlToken");
}

#[test]
fn token_has_the_characters_of_a_bearer_token() {
    for good in ["abcdefgh12345678", "a-b.c_d~e+f/g123", "abcdefgh1234567=", &"x".repeat(512)] {
        assert!(ControlToken::new(good).is_ok(), "{good}");
    }
    for bad in
        ["", "short", "================", "abcdefgh 1234567", "abcdefgh=1234567", "abcdefghé234567", &"x".repeat(513)]
    {
        let error = ControlToken::new(bad).unwrap_err();
        assert_eq!(error.setting, "control_token");
        assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
    }
}

#[test]
fn control_api_needs_a_token_and_no_plain_text_to_other_machines() {
    let config = |listen: Listen, token: Option<&str>| Config {
        control: Control {
            listen: vec![listen],
            token: token.map(|token| ControlToken::new(token).unwrap()),
            ..Control::default()
        },
        ..Config::default()
    };
    let http = |address: &str| Listen::Http(address.parse().unwrap());
    assert!(config(http("127.0.0.1:0"), Some(TOKEN)).validate().is_ok());
    assert!(config(http("[::1]:0"), Some(TOKEN)).validate().is_ok());
    assert!(config(Listen::Unix { path: "/c".into(), mode: 0o600 }, Some(TOKEN)).validate().is_ok());
    assert_eq!(config(http("127.0.0.1:0"), None).validate().unwrap_err().setting, "control_token");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9"] {
        assert_eq!(config(http(address), Some(TOKEN)).validate().unwrap_err().setting, "control_api", "{address}");
    }
    let https = Listen::Https("0.0.0.0:0".parse().unwrap());
    assert!(config(https, Some(TOKEN)).validate().unwrap_err().to_string().contains("needs a certificate"));
}
