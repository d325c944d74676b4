"""The counters that a server returns."""

from __future__ import annotations

from dataclasses import dataclass

from ._field_docs import with_field_docs


@with_field_docs
@dataclass(frozen=True)
class Stats:
    """Counters of one server, since its start. At rest `accepted == delivered + refused + gone + dropped`."""

    connections: int
    """Peers connected now, registered or not, over any transport."""
    devices: int
    """Devices registered now."""
    clients: int
    """Clients connected to a device now."""
    accepted: int
    """Forwards received from senders."""
    delivered: int
    """Forwards written to their receiver."""
    refused: int
    """Forwards answered with an error."""
    gone: int
    """Forwards whose receiver had left. The sender was told."""
    dropped: int
    """Forwards that an armed fault dropped."""
    hook_failures: int
    """Hooks that raised, timed out, were not called in time or returned an invalid result."""
    turned_away: int = 0
    """Connections answered with 503: too many in total, too many from one address, or too many per second."""
    openings_cut: int = 0
    """Connections dropped before their request had arrived, to make room for others."""
    foreign: int = 0
    """Requests whose `Host` or `Origin` is not allowed."""
    unauthorized: int = 0
    """Requests that `authorize` refused."""
    misbehaved: int = 0
    """Peers closed because they violated the protocol: 1002, 1003, 1007, 1008, 1009."""
    too_fast: int = 0
    """Peers closed because they exceeded a rate limit, and HTTP requests refused for that reason."""
    slow_consumers: int = 0
    """Peers closed because they did not read."""
    silent: int = 0
    """Peers dropped because they did not answer a ping."""
    errors_withheld: int = 0
    """Errors not sent to Cuttlefish's own devices, which would reconnect in a storm (docs/cuttlefish.md)."""
    hooks_not_called: int = 0
    """Hook calls that failed because no hook thread was free in time, or too many calls waited for one."""
    forwarded_ignored: int = 0
    """Requests with headers of a proxy that is not in `trusted_proxies`."""
    ice_command_failures: int = 0
    """Runs of the command for ICE servers that failed."""
    upstream_failures: int = 0
    """Requests that `upstream` gave no answer to: it is down, refuses connections, or speaks another protocol."""
    panics: int = 0
    """Connections ended by a bug in the server."""
    waiting: int = 0
    """Clients that wait for a device to register now. `waiting()` lists them."""

    @property
    def balances(self) -> bool:
        """Whether each accepted forward has reached an outcome."""
        return self.accepted == self.delivered + self.refused + self.gone + self.dropped
