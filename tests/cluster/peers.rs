//! Devices and clients: what they send, and what they may hear.
//!
//! Each payload names the pair that it belongs to, and has a number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cuttlefish_signaling::protocol::DeviceId;
use serde_json::Value;

use crate::net::{Frame, LinkId, Party};
use crate::world::World;

/// A device, for as long as it is connected.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) node: usize,
    pub(crate) link: LinkId,
    /// Whether it has its config.
    pub(crate) registered: bool,
    /// Time at which it got its config.
    pub(crate) since: Option<Duration>,
    /// Time at which its connection has ended.
    pub(crate) over: Option<Duration>,
    /// Set when a fault has touched its node: then others may take it for gone.
    pub(crate) disturbed: bool,
    /// Its clients, by their number.
    pub(crate) talks: BTreeMap<u64, Talk>,
    /// Clients that have left.
    gone: BTreeSet<u64>,
}

/// Payloads between a device and one client, as the device counts them.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    /// The client, once it has sent something.
    pub(crate) client: Option<usize>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Payloads that it had sent when it first heard of the client. They may have been refused.
    pub(crate) unsure: u64,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: DeviceId,
    pub(crate) node: usize,
    pub(crate) link: LinkId,
    /// The device that it is connected to.
    pub(crate) device: Option<usize>,
    /// Time from which it is connected.
    pub(crate) since: Duration,
    /// Time at which the engine has read the entry of its device for it last.
    pub(crate) looked_up_at: Option<Duration>,
    pub(crate) over: bool,
    pub(crate) sent: u64,
    /// Number of the last payload, and the client number that the device uses.
    pub(crate) received: Option<(u64, u64)>,
}

impl World {
    /// Returns whether a device answers.
    pub(crate) fn is_alive(&self, device: usize) -> bool {
        self.devices[device].over.is_none() && !self.net.half_open[device]
    }

    /// Returns whether the process of a node takes connections.
    fn party_of(&self, node: usize) -> Option<Party> {
        self.nodes[node].as_ref().filter(|process| !process.paused).map(|process| process.party)
    }

