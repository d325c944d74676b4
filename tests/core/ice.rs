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
