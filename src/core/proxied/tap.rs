//! Reads the messages of one connection that a proxy passes on, and books them into hub, journal and ledger.
//!
//! It changes no message. Only the faults do, which a user arms.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{ProxiedClient, ProxiedPeers};
use crate::core::hub::{Device, Hub};
use crate::core::lane::Lane;
use crate::core::outbox::{Budget, End, Outbox};
use crate::core::peer::{Peer, Role};
use crate::core::relay::Relay;
use crate::observe::journal::PeerJournal;
use crate::protocol::{ClientId, ClientMessage, DeviceId, DeviceMessage, ServerMessage, Text, outbound};

/// State that the connections of one proxy share.
#[derive(Clone)]
pub struct Books {
    /// Registered devices and their clients, as far as they are seen here.
    pub hub: Arc<Hub>,
    /// Journal, faults and ledger.
    pub relay: Arc<Relay>,
    /// Which peers are here.
    pub peers: Arc<ProxiedPeers>,
    /// Bounds of outboxes.
    pub budget: Arc<Budget>,
}

/// Peer of one connection, as its messages tell.
enum Place {
    /// It has not said which device it is, or which it wants.
    Unknown,
    /// The other server has not answered yet.
    Asked(DeviceId, Text),
    Device(Arc<Device>),
    Client(Arc<Device>, Arc<ProxiedClient>),
    Left,
}

/// A message on its way.
pub struct Passing<'a> {
    /// The message.
    pub text: &'a Text,
    /// Frames in which it came.
    pub frames: &'a Bytes,
    /// Queue to the other side.
    pub lane: &'a Arc<Lane>,
    /// Time.
    pub now: Instant,
}

/// Kind of a message that was read.
enum Read<'a> {
    /// A forward, which the relay passes on.
    Relayed,
    /// Nothing to record: another connection books it, or it is recorded.
    Elsewhere,
    /// Another message, with its type.
    Other(Cow<'a, str>),
}

/// Reader of the messages of one connection.
pub struct Tap {
    books: Books,
    peer: Arc<Peer>,
    outbox: Arc<Outbox>,
    journal: Option<PeerJournal>,
    /// Each text is a payload: the path of the request has named the device.
    is_bare: bool,
    place: Place,
}

impl Tap {
    /// Creates the reader. `outbox` is the one that stands for the peer in the hub. `device`: the device that the path of
    /// the request has named.
    pub fn new(books: Books, peer: Arc<Peer>, outbox: Arc<Outbox>, device: Option<DeviceId>) -> Self {
        let journal = books.relay.journal().map(|journal| PeerJournal::new(Arc::clone(journal), peer.role));
        let is_bare = device.is_some();
        let mut tap = Self { books, peer, outbox, journal, is_bare, place: Place::Unknown };
        if let Some(id) = device {
            tap.ask(id, "null");
        }
        tap
    }

    /// Reads a message of the peer. Returns whether the relay has it; otherwise the caller passes it on.
    pub fn on_peer(&mut self, passing: &Passing<'_>) -> bool {
        let read = match self.peer.role {
            Role::Device => self.on_device(passing),
            _ if self.is_bare => self.on_client_forward(passing, Some(passing.text.as_str())),
            _ => self.on_client(passing),
        };
        if let (Read::Other(message_type), Some(journal)) = (&read, self.place_of_client()) {
            journal.received(passing.text.as_str(), message_type);
        }
        matches!(read, Read::Relayed)
    }

    /// Reads a message of the other server. Returns whether the relay has it; otherwise the caller passes it on.
    pub fn on_upstream(&mut self, passing: &Passing<'_>) -> bool {
        let is_payload = self.is_bare && matches!(self.place, Place::Client(..));
        let read = if is_payload {
            self.on_device_msg(passing)
        } else {
            match ServerMessage::parse(passing.text.as_str()) {
                Ok(message) => self.on_message(message, passing),
                Err(_) => Read::Other("".into()),
            }
        };
        if let (Read::Other(message_type), Some(journal)) = (&read, self.place_of_client()) {
            journal.passed(passing.text, message_type);
        }
        matches!(read, Read::Relayed)
    }

