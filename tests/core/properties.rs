//! Properties of all input: payloads are relayed byte for byte, any text is handled, messages reach only their pair.

use cuttlefish_signaling::protocol::inbound::bare_payload;
use cuttlefish_signaling::protocol::{ClientMessage, DeviceMessage, Malformed, outbound};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::actors::{client_msg, device_msg, harness};
use crate::model::{self, Act};

/// Arbitrary JSON text: any number form, escape and white space that RFC 8259 allows.
fn json_text() -> impl Strategy<Value = String> {
    let space = "[ \t\r\n]{0,2}";
    let string = vec(
        prop_oneof![
            any::<char>()
                .prop_filter("unescaped", |c| !c.is_control() && *c != '"' && *c != '\\')
                .prop_map(String::from),
            Just(r#"\""#.to_owned()),
            "\\\\[\\\\/bfnrt]",
            "\\\\u[0-9a-fA-F]{4}",
        ],
        0..8,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let number = "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?";
    let leaf = prop_oneof![string.clone(), number, "true|false|null"];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        let spaced = (space, inner, space).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        prop_oneof![
            vec(spaced.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            vec((string.clone(), spaced), 0..5).prop_map(|pairs| {
                let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
    })
}

/// Often invalid JSON: one character removed, inserted or replaced.
fn nearly(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let odd = prop_oneof!["[\\[\\]{}\",:0-9eE.+ \\\\tfnu-]", "[\u{0}-\u{1f}\u{7f}-\u{9f}]"];
    (text, any::<prop::sample::Index>(), 0..3, odd).prop_map(|(text, at, how, odd)| {
        let mut letters: Vec<char> = text.chars().collect();
        let at = at.index(letters.len());
        match how {
            0 => drop(letters.remove(at)),
            1 => letters.insert(at, odd.chars().next().unwrap_or('x')),
            _ => letters[at] = odd.chars().next().unwrap_or('x'),
        }
        letters.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn payloads_are_relayed_byte_for_byte(payload in json_text()) {
        let mut harness = harness();
        harness.registers("d", "x");
        harness.connects("c", "x");
        harness.all_heard("d");
        harness.all_heard("c");
        harness.forwards("c", &payload);
        prop_assert_eq!(harness.all_heard("d"), vec![client_msg(1, &payload)]);
        harness.forwards_to("d", 1, &payload);
        prop_assert_eq!(harness.all_heard("c"), vec![device_msg(&payload)]);
    }

    #[test]
    fn parser_accepts_exactly_the_json_of_serde_json(text in prop_oneof![
        ".{0,40}",
        "[\\[\\]{}\",:0-9a-z \\\\]{0,40}",
        "-?[0-9.eE+-]{0,9}",
        json_text(),
        nearly(json_text()),
    ]) {
        let valid = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(bare_payload(&text).is_ok(), valid);
        prop_assert_eq!(DeviceMessage::parse(&text) == Err(Malformed::Json), !valid);
        prop_assert_eq!(ClientMessage::parse(&text) == Err(Malformed::Json), !valid);
        if valid {
            let raw: &serde_json::value::RawValue = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(bare_payload(&text), Ok(raw.get()));
        }
    }

    #[test]
    fn parser_finds_the_fields_of_serde_json(payload in json_text(), more in json_text(), key in "[a-zA-Z_\u{e9}]{1,9}") {
        prop_assume!(!["message_type", "payload"].contains(&key.as_str()));
        let text = format!(r#" {{ "payload" : {payload} , "message_type":"forward","{key}":{more}}} "#);
        let fields: std::collections::HashMap<&str, &serde_json::value::RawValue> = serde_json::from_str(&text).unwrap();
        let parsed = ClientMessage::parse(&text);
        prop_assert_eq!(parsed, Ok(ClientMessage::Forward { payload: Some(fields["payload"].get()) }));
    }

    #[test]
    fn server_sends_valid_json_for_any_input(texts in vec(prop_oneof![
        any::<String>(),
        any::<String>().prop_map(|id| format!(r#"{{"message_type":"register","device_id":{}}}"#, outbound::quote(&id))),
        any::<String>().prop_map(|id| format!(r#"{{"message_type":"connect","device_id":{}}}"#, outbound::quote(&id))),
        any::<String>().prop_map(|name| format!(r#"{{"message_type":{}}}"#, outbound::quote(&name))),
    ], 1..6)) {
        let mut harness = harness();
        harness.opens("d", cuttlefish_signaling::peer::Role::Device);
        harness.opens("c", cuttlefish_signaling::peer::Role::Client);
        for text in &texts {
            harness.says("d", text);
            harness.says("c", text);
        }
        for heard in harness.all_heard("d").into_iter().chain(harness.all_heard("c")) {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&heard).is_ok(), "{}", heard);
            prop_assert!(heard.len() <= 65_536);
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (0..4_u8).prop_map(Act::Register),
        3 => (0..8_u8, 0..4_u8).prop_map(|(client, device)| Act::Connect(client, device)),
        6 => (0..8_u8).prop_map(Act::Forward),
        6 => (0..4_u8, 1..4_u8).prop_map(|(device, id)| Act::ForwardTo(device, id)),
        2 => (0..12_u8).prop_map(Act::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn messages_reach_only_their_pair(acts in vec(act(), 1..80)) {
        model::run(acts);
    }
}

#[test]
#[ignore = "long: `make soak`"]
fn a_million_messages_reach_only_their_pair() {
    let mut runner = TestRunner::deterministic();
    let mut reached = 0;
    while reached < 1_000_000 {
        let acts = vec(act(), 2000).new_tree(&mut runner).unwrap().current();
        reached += model::run(acts);
    }
}
