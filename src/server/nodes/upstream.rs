//! The connections of clients of this node to devices on other nodes, and the control connection for all of one node.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::error::Unreachable;
use super::idle::NodeStream;
use super::neighbours::Neighbour;
use super::node::Node;
use super::probe::path_of;
use crate::core::cluster::Registration;
use crate::core::hub::Device;
use crate::core::outbox::Outbox;
use crate::core::peer::{Peer, Role};
use crate::core::session::{Answer, Context, UpstreamSession};
use crate::core::upstream::{Link, Upstream};
use crate::observe::cluster::Direction;
use crate::protocol::DeviceId;
use crate::server::cluster::client_facts::ClientFacts;
use crate::server::ws::open;

/// A search for one client.
pub(super) struct Search<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) id: &'a DeviceId,
    /// Whether the client waits no longer.
    pub(super) last: bool,
    pub(super) peer: &'a Arc<Peer>,
    pub(super) outbox: &'a Arc<Outbox>,
}

/// The answer of the node of a device.
pub(super) enum Opened {
    /// The device is not there.
    NotHere,
    /// The answer for the session.
    Answer(Answer),
}

impl Search<'_> {
    /// Connects the client to the device of a registration.
    pub(super) async fn open(&self, holder: &Registration) -> Result<Opened, Unreachable> {
        let node = self.node;
        let neighbour = node.neighbour(holder.incarnation()).await?;
        let place = Arc::clone(&neighbour.places).try_acquire_owned().map_err(|_| Unreachable::Full)?;
        let lost = node.control(&neighbour).await?;
        let Some((stream, read_ahead)) = self.dial(&neighbour, &lost).await? else { return Ok(Opened::NotHere) };
        let (tell, told) = oneshot::channel();
        let (link, context) = (Link::new(Arc::clone(&node.cluster.counts)), self.context());
        let (id, peer, outbox) = (self.id.clone(), Arc::clone(&context.peer), Arc::clone(&context.outbox));
        let of_client = link.clone();
        let on_opened = move |opened: crate::core::session::Opened| {
            let answer = opened
                .answer(|info| Answer::Away(Box::new(Upstream::new(Device::new(id, info, peer, outbox), &of_client))));
            // A search that has ended drops the answer, and with it the connection.
            let _ended = tell.send(answer);
        };
        let session = UpstreamSession::new(context, link, Arc::clone(self.outbox), Box::new(on_opened));
        let address = stream.get_ref().0.peer_addr().ok();
        let give_back = {
            let node = Arc::clone(node);
            move |stream| node.keep(&neighbour, stream)
        };
        let pump = open::upstream(Arc::clone(&node.shared), stream, &read_ahead, session, lost, give_back);
        let counted = node.cluster.counts.enter(Direction::Out);
        let task = Box::pin(async move {
            pump.await;
            drop((place, counted));
        });
        node.shared.spawn(task, address);
        match told.await {
            Ok(Answer::Nowhere) => Ok(Opened::NotHere),
            Ok(answer) => Ok(Opened::Answer(answer)),
            Err(_) => Err(Unreachable::Failed("the connection was lost".to_owned())),
        }
    }

    /// Makes the connection of the client, when it is its turn. `None` if the node says that the device is not there.
    async fn dial(
        &self,
        neighbour: &Neighbour,
        lost: &CancellationToken,
    ) -> Result<Option<(NodeStream, Bytes)>, Unreachable> {
        let path = format!("{}/connect", path_of(self.id));
        let facts = ClientFacts::of(self.peer).to_header();
        let settings = self.node.shared.settings();
        let _turn = tokio::select! {
            biased;
            () = lost.cancelled() => return Err(Unreachable::Failed("the connection was lost".to_owned())),
            turn = neighbour.dials.turn(&settings.limits) => turn?,
        };
        match self.node.upgrade(neighbour, &path, Some(facts)).await {
            Ok(opened) => Ok(Some(opened)),
            Err(Unreachable::Refused(StatusCode::NOT_FOUND | StatusCode::CONFLICT)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The context of the connection's session. Its outbox is the queue to the other node.
    fn context(&self) -> Context {
        let shared = &self.node.shared;
        let settings = shared.settings();
        let peer = Peer { address: self.peer.address, ..Peer::anonymous(Role::Http) };
        Context {
            outbox: Arc::new(Outbox::new(&settings.budget)),
            rules: Arc::new(settings.rules.of_upstream()),
            ..shared.context(peer)
        }
    }
}

impl Node {
    /// Returns the control connection to a node, which is made if there is none. It is cancelled when it is lost.
    async fn control(self: &Arc<Self>, neighbour: &Arc<Neighbour>) -> Result<CancellationToken, Unreachable> {
        let make = Box::pin(async {
            // Those of before were lost with the last control connection.
            neighbour.left.clear();
            let (stream, read_ahead) = self.upgrade(neighbour, "/cluster/control", None).await?;
            let token = CancellationToken::new();
            let address = stream.get_ref().0.peer_addr().ok();
            let watch = open::control(Arc::clone(&self.shared), stream, &read_ahead, token.clone());
            self.shared.spawn(watch, address);
            Ok(token)
        });
        neighbour.control.get(make).await
    }
}
