//! Addresses of host candidates are rewritten, and nothing else changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cuttlefish_signaling::protocol::candidates::{AddressRule, AddressRules, MAX_RULES};
use proptest::prelude::*;
use serde_json::{Value, json};

fn rules(texts: &[&str]) -> AddressRules {
    let rules = texts.iter().map(|text| AddressRule::parse(text).unwrap()).collect();
    AddressRules::new(rules).unwrap()
}

fn rewritten(texts: &[&str], payload: &str) -> String {
    rules(texts).rewrite(payload).map_or_else(|| payload.to_owned(), |(payload, _)| payload)
}

const DOCKER: &[&str] = &["172.17.0.2=192.0.2.7", "fd00::2=2001:db8::7"];

#[test]
fn trickled_host_candidate_gets_the_outer_address() {
    for (inner, outer) in [
        (
            "candidate:1 1 udp 2122260223 172.17.0.2 43210 typ host",
            "candidate:1 1 udp 2122260223 192.0.2.7 43210 typ host",
        ),
        (
            "candidate:1 1 UDP 2122260223 172.17.0.2 43210 typ host generation 0 ufrag 4ZcD network-cost 999",
            "candidate:1 1 UDP 2122260223 192.0.2.7 43210 typ host generation 0 ufrag 4ZcD network-cost 999",
        ),
        (
            "candidate:1 1 tcp 1518280447 172.17.0.2 9 typ host tcptype active",
            "candidate:1 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active",
        ),
        ("candidate:2 1 udp 1 fd00::2 43210 typ host", "candidate:2 1 udp 1 2001:db8::7 43210 typ host"),
        ("candidate:2 1 udp 1 fd00:0:0::2 43210 typ host", "candidate:2 1 udp 1 2001:db8::7 43210 typ host"),
        ("a=candidate:1 1 udp 1 172.17.0.2 1 typ host", "a=candidate:1 1 udp 1 192.0.2.7 1 typ host"),
    ] {
        let payload = |candidate: &str| {
            json!({"type": "ice-candidate", "mid": "0", "mLineIndex": 0, "candidate": candidate}).to_string()
        };
        assert_eq!(rewritten(DOCKER, &payload(inner)), payload(outer));
        let nested = |candidate: &str| {
            json!({"type": "ice-candidate", "candidate": {"sdpMid": "0", "candidate": candidate}}).to_string()
        };
        assert_eq!(rewritten(DOCKER, &nested(inner)), nested(outer));
    }
}

#[test]
fn related_address_is_rewritten_and_that_of_a_relay_stays() {
    let payload = |address: &str| {
        let candidate =
            format!("candidate:3 1 udp 1 203.0.113.9 500 typ srflx raddr {address} rport 43210 generation 0");
        json!({ "candidate": candidate }).to_string()
    };
    assert_eq!(rewritten(DOCKER, &payload("172.17.0.2")), payload("192.0.2.7"));
    // The address of a server is no host candidate, even if a rule is for it.
    let relay = json!({"candidate": "candidate:4 1 udp 1 172.17.0.2 500 typ relay raddr 10.0.0.1 rport 1"}).to_string();
    assert_eq!(rules(DOCKER).rewrite(&relay), None);
}

#[test]
fn description_has_its_candidates_and_connection_lines_rewritten() {
    let sdp = |v4: &str, v6: &str| {
        format!(
            "v=0\r\no=- 1 2 IN IP4 172.17.0.2\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 {v4}\r\n\
             a=candidate:1 1 udp 1 {v4} 5 typ host\r\na=candidate:2 1 udp 1 {v6} 5 typ host\r\nm=audio 9 x 1\n\
             c=IN IP6 {v6}\nc=IN IP4 {v4}/127\na=rtcp:9 IN IP4 172.17.0.2\n"
        )
    };
    let payload = |v4, v6| json!({"type": "offer", "sdp": sdp(v4, v6)}).to_string();
    let inner = payload("172.17.0.2", "fd00::2");
    assert_eq!(rewritten(DOCKER, &inner), payload("192.0.2.7", "2001:db8::7"));
    assert_eq!(rules(DOCKER).rewrite(&inner).unwrap().1, 5);
}

#[test]
fn escapes_of_json_are_understood_and_those_beside_an_address_stay() {
    let text = r#"{"c\u0061ndidate":"candidate:1 1 udp 1 17\u0032.17.0.2 5 typ host \/ ä \ud83d\ude00"}"#;
    let wanted = r#"{"c\u0061ndidate":"candidate:1 1 udp 1 192.0.2.7 5 typ host \/ ä \ud83d\ude00"}"#;
    assert_eq!(rewritten(DOCKER, text), wanted);
}

#[test]
fn all_other_strings_and_names_stay() {
    for payload in [
        r#"{"candidate":"candidate:1 1 udp 1 8f4c-3d.local 5 typ host"}"#,
        r#"{"candidate":""}"#,
        r#"{"candidate":null,"note":"candidate:1 1 udp 1 172.17.0.2 5 typ host"}"#,
        r#"{"candidate":"candidate:1 1 udp 1 172.17.0.20 5 typ host"}"#,
        r#"{"candidate":"candidate:1 1 udp 1 172.17.0.2"}"#,
        r#"{"candidate":"c=IN IP4 /"}"#,
        r#"{"sdp":"a=x 172.17.0.2 candidate:1 1 udp 1 172.17.0.2 5 typ host"}"#,
        r#""172.17.0.2""#,
        "172",
    ] {
        assert_eq!(rules(DOCKER).rewrite(payload), None, "{payload}");
    }
}

