"""The client of the control API: its requests, and the errors for servers that answer in another way."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from scripted_control import Answer, answer, scripted

from cuttlefish_signaling import (
    ConfigError,
    ControlError,
    JournalOffError,
    NodeUnreachableError,
    NotRunningError,
    RemoteServer,
    RestartRequiredError,
    SignalingError,
    UnreachableError,
)
from cuttlefish_signaling._remote.connection import _is_readable

from peers import wait_until


@contextmanager
def raw_server(reply: bytes) -> Iterator[str]:
    """A server that sends these bytes to each connection and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# Requests -------------------------------------------------------------------------------------------------------------


def test_requests_have_token_host_and_no_origin() -> None:
    with scripted() as script, RemoteServer(script.url, token="abcdefgh12345678") as server:
        assert server.urls == ["http://127.0.0.1:1"]
        assert server.device_url == "ws://127.0.0.1:1/register_device"
        assert server.client_url == "ws://127.0.0.1:1/connect_client"
        assert server.version == "9.9.9"
    (headers,) = script.headers
    assert headers["Authorization"] == "Bearer abcdefgh12345678"
    assert headers["Host"] == script.url.removeprefix("http://")
    assert not {"Origin", "Sec-Fetch-Site", "Content-Type"} & set(headers)


def test_connection_is_used_again_and_replaced_when_the_server_has_closed_it() -> None:
    with scripted() as script, RemoteServer(script.url) as server:
        script.answers["GET /clock"] = lambda: answer(200, {"now": 1.5, "frozen": False})
        assert [server.clock.now for _ in range(3)] == [1.5] * 3
        assert script.connections == 1
        script.answers["GET /clock"] = lambda: answer(200, {"now": 2.5, "frozen": False}, Connection="close")
        assert [server.clock.now for _ in range(3)] == [2.5] * 3
        assert script.connections == 3


def test_connection_that_the_server_has_closed_silently_is_not_used_again() -> None:
    with scripted() as script:
        script.closes = True
        for request in ("POST /clock/freeze", "POST /clock/resume", "GET /clock"):
            script.answers[request] = lambda: answer(200, {"now": 1.5, "frozen": True})
        with RemoteServer(script.url) as server:
            for number in range(2, 22, 2):
                assert server.clock.now == 1.5
                wait_until(lambda: _is_readable(server._running().connection._idle[0].sock))
                server.clock.freeze()
                assert script.connections >= number + 1
        assert script.requests.count("POST /clock/freeze") == 10


def test_fork_has_connections_of_its_own() -> None:
    with scripted() as script, RemoteServer(script.url) as server:
        script.answers["GET /clock"] = lambda: answer(200, {"now": 1.5, "frozen": False})
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if server.clock.now == 1.5 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert script.connections == 2
        assert server.clock.now == 1.5
        assert script.connections == 2, "the connection of this process is as before"


def test_ids_are_encoded_in_paths() -> None:
    with scripted() as script, RemoteServer(script.url) as server:
        for device_id in ("a/../b", "ü?#", ".."):
            assert server._running().device(device_id) is None
            assert not server.disconnect_device(device_id)
        assert not server.disconnect_device("")
        assert server.clients("") == []
    assert [request for request in script.requests if request.startswith("DELETE")] == [
        "DELETE /devices/a%2F..%2Fb",
        "DELETE /devices/%C3%BC%3F%23",
        "DELETE /devices/..",
    ]


def test_lists_are_read_page_by_page() -> None:
    def device(name: str) -> dict[str, Any]:
        names = ("address", "port", "identity", "web_port", "node", "local_id")
        texts = {"group": "", "owner": "", "name": "", "adb_port": 0}
        return {**dict.fromkeys(names), **texts, "device_id": name, "since": 1.0, "clients": 0, "info": "[1.10]"}

    def page(entries: list[int], following: int, more: bool) -> Callable[[], Answer]:
        entry = {
            "at": 1.0,
            "closed": False,
            "direction": "device->client",
            "device": "d",
            "client": 1,
            "connection": 0,
            "message_type": "forward",
            "text": "{}",
            "payload": "1.10",
            "outcome": "passed",
            "faults": ["delay"],
            "rewritten": 2,
        }
        found = [{**entry, "number": number} for number in entries]
        facts = {"entries": found, "next": following, "more": more, "count": 9, "forgotten": 1}
        return lambda: answer(200, facts)

    with scripted() as script, RemoteServer(script.url) as server:
        script.answers["GET /devices?info=true"] = lambda: answer(200, {"devices": [device("a")], "next": "a b"})
        script.answers["GET /devices?after=a+b&info=true"] = lambda: answer(
            200, {"devices": [device("c")], "next": None}
        )
        assert [(one.device_id, one.info_json) for one in server.devices()] == [("a", "[1.10]"), ("c", "[1.10]")]
        script.answers["GET /journal?after=0&closed=false&type=x"] = page([2, 3], 5, True)
        script.answers["GET /journal?after=5&closed=false&type=x"] = page([], 7, True)
        script.answers["GET /journal?after=7&closed=false&type=x"] = page([8], 9, False)
        entries = server.journal.messages("x", check_type=False)
        assert [entry.number for entry in entries] == [2, 3, 8]
        assert (entries[0].raw, entries[0].faults, entries[0].rewritten) == ("1.10", ("delay",), 2)


