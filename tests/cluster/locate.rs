//! The connections of clients to their devices on other nodes.

use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::core::cluster::registry::{Entry, Operation, Reply, Version};
use cuttlefish_signaling::core::cluster::{Incarnation, Registration};
use cuttlefish_signaling::core::upstream::{Link, Upstream};
use cuttlefish_signaling::driver::Driver;
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::session::{Answer, ClientSession, Opened, Step, UpstreamSession};

use crate::connection::Notices;
use crate::event::Event;
use crate::net::{Frame, LinkId, Net, Party};
use crate::node::Node;
use crate::world::World;

/// Time in which another node has to answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);
/// Pause before a client whose connection to another node has failed looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Numbers of operations from here on are those of searches, below are those of the membership.
const SEARCHES: u64 = 1 << 32;

/// The search of a client for its device.
pub(crate) struct Search {
    id: DeviceId,
    /// Whether the client waits no longer.
    last: bool,
    /// Connection to another node that is being made.
    pub(crate) opening: Option<LinkId>,
    /// Holder that was tried, and whether its node has answered.
    tried: Option<Registration>,
    answered: bool,
    /// Version that the last renewal had named before the engine was asked.
    named: Version,
}

/// Reports the answer of another node, or that there is none.
struct OnOpened {
    link: LinkId,
    notices: Arc<Notices>,
    answer: Option<Answer>,
}

impl OnOpened {
    fn tell(mut self, answer: Answer) {
        self.answer = Some(answer);
    }
}

impl Drop for OnOpened {
    fn drop(&mut self) {
        self.notices.opened(self.link, self.answer.take());
    }
}

impl Node {
    /// Looks which other node has a device.
    pub(crate) fn locate(&mut self, client: LinkId, id: DeviceId, last: bool, net: &mut Net) {
        let known = self.membership.directory().get(&id).map(|entry| entry.registration.clone());
        self.searches.insert(
            client,
            Search { id, last, opening: None, tried: None, answered: false, named: Version::default() },
        );
        match known {
            Some(holder) if *holder.incarnation() != self.incarnation => self.open(client, holder, net),
            _ if last => self.read(client, net),
            _ => self.found(client, Answer::Nowhere, net),
        }
    }

    fn found(&mut self, client: LinkId, answer: Answer, net: &Net) {
        self.searches.remove(&client);
        self.drive(client, net, |driver, edge| driver.handle_answer(answer, edge));
    }

    /// Reads the entry of the device from the engine: the directory may lag.
    fn read(&mut self, client: LinkId, net: &mut Net) {
        let connection = self.connection.filter(|_| self.membership.is_member());
        let (Some(connection), Some(search)) = (connection, self.searches.get_mut(&client)) else {
            return self.found(client, Answer::Refused(Refusal::ClusterUnavailable(Role::Client)), net);
        };
        search.named = self.membership.named_version();
        let operation = Operation::Read(search.id.clone());
        self.ask_engine(client, connection, operation, net);
        net.at(net.now + Duration::from_secs(1), self.party, Event::ReadOver { client });
    }

    fn ask_engine(&self, client: LinkId, connection: u64, operation: Operation, net: &mut Net) {
        let Party::Node { node, .. } = self.party else { return };
        let number = SEARCHES + client as u64;
        net.later(Party::Engine, Event::Operation { node, connection, number, operation });
    }

    /// Handles the entry of the device.
    pub(crate) fn on_read(&mut self, number: u64, entry: Option<&Entry>, net: &mut Net) {
        let Ok(client) = usize::try_from(number - SEARCHES) else { return };
        let Some(search) = self.searches.get(&client).filter(|search| search.opening.is_none()) else { return };
        let tried = search.tried.clone();
        match entry.map(|entry| entry.registration.clone()) {
            Some(holder) if *holder.incarnation() != self.incarnation && tried.as_ref() != Some(&holder) => {
                self.open(client, holder, net);
            }
            Some(holder) if self.membership.has_claim(&search.id, &holder) => {
                self.found(client, Answer::Refused(Refusal::ClusterUnavailable(Role::Client)), net);
            }
            // An engine that has lost its registry has no entry either.
            None if self.connection.is_some() => {
                let renew = Operation::Renew(self.incarnation.clone());
                self.ask_engine(client, self.connection.unwrap_or_default(), renew, net);
            }
            Some(holder) if tried.as_ref() == Some(&holder) && !search.answered => {
                self.found(client, Answer::Refused(Refusal::ClusterUnavailable(Role::Client)), net);
            }
            _ => self.found(client, Answer::Nowhere, net),
        }
    }

    /// Handles the answer to the renewal behind the read of an entry that is not there.
    pub(crate) fn on_renewed(&mut self, number: u64, renewed: &Reply, net: &Net) {
        let Ok(client) = usize::try_from(number - SEARCHES) else { return };
        let Some(search) = self.searches.get(&client).filter(|search| search.opening.is_none()) else { return };
        let answer = if self.membership.is_absence_certain(search.named, renewed, net.instant()) {
            Answer::Nowhere
        } else {
            Answer::Refused(Refusal::ClusterUnavailable(Role::Client))
        };
        self.found(client, answer, net);
    }

