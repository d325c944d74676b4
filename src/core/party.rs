//! The share of a limit on clients that one party may hold, so that no party takes the places of all others.

use super::address::counted;
use super::peer::Peer;
pub use crate::protocol::refusal::Party;

/// Returns the party that has its share of `limit` already: half of it. `None` if `peer` may come as well.
///
/// Loopback addresses have no share, since a reverse proxy on the host brings all clients from there. An HTTP connection
/// from loopback has one.
pub fn without_room<'a>(peer: &Peer, others: impl Iterator<Item = &'a Peer>, limit: usize) -> Option<Party> {
    let address = |peer: &Peer| peer.address.map(|address| counted(address.ip())).filter(|ip| !ip.is_loopback());
    let ours = address(peer);
    let (mut of_address, mut of_identity, mut of_connection) = (0, 0, 0);
    for other in others {
        of_address += usize::from(ours.is_some() && address(other) == ours);
        of_identity += usize::from(peer.grant.identity.is_some() && other.grant.identity == peer.grant.identity);
        of_connection += usize::from(peer.address.is_some() && other.address == peer.address);
    }
    let share = limit.div_ceil(2);
    [(of_connection, Party::Connection), (of_address, Party::Address), (of_identity, Party::Identity)]
        .into_iter()
        .find_map(|(count, party)| (count >= share).then_some(party))
}
