//! Headers, facts and messages of other nodes, as the fuzzed function reads them.

use proptest::prelude::*;

use crate::fuzzed_nodes::{facts, messages, nodes, path, record};
use crate::replay::replay;

#[test]
fn what_nodes_send_holds_on_all_seeds() {
    replay("nodes", nodes);
}

/// Facts of a client as JSON, with values of any kind now and then.
fn facts_of_clients() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        ".{0,20}".prop_map(serde_json::Value::from),
        r"[0-9:.\[\]]{1,20}".prop_map(serde_json::Value::from),
        r#"\{"[a-z]{1,3}":[0-9]\}"#.prop_map(serde_json::Value::from),
        prop::collection::vec("[*?a-z\u{e9}]{0,6}", 0..4).prop_map(serde_json::Value::from),
        any::<i32>().prop_map(serde_json::Value::from),
    ];
    let names = prop::sample::subsequence(vec!["address", "certificate", "identity", "devices", "other"], 0..5);
    (names, prop::collection::vec(value, 5)).prop_map(|(names, values)| {
        let map: serde_json::Map<_, _> = names.into_iter().map(str::to_owned).zip(values).collect();
        serde_json::Value::from(map).to_string()
    })
}

/// Messages between nodes, some of them cut off.
fn texts() -> impl Strategy<Value = Vec<String>> {
    let kind = prop::sample::select(vec!["device_info", "device_msg", "config", "error", "forward"]);
    let text = (kind, ".{0,8}", 0..90_usize, any::<bool>()).prop_map(|(kind, payload, at, whole)| {
        let text = serde_json::json!({ "message_type": kind, "device_info": payload, "payload": payload }).to_string();
        if whole { text } else { text.chars().take(at).collect() }
    });
    prop::collection::vec(text, 0..8)
}

proptest! {
    #[test]
    fn facts_are_read_as_a_whole_or_not_at_all(header in facts_of_clients(), any in ".{0,60}") {
        facts(&header);
        facts(&any);
    }

    #[test]
    fn facts_of_nodes_are_the_same_when_they_are_written_again(address in ".{0,9}", protocol: u32, other in ".{0,9}") {
        let details = serde_json::json!({ "address": address, "fingerprint": "AB", "protocol": protocol, "more": other });
        record(&details.to_string());
        record(&other);
    }

    #[test]
    fn paths_of_clients_alone_are_passed_on(first in "/(devices|forward|polled_connections|[a-z]{0,9})", rest in ".{0,30}") {
        path(&first);
        path(&format!("{first}/{rest}"));
        path(&rest);
    }

    #[test]
    fn client_gets_json_whatever_its_node_hears(texts in texts()) {
        messages(texts.iter().map(String::as_str));
    }

    #[test]
    fn any_text_of_a_node_is_read_without_a_panic(text in "(.|\0){0,80}") {
        nodes(text.as_bytes());
    }
}
