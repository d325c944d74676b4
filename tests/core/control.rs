//! Messages of the control socket (docs/protocol.md 5.2).

use cuttlefish_signaling::protocol::Malformed;
use cuttlefish_signaling::protocol::control::{Announced, ControlMessage, PreRegister};

#[test]
fn pre_register_messages_are_parsed_strictly() {
    let text = r#"{"message_type":"pre-register","group_name":"g","owner":"o","devices":[{"id":"a","name":"n","adb_port":1},{"id":"b"}]}"#;
    let device = |id: &str, name: &str, adb_port| Announced { id: id.into(), name: name.into(), adb_port };
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
