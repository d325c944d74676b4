//! Inbound messages: ids and unusual texts. The transcripts have most cases.

use std::borrow::Cow;

use cuttlefish_signaling::protocol::inbound::bare_payload;
use cuttlefish_signaling::protocol::{ClientId, ClientMessage, DeviceId, DeviceMessage, Malformed, PollBody};

fn id(text: &str) -> Option<u32> {
    ClientId::from_json(text).map(ClientId::get)
}

#[test]
fn valid_client_ids_are_integers_in_range() {
    for (text, number) in [
        ("0", 0),
        ("1", 1),
        ("1.0", 1),
        ("1e0", 1),
        ("10E-1", 1),
        ("2.147483647e9", 2_147_483_647),
        ("2147483647", 2_147_483_647),
        ("-0", 0),
        ("-0.0", 0),
        ("0.0", 0),
    ] {
        assert_eq!(id(text), Some(number), "{text}");
    }
    for text in [
        "2147483648",
        "4294967296",
        "1e99999",
        "-1",
        "1.5",
        "0.5",
        "1e-1",
        "\"1\"",
        "null",
        "true",
        "[1]",
        "{}",
        "",
        "nan",
        "inf",
        "Infinity",
        "123456789012345678901234567890",
    ] {
        assert_eq!(id(text), None, "{text}");
    }
}

#[test]
fn fields_are_borrowed_verbatim() {
    let text = r#"{"payload": [ 1.0 ] ,"message_type":"forward","client_id":3}"#;
    let Ok(DeviceMessage::Forward { client_id, payload }) = DeviceMessage::parse(text) else { panic!("no forward") };
    assert_eq!(client_id.map(ClientId::get), Some(3));
    assert_eq!(payload, Some("[ 1.0 ]"));
    assert!(text.as_bytes().as_ptr_range().contains(&payload.unwrap().as_ptr()));
}

#[test]
fn escapes_are_decoded_in_types_keys_and_ids() {
    let text = r#"{"m\u0065ssage_type":"conn\u0065ct","device_id":"\u00e9\n"}"#;
    assert_eq!(ClientMessage::parse(text), Ok(ClientMessage::Connect { device_id: Some(DeviceId::new("é\n")) }));
}

#[test]
fn lone_surrogate_is_neither_id_nor_key() {
    let id = r#"{"message_type":"register","device_id":"\ud800"}"#;
    let parsed = DeviceMessage::parse(id);
    assert_eq!(parsed, Ok(DeviceMessage::Register { device_id: None, device_info: "null", device_port: None }));
    assert_eq!(ClientMessage::parse(r#"{"message_type":"connect","\ud800":1}"#), Err(Malformed::Envelope));
    let inside = r#"{"message_type":"forward","payload":"\ud800"}"#;
    assert_eq!(ClientMessage::parse(inside), Ok(ClientMessage::Forward { payload: Some(r#""\ud800""#) }));
}

#[test]
fn each_endpoint_accepts_only_its_message_types() {
    let register = r#"{"message_type":"register"}"#;
    assert_eq!(ClientMessage::parse(register), Ok(ClientMessage::Unknown(Cow::Borrowed("register"))));
    let connect = r#"{"message_type":"connect"}"#;
    assert_eq!(DeviceMessage::parse(connect), Ok(DeviceMessage::Unknown(Cow::Borrowed("connect"))));
}

#[test]
fn nesting_depth_ignores_brackets_in_strings() {
    let nest = |levels: usize| format!(r#"{{"message_type":"x","y":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(ClientMessage::parse(&nest(127)).is_ok());
    assert_eq!(ClientMessage::parse(&nest(128)), Err(Malformed::Json));
    let wide = format!(r#"{{"message_type":"x","y":[{}[]]}}"#, "[],".repeat(10_000));
    assert!(ClientMessage::parse(&wide).is_ok(), "wide is not deep");
    let quoted = format!(r#"{{"message_type":"x","y":"{}"}}"#, r#"[{\"\\"#.repeat(1000));
    assert!(ClientMessage::parse(&quoted).is_ok());
}

#[test]
fn object_with_many_keys_is_parsed() {
    let keys = (0..20_000).map(|n| format!(r#","k{n}":0"#)).collect::<Vec<_>>().concat();
    assert!(ClientMessage::parse(&format!(r#"{{"message_type":"x"{keys}}}"#)).is_ok());
    let twice = format!(r#"{{"message_type":"x"{keys},"k7":0}}"#);
    assert_eq!(ClientMessage::parse(&twice), Err(Malformed::Envelope));
}

/// Strings are scanned in blocks: the result does not depend on the position within a block.
#[test]
fn string_parsing_does_not_depend_on_alignment() {
    const PARTS: [&str; 14] =
        ["\"", "\\\"", "\\\\", "\\", "\\n", "\\r\\n", "\\u00e9", "\\u00g9", "\\x", "\n", "\u{1f}", "\u{7f}", "é", " "];
    for before in 0..40 {
        for (part, next) in PARTS.iter().flat_map(|part| PARTS.iter().map(move |next| (part, next))) {
            let text = format!("\"{}{part}{next}{}\"", "x".repeat(before), "x".repeat(40 - before));
            let expected =
                serde_json::from_str::<&serde_json::value::RawValue>(&text).ok().map(serde_json::value::RawValue::get);
            assert_eq!(bare_payload(&text).ok(), expected, "{text:?}");
        }
    }
}

#[test]
fn polling_bodies_and_bare_payloads_are_parsed_strictly() {
    let body = PollBody::parse(r#"{"connection_id":"\u0061","payload":null,"device_id":7}"#).unwrap();
    assert_eq!((body.device_id, body.connection_id.as_deref(), body.payload), (None, Some("a"), Some("null")));
    assert_eq!(PollBody::parse("[]"), Err(Malformed::Envelope));
    assert_eq!(PollBody::parse(r#"{"payload":1,"payload":1}"#), Err(Malformed::Envelope));
    assert_eq!(bare_payload(" {\"a\" : 1.0}\n"), Ok(r#"{"a" : 1.0}"#));
    assert_eq!(bare_payload("\u{a0}1"), Err(Malformed::Json), "white space is JSON's");
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(bare_payload(&nested(127)).is_ok(), "with its envelope 128");
    assert_eq!(bare_payload(&nested(128)), Err(Malformed::Json));
}