def test_faults_are_posted_in_seconds_with_their_filters() -> None:
    with scripted() as script, RemoteServer(script.url) as server:
        script.answers["POST /faults"] = lambda: answer(201, {"id": 4})
        script.answers["GET /changes"] = lambda: answer(200, {"changes": 1})
        faults = server.faults
        faults.drop(to="client", type="x", nth=2, check_type=False).arm()
        faults.delay(1500, jitter=250).arm()
        faults.reorder(3).arm()
        faults.stall().arm()
        faults.truncate(0.25, probability=0.5, times=3).arm()
        faults.bandwidth(9000).arm()
        faults.disconnect(2, code=4000, client=7).arm()
        faults.reset().arm()
    assert [body for body in script.bodies if body is not None] == [
        {"fault": "drop", "to": "client", "type": "x", "nth": 2},
        {"fault": "delay", "by": 1.5, "jitter": 0.25},
        {"fault": "reorder", "window": 3, "hold": 0.5},
        {"fault": "stall"},
        {"fault": "truncate", "keep": 0.25, "probability": 0.5, "times": 3},
        {"fault": "bandwidth", "bytes_per_s": 9000.0},
        {"fault": "disconnect", "code": 4000, "client": 7, "nth": 2},
        {"fault": "reset", "nth": 1},
    ]
    assert script.requests[-1] == "DELETE /faults/4", "the end of the `with` disarms"


def test_a_request_that_the_server_has_no_room_for_is_repeated() -> None:
    with scripted() as script, RemoteServer(script.url) as server:
        answers = [
            answer(503, {"error": "busy", "code": "busy"}, Retry_After="0.001"),
            answer(429, {"error": "too fast", "code": "too_fast"}, Retry_After="0.001"),
            answer(200, {"now": 3.0, "frozen": False}),
        ]
        script.answers["GET /clock"] = lambda: answers.pop(0)
        assert server.clock.now == 3.0
        assert script.requests.count("GET /clock") == 3
    with scripted() as script, RemoteServer(script.url, timeout=1) as server:
        script.answers["GET /clock"] = lambda: answer(503, {"error": "full", "code": "busy"}, Retry_After="60")
        with pytest.raises(ControlError, match="full") as raised:
            _ = server.clock.now
    assert (raised.value.code, raised.value.status) == ("busy", 503)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.code, again.status) == (str(raised.value), "busy", 503)


# Errors of the API ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (
            409,
            {"code": "config", "setting": "--port", "error": "'x' is no port"},
            ConfigError,
            "--port: 'x' is no port",
        ),
        (409, {"code": "restart_required", "settings": ["port"]}, RestartRequiredError, "port: cannot change while"),
        (504, {"code": "node_unreachable", "node": "n2", "error": "gone"}, NodeUnreachableError, "node 'n2': gone"),
        (404, {"code": "journal_off"}, JournalOffError, "start it with --journal"),
        (503, {"code": "stopping"}, NotRunningError, "is stopping"),
        (400, {"code": "bad_request", "path": "$.times", "error": "is 0"}, ControlError, r"\$.times: is 0"),
        (400, {"code": "bad_request", "error": "\x1b[2J"}, ControlError, r"\\x1b\[2J"),
        (418, {"code": "teapot"}, ControlError, "status 418"),
        (401, {"code": "token_missing"}, ControlError, "asks for a token: give token_file .--control-token-file, "),
        (401, {"code": "token_wrong"}, ControlError, "the token is another one: give token_file .--control-token-file"),
        (500, ["no object"], UnreachableError, "no control API .status 500"),
        (404, {"code": "unknown_version", "version": "7.0.0"}, UnreachableError, "cuttlefish-signaling 7.0.0 at .*use"),
    ],
)
def test_errors_of_the_api_are_those_of_the_package(
    status: int, body: Any, kind: type[SignalingError], text: str
) -> None:
    with scripted() as script, RemoteServer(script.url) as server:
        script.answers["GET /clock"] = lambda: answer(status, body)
        with pytest.raises(kind, match=text) as raised:
            _ = server.clock.now
    assert type(raised.value) is kind


