"""Texts of the errors of fake peers."""

from __future__ import annotations

from typing import Protocol

from websockets.asyncio.client import ClientConnection

from ..errors import PeerRefusedError, SignalingError
from ._connection import end_of
from ._endpoint import Endpoint


class FailedPeer(Protocol):
    """A fake peer, as far as the texts need it."""

    _name: str
    _path: str
    _server: Endpoint | str
    _socket: ClientConnection | None
    errors: list[str]


def refused_by_server(peer: FailedPeer, what: str) -> SignalingError:
    """The error for a peer that the server closed during its handshake."""
    error = peer.errors[-1] if peer.errors else None
    code, reason = (None, "") if peer._socket is None else end_of(peer._socket)
    how = error or f"closed [{code}] {reason!r}"
    text = f"{peer._name}: the server refused to {what}: {how}"
    return PeerRefusedError(text, error=error, code=code, reason=reason)


def dropped_by_server(peer: FailedPeer) -> str:
    """Tells that the server has dropped the peer as silent, if it did and runs in this process; else empty."""
    run = getattr(peer._server, "_last_run", None)
    if run is None:
        return ""
    direction = "server->device" if peer._path == "/register_device" else "server->client"
    device_id = getattr(peer, "device_id", None)
    from .._silence import silence_note

    return silence_note(run.native, run.shown_after, direction=direction, device=device_id)
