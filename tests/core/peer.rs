//! Facts about peers: the request that is kept for hooks.

use std::net::SocketAddr;

use cuttlefish_signaling::peer::{KeptRequest, Peer, Request, Role};
use proptest::prelude::*;

fn request(path: &str, query: &str, headers: &[(&str, &str)]) -> Request {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request { path: path.into(), query: query.into(), headers }
}

fn parts(request: Request) -> (String, String, Vec<(String, String)>) {
    (request.path, request.query, request.headers)
}

#[test]
fn request_without_query_headers_and_values_is_unpacked_as_it_was() {
    for headers in [&[][..], &[("host", "")], &[("host", "a"), ("x", ""), ("x", "")]] {
        let given = request("/a", "", headers);
        assert_eq!(parts(KeptRequest::of(&given).unpack()), parts(given));
    }
}

#[test]
fn kept_request_shows_no_query_and_no_values() {
    let kept = KeptRequest::of(&request("/connect_client", "token=s3cret", &[("authorization", "Bearer s3cret")]));
    let text = format!("{kept:?}");
    assert!(text.contains("/connect_client") && !text.contains("s3cret"), "{text}");
}

#[test]
fn address_of_a_peer_is_shown_as_the_standard_library_writes_it() {
    let shown = |address| Peer { address: Some(address), ..Peer::anonymous(Role::Client) }.to_string();
    for octet in 0..=255 {
        let address = SocketAddr::from(([octet, 255 - octet, 0, octet / 3], u16::from(octet) * 257));
        assert_eq!(shown(address), address.to_string());
    }
    for address in ["0.0.0.0:0", "255.255.255.255:65535", "127.0.0.1:9", "[::1]:80", "[fe80::1%7]:65535"] {
        assert_eq!(shown(address.parse().unwrap()), address);
    }
}

proptest! {
    #[test]
    fn requests_are_unpacked_as_they_were(
        path in "[^\n]*", query in "[^\n]*", headers in prop::collection::vec(("[a-z-]+", "[^\n]*"), 0..8),
    ) {
        let given = Request { path, query, headers };
        prop_assert_eq!(parts(KeptRequest::of(&given).unpack()), parts(given));
    }
}
