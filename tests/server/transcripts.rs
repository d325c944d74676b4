//! The transcripts, run over sockets.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use crate::dial::{Came, Dialed, block_on, patiently, serve};
use crate::transcript::{Act, Case, assert_means, load, run_each};

#[test]
fn every_transcript_holds_over_sockets() {
    run_each(load(), |case| block_on(run(case)));
}

async fn run(case: Case) {
    let server = serve(case.config);
    let address = server.local_addr();
    let mut peers: BTreeMap<String, Dialed> = BTreeMap::new();
    let mut frozen: Vec<Dialed> = Vec::new();
    for line in case.lines {
        let place = &line.place;
        match line.act {
            Act::Opens(peer, role, of) => {
                let path = match of {
                    Some(id) => format!("/devices/{id}/connect"),
                    None if role == "device" => "/register_device".into(),
                    None => "/connect_client".into(),
                };
                peers.insert(peer, Dialed::open(address, &path).await);
            }
            Act::Says(peer, text) => peers.get_mut(&peer).unwrap().says(&text).await,
            Act::SaysBinary(peer, bytes) => {
                peers.get_mut(&peer).unwrap().send(Message::binary(bytes.into_bytes())).await;
            }
            Act::Hears(peer, expected) => {
                let Came::Text(heard) = peers.get_mut(&peer).unwrap().next().await else {
                    panic!("{place}: {peer} was closed instead");
                };
                assert_means(place, &peer, &heard, &expected);
            }
            Act::HearsText(peer, expected) => {
                assert_eq!(peers.get_mut(&peer).unwrap().next().await, Came::Text(expected), "{place}");
            }
            Act::Closes(peer, code) => {
                assert_eq!(peers.remove(&peer).unwrap().next().await, Came::Closed(code), "{place}");
            }
            Act::Leaves(peer) => {
                let mut peer = peers.remove(&peer).unwrap();
                assert_eq!(peer.round_trip().await, Vec::<String>::new(), "{place}: heard more before it left");
                let connections = server.hub().connections();
                peer.send(Message::Close(None)).await;
                assert_eq!(peer.next().await, Came::Closed(1005), "{place}");
                until(|| server.hub().connections() < connections).await;
            }
            Act::Drops(peer) => {
                let connections = server.hub().connections();
                assert_eq!(peers.get_mut(&peer).unwrap().round_trip().await, Vec::<String>::new(), "{place}");
                drop(peers.remove(&peer).unwrap());
                until(|| server.hub().connections() < connections).await;
            }
            Act::Freezes(peer) => {
                let peer = peers.remove(&peer).unwrap();
                peer.freeze();
                frozen.push(peer);
            }
            // The next line takes as long.
            Act::After(_) => {}
        }
    }
    for (name, peer) in &mut peers {
        assert_eq!(peer.round_trip().await, Vec::<String>::new(), "{name} heard more than it should");
    }
    let in_time = patiently("the stop", server.stop(Duration::from_secs(5))).await;
    drop(frozen);
    assert!(in_time);
    assert!(server.ledger().balances(), "{:?}", server.ledger());
    assert_eq!(server.hub().connections(), 0);
}

/// Polls a condition that another task of this thread makes true.
async fn until(condition: impl Fn() -> bool) {
    patiently("a condition", async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
