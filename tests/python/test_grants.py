"""Grants: devices that a client may see, and those that do not exist for it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from cuttlefish_signaling import (
    AuthorizeContext,
    ConfigError,
    Grant,
    SignalingServer,
    StaticTokens,
)

from hook_kinds import both
from http_requests import request, request_json
from peers import peers_of


@both
def test_grant_hides_other_devices(way: Any) -> None:
    def by_team(ctx: AuthorizeContext) -> Grant | str:
        team = ctx.query.get("team")
        return Grant({"team": team}, devices=[f"{team}-*"]) if team else "operator"

    with SignalingServer(authorize=way(by_team)) as server, peers_of(server) as peers:
        for name in ("red-1", "blue-1"):
            peers.device(name, name)
        listing = f"{server.url}/devices?format=ids"
        assert json.load(urllib.request.urlopen(listing)) == ["blue-1", "red-1"]
        assert json.load(urllib.request.urlopen(f"{listing}&team=red")) == ["red-1"]
        heard = {}
        for name in ("blue-1", "blue-2"):  # One is registered, one is not.
            client = peers.pending_client(name, "?team=red")
            heard[name] = [client.receive(), client.receive(), client.wait_closed()]
        assert json.loads(json.dumps(heard["blue-1"]).replace("blue-1", "blue-2")) == heard["blue-2"]
        client = peers.pending_client("red-1", "?team=red")
        assert [client.receive()["message_type"], client.receive()["device_info"]] == ["config", "red-1"]
        assert server.clients("red-1")[0].identity == {"team": "red"}
        device = peers.connect(f"{server.device_url}?team=red")
        device.send({"message_type": "register", "device_id": "blue-1"})
        assert device.receive() == {"error": "Not authorized"}


def test_shared_list_shows_each_caller_its_devices() -> None:
    """The list is rendered once for all callers, and each gets the part of its grant, before and after a change."""

    def by_team(ctx: AuthorizeContext) -> Grant | str:
        team = ctx.query.get("team")
        return Grant({"team": team}, devices=[f"*-{team}"]) if team else "operator"

    with SignalingServer(authorize=by_team) as server, peers_of(server) as peers:
        names = [f"{number:03}-{team}" for number in range(20) for team in ("red", "blue")]
        for count, name in enumerate(names, 1):
            peers.device(name, {"group_id": name})
            if count % 10:
                continue
            for _ in range(2):
                for team in ("", "red", "blue", "green", "red"):
                    mine = sorted(name for name in names[:count] if name.endswith(team))
                    listing = f"{server.url}/devices?team={team}"
                    assert json.load(urllib.request.urlopen(f"{listing}&format=ids")) == mine
                    full = [{"device_id": name, "group_name": name, "adb_port": 0} for name in mine]
                    assert json.load(urllib.request.urlopen(listing)) == full
                    one = names[0] if names[0] in mine else None
                    of_group = json.load(urllib.request.urlopen(f"{listing}&format=ids&groupId={names[0]}"))
                    assert of_group == [one] * (one is not None)


def test_token_may_map_to_grant() -> None:
    tokens = StaticTokens({"s3cret": Grant("alice", devices=["alice-*"])}, roles=["http"])
    with SignalingServer(authorize=tokens) as server, peers_of(server) as peers:
        for name in ("alice-1", "bob-1"):
            peers.device(name)
        request = urllib.request.Request(f"{server.url}/devices?format=ids", headers={"Authorization": "Bearer s3cret"})
        assert json.load(urllib.request.urlopen(request)) == ["alice-1"]


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ("alice-*", "must be a list of strings, got 'alice-\\*'"),
        ([1], "must be a list of strings, got 1 in it"),
        ([None], "must be a list of strings, got None in it"),
        ([""], "'' is empty or has spaces around it"),
        (["alice-1 "], "'alice-1 ' is empty or has spaces around it"),
        (7, "must be a list of strings, got 7"),
    ],
)
def test_invalid_grant_is_config_error(devices: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"Grant\.devices: {words}"):
        Grant("alice", devices=devices)


@both
def test_polled_connection_belongs_to_the_identity_that_opened_it(way: Any) -> None:
    def by_query(ctx: AuthorizeContext) -> Grant | None:
        name = ctx.query.get("as")
        return Grant({"name": name}, devices=["cvd-*"]) if name else None

    with SignalingServer(authorize=way(by_query)) as server, peers_of(server) as peers:
        device = peers.device()
        status, answer = request_json(server, "/polled_connections?as=alice", {"device_id": "cvd-1"})
        assert status == 200
        number = answer["connection_id"]
        device.send({"message_type": "forward", "client_id": 1, "payload": "for alice"})
        body = {"connection_id": number, "payload": "up"}
        current = (404, {"error": "Unknown connection"})
        reference = (401, {"error": "Error: Unknown connection ID", "type": "error"})
        for query in ("", "?as=mallory"):
            assert request_json(server, f"/polled_connections/{number}/:forward{query}", body) == current
            assert request_json(server, f"/polled_connections/{number}/messages{query}") == current
            assert request(server, "HEAD", f"/polled_connections/{number}/messages{query}").status == 404
            for path in ("/forward", "/poll_messages"):
                assert request_json(server, f"{path}{query}", body) == reference
        assert server.stats().accepted == 1, "no forward of another identity"
        assert request_json(server, f"/polled_connections/{number}/:forward?as=alice", body) == (200, "ok")
        assert device.receive()["payload"] == "up"
        assert request_json(server, "/poll_messages?as=alice", body) == (200, ["for alice"])


def test_each_token_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a comparison tells neither which token matches nor whether one does."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append((known, given))
        return known == given

    monkeypatch.setattr("cuttlefish_signaling._tokens.hmac.compare_digest", compare)
    with SignalingServer(authorize=StaticTokens(["first", "second", "third"])) as server:
        for token, status in (("first", 200), ("third", 200), ("x" * 99, 401)):
            compared.clear()
            assert request(server, "GET", "/devices", Authorization=f"Bearer {token}").status == status
            assert len(compared) == 3
            assert {len(digest) for pair in compared for digest in pair} == {32}
