//! Targets without sockets: the parser, the sessions, and results of hooks.

use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::protocol::control::{self, ControlMessage};
use cuttlefish_signaling::protocol::{
    ClientMessage, DeviceMessage, IceServers, MAX_DEPTH, Malformed, PollBody, inbound, outbound,
};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::actors::harness;
use crate::model::{self, Act};

/// Checks that the parser accepts exactly JSON, borrows payloads byte for byte, and never panics.
pub fn envelope(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    let device = DeviceMessage::parse(text);
    let client = ClientMessage::parse(text);
    let (body, control, bare) = (PollBody::parse(text), ControlMessage::parse(text), inbound::bare_payload(text));
    if !is_json {
        assert_eq!(device, Err(Malformed::Json));
        assert_eq!(client, Err(Malformed::Json));
        assert_eq!(body, Err(Malformed::Json));
        assert_eq!(control, Err(Malformed::Json));
        assert_eq!(bare, Err(Malformed::Json));
    }
    // With so few brackets the text cannot nest too deeply.
    if is_json && text.matches(['[', '{']).count() < MAX_DEPTH {
        assert!(bare.is_ok(), "{text:?}");
        assert_ne!(device, Err(Malformed::Json), "{text:?}");
        assert_ne!(client, Err(Malformed::Json), "{text:?}");
    }
    if let Ok(bare) = bare {
        assert!(text.contains(bare) && serde_json::from_str::<&RawValue>(bare).is_ok_and(|raw| raw.get() == bare));
    }
    if let Ok(ControlMessage::PreRegister(message)) = control {
        let answer = control::accepted(message.devices.iter().map(|device| (&*device.id, None)));
        assert!(serde_json::from_str::<&RawValue>(answer.as_str()).is_ok(), "{answer:?}");
    }
    let payload = match (&device, &client) {
        (Ok(DeviceMessage::Forward { payload, .. }), _) | (_, Ok(ClientMessage::Forward { payload })) => *payload,
        (Ok(DeviceMessage::Register { device_info, .. }), _) => Some(*device_info),
        _ => None,
    };
    if let Some(payload) = payload {
        assert!(payload == "null" || text.contains(payload));
        let message = outbound::device_msg(payload);
        assert_eq!(outbound::payload_of(&message), Some(payload));
        assert!(serde_json::from_str::<&RawValue>(message.as_str()).is_ok());
    }
}

/// Checks sessions in one of two ways, chosen by the first byte.
///
/// Either it runs acts against a model of which client is connected to which device. Or it sends texts as devices and
/// clients, and checks that the answers are valid JSON that fits a WebSocket device, and that the ledger balances.
pub fn sessions(data: &[u8]) {
    match data.split_first() {
        Some((0, acts)) => {
            model::run(acts.chunks_exact(2).take(60).map(act));
        }
        Some((_, texts)) => converse(texts),
        None => {}
    }
}

fn act(pair: &[u8]) -> Act {
    let (what, who, whom) = (pair[0] % 8, pair[1] & 15, pair[1] >> 4);
    match what {
        0 | 1 => Act::Register(who % 4),
        2 | 3 => Act::Connect(who % 8, whom % 4),
        4 => Act::Forward(who % 8),
        5 | 6 => Act::ForwardTo(who % 4, whom % 4 + 1),
        _ => Act::Leave(who % 12),
    }
}

/// Frequent texts. An empty line of the input stands for one of them, chosen by its first byte.
const WORDS: [&str; 8] = [
    r#"{"message_type":"register","device_id":"x","device_info":{}}"#,
    r#"{"message_type":"connect","device_id":"x"}"#,
    r#"{"message_type":"forward","payload":{"type":"offer"}}"#,
    r#"{"message_type":"forward","client_id":1,"payload":{"type":"offer"}}"#,
    r#"{"message_type":"forward","client_id":2,"payload":null}"#,
    r#"{"message_type":"?"}"#,
    r#"{"message_type":"register","device_id":"y"}"#,
    r#"{"message_type":"connect","device_id":"y"}"#,
];

fn converse(data: &[u8]) {
    let mut harness = harness();
    let peers = ["d", "e", "c", "b"];
    for (name, role) in peers.iter().zip([Role::Device, Role::Device, Role::Client, Role::Client]) {
        harness.opens(name, role);
    }
    for line in data.split(|byte| *byte == b'\n').take(40) {
        let Some((first, text)) = line.split_first() else { continue };
        let peer = peers[usize::from(first & 3)];
        let Ok(text) = std::str::from_utf8(text) else {
            harness.says_binary(peer);
            continue;
        };
        let text = if text.is_empty() { WORDS[usize::from(first >> 2 & 7)] } else { text };
        harness.says(peer, text);
        for peer in peers {
            while let Some(heard) = harness.hears(peer) {
                assert!(serde_json::from_str::<Value>(&heard).is_ok(), "{heard}");
                assert!(heard.len() <= 65_536 || peer == "c" || peer == "b");
            }
        }
    }
    for peer in peers {
        harness.leaves(peer);
    }
    assert!(harness.balance().balances(), "{:?}", harness.balance());
    assert!(harness.hub.devices().is_empty());
    assert_eq!((harness.hub.connections(), harness.hub.waiting_count()), (0, 0));
}

/// Checks that ICE servers from a hook are refused, or make a valid `config` whose `urls` are arrays of strings.
pub fn hooks(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(servers) = IceServers::from_json(text) else { return };
    let config: Value = serde_json::from_str(servers.config().as_str()).unwrap_or_default();
    let listed = config["ice_servers"].as_array().map(Vec::as_slice);
    for server in listed.unwrap_or_else(|| panic!("no list: {config}")) {
        let urls = server["urls"].as_array().unwrap_or_else(|| panic!("no array: {server}"));
        assert!(!urls.is_empty() && urls.iter().all(Value::is_string), "{server}");
    }
}