    fn on_device<'a>(&mut self, passing: &Passing<'a>) -> Read<'a> {
        match DeviceMessage::parse(passing.text.as_str()) {
            Ok(DeviceMessage::Register { device_id, device_info, .. }) => {
                if let Some(id) = device_id {
                    self.ask(id, device_info);
                }
                Read::Other("register".into())
            }
            Ok(DeviceMessage::Forward { client_id, payload }) => match (&self.place, client_id, payload) {
                // The connection of the client books it if it is here.
                (Place::Device(device), Some(id), Some(_)) if self.books.peers.has_client(&device.id, id) => {
                    Read::Elsewhere
                }
                (Place::Device(device), Some(id), Some(_)) => self.relay(Role::Client, device, id, passing),
                _ => Read::Other("forward".into()),
            },
            Ok(DeviceMessage::Unknown(message_type)) => Read::Other(message_type),
            Err(_) => Read::Other("".into()),
        }
    }

    fn on_client<'a>(&mut self, passing: &Passing<'a>) -> Read<'a> {
        match ClientMessage::parse(passing.text.as_str()) {
            Ok(ClientMessage::Connect { device_id }) => {
                if let Some(id) = device_id {
                    self.ask(id, "null");
                }
                Read::Other("connect".into())
            }
            Ok(ClientMessage::Forward { payload }) => self.on_client_forward(passing, payload),
            Ok(ClientMessage::Unknown(message_type)) => Read::Other(message_type),
            Err(_) => Read::Other("".into()),
        }
    }

    /// Reads a forward of a client. The connection of the device books it if it is here.
    fn on_client_forward<'a>(&self, passing: &Passing<'a>, payload: Option<&str>) -> Read<'a> {
        let (Place::Client(device, client), Some(payload)) = (&self.place, payload) else {
            return Read::Other("forward".into());
        };
        client.sends(payload);
        match client.number() {
            Some(id) if !self.books.peers.is_registered(&device.id) => self.relay(Role::Device, device, id, passing),
            _ => Read::Elsewhere,
        }
    }

    fn on_message<'a>(&mut self, message: ServerMessage<'a>, passing: &Passing<'a>) -> Read<'a> {
        let is_asked = matches!(self.place, Place::Asked(..));
        if self.peer.role == Role::Device && is_asked && message != ServerMessage::Untyped {
            self.register();
        }
        match (message, &self.place) {
            (ServerMessage::ClientMsg { client_id, payload }, Place::Device(device)) => {
                if let Some(client) = self.books.peers.identify(&device.id, client_id, payload) {
                    client.renumber(&self.books.hub, client_id);
                }
                self.relay(Role::Device, device, client_id, passing)
            }
            (ServerMessage::DeviceMsg, Place::Client(..)) => self.on_device_msg(passing),
            (ServerMessage::DeviceInfo(info), Place::Asked(id, _)) => {
                let (id, info) = (id.clone(), outbound::device_info(info));
                if let Some(journal) = &self.journal {
                    journal.passed(passing.text, "device_info");
                }
                self.connect(&id, info);
                Read::Elsewhere
            }
            (ServerMessage::ClientDisconnected(id), Place::Device(device)) => {
                self.books.peers.forget(&device.id, id);
                Read::Other("client_disconnected".into())
            }
            (message, _) => Read::Other(type_of(message)),
        }
    }

    /// Reads a message of the device to this client. The connection of the device books it if the client is not known
    /// there.
    fn on_device_msg<'a>(&self, passing: &Passing<'a>) -> Read<'a> {
        let Place::Client(device, client) = &self.place else { return Read::Other("device_msg".into()) };
        let is_booked = self.books.peers.is_registered(&device.id) && client.id().is_none();
        match client.number() {
            Some(id) if !is_booked => self.relay(Role::Client, device, id, passing),
            _ => Read::Elsewhere,
        }
    }

    /// Gives a forward to the relay.
    fn relay<'a>(&self, to: Role, device: &Device, client: ClientId, passing: &Passing<'a>) -> Read<'a> {
        let &Passing { text, frames, lane, now } = passing;
        self.books.relay.pass(to, (&device.id, client), text.clone(), frames.clone(), lane, now);
        Read::Relayed
    }

    /// Notes the device that the peer registers as, or connects to.
    fn ask(&mut self, id: DeviceId, info: &str) {
        if let Some(journal) = &self.journal {
            journal.concerns(&id);
        }
        if matches!(self.place, Place::Unknown | Place::Asked(..)) {
            self.place = Place::Asked(id, outbound::device_info(info));
        }
    }

    /// Enters the device into the hub: the other server has accepted it.
    fn register(&mut self) {
        let Place::Asked(id, info) = std::mem::replace(&mut self.place, Place::Unknown) else { return };
        let device = Arc::new(Device::new(id, info, Arc::clone(&self.peer), Arc::clone(&self.outbox)));
        self.enter(&device);
        self.books.peers.register(&device.id);
        self.place = Place::Device(device);
    }

    /// Enters a device into the hub, in the place of the one that has the id.
    fn enter(&self, device: &Arc<Device>) {
        let mut holder = None;
        while let Err(other) = self.books.hub.register(device, &device.info, holder.as_ref()) {
            holder = Some(other);
        }
    }

    /// Enters the client into the hub: the other server has connected it.
    ///
    /// The device may be connected to the other server directly. Then an entry without a connection stands for it.
    fn connect(&mut self, id: &DeviceId, info: Text) {
        let device = self.books.hub.device(id).unwrap_or_else(|| {
            let outbox = Arc::new(Outbox::new(&self.books.budget));
            outbox.close(None, End::Drop);
            let device = Arc::new(Device::new(id.clone(), info, Arc::new(Peer::anonymous(Role::Device)), outbox));
            match self.books.hub.register(&device, &device.info, None) {
                Ok(()) => device,
                Err(holder) => holder,
            }
        });
        let client = self.books.peers.connect(id);
        let seen = self.books.hub.attach_seen(&device, &self.peer, &self.outbox, None);
        client.0.lock().seen = seen.map(|seen| (Arc::clone(&device), seen));
        self.place = Place::Client(device, client);
    }

    /// Notes that the peer has left.
    pub fn on_peer_left(&mut self) {
        if let Some(journal) = self.place_of_client() {
            journal.left();
        }
        self.leave();
    }

    /// Notes that the other server, or this one, has ended the connection. `how` is for people.
    pub fn on_ended(&mut self, how: String) {
        if let Some(journal) = self.place_of_client() {
            journal.ended(how);
        }
        self.leave();
    }

    /// Removes the peer from the hub. Later calls do nothing.
    pub fn leave(&mut self) {
        self.journal = None;
        match std::mem::replace(&mut self.place, Place::Left) {
            Place::Device(device) => {
                self.books.hub.unregister(&device);
                self.books.peers.unregister(&device.id);
            }
            Place::Client(device, client) => {
                let seen = {
                    let mut state = client.0.lock();
                    state.left = true;
                    state.seen.take()
                };
                if let Some((device, seen)) = seen {
                    self.books.hub.detach(&device, &seen);
                }
                self.books.peers.disconnect(&device.id, &client);
                if !self.books.peers.is_registered(&device.id) && device.client_count() == 0 {
                    self.books.hub.unregister(&device);
                }
            }
            _ => {}
        }
    }

    /// Returns the recorder, with the number that the client has now.
    fn place_of_client(&self) -> Option<&PeerJournal> {
        let journal = self.journal.as_ref()?;
        if let Place::Client(_, client) = &self.place
            && let Some(id) = client.number()
        {
            journal.is_client(id);
        }
        Some(journal)
    }
}

/// Returns the type of a message of the other server, for the journal.
fn type_of(message: ServerMessage<'_>) -> Cow<'_, str> {
    match message {
        ServerMessage::DeviceInfo(_) => "device_info".into(),
        ServerMessage::ClientMsg { .. } => "client_msg".into(),
        ServerMessage::ClientDisconnected(_) => "client_disconnected".into(),
        ServerMessage::DeviceMsg => "device_msg".into(),
        ServerMessage::Untyped => "error".into(),
        ServerMessage::Other(message_type) => message_type,
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.leave();
    }
}
