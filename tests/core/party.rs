//! One address, one identity and one HTTP connection hold at most half of a limit on clients.

use std::sync::Arc;

use cuttlefish_signaling::core::party::{Party, without_room};
use cuttlefish_signaling::peer::{Grant, Peer, Role};

/// A client with an address (or none) and an identity (or none, if it is empty).
fn client(address: &str, identity: &str) -> Peer {
    let identity = (!identity.is_empty()).then(|| Arc::from(identity));
    Peer {
        address: (!address.is_empty()).then(|| address.parse().unwrap()),
        grant: Grant { identity, ..Grant::default() },
        ..Peer::anonymous(Role::Client)
    }
}

fn judge(newcomer: (&str, &str), present: &[(&str, &str)], limit: usize) -> Option<Party> {
    let present: Vec<Peer> = present.iter().map(|(address, identity)| client(address, identity)).collect();
    without_room(&client(newcomer.0, newcomer.1), present.iter(), limit)
}

#[test]
fn one_address_has_half_of_a_limit() {
    let two = [("192.0.2.1:1", ""), ("192.0.2.1:2", "")];
    assert_eq!(judge(("192.0.2.1:3", ""), &two, 4), Some(Party::Address));
    assert_eq!(judge(("[::ffff:192.0.2.1]:3", ""), &two, 4), Some(Party::Address));
    assert_eq!(judge(("192.0.2.1:3", ""), &two, 5), None, "half is rounded up");
    assert_eq!(judge(("192.0.2.1:3", ""), &two, 6), None);
    assert_eq!(judge(("192.0.2.2:3", ""), &two, 4), None);
    assert_eq!(judge(("", ""), &two, 4), None, "a local client has no address");
}

#[test]
fn ipv6_addresses_count_by_their_network() {
    let two = [("[2001:db8::1]:1", ""), ("[2001:db8::2]:1", "")];
    assert_eq!(judge(("[2001:db8::3]:1", ""), &two, 4), Some(Party::Address));
    assert_eq!(judge(("[2001:db8:0:1::3]:1", ""), &two, 4), None);
}

#[test]
fn loopback_has_no_share_by_address_but_by_connection() {
    for host in ["127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]"] {
        let [one, two, three] = [1, 2, 3].map(|port| format!("{host}:{port}"));
        assert_eq!(judge((&three, ""), &[(&one, ""), (&two, "")], 4), None, "{host}");
        assert_eq!(judge((&one, ""), &[(&one, ""), (&one, "")], 4), Some(Party::Connection), "{host}");
    }
}

#[test]
fn one_named_identity_has_half_of_a_limit() {
    let two = [("127.0.0.1:1", r#""alice""#), ("192.0.2.1:1", r#""alice""#)];
    assert_eq!(judge(("192.0.2.2:1", r#""alice""#), &two, 4), Some(Party::Identity));
    assert_eq!(judge(("192.0.2.2:1", r#""bob""#), &two, 4), None);
    assert_eq!(judge(("192.0.2.2:1", ""), &[("", ""), ("", "")], 4), None, "clients without identity share none");
}

#[test]
fn limit_of_one_has_room_for_one() {
    assert_eq!(judge(("192.0.2.1:1", "1"), &[], 1), None);
}