    /// A device connects and registers.
    pub(crate) fn connect_device(&mut self, node: usize, id: DeviceId) {
        let Some(party) = self.party_of(node) else { return };
        let device = self.devices.len();
        let link = self.net.open(Party::Device(device), party);
        self.net.half_open.push(false);
        let register = format!(r#"{{"message_type":"register","device_id":"{id}","device_info":{{"tag":{device}}}}}"#);
        let disturbed = self.is_disturbed(node);
        let (talks, gone) = (BTreeMap::new(), BTreeSet::new());
        self.devices.push(Device {
            id,
            node,
            link,
            registered: false,
            since: None,
            over: None,
            disturbed,
            talks,
            gone,
        });
        self.accept(node, link, Party::Device(device), register);
    }

    /// A client connects.
    pub(crate) fn connect_client(&mut self, node: usize, id: DeviceId) {
        let Some(party) = self.party_of(node) else { return };
        let client = self.clients.len();
        let link = self.net.open(Party::Client(client), party);
        let connect = format!(r#"{{"message_type":"connect","device_id":"{id}"}}"#);
        let since = self.net.now;
        self.clients.push(Client {
            id,
            node,
            link,
            device: None,
            since,
            looked_up_at: None,
            over: false,
            sent: 0,
            received: None,
        });
        self.accept(node, link, Party::Client(client), connect);
    }

    fn accept(&mut self, node: usize, link: LinkId, party: Party, first: String) {
        if let Some(process) = &mut self.nodes[node] {
            process.accept(link, party, &self.net);
        }
        self.net.send(link, 0, Frame::Text { text: first, forward: false });
        self.after(node);
    }

    /// A device or a client leaves, with a close frame or without.
    pub(crate) fn leave(&mut self, link: LinkId, clean: bool) {
        let close = Frame::Close { code: 1000, reason: String::new() };
        self.net.send(link, 0, if clean { close } else { Frame::Reset });
        self.over(link);
    }

    fn over(&mut self, link: LinkId) {
        self.net.close(link, 0);
        match self.net.links[link].halves[0].party {
            Party::Device(device) => self.devices[device].over = Some(self.net.now),
            Party::Client(client) => self.clients[client].over = true,
            _ => {}
        }
    }

    /// A client sends some payloads.
    pub(crate) fn client_sends(&mut self, client: usize, count: u64) {
        let Client { link, device: Some(device), over: false, .. } = self.clients[client] else { return };
        for _ in 0..count {
            let number = self.clients[client].sent;
            self.clients[client].sent += 1;
            let text = format!(r#"{{"message_type":"forward","payload":"{client} {device} {number}"}}"#);
            self.net.send(link, 0, Frame::Text { text, forward: false });
        }
    }

    /// A device sends some payloads to the client with this number.
    pub(crate) fn device_sends(&mut self, device: usize, to: u64, count: u64) {
        if !self.is_alive(device) || !self.devices[device].registered {
            return;
        }
        let link = self.devices[device].link;
        for _ in 0..count {
            let talk = self.devices[device].talks.entry(to).or_default();
            let number = talk.sent;
            talk.sent += 1;
            let text = format!(r#"{{"message_type":"forward","client_id":{to},"payload":"{device} {to} {number}"}}"#);
            self.net.send(link, 0, Frame::Text { text, forward: false });
        }
    }

    /// A message arrives at a device or a client.
    pub(crate) fn at_peer(&mut self, link: LinkId, side: usize, frame: Frame) {
        if !self.net.arrive(link, side, frame) {
            return;
        }
        let Some(frame) = self.net.take(link, side) else { return };
        let party = self.net.links[link].halves[side].party;
        match (frame, party) {
            (Frame::Ping, _) => self.net.send(link, 0, Frame::Pong),
            (Frame::Close { code, reason }, Party::Client(client)) => {
                self.over(link);
                self.check_client_end(client, code, &reason);
            }
            (Frame::Reset, Party::Client(client)) => {
                self.over(link);
                self.check_client_end(client, 1006, "");
            }
            (Frame::Close { .. } | Frame::Reset, _) => self.over(link),
            (Frame::Text { text, .. }, Party::Device(device)) => self.device_hears(device, &text),
            (Frame::Text { text, .. }, Party::Client(client)) => self.client_hears(client, &text),
            (Frame::Text { .. } | Frame::Pong, _) => {}
        }
    }

    fn device_hears(&mut self, index: usize, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap();
        let device = &mut self.devices[index];
        let number = message["client_id"].as_u64();
        match (message["message_type"].as_str(), number) {
            (Some("config"), _) => (device.registered, device.since) = (true, Some(self.net.now)),
            (Some("client_disconnected"), Some(number)) => drop(device.gone.insert(number)),
            (Some("client_msg"), Some(number)) => {
                let [client, its_device, at] = numbers(&message["payload"]);
                let was_gone = device.gone.contains(&number);
                let talk = device.talks.entry(number).or_default();
                if talk.client.is_none() {
                    talk.unsure = talk.sent;
                }
                let known = *talk.client.get_or_insert(usize::try_from(client).unwrap());
                let in_order = talk.received == at;
                talk.received += 1;
                let story = || format!("device {index} hears {text}\n{}", self.net.story());
                assert_eq!(its_device, index as u64, "of another registration: {}", story());
                assert_eq!(known as u64, client, "of another client: {}", story());
                assert!(in_order, "not in order, or twice: {}", story());
                assert!(!was_gone, "after client_disconnected: {}", story());
            }
            _ => {}
        }
    }

    fn client_hears(&mut self, index: usize, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap();
        let now = self.net.now;
        let client = &mut self.clients[index];
        match message["message_type"].as_str() {
            Some("device_info") => {
                let device = usize::try_from(message["device_info"]["tag"].as_u64().unwrap()).unwrap();
                let before = client.device.replace(device);
                client.since = now;
                let id = &self.devices[device].id;
                assert!(before.is_none(), "client {index} hears {text} again\n{}", self.net.story());
                assert_eq!(*id, self.clients[index].id, "client {index} hears {text}\n{}", self.net.story());
                let count = self.net.rng.u64(..3);
                self.client_sends(index, count);
            }
            Some("device_msg") => {
                let [device, number, at] = numbers(&message["payload"]);
                let before = client.received.replace((at, number));
                let own = client.device.map(|device| device as u64);
                // The first one that it hears is the first one that the device's node has taken for it.
                let first = self.net.taken.get(&(device, number)).map(|taken| taken.first);
                let follows = before.map_or(first == Some(at), |before| before == (at.wrapping_sub(1), number));
                let story = || format!("client {index} hears {text}\n{}", self.net.story());
                assert_eq!(own, Some(device), "of another registration, or too early: {}", story());
                assert!(follows, "not in order, or twice, or lost, or of another client: {}", story());
            }
            _ => {}
        }
    }
}

/// Returns the numbers of a payload.
pub(crate) fn numbers(payload: &Value) -> [u64; 3] {
    let numbers: Vec<u64> = payload.as_str().unwrap().split(' ').map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}
