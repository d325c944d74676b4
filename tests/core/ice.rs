//! ICE servers: their rendering and validation. Python tests cover more.

use std::time::{Duration, SystemTime};

use cuttlefish_signaling::protocol::{IceServer, IceServers, MAX_DEVICE_MESSAGE};
use cuttlefish_signaling::turn::TurnRest;

#[test]
fn urls_are_rendered_as_a_list() {
    let servers = IceServers::from_json(r#"[{"urls":"stun:a"},{"urls":["turn:b"],"username":"u","credential":"c"}]"#);
    let told = r#"{"message_type":"config","ice_servers":[{"urls":["stun:a"]},{"urls":["turn:b"],"username":"u","credential":"c"}]}"#;
    assert_eq!(servers.unwrap().config().as_str(), told);
}

#[test]
fn errors_name_the_entry() {
    for (json, named) in [
        ("{", "ice_servers: no valid JSON"),
        ("{}", "ice_servers: expected a list, got an object"),
        ("[1]", "ice_servers[0]: expected an object with urls, got a number"),
        (r#"[{"urls":"stun:a"},{"urls":["stun:b","x:c"]}]"#, "ice_servers[1].urls[1]: unknown ICE scheme"),
        (r#"[{"urls":null}]"#, "ice_servers[0]: urls must be"),
    ] {
        let error = IceServers::from_json(json).unwrap_err().to_string();
        assert!(error.starts_with(named), "{error}");
    }
}

#[test]
fn one_server_and_answers_of_providers_are_lists() {
    let turn = r#"{"urls":["turn:t"],"username":"u","credential":"c"}"#;
    for (json, expected) in [
        (r#"{"urls":"stun:a"}"#, r#"{"urls":["stun:a"]}"#),
        (r#"[{"url":"stun:a"}]"#, r#"{"urls":["stun:a"]}"#),
        (r#"[{"url":"stun:a","urls":"stun:b"}]"#, r#"{"urls":["stun:b"]}"#),
        (r#"[{"url":"stun:a","urls":null,"username":null}]"#, r#"{"urls":["stun:a"]}"#),
        (r#"[{"urls":"turn:t","username":"u","credential":"c","credentialType":"password"}]"#, turn),
        // Cloudflare, in its two forms.
        (r#"{"iceServers":[{"urls":["turn:t"],"username":"u","credential":"c"}]}"#, turn),
        (r#"{"iceServers":{"urls":["turn:t"],"username":"u","credential":"c"}}"#, turn),
        // Twilio.
        (
            r#"{"ttl":"86400","password":"c","username":"u","account_sid":"AC","ice_servers":[{"url":"turn:t","urls":"turn:t","username":"u","credential":"c"}],"date_created":"x"}"#,
            turn,
        ),
        // Xirsys.
        (r#"{"v":{"iceServers":{"username":"u","urls":["turn:t"],"credential":"c"}},"s":"ok"}"#, turn),
        (
            r#"{"iceServers":[{"urls":"turn:t","username":"u","credential":"c","credential_type":"password","x":1}]}"#,
            turn,
        ),
    ] {
        let message = IceServers::from_json(json).unwrap().config();
        assert_eq!(message.as_str(), format!(r#"{{"message_type":"config","ice_servers":[{expected}]}}"#), "{json}");
        assert_eq!(IceServers::from_command(json).unwrap().0.config().as_str(), message.as_str(), "{json}");
    }
}

#[test]
fn unknown_forms_and_keys_are_refused() {
    for (json, named) in [
        (r#"{"v":"forbidden","s":"error"}"#, "ice_servers: expected a list, got an object without urls"),
        (r#"{"iceServers":"stun:a"}"#, "ice_servers: expected a list, got a string"),
        (r#"{"iceServers":[{"urls":"x:a"}]}"#, "ice_servers[0].urls[0]: unknown ICE scheme"),
        (r#"[{"urls":"stun:a","x":1}]"#, "ice_servers[0]: unknown key \"x\""),
        (r#"{"urls":"stun:a","x":1}"#, "ice_servers[0]: unknown key \"x\""),
        (
            r#"[{"urls":"stun:a","credentialType":"oauth"}]"#,
            "ice_servers[0]: credentialType \"oauth\" is not supported",
        ),
    ] {
        let error = IceServers::from_json(json).unwrap_err().to_string();
        assert!(error.starts_with(named), "{error}");
    }
}

#[test]
fn schemes_and_transports_have_any_case() {
    let url = |text: &str| IceServer::new(vec![text.to_owned()], Some("u".into()), Some("c".into()), "x");
    for (given, sent) in [
        ("STUN:Host.Lab:3478", "stun:Host.Lab:3478"),
        ("Turn:h?Transport=TCP", "turn:h?transport=tcp"),
        ("tURNs:[2001:DB8::1]:5349", "turns:[2001:DB8::1]:5349"),
    ] {
        assert_eq!(serde_json::to_string(&url(given).unwrap()).unwrap().split('"').nth(3), Some(sent));
    }
    // W3C: a relay needs credentials, in any case of its scheme.
    assert!(IceServer::new(vec!["TURN:h".into()], None, None, "x").is_err());
    let turn = TurnRest::new(vec!["TURNS:h".into()], "s".into(), Duration::from_secs(60), "n".into(), Vec::new());
    assert!(turn.unwrap().credentials(SystemTime::now()).unwrap().config().as_str().contains("turns:h"));
}

#[test]
fn lifetime_of_an_answer_may_be_a_text() {
    for (ttl, seconds) in [(r#""86400""#, Some(86_400)), ("60", Some(60)), ("null", None)] {
        let (_, found) = IceServers::from_command(&format!(r#"{{"ice_servers":[],"ttl":{ttl}}}"#)).unwrap();
        assert_eq!(found, seconds.map(Duration::from_secs));
    }
    for ttl in [r#""x""#, r#""0""#, "-1", "[]", r#""inf""#] {
        assert!(IceServers::from_command(&format!(r#"{{"ice_servers":[],"ttl":{ttl}}}"#)).is_err(), "{ttl}");
    }
}

#[test]
fn ice_config_too_large_for_a_device_is_refused() {
    let many = vec![IceServer::new(vec![format!("stun:{}", "x".repeat(1000))], None, None, "x").unwrap(); 70];
    let error = IceServers::new(&many).unwrap_err().to_string();
    assert!(error.contains(&MAX_DEVICE_MESSAGE.to_string()), "{error}");
}

#[test]
fn turn_credentials_expire_and_are_never_printed() {
    let urls = vec!["turn:t.lab:3478".to_owned()];
    let turn = TurnRest::new(urls, "s3cret".into(), Duration::from_secs(600), "lab".into(), Vec::new()).unwrap();
    let config = turn.credentials(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap().config();
    // The password: echo -n 1000600:lab | openssl dgst -sha1 -hmac s3cret -binary | base64
    let told = r#"[{"urls":["turn:t.lab:3478"],"username":"1000600:lab","credential":"e2THXFCoygDvqH5QhaRdAcyImRQ="}]"#;
    assert!(config.as_str().contains(told), "{config:?}");
    assert!(!format!("{turn:?}").contains("s3cret"));
}
