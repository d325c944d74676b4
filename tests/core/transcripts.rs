//! The transcripts, run on the pure core: on one server, and with devices and clients on different nodes.

use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::peer::Role;

use crate::harness::Harness;
use crate::nodes::Nodes;
use crate::transcript::{Act, Case, assert_means, load, run_each};

/// The peers of one server, or of several.
trait Stage {
    fn new(config: Config, cuttlefish: bool) -> Self;
    /// The server that a device or a control connection opens on.
    fn of_devices(&mut self) -> &mut Harness;
    /// The server that a client opens on.
    fn of_clients(&mut self) -> &mut Harness;
    /// The server of this peer.
    fn of(&mut self, name: &str) -> &mut Harness;
    /// Does all that is to be done.
    fn settle(&mut self);
    fn after(&mut self, time: Duration);
    fn assert_at_rest(&mut self);
}

impl Stage for Harness {
    fn new(config: Config, cuttlefish: bool) -> Self {
        let mut harness = Self::new(config);
        harness.cuttlefish = cuttlefish;
        harness
    }

    fn of_devices(&mut self) -> &mut Harness {
        self
    }

    fn of_clients(&mut self) -> &mut Harness {
        self
    }

    fn of(&mut self, _: &str) -> &mut Harness {
        self
    }

    fn settle(&mut self) {}

    fn after(&mut self, time: Duration) {
        self.after(time);
    }

    fn assert_at_rest(&mut self) {
        assert!(self.balance().balances(), "{:?}", self.balance());
        assert_eq!(self.hub.connections(), 0);
        assert!(self.hub.devices().is_empty());
        assert_eq!(self.hub.waiting_count(), 0);
    }
}

impl Stage for Nodes {
    fn new(config: Config, cuttlefish: bool) -> Self {
        let mut nodes = Self::new(config);
        nodes.a.cuttlefish = cuttlefish;
        nodes
    }

    fn of_devices(&mut self) -> &mut Harness {
        &mut self.a
    }

    fn of_clients(&mut self) -> &mut Harness {
        &mut self.b
    }

    fn of(&mut self, name: &str) -> &mut Harness {
        self.of(name)
    }

    fn settle(&mut self) {
        self.settle();
    }

    fn after(&mut self, time: Duration) {
        self.a.after(time);
        self.b.after(time);
    }

    fn assert_at_rest(&mut self) {
        self.assert_at_rest();
    }
}

fn cases() -> Vec<Case> {
    let mut cases = load();
    // The transport checks the size of a message, not the core.
    cases.retain(|case| !case.lines.iter().any(|line| matches!(line.act, Act::Closes(_, 1009, _))));
    cases
}

#[test]
fn every_transcript_holds_without_sockets() {
    run_each(cases(), run::<Harness>);
}

#[test]
fn every_transcript_holds_with_devices_and_clients_on_different_nodes() {
    run_each(cases(), run::<Nodes>);
}

fn run<S: Stage>(case: Case) {
    let mut stage = S::new(case.config, case.cuttlefish);
    let mut present = Vec::new();
    for line in case.lines {
        stage.settle();
        let place = &line.place;
        match line.act {
            Act::Opens(peer, role, of) => {
                match of {
                    Some(id) => stage.of_clients().opens_at(&peer, &id),
                    None if role == "device" => stage.of_devices().opens(&peer, Role::Device),
                    None => stage.of_clients().opens(&peer, Role::Client),
                }
                present.push(peer);
            }
            Act::OpensPackets(peer, role) => {
                if role == "device" {
                    stage.of_devices().opens_over_packets(&peer);
                } else {
                    stage.of_devices().opens_control(&peer);
                }
                present.push(peer);
            }
            Act::Says(peer, text) => stage.of(&peer).says(&peer, &text),
            Act::SaysBinary(peer, _) => stage.of(&peer).says_binary(&peer),
            Act::Hears(peer, expected) => {
                let heard = stage.of(&peer).hears(&peer).unwrap_or_else(|| panic!("{place}: {peer} heard nothing"));
                assert_means(place, &peer, &heard, &expected);
            }
            Act::HearsText(peer, expected) => {
                assert_eq!(stage.of(&peer).hears(&peer).as_deref(), Some(&*expected), "{place}");
            }
            Act::Closes(peer, code, reason) => {
                let server = stage.of(&peer);
                assert_eq!(server.hears(&peer), None, "{place}: {peer} heard more before the close");
                let Some(End::Close { code: said, reason: why }) = &server.peer(&peer).ended else {
                    panic!("{place}: {peer} is not closed: {:?}", server.peer(&peer).ended)
                };
                assert_eq!(*said, code, "{place}");
                assert_eq!(reason.as_deref().unwrap_or(why), why, "{place}");
            }
            Act::Ends(peer) => {
                let server = stage.of(&peer);
                assert_eq!(server.hears(&peer), None, "{place}: {peer} heard more before the end");
                assert!(server.peer(&peer).ended.is_some(), "{place}: {peer} is still there");
            }
            Act::Leaves(peer) | Act::Drops(peer) => {
                stage.of(&peer).leaves(&peer);
                present.retain(|other| *other != peer);
            }
            Act::Freezes(peer) => stage.of(&peer).freezes(&peer),
            Act::After(time) => stage.after(time),
        }
    }
    stage.settle();
    for peer in &present {
        assert_eq!(stage.of(peer).hears(peer), None, "{peer} heard more than it should");
    }
    for peer in &present {
        stage.of(peer).leaves(peer);
    }
    stage.settle();
    stage.assert_at_rest();
}
