//! The transcripts, run on the pure core.

use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::peer::Role;

use crate::harness::Harness;
use crate::transcript::{Act, Case, assert_means, load, run_each};

#[test]
fn every_transcript_holds_without_sockets() {
    let mut cases = load();
    // The transport checks the size of a message, not the core.
    cases.retain(|case| !case.lines.iter().any(|line| matches!(line.act, Act::Closes(_, 1009, _))));
    run_each(cases, run);
}

fn run(case: Case) {
    let mut harness = Harness::new(case.config);
    harness.cuttlefish = case.cuttlefish;
    let mut present = Vec::new();
    for line in case.lines {
        let place = &line.place;
        match line.act {
            Act::Opens(peer, role, of) => {
                match of {
                    Some(id) => harness.opens_at(&peer, &id),
                    None => harness.opens(&peer, if role == "device" { Role::Device } else { Role::Client }),
                }
                present.push(peer);
            }
            Act::OpensPackets(peer, role) => {
                if role == "device" {
                    harness.opens_over_packets(&peer);
                } else {
                    harness.opens_control(&peer);
                }
                present.push(peer);
            }
            Act::Says(peer, text) => harness.says(&peer, &text),
            Act::SaysBinary(peer, _) => harness.says_binary(&peer),
            Act::Hears(peer, expected) => {
                let heard = harness.hears(&peer).unwrap_or_else(|| panic!("{place}: {peer} heard nothing"));
                assert_means(place, &peer, &heard, &expected);
            }
            Act::HearsText(peer, expected) => assert_eq!(harness.hears(&peer).as_deref(), Some(&*expected), "{place}"),
            Act::Closes(peer, code, reason) => {
                assert_eq!(harness.hears(&peer), None, "{place}: {peer} heard more before the close");
                let Some(End::Close { code: said, reason: why }) = &harness.peer(&peer).ended else {
                    panic!("{place}: {peer} is not closed: {:?}", harness.peer(&peer).ended)
                };
                assert_eq!(*said, code, "{place}");
                assert_eq!(reason.as_deref().unwrap_or(why), why, "{place}");
            }
            Act::Ends(peer) => {
                assert_eq!(harness.hears(&peer), None, "{place}: {peer} heard more before the end");
                assert!(harness.peer(&peer).ended.is_some(), "{place}: {peer} is still there");
            }
            Act::Leaves(peer) | Act::Drops(peer) => {
                harness.leaves(&peer);
                present.retain(|other| *other != peer);
            }
            Act::Freezes(peer) => harness.freezes(&peer),
            Act::After(time) => harness.after(time),
        }
    }
    for peer in &present {
        assert_eq!(harness.hears(peer), None, "{peer} heard more than it should");
    }
    for peer in &present {
        harness.leaves(peer);
    }
    assert!(harness.balance().balances(), "{:?}", harness.balance());
    assert_eq!(harness.hub.connections(), 0);
    assert!(harness.hub.devices().is_empty());
    assert_eq!(harness.hub.waiting_count(), 0);
}
