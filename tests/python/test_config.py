"""Invalid settings raise specific exceptions at once, and leave nothing running."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
import socket
import threading
import urllib.request
from typing import Any

import pytest

from cuttlefish_signaling import (
    BindError,
    ConfigError,
    IceServer,
    Keepalive,
    Limits,
    Refused,
    SignalingError,
    SignalingServer,
    TurnRest,
)


@pytest.mark.parametrize(
    ("settings", "setting", "text"),
    [
        ({"port": 70000}, "port", "between 0 and 65535, got 70000"),
        ({"port": -1}, "port", "between"),
        ({"port": "80"}, "port", "whole number, got '80'"),
        ({"port": True}, "port", "whole number"),
        ({"host": ""}, "host", "address or a name"),
        ({"host": 7}, "host", "address or a name"),
        ({"tls": True}, "tls", "must be a Tls or None"),
        ({"tls": "cert.pem"}, "tls", "must be a Tls or None"),
        ({"filter_device_info": 5}, "filter_device_info", "must be callable, got 5"),
        ({"authorize": "me"}, "authorize", "must be callable"),
        ({"ice_servers": 5}, "ice_servers", "expected a list of IceServer, got a value of type int"),
        ({"ice_servers": "stun:x"}, "ice_servers", "expected a list"),
        ({"ice_servers": {}}, "ice_servers", "expected a list, got an object without urls and without iceServers"),
        ({"ice_servers": [IceServer("ftp:x")]}, "ice_servers[0].urls[0]", 'unknown ICE scheme in "ftp:x"'),
        ({"ice_servers": [IceServer("stun:x"), IceServer([])]}, "ice_servers[1]", "urls is empty"),
        ({"ice_servers": [IceServer("turn:x")]}, "ice_servers[0]", "needs username and credential"),
        ({"ice_servers": [{"urls": ["stun:x", 7]}]}, "ice_servers[0].urls[1]", "expected a string, got a number"),
        ({"ice_servers": [{"urls": "stun:x", "user": "y"}]}, "ice_servers[0]", 'unknown key "user"'),
        ({"ice_servers": [{"urls": "stun:x", "username": 7}]}, "ice_servers[0]", "username must be a string"),
        ({"ice_servers": ["stun:x"]}, "ice_servers[0]", "expected an object"),
        ({"ice_servers": [{"urls": "stun:" + "x" * 70000}]}, "ice_servers", "a device takes at most 65536"),
        ({"device_wait_timeout": -1}, "device_wait_timeout", "got -1"),
        ({"device_wait_timeout": "1"}, "device_wait_timeout", "number of seconds or None"),
        ({"device_wait_timeout": float("nan")}, "device_wait_timeout", "number of seconds"),
        ({"on_duplicate": "ignore"}, "on_duplicate", "'reject' or 'replace'"),
        ({"devices_format": "xml"}, "devices_format", "must be 'full' or 'ids', got 'xml'"),
        ({"devices_format": None}, "devices_format", "'full' or 'ids'"),
        ({"hook_timeout": 0}, "hook_timeout", "a number of seconds, more than 0, got 0"),
        ({"hook_timeout": None}, "hook_timeout", "number of seconds"),
        ({"workers": 0}, "workers", "between 1 and 1024"),
        ({"stop_timeout": -2}, "stop_timeout", "0 or more, got -2"),
        ({"stop_timeout": float("inf")}, "stop_timeout", "at most 1000000000, got inf"),
        ({"hook_timeout": 10**400}, "hook_timeout", "at most 1000000000, got"),
        ({"limits": 5}, "limits", "must be Limits"),
        ({"limits": Limits(max_message_size=-1)}, "limits.max_message_size", "between"),
        ({"limits": Limits(max_message_size=5)}, "limits.max_message_size", "between 128 and"),
        ({"limits": Limits(client_window_messages=0)}, "limits.client_window_messages", "between"),
        ({"limits": Limits(outbox_bytes=100)}, "limits.outbox_bytes", "between 128 and"),
        ({"limits": Limits(outbox_bytes=1000)}, "limits.outbox_bytes", "at least max_message_size, which is 262144"),
        ({"limits": Limits(device_low_water=2**20 + 1)}, "limits.device_low_water", "at most device_high_water"),
        ({"limits": Limits(outbox_bytes=1.5)}, "limits.outbox_bytes", "whole number"),  # type: ignore[arg-type]
        ({"limits": Limits(first_message_timeout=0)}, "limits.first_message_timeout", "more than 0"),
        ({"limits": Limits(max_request_head=100)}, "limits.max_request_head", "between 8192 and"),
        ({"keepalive": Keepalive(interval=-1)}, "keepalive.interval", "more than 0"),
        ({"keepalive": Keepalive(timeout=0)}, "keepalive.timeout", "more than 0"),
        ({"keepalive": None}, "keepalive", "must be Keepalive"),
    ],
)
def test_invalid_setting_is_named(settings: dict[str, Any], setting: str, text: str) -> None:
    threads = threading.active_count()
    with pytest.raises(ConfigError) as caught:
        SignalingServer(**settings).start()
    assert caught.value.setting == setting
    assert text in caught.value.what
    assert str(caught.value) == f"{setting}: {caught.value.what}"
    assert isinstance(caught.value, ValueError)
    assert threading.active_count() == threads


def test_settings_are_keyword_only_and_unknown_names_are_errors() -> None:
    with pytest.raises(TypeError):
        SignalingServer("127.0.0.1")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="prot"):
        SignalingServer(prot=80)  # type: ignore[call-arg]


def test_port_in_use_is_bind_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=rf"port: cannot listen on 127\.0\.0\.1:{port}: Address") as caught:
            SignalingServer(port=port).start()
        assert isinstance(caught.value, OSError)
        assert caught.value.errno == 98
        with SignalingServer() as first, pytest.raises(BindError):
            SignalingServer(port=first.port).start()


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid", "a b"])
def test_nonlocal_host_is_bind_error(host: str) -> None:
    with pytest.raises(BindError, match="host"):
        SignalingServer(host=host, allow_unauthenticated=True).start()


def test_invalid_ice_servers_at_run_time_keep_current_ones() -> None:
    with SignalingServer(ice_servers=[IceServer("stun:old")]) as server:
        with pytest.raises(ConfigError, match="unknown ICE scheme"):
            server.set_ice_servers([IceServer("x:y")])
        with urllib.request.urlopen(f"{server.url}/infra_config", timeout=20) as answer:
            assert json.load(answer) == {"message_type": "config", "ice_servers": [{"urls": ["stun:old"]}]}


@pytest.mark.parametrize(
    "url",
    [
        "stun:h",
        "stun:h:1",
        "stuns:h:65535",
        "turn:h?transport=udp",
        "turns:[::1]:5349?transport=tcp",
        "stun:[2001:db8::1]",
    ],
)
def test_valid_ice_urls_are_accepted(url: str) -> None:
    SignalingServer(ice_servers=[IceServer(url, username="u", credential="c")])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "stun",
        "stun:",
        "stun::5",
        "stun://h",
        "turn:h:0",
        "turn:h:65536",
        "turn:h:x",
        "turn:h?transport=sctp",
        "stun:h?transport=udp",
        "turn:a@b",
        "STUN h",
        "stun:[::1",
        "stun:h h",
        "http://h",
    ],
)
def test_invalid_ice_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ice_servers\[0\]\.urls\[0\]"):
        SignalingServer(ice_servers=[IceServer(url, username="u", credential="c")])


def test_turn_credentials_match_coturn() -> None:
    turn = TurnRest(["turn:t.lab:3478", "turns:t.lab:5349"], secret="s3cret", ttl=600, name="lab", stun=["stun:s.lab"])
    stun, relay = json.loads(turn.config(now=1_000_000))["ice_servers"]
    assert stun == {"urls": ["stun:s.lab"]}
    password = base64.b64encode(hmac.new(b"s3cret", b"1000600:lab", hashlib.sha1).digest()).decode()
    assert relay == {"urls": ["turn:t.lab:3478", "turns:t.lab:5349"], "username": "1000600:lab", "credential": password}
    # A fixed value, since the line above only compares two implementations.
    assert password == "e2THXFCoygDvqH5QhaRdAcyImRQ="


def test_secrets_are_not_in_repr_or_errors() -> None:
    turn = TurnRest("turn:t.lab", secret="s3cret")
    server = IceServer("turn:t.lab", username="u", credential="s3cret")
    for text in (repr(turn), str(turn), repr(server), repr(SignalingServer(ice_servers=turn))):
        assert "s3cret" not in text
    with pytest.raises(ConfigError) as caught:
        TurnRest("stun:x", secret="s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"urls": "turn:x", "secret": ""}, "TurnRest.secret"),
        ({"urls": "turn:x", "secret": "s", "ttl": 0}, "TurnRest.ttl"),
        ({"urls": "turn:x", "secret": "s", "ttl": -5}, "TurnRest.ttl"),
        ({"urls": "stun:x", "secret": "s"}, "TurnRest.urls"),
        ({"urls": [], "secret": "s"}, "TurnRest"),
        ({"urls": "turn:", "secret": "s"}, "TurnRest"),
        ({"urls": "turn:x", "secret": "s", "stun": ["turn:y"]}, "TurnRest.stun"),
    ],
)
def test_invalid_turn_rest_is_config_error(arguments: dict[str, Any], setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TurnRest(**arguments)
    assert setting in str(caught.value)


def test_exceptions_share_base_class_and_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("port", "is odd")))
    assert (error.setting, error.what) == ("port", "is odd")
    assert issubclass(ConfigError, SignalingError)
    assert issubclass(BindError, SignalingError)
    with pytest.raises(ConfigError, match="must be 401 or 403, got 200"):
        Refused("x", status=200)