    /// Handles the end of the time for the answer of the engine.
    pub(crate) fn on_read_over(&mut self, client: LinkId, net: &Net) {
        if self.searches.get(&client).is_some_and(|search| search.opening.is_none()) {
            self.found(client, Answer::Refused(Refusal::ClusterUnavailable(Role::Client)), net);
        }
    }

    pub(crate) fn is_search(number: u64) -> bool {
        number >= SEARCHES
    }

    /// Asks the node of a holder for a connection to its device.
    fn open(&mut self, client: LinkId, holder: Registration, net: &mut Net) {
        let Some(search) = self.searches.get_mut(&client) else { return };
        let Some(connection) = self.connections.get(&client) else { return };
        let incarnation = holder.incarnation().clone();
        let link = net.open(self.party, party_of(&incarnation));
        (search.opening, search.tried) = (Some(link), Some(holder));
        let id = search.id.clone();
        let client_outbox = Arc::clone(&connection.driver.session().context().outbox);
        let context = self.context(Role::Client, true);
        let ends = Link::default();
        let (outbox, peer, stand_in) = (Arc::clone(&context.outbox), Arc::clone(&context.peer), id.clone());
        let notices = Arc::clone(&self.notices);
        let report = OnOpened { link: client, notices, answer: None };
        let upstream = ends.clone();
        let on_opened = move |opened: Opened| {
            let found = |info| {
                let device = Device::new(stand_in, info, peer, outbox);
                Answer::Away(Box::new(Upstream::new(device, &upstream)))
            };
            report.tell(opened.answer(found));
        };
        let session = UpstreamSession::new(context, ends, client_outbox, Box::new(on_opened));
        self.add(link, 0, Driver::new(session, false, net.instant()), Step::Done, net);
        net.later(Party::Engine, Event::Open { link, incarnation, id });
        net.at(net.now + OPEN_TIMEOUT, self.party, Event::OpenOver { client, link });
    }

    /// Handles the answer of another node, or that there is none.
    pub(crate) fn on_opened(&mut self, client: LinkId, answer: Option<Answer>, net: &mut Net) {
        let Some(search) = self.searches.get_mut(&client) else { return };
        (search.opening, search.answered) = (None, answer.is_some());
        match answer {
            Some(answer) if !matches!(answer, Answer::Nowhere) => self.found(client, answer, net),
            _ if search.last => self.read(client, net),
            _ => {
                net.at(net.now + LOOK_AGAIN, self.party, Event::LookAgain { id: search.id.clone() });
                self.found(client, Answer::Nowhere, net);
            }
        }
    }

    /// Gives up a connection to another node that was not made in time.
    pub(crate) fn on_open_over(&mut self, client: LinkId, link: LinkId, net: &mut Net) {
        if self.searches.get(&client).is_some_and(|search| search.opening == Some(link)) {
            self.reset(link, net);
        }
    }

    /// Takes the connection of a client of another node.
    pub(crate) fn accept_from_node(&mut self, link: LinkId, id: DeviceId, net: &mut Net) {
        net.links[link].halves[1].party = self.party;
        let context = self.context(Role::Client, true);
        let (session, first) = ClientSession::of_node(context, id, net.instant());
        self.add(link, 1, Driver::new(session, false, net.instant()), first, net);
    }

    /// Resets a connection: this end is over at once, the other when it hears of it.
    pub(crate) fn reset(&mut self, link: LinkId, net: &mut Net) {
        let Some(side) = self.connections.get(&link).map(|connection| connection.side) else { return };
        net.send(link, side, Frame::Reset);
        self.remove(link, net);
    }

    /// Resets all connections to other nodes, or to one of them.
    pub(crate) fn reset_links(&mut self, with: Option<usize>, net: &mut Net) {
        let is_with = |(link, connection): (&LinkId, &crate::connection::Connection)| {
            let Party::Node { node, .. } = net.other(*link, connection.side) else { return None };
            with.is_none_or(|with| with == node).then_some(*link)
        };
        for link in self.connections.iter().filter_map(is_with).collect::<Vec<_>>() {
            self.reset(link, net);
        }
    }
}

impl World {
    /// Notes that the engine has read an entry for a client.
    pub(crate) fn note_look_up(&mut self, number: u64, operation: &Operation) {
        if Node::is_search(number) && matches!(operation, Operation::Read(_)) {
            let link = usize::try_from(number - SEARCHES).unwrap();
            let client = self.clients.iter_mut().find(|client| client.link == link);
            client.expect("a client searches").looked_up_at = Some(self.net.now);
        }
    }
}

/// Returns the process of an incarnation.
fn party_of(incarnation: &Incarnation) -> Party {
    let text = incarnation.to_string();
    let (name, start) = text.rsplit_once('.').unwrap();
    Party::Node { node: index_of(name), start: u64::from_str_radix(start, 16).unwrap() }
}

pub(crate) fn index_of(name: &str) -> usize {
    name.trim_start_matches("node-").parse().unwrap()
}
