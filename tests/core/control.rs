//! Messages of the control socket (docs/protocol.md 5.2).

use cuttlefish_signaling::protocol::Malformed;
use cuttlefish_signaling::protocol::control::{Announced, ControlMessage, PreRegister};

use crate::actors::harness;

#[test]
fn pre_register_messages_are_parsed_strictly() {
    let text = r#"{"message_type":"pre-register","group_name":"g","owner":"o","devices":[{"id":"a","name":"n","adb_port":1},{"id":"b"}]}"#;
    let device = |id: &str, name: &str, adb_port| Announced {
        id: id.into(),
        name: name.into(),
        adb_port,
        advertise_address: Vec::new(),
    };
    let message = PreRegister {
        group_name: "g".into(),
        owner: "o".into(),
        devices: vec![device("a", "n", 1), device("b", "", 0)],
    };
    assert_eq!(ControlMessage::parse(text), Ok(ControlMessage::PreRegister(message)));
    let rows = [
        (r#"["pre-register","g","o",[]]"#, Malformed::Envelope),
        (r#"{"message_type":"pre-register"}"#, Malformed::Envelope),
        (r#"{"message_type":"pre-register","devices":[{"id":""}]}"#, Malformed::Envelope),
        (r#"{"message_type":"pre-register","devices":[{"id":"a","adb_port":-1}]}"#, Malformed::Envelope),
        (r#"{"message_type":"pre-register","devices":[],"devices":[]}"#, Malformed::Envelope),
        ("{", Malformed::Json),
        (&"[".repeat(10_000), Malformed::Json),
    ];
    for (text, malformed) in rows {
        assert_eq!(ControlMessage::parse(text), Err(malformed), "{text:.60}");
    }
}

#[test]
fn control_packet_is_answered_with_a_small_multiple_of_its_size() {
    let long = "x".repeat(10_000);
    let groups = ["", "g", "\u{2028}", &long];
    let devices =
        [r#"{"id":"a"}"#, r#"{"id":"\n"}"#, r#"{"id":"\u0001"}"#, "{\"id\":\"\u{2028}\"}", "{\"id\":\"\u{7f}\"}"];
    for group in groups {
        for device in devices {
            let mut harness = harness();
            harness.opens_control("c");
            let devices = vec![device; 1_000].join(",");
            let packet = format!(r#"{{"message_type":"pre-register","group_name":"{group}","devices":[{devices}]}}"#);
            // The second packet finds the devices of the first one.
            for _ in 0..2 {
                harness.says("c", &packet);
                let bytes: usize = harness.all_heard("c").iter().map(String::len).sum();
                assert!(bytes > 1_000 && bytes <= 8 * packet.len(), "{bytes} bytes for {}: {device}", packet.len());
            }
        }
    }
}