def test_server_that_was_started_again_is_told_once() -> None:
    with scripted() as script, RemoteServer(script.url) as server:
        clock = server.clock
        hello = {"api": 1, "journal": False, "cluster": False}
        script.answers["GET "] = lambda: answer(200, hello, Cuttlefish_Instance="b2")
        script.answers["GET /clock"] = lambda: answer(200, {"now": 4.0, "frozen": False}, Cuttlefish_Instance="b2")
        with pytest.raises(NotRunningError, match="has been started again: its journal, faults and clock are others"):
            _ = clock.now
        assert server.clock.now == 4.0, "a new view is of the new run"
        with pytest.raises(JournalOffError):
            _ = server.journal


# Other servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hello", "text"),
    [
        ({"api": 2, "version": "3.0.0"}, "of cuttlefish-signaling 3.0.0 at .* has another version of the control API"),
        ({"api": "1"}, "is no control API .status 200.: give the address of the server's --control-api"),
    ],
)
def test_other_versions(hello: dict[str, Any], text: str) -> None:
    with scripted(**hello) as script, pytest.raises(UnreachableError, match=text):
        RemoteServer(script.url)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"SSH-2.0-x\r\n", "does not speak HTTP: give the address"),
        (b"", "closed the connection without an answer; for an address with TLS, write https:"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is no control API"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found", "is no control API .status 404."),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "the server ended in the middle of its answer"),
    ],
)
def test_servers_that_are_no_control_api(reply: bytes, text: str) -> None:
    with raw_server(reply) as url, pytest.raises(UnreachableError, match=text):
        RemoteServer(url)


def test_addresses_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(
        UnreachableError, match=r"no server listens there .Connection refused.: start it with --control"
    ):
        RemoteServer(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnreachableError, match="no server listens there .No such file or directory."):
        RemoteServer(f"unix:{tmp_path}/none")
    with scripted() as script, pytest.raises(UnreachableError, match=r"does not speak TLS: .*; write http:"):
        RemoteServer(script.url.replace("http:", "https:"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(UnreachableError, match=r"did not answer within 0.01 s"):
            RemoteServer(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.01)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"control_url": "localhost"}, "control_url: 'localhost' is not a listener: write http://HOST:PORT, "),
        ({"control_url": "http://127.0.0.1:0"}, "control_url: .* has the port 0: give the port that the server prints"),
        ({"control_url": 5}, "control_url: must be a string, got 5"),
        ({"token": "s e c"}, "token: must have one token"),
        ({"token": 5}, "token: must be a string, got a value of type int"),
        ({"token_file": "/nowhere"}, "token_file: cannot read /nowhere: No such file or directory; `serve --control"),
        ({"token_file": "/dev/null"}, "token_file: /dev/null must have one token"),
        ({"token": "x" * 16, "token_file": "y"}, "token_file: contradicts token: give one of them"),
        (
            {"control_url": "http://lab:9000", "token": "x" * 16},
            "control_url: http://lab:9000 would send the token in plain text to another machine: write https:",
        ),
        ({"timeout": 0}, "timeout: must be a number of seconds, more than 0, got 0"),
        ({"ssl_context": "ca.pem"}, "ssl_context: must be an ssl.SSLContext or None, got 'ca.pem'"),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as raised:
        RemoteServer(**{"control_url": "http://127.0.0.1:1", **arguments})
    assert "s e c" not in str(raised.value) and "x" * 16 not in str(raised.value)


# Streams --------------------------------------------------------------------------------------------------------------


def test_stream_that_breaks_is_an_error() -> None:
    with scripted() as script, RemoteServer(script.url) as server:
        whole = b'10\r\n{"event":"alive"\r\n2\r\n}\n\r\n'
        broken = (200, {"Transfer-Encoding": "chunked"}, whole)
        script.answers["GET /watch"] = lambda: broken
        events = server.watch()
        assert next(events) == {"event": "alive"}
        with pytest.raises(UnreachableError, match="the server ended in the middle of its answer"):
            next(events)
        script.answers["GET /watch"] = lambda: (200, {"Transfer-Encoding": "chunked"}, whole + b"0\r\n\r\n")
        assert list(server.watch()) == [{"event": "alive"}]
        script.answers["GET /watch?device=x&messages=false&after=3"] = lambda: answer(401, {"code": "token_wrong"})
        with pytest.raises(ControlError, match="the token is another one"):
            next(server.watch(device="x", messages=False, after=3))
