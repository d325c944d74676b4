"""The audit log has the device that a refused peer has named, and never a secret of a request."""

from __future__ import annotations

import json
import logging
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from control_requests import Control, controlled_server
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from test_audit_log import one, read, some
from test_jwt import SECRET as KEY
from test_jwt import b64, key_file, token
from websockets.exceptions import ConnectionClosed

from cuttlefish_signaling import AuthorizeContext, Grant, Jwt, Refused, SignalingServer, StaticTokens

from http_requests import request, request_json
from peers import WebSocketPeer, peers_of, wait_until

IN_USE = "Connection failed: Device in use: 'cvd-1'"


def closed(peer: WebSocketPeer) -> tuple[int, str]:
    """Code and reason of the close frame, whatever comes before it."""
    with pytest.raises(ConnectionClosed) as end:
        while True:
            peer.receive()
    close = end.value.rcvd
    assert close is not None
    return close.code, close.reason


def test_refused_client_has_the_device_that_it_wanted(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path, one_client_per_device=True) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        peers.client("cvd-1")
        assert closed(peers.pending_client("cvd-1")) == (1013, IN_USE)
        bare = peers.connect(f"{server.url.replace('http', 'ws', 1)}/devices/cvd-1/connect")
        assert closed(bare) == (1013, IN_USE)
        assert request_json(server, "/polled_connections", {"device_id": "cvd-1"})[0] == 409
        wait_until(lambda: len(some(path, outcome="refused")) == 3)
        assert len(some(path, outcome="refused", role="client", device_id="cvd-1", reason=IN_USE)) == 3
        absent = closed(peers.pending_client("cvd-9"))
        refused = one(path, outcome="refused", device_id="cvd-9")
        assert absent == (refused["status"], refused["reason"])


def only_cvd(ctx: AuthorizeContext) -> Grant:
    return Grant(ctx.role, devices=["cvd-*"])


def test_peer_outside_of_its_grant_has_the_device_that_it_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path, authorize=only_cvd) as server, peers_of(server) as peers:
        for role, peer in (("device", peers.pending_device("other")), ("client", peers.pending_client("other"))):
            close = closed(peer)
            refused = one(path, outcome="refused", role=role, device_id="other")
            assert (refused["status"], refused["reason"], refused["identity"]) == (*close, role)


def test_device_that_is_replaced_or_disconnected_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cuttlefish_signaling")
    path = tmp_path / "audit.jsonl"
    with SignalingServer(audit_log=path, on_duplicate="replace") as server, peers_of(server) as peers:
        ends = []
        first, second = peers.device("cvd-1"), peers.device("cvd-1")
        ends.append(closed(first))
        assert server.disconnect_device("cvd-1")
        ends.append(closed(second))
        wait_until(lambda: len(some(path, outcome="refused")) == 2)
        refused = some(path, outcome="refused", role="device", device_id="cvd-1")
        assert [(record["status"], record["reason"]) for record in refused] == ends
    told = [record for record in caplog.records if getattr(record, "event", None) == "peer_closed"]
    assert [record.device_id for record in told] == ["cvd-1", "cvd-1"]  # type: ignore[attr-defined]


def test_peer_that_has_named_no_valid_device_has_none(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    long = "x" * 2_000
    with SignalingServer(audit_log=path) as server, peers_of(server) as peers:
        first = (
            (server.client_url, json.dumps({"message_type": "connect"})),
            (server.client_url, json.dumps({"message_type": "connect", "device_id": long})),
            (server.client_url, "nonsense"),
            (server.device_url, json.dumps({"message_type": "register", "device_id": long, "device_info": {}})),
            (server.device_url, "nonsense"),
        )
        for url, text in first:
            peer = peers.connect(url)
            peer.socket.send(text)
            assert closed(peer)
        wait_until(lambda: len(some(path, outcome="refused")) == len(first))
    assert not [record for record in read(path) if "device_id" in record]


SECRETS = st.text(st.characters(min_codepoint=0x21, exclude_categories=["Cs"]), min_size=12, max_size=40)
IN_HEADERS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=12, max_size=40)
PATHS = st.sampled_from(["/devices", "/infra_config", "/metrics", "/polled_connections", "/connect_client", "/nothing"])
NAMES = st.sampled_from(["token", "access_token", "Authorization", "x"])


def forms(secret: str) -> set[str]:
    """The forms in which a text may stand in a line of JSON."""
    return {secret, urllib.parse.quote(secret), urllib.parse.quote_plus(secret), json.dumps(secret)[1:-1]}


def without(path: Path, secret: str, records: int) -> None:
    """Asserts that there are as many records, and that none has this text in any of its forms."""
    wait_until(lambda: len(path.read_text().splitlines()) >= records)
    text = path.read_text()
    assert not [form for form in forms(secret) if form in text]


@pytest.mark.parametrize("admits", [True, False])
def test_no_value_of_a_query_header_or_body_is_in_a_record(tmp_path: Path, admits: bool) -> None:
    path = tmp_path / "audit.jsonl"

    def authorize(_ctx: AuthorizeContext) -> Grant:
        if admits:
            return Grant("alice")
        raise Refused("no", status=403)

    with SignalingServer(audit_log=path, authorize=authorize) as server:

        @examples(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(place=PATHS, name=NAMES, in_query=SECRETS, in_header=IN_HEADERS, in_body=SECRETS)
        def never(place: str, name: str, in_query: str, in_header: str, in_body: str) -> None:
            before = len(path.read_text().splitlines())
            headers = {"Authorization": f"Bearer {in_header}", "Cookie": f"token={in_header}", "X-Token": in_header}
            query = urllib.parse.urlencode({name: in_query})
            body = json.dumps({"device_id": "cvd-1", name: in_body, "payload": in_body}).encode()
            method = "POST" if place == "/polled_connections" else "GET"
            status = request(server, method, f"{place}?{query}", body if method == "POST" else None, headers).status
            for secret in (in_query, in_header, in_body):
                without(path, secret, before + (status in (200, 401, 403)))

        never()
    assert len(read(path)) > 20


def test_no_part_of_a_wrong_token_is_in_a_record(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    settings: dict[str, Any] = {"authorize": StaticTokens({"the right one": Grant("alice")}), "audit_log": path}
    with (
        controlled_server(**settings) as (server, control),
        SignalingServer(jwt=Jwt([key_file(tmp_path)]), audit_log=path) as judge,
    ):

        @examples(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(secret=IN_HEADERS, in_query=st.booleans(), is_late=st.booleans())
        def never(secret: str, in_query: bool, is_late: bool) -> None:
            before = len(path.read_text().splitlines())
            # Expired, or signed with another key: an identity that counts is told.
            key, until = (KEY, 1) if is_late else (b"another key of thirty-two bytes..", 9_999_999_999)
            forged = token(key, {"alg": "HS256", "kid": secret}, sub=secret, exp=until)
            unsigned = f"{forged.rpartition('.')[0]}.{b64(secret.encode())}"
            for server_of, text in ((server, secret), (judge, secret), (judge, forged), (judge, unsigned)):
                query = f"?{urllib.parse.urlencode({'token': text})}" if in_query else ""
                headers = {} if in_query else {"Authorization": f"Bearer {text}"}
                assert request(server_of, "GET", f"/devices{query}", headers=headers).status == 401
                for part in text.split("."):
                    if len(part) >= 8:
                        without(path, part, before + 1)
            assert Control(control.url, secret).answer("POST", "/clock/freeze").status == 401
            without(path, secret, before + 5)

        never()
    assert len(some(path, outcome="refused")) > 200
