"""Every setting at its upper end: a server that starts also serves, and nothing ends its process."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuttlefish_signaling import ConfigError, Keepalive, Limits, SignalingServer, Tls, TurnRest
from cuttlefish_signaling._checks import MAX_SECONDS
from cuttlefish_signaling._settings import GROUPS
from cuttlefish_signaling._settings.kinds import Integer

from client_kinds import register_local_device
from http_requests import request
from peers import SeqpacketPeer, assert_relays, peers_of

LONGEST = {row.name: float(MAX_SECONDS) for row in GROUPS["keepalive"]}
MOST = {row.name: row.kind.most if isinstance(row.kind, Integer) else float(MAX_SECONDS) for row in GROUPS["limits"]}


@pytest.mark.parametrize("tls", [False, True])
def test_server_serves_with_every_setting_at_its_most(tls: bool, tmp_path: Path) -> None:
    devices, control = tmp_path / "devices", tmp_path / "control"
    # The tests wait for the close handshake of a server that stops.
    limits = Limits(**{**MOST, "goodbye_timeout": 0.25, "close_timeout": 5.0})  # type: ignore[arg-type]
    server = SignalingServer(
        device_socket=devices,
        control_socket=control,
        dashboard=True,
        journal=True,
        device_wait_timeout=MAX_SECONDS,
        hook_timeout=MAX_SECONDS,
        filter_device_info=lambda info, _: info,
        tls=Tls.self_signed() if tls else None,
        limits=limits,
        keepalive=Keepalive(**LONGEST),
    )
    with server, peers_of(server) as peers:
        local, pre_registering = register_local_device(devices), SeqpacketPeer(control)
        group = {"message_type": "pre-register", "group_name": "g", "owner": "o", "devices": [{"id": "b"}]}
        pre_registering.send(group)
        assert pre_registering.receive() == [{"id": "b", "status": "accepted", "message": ""}]
        device = peers.device()
        assert_relays(peers.client(), device)
        if not tls:
            for path in ("/devices", "/metrics", "/polled_connections/x/messages?wait=1e300", "/"):
                assert request(server, "GET", path).status in (200, 404)
        local.close()
        stats = server.stats()
        assert (stats.panics, stats.misbehaved, stats.turned_away) == (0, 0, 0)


@pytest.mark.parametrize("ttl", [0, 1e9 + 1, 1e18, 1e19, 1e300, float("inf"), float("nan")])
def test_lifetime_of_turn_credentials_has_bounds(ttl: float) -> None:
    with pytest.raises(ConfigError, match=r"^TurnRest\.ttl: must be "):
        TurnRest("turn:turn.lab", secret="s", ttl=ttl)


@pytest.mark.parametrize("now", [0, 1e9, 1e18, 1e19, 1e300])
def test_turn_credentials_are_made_for_any_time(now: float) -> None:
    turn = TurnRest("turn:turn.lab", secret="s", ttl=1e9)
    assert '"credential":' in turn.config(now)
