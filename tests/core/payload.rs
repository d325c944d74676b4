//! Fields that the server reads from payloads and device infos.

use cuttlefish_signaling::protocol::payload;

#[test]
fn group_id_is_used_if_it_is_a_valid_group_name() {
    let [longest, too_long] = [256, 257].map(|length| "x".repeat(length));
    let of = |text: &str| format!(r#"{{"a":[{{}}],"group_id":"{text}","b":1.50}}"#);
    for (info, group) in [
        (of("lab"), Some("lab")),
        (of(""), Some("")),
        (of(r"\u00e9/"), Some("é/")),
        (of(&longest), Some(&*longest)),
        (of(&too_long), None),
        (of(r"a\nb"), None),
        (of(r"a\u0000"), None),
        (of(r"a\u0085b"), None),
        (of("a\u{2028}b"), None),
        (r#" {"group\u005fid" : "lab"}"#.into(), Some("lab")),
        (r#"{"group_id":"a","group_id":"b"}"#.into(), None),
        (r#"{"a":{"group_id":"lab"}}"#.into(), None),
        (r#"["group_id"]"#.into(), None),
        (r#"["lab"]"#.into(), None),
        (r#""group_id""#.into(), None),
        (r#"{"group_id":null}"#.into(), None),
    ] {
        assert_eq!(payload::group_id_of(&info).as_deref(), group, "{info}");
    }
}

#[test]
fn only_an_object_payload_has_a_type() {
    assert_eq!(payload::type_of(r#" {"type":"offer"}"#).as_deref(), Some("offer"));
    assert_eq!(payload::type_of(r#"["offer"]"#), None);
}

#[test]
fn last_type_of_a_payload_counts() {
    for (text, name) in [
        (r#"{"type":"offer","n":1,"type":"answer"}"#, Some("answer")),
        (r#"{"type":"offer","\u0074ype":"answer"}"#, Some("answer")),
        (r#"{"type":7,"type":"answer"}"#, Some("answer")),
        (r#"{"type":"offer","type":7}"#, None),
        (r#"{"data":{"type":"offer"}}"#, None),
        (r#"{"type":"offer","n":1e400,"s":"\ud800"}"#, Some("offer")),
        (r#"{"type":"offer"} x"#, None),
    ] {
        assert_eq!(payload::type_of(text).as_deref(), name, "{text}");
    }
}
