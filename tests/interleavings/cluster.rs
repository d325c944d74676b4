//! A client and its device on another node, and a claim: all that two tasks of one node may do at once.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cuttlefish_signaling::Config;
use cuttlefish_signaling::core::cluster::registry::{
    Claimed, Epoch, NodeRecord, Operation, Reply, Timing, Version, Wanted,
};
use cuttlefish_signaling::core::cluster::{Incarnation, Membership, Output, Registration};
use cuttlefish_signaling::core::upstream::{Link, Stage, Upstream};
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::outbox::{Outbox, Outgoing};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{DeviceId, outbound};
use cuttlefish_signaling::relay::Relay;
use cuttlefish_signaling::session::ClaimGuard;
use shuttle::sync::Mutex;
use shuttle::thread;

use super::{outbox, under_all_schedules};

fn upstream(link: &Link, queue: &Arc<Outbox>) -> Upstream {
    let peer = Arc::new(Peer::anonymous(Role::Client));
    Upstream::new(Device::new(DeviceId::new("x"), outbound::device_info("{}"), peer, Arc::clone(queue)), link)
}

#[test]
fn forwards_to_another_node_are_delivered_or_gone_when_client_and_connection_end_at_once() {
    under_all_schedules(|| {
        let (link, queue) = (Link::default(), outbox());
        let upstream = upstream(&link, &queue);
        let relay = Arc::new(Relay::new(None, Config::default().held_bounds()));
        assert!(upstream.start());
        let client = {
            let relay = Arc::clone(&relay);
            thread::spawn(move || {
                for payload in ["1", "2", "3"] {
                    upstream.forward(&relay, payload, Instant::now());
                }
                drop(upstream);
            })
        };
        let connection = {
            let (relay, queue, link) = (Arc::clone(&relay), Arc::clone(&queue), link.clone());
            thread::spawn(move || {
                let cx = Context::from_waker(Waker::noop());
                for _ in 0..4 {
                    if let Poll::Ready(Outgoing::Message { forward, .. }) = queue.poll_next(&cx, true) {
                        relay.ledger().count_delivered(u64::from(forward));
                    }
                    thread::yield_now();
                }
                // The connection is lost.
                link.lose();
                relay.ledger().count_gone(queue.drain());
            })
        };
        client.join().unwrap();
        connection.join().unwrap();
        let books = relay.ledger().read();
        assert_eq!((books.accepted, books.balances()), (3, true), "{books:?}");
    });
}

#[test]
fn client_hears_once_that_its_connection_is_lost_while_it_gets_the_device_info() {
    under_all_schedules(|| {
        let (link, queue) = (Link::default(), outbox());
        let upstream = upstream(&link, &queue);
        let losing = {
            let link = link.clone();
            thread::spawn(move || link.lose() == Stage::Started)
        };
        // The session of the client: it looks again without the device info, and is refused with it.
        let looks_again = upstream.is_lost();
        let started = !looks_again && upstream.start();
        let told_by_connection = losing.join().unwrap();
        assert_eq!(started, told_by_connection, "not told, or twice");
        assert!(!started || !link.holds_texts(), "the messages of the device wait forever");
    });
}

/// Releases a claim when it is dropped, as the guard of a server does.
struct Release {
    membership: Arc<Mutex<Membership>>,
    claim: Wanted,
    now: Instant,
}

impl Drop for Release {
    fn drop(&mut self) {
        let Wanted { id, registration, .. } = &self.claim;
        self.membership.lock().unwrap().release(id, registration, self.now);
    }
}

/// The task of a node, with an engine that answers at once. `asked` gets all that the engine was asked, in order.
fn serve(membership: &Mutex<Membership>, asked: &mut Vec<Operation>, now: Instant) {
    loop {
        let Some(output) = membership.lock().unwrap().poll_output() else { return };
        let Output::Send { number, operation } = output else { continue };
        let reply = match &operation {
            Operation::Join { node, .. } => Reply::Joined {
                epoch: Epoch(1),
                version: Version { number: 1, stamp: 1 },
                age: Duration::from_secs(60),
                nodes: vec![node.clone()],
            },
            Operation::Claim { .. } => Reply::Claimed(Claimed::Granted),
            _ => Reply::Done,
        };
        asked.push(operation);
        // The session may leave between the question and the answer.
        thread::yield_now();
        membership.lock().unwrap().on_reply(number, reply, now);
    }
}

#[test]
fn session_that_leaves_while_its_claim_is_answered_gives_its_id_up() {
    under_all_schedules(|| {
        let now = Instant::now();
        let incarnation = Incarnation::new("a", 1).unwrap();
        let node = NodeRecord { incarnation: incarnation.clone(), details: "{}".into() };
        let membership = Arc::new(Mutex::new(Membership::new(node, Timing::default(), false, 7, now)));
        let mut asked = Vec::new();
        membership.lock().unwrap().handle_timeout(now);
        membership.lock().unwrap().on_connected(now);
        serve(&membership, &mut asked, now);
        let registration = Registration::new(incarnation, 1);
        let claim = Wanted { id: DeviceId::new("x"), registration, details: "{}".into() };
        let session = {
            let membership = Arc::clone(&membership);
            thread::spawn(move || {
                membership.lock().unwrap().claim(claim.clone(), false, now);
                let guard = ClaimGuard::new(Release { membership, claim, now });
                thread::yield_now();
                drop(guard);
            })
        };
        let task = {
            let membership = Arc::clone(&membership);
            thread::spawn(move || {
                for _ in 0..4 {
                    serve(&membership, &mut asked, now);
                    thread::yield_now();
                }
                asked
            })
        };
        session.join().unwrap();
        let mut asked = task.join().unwrap();
        serve(&membership, &mut asked, now);
        let claims = |operation: &Operation| matches!(operation, Operation::Claim { .. });
        let releases = |operation: &Operation| matches!(operation, Operation::Release(_));
        if let Some(claimed) = asked.iter().position(claims) {
            assert!(asked[claimed..].iter().any(releases), "the engine has the claim forever: {asked:?}");
        }
    });
}
