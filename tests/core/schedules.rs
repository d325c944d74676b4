//! Arbitrary schedules of forwards, slow peers, faults and time: order, bounds and books hold, and no client is left
//! asleep.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::faults::{Effect, Rule};
use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::protocol::DeviceId;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::backpressure::{config, pair, waiting};
use crate::harness::Harness;

/// An action of a schedule.
#[derive(Debug, Clone)]
enum Act {
    /// Client `.0` forwards `.1` payloads of `.2` bytes.
    Forward(usize, usize, usize),
    /// The device forwards `.1` payloads to client `.0`.
    Back(usize, usize),
    /// A peer takes messages: a client, or the device.
    Take(usize, usize),
    Freeze(usize),
    Thaw(usize),
    Leave(usize),
    After(u64),
    Stall,
    Disarm,
}

const CLIENTS: usize = 4;

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..CLIENTS, 1..12_usize, 60..900_usize).prop_map(|(client, count, size)| Act::Forward(client, count, size)),
        4 => (0..CLIENTS, 1..12_usize).prop_map(|(client, count)| Act::Back(client, count)),
        4 => (0..=CLIENTS, 1..12_usize).prop_map(|(peer, count)| Act::Take(peer, count)),
        2 => (0..=CLIENTS).prop_map(Act::Freeze),
        2 => (0..=CLIENTS).prop_map(Act::Thaw),
        1 => (0..CLIENTS).prop_map(Act::Leave),
        2 => (1..1500_u64).prop_map(Act::After),
        1 => Just(Act::Stall),
        1 => Just(Act::Disarm),
    ]
}

/// Small bounds, so that a short schedule reaches all of them.
fn tight() -> Config {
    config(|limits| {
        limits.max_message_size = 1000;
        limits.max_first_message = 1000;
        let bounds = &mut limits.backpressure;
        (bounds.outbox_bytes, bounds.outbox_budget) = (1500, 3000);
        (bounds.device_high_water, bounds.device_low_water) = (4000, 2000);
        (bounds.client_window_bytes, bounds.client_window_messages) = (1500, 6);
        bounds.held_by_faults_bytes = 1 << 20;
    })
}

/// A harness in which these schedules run, and the numbers that were sent.
struct Schedule {
    harness: Harness,
    names: Vec<String>,
    sent: u64,
    stall: Option<u64>,
}

impl Schedule {
    fn new() -> Self {
        let names: Vec<_> = (0..CLIENTS).map(|n| format!("c{n}")).chain(["d".to_owned()]).collect();
        let clients: Vec<_> = names[..CLIENTS].iter().map(String::as_str).collect();
        Self { harness: pair(tight(), &clients), names, sent: 0, stall: None }
    }

    fn is_here(&self, peer: usize) -> bool {
        self.harness.peers_here().contains(&self.names[peer])
    }

    fn run(&mut self, act: &Act) {
        let name = |peer: usize| self.names[peer].clone();
        match *act {
            Act::Forward(client, count, size) if self.is_here(client) => {
                for _ in 0..count {
                    self.sent += 1;
                    let payload = format!("\"{:08}{}\"", self.sent, "x".repeat(size - 60));
                    self.harness.forwards(&name(client), &payload);
                }
            }
            Act::Back(client, count) if self.is_here(CLIENTS) => {
                for _ in 0..count {
                    self.sent += 1;
                    let id = u32::try_from(client).unwrap() + 1;
                    self.harness.forwards_to("d", id, &format!("\"{:08}{}\"", self.sent, "y".repeat(300)));
                }
            }
            Act::Take(peer, count) if self.is_here(peer) => self.harness.takes(&name(peer), count),
            Act::Freeze(peer) if self.is_here(peer) => self.harness.freezes(&name(peer)),
            Act::Thaw(peer) if self.is_here(peer) => self.harness.thaws(&name(peer)),
            Act::Leave(client) if self.is_here(client) => self.harness.leaves(&name(client)),
            Act::After(time) => self.harness.after(Duration::from_millis(time)),
            Act::Stall if self.stall.is_none() => {
                let rule = Rule {
                    effect: Effect::Stall(None),
                    to: Some(Role::Device),
                    device: None,
                    client: Some(cuttlefish_signaling::protocol::ClientId::new(1).unwrap()),
                    payload_type: None,
                    nth: None,
                    probability: 1.0,
                    times: None,
                };
                self.stall = Some(self.harness.relay.arm(rule));
            }
            Act::Disarm => self.disarm(),
            _ => {}
        }
    }

    fn disarm(&mut self) {
        if let Some(stall) = self.stall.take() {
            self.harness.relay.disarm(stall, self.harness.now).unwrap();
            self.harness.settle();
        }
    }

    /// The bounds hold after each act.
    fn check_bounds(&self) {
        let bounds = tight().limits.backpressure;
        assert!(self.harness.budget.borrowed() <= bounds.outbox_budget);
        let Some(device) = self.harness.hub.device(&DeviceId::new("x")) else { return };
        for client in device.clients() {
            let queued = client.share.queued();
            assert!(queued.messages <= bounds.client_window_messages, "{queued:?}");
            assert!(queued.bytes < bounds.client_window_bytes + 1000, "{queued:?}");
        }
    }

    /// Lets all go on. Nothing is left asleep, and the books balance.
    fn finish(mut self) -> HashMap<String, Vec<String>> {
        self.disarm();
        let here = self.harness.peers_here();
        for peer in &here {
            self.harness.thaws(peer);
        }
        assert_eq!(waiting(&self.harness), 0, "a client is left asleep");
        for peer in &here {
            let peer = self.harness.peer(peer);
            assert!(peer.unread.is_empty() || peer.outbox.is_closed(), "a text is left unread");
        }
        let heard = here.iter().map(|peer| (peer.clone(), self.harness.all_heard(peer))).collect();
        for peer in &self.harness.names() {
            self.harness.leaves(peer);
        }
        assert!(self.harness.balance().balances(), "{:?}", self.harness.balance());
        assert_eq!(self.harness.budget.borrowed(), 0);
        assert_eq!(Arc::strong_count(&self.harness.budget), 1, "an outbox is left");
        heard
    }
}

/// The numbers of the messages of each sender come in order, each once.
fn check_order(heard: &[String]) {
    let mut last: HashMap<&str, &str> = HashMap::new();
    for text in heard {
        let Some((sender, rest)) = text.split_once("\"payload\":\"") else { continue };
        let number = &rest[..8];
        let before = last.insert(sender, number);
        assert!(before.is_none_or(|before| before < number), "{number} after {before:?} of {sender}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_keeps_order_bounds_and_books_and_leaves_no_client_asleep(acts in vec(act(), 1..60)) {
        let mut schedule = Schedule::new();
        for act in &acts {
            schedule.run(act);
            schedule.check_bounds();
        }
        for heard in schedule.finish().values() {
            check_order(heard);
        }
    }
}