#[test]
fn network_keeps_the_part_of_the_host_or_leads_to_one_address() {
    let payload = |address: &str| json!({"candidate": format!("candidate:1 1 udp 1 {address} 5 typ host")}).to_string();
    let one_to_one = &["10.1.0.0/16=198.51.0.0/16", "fd00::/64=2001:db8:1::/64"];
    assert_eq!(rewritten(one_to_one, &payload("10.1.2.3")), payload("198.51.2.3"));
    assert_eq!(rewritten(one_to_one, &payload("fd00::abcd")), payload("2001:db8:1::abcd"));
    assert_eq!(rewritten(one_to_one, &payload("10.2.2.3")), payload("10.2.2.3"));
    assert_eq!(rewritten(&["10.1.0.0/16=192.0.2.1"], &payload("10.1.2.3")), payload("192.0.2.1"));
}

#[test]
fn rules_that_are_wrong_are_named() {
    for (text, reason) in [
        ("172.17.0.2", "has no `=`"),
        ("host=192.0.2.7", "\"host\" is no address"),
        ("172.17.0.2=", "\"\" is no address"),
        ("172.17.0.2=2001:db8::7", "a candidate keeps its family"),
        ("10.0.0.0/24=192.0.2.0/25", "networks of two sizes"),
        ("10.0.0.1/24=192.0.2.0/24", "write 10.0.0.0/24"),
        ("10.0.0.0/33=192.0.2.0/33", "is no address"),
    ] {
        let error = AddressRule::parse(text).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    for (texts, reason) in [
        (&["10.0.0.0/8=192.0.2.1", "10.1.2.3=192.0.2.2"][..], "10.0.0.0/8=192.0.2.1 and 10.1.2.3=192.0.2.2 overlap"),
        (&["10.0.0.1=10.0.0.2", "10.0.0.2=10.0.0.1"], "leads to an inner address of 10.0.0.2=10.0.0.1"),
        (&["10.0.0.0/24=10.0.0.7"], "leads to an inner address of 10.0.0.0/24=10.0.0.7"),
    ] {
        let rules = texts.iter().map(|text| AddressRule::parse(text).unwrap()).collect();
        let error = AddressRules::new(rules).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    let rule = |last: usize| AddressRule::parse(&format!("10.0.{}.{}=192.0.2.1", last / 256, last % 256)).unwrap();
    assert!(AddressRules::new((0..MAX_RULES).map(rule).collect()).is_ok());
    let error = AddressRules::new((0..=MAX_RULES).map(rule).collect()).unwrap_err();
    assert!(error.contains("257 rules"), "{error}");
}

#[test]
fn address_that_stays_needs_no_second_rule() {
    let payload = json!({"candidate": "candidate:1 1 udp 1 10.0.0.1 5 typ host"}).to_string();
    assert_eq!(rules(&["10.0.0.0/24=10.0.0.0/24"]).rewrite(&payload), None);
}

#[test]
fn description_of_60_kilobytes_has_all_its_candidates_rewritten() {
    let sdp = |address: &str| {
        let candidates: Vec<_> =
            (0..1000).map(|number| format!("a=candidate:{number} 1 udp 1 {address} 5 typ host")).collect();
        json!({"sdp": format!("v=0\r\n{}\r\n", candidates.join("\r\n"))}).to_string()
    };
    let (payload, count) = rules(DOCKER).rewrite(&sdp("172.17.0.2")).unwrap();
    assert_eq!((payload, count), (sdp("192.0.2.7"), 1000));
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        Just(IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2))),
        Just(IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | 2))),
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

fn candidate() -> impl Strategy<Value = String> {
    let kind = prop_oneof![Just("host"), Just("srflx"), Just("relay"), Just("prflx")];
    (address(), address(), kind, any::<u16>(), ".{0,8}").prop_map(|(own, related, kind, port, end)| {
        format!("candidate:1 1 udp 1 {own} {port} typ {kind} raddr {related} rport {port} x {end}")
    })
}

fn payload() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        candidate().prop_map(Value::from),
        proptest::collection::vec(candidate(), 0..4)
            .prop_map(|lines| Value::from(format!("a={}\r\n", lines.join("\r\na=")))),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop_oneof![Just("candidate".to_owned()), Just("sdp".to_owned()), ".{0,6}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// The payload with each address that has a rule replaced by `X`, whatever it is.
fn without_addresses(text: &str) -> String {
    ["172.17.0.2", "192.0.2.7", "fd00::2", "2001:db8::7"]
        .iter()
        .fold(text.to_owned(), |text, address| text.replace(address, "X"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// A payload stays JSON of the same shape, and nothing but addresses changes.
    #[test]
    fn nothing_but_addresses_changes(payload in payload(), escaped in any::<bool>()) {
        let mut text = payload.to_string();
        if escaped {
            text = text.replace('1', r"\u0031").replace(r"\\u0031", "1");
            // Digits of numbers have no escapes.
            if serde_json::from_str::<Value>(&text).is_err() {
                text = payload.to_string();
            }
        }
        let before: Value = serde_json::from_str(&text).unwrap();
        let Some((after, count)) = rules(DOCKER).rewrite(&text) else { return Ok(()) };
        prop_assert!(count > 0);
        let after: Value = serde_json::from_str(&after).unwrap();
        prop_assert_ne!(&before, &after);
        prop_assert_eq!(without_addresses(&before.to_string()), without_addresses(&after.to_string()));
        prop_assert_eq!(rules(DOCKER).rewrite(&after.to_string()), None, "a second time");
    }

    /// No text makes it panic.
    #[test]
    fn any_text_is_borne(text in r#"[\\"u0-9a-f:., {}\[\]cndits=]{0,64}"#) {
        let _changed = rules(DOCKER).rewrite(&text);
        let _changed = rules(DOCKER).rewrite(&format!(r#"{{"candidate":"candidate:1 1 u 1 {text}"#));
    }
}
