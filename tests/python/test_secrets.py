"""Secrets are in no error, `repr`, log line, list or metric, and not in the process list (SECURITY.md)."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from cuttlefish_signaling import (
    AuthorizeContext,
    ConfigError,
    Grant,
    Headers,
    IceServer,
    Peer,
    SignalingServer,
    StaticTokens,
    TurnRest,
    _native,
)
from cuttlefish_signaling.cli import main, secrets

from http_requests import request, request_json
from peers import peers_of
from test_cli import register, serve

CANARY = "cAnArY-0123456789"

# The command line -----------------------------------------------------------------------------------------------------

DOCUMENT = f'turn = ["turn:t"]\nturn_secret = "{CANARY}"\n[limits]\nmax_devices = 5\n'


def test_error_of_faulty_toml_names_the_place_without_quoting_it() -> None:
    """Each edit of one character, at each place."""
    errors = []
    for at in range(len(DOCUMENT)):
        for edited in (DOCUMENT[at], "", "\n", '"', "=", "[", "\\", "\x00", "\u00e9"):
            text = DOCUMENT[:at] + edited + DOCUMENT[at + (edited == "") :]
            try:
                _native.toml_to_json(text)
            except ValueError as error:
                errors.append(str(error))
    assert len(errors) > 400
    # An edit within the secret leaves a half of it.
    quoting = [error for error in errors if CANARY[:9] in error or CANARY[9:] in error]
    assert quoting == []
    assert [error for error in errors if not error.startswith("line ")] == []


@pytest.mark.parametrize(
    "text",
    [
        f'turn = ["turn:t"]\nturn_secret = "{CANARY}\n',
        f'turn_secret = ["{CANARY}"]\n',
        f'turn_secret = {{ value = "{CANARY}" }}\n',
        f'turn_secret = "{CANARY}"\nturn_secret = "{CANARY}"\n',
        f'ice_servers = {{ urls = "turn:t", username = "u", credential = ["{CANARY}"] }}\n',
        f'ice_servers = [{{ urls = "turn:t", username = "u", credential = ["{CANARY}"] }}]\n',
        f'ice_servers = [{{ urls = "turn:u:{CANARY}@t" }}]\n',
        f'ice_servers = "{{{CANARY}"\n',
        f'stun = ["stun:u:{CANARY}@t"]\n',
    ],
)
def test_error_of_config_file_has_no_secret(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    assert main(["serve", "--no-tls", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("cuttlefish-signaling: error: ")
    assert CANARY not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--turn-sercet", CANARY],
        [f"--turn-sercet={CANARY}"],
        [f"--turn-secre={CANARY}"],
        ["--turn-secret", "half", CANARY],
        ["--ice-servers", f'{{"credential": "{CANARY}"}}'],
        ["--ice-servers", CANARY],
    ],
)
def test_error_of_command_line_has_no_secret(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["serve", *arguments])
    except SystemExit as ended:
        status = int(ended.code or 0)
    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("cuttlefish-signaling: error: ")
    assert CANARY not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--turn", "turn:t", "--turn-secret", CANARY],
        [f"--turn-secret={CANARY}", "--turn", "turn:t"],
        ["--ice-servers", f'[{{"urls": "turn:t", "username": "u", "credential": "{CANARY}"}}]'],
    ],
)
def test_process_list_has_no_secret(arguments: list[str]) -> None:
    with serve("--no-tls", *arguments) as served:
        listed = Path(f"/proc/{served.process.pid}/cmdline").read_bytes()
        assert b"serve" in listed
        assert CANARY.encode() not in listed
        assert register(served.devices)["ice_servers"]
        assert CANARY not in served.ends()[1]


def test_password_of_an_engine_is_neither_listed_nor_logged() -> None:
    engine = f"redis://user:{CANARY}@127.0.0.1:1"  # No server listens there: the node serves alone, and says so.
    with serve("--no-tls", f"--cluster={engine}", "--node=a") as served:
        listed = Path(f"/proc/{served.process.pid}/cmdline").read_bytes()
        assert b"--cluster=" in listed
        assert CANARY.encode() not in listed
        assert register(served.devices)["ice_servers"] == []
        log = served.ends()[1]
        assert "127.0.0.1:1" in log
        assert CANARY not in log


def test_warning_where_arguments_cannot_be_overwritten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(secrets, "_overwrite", lambda _: False)
    secrets.hide_arguments([None, "@file"])
    assert caplog.text == ""
    secrets.hide_arguments([CANARY])
    assert "use --turn-secret-file" in caplog.text
    assert CANARY not in caplog.text


def test_turn_secret_is_read_from_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    with serve("--no-tls", "--turn", "turn:t.lab", "--turn-secret-file", str(file)) as served:
        turn: dict[str, str] = register(served.devices)["ice_servers"][0]  # type: ignore[index]
    expected = json.loads(
        TurnRest("turn:t.lab", secret="s3cret").config(now=float(turn["username"].split(":")[0]) - 3600)
    )
    assert turn == expected["ice_servers"][0]


def context(token: str) -> AuthorizeContext:
    """The argument of `authorize` for a client that sends a token."""
    headers = Headers([("authorization", f"Bearer {token}")])
    return AuthorizeContext("client", Peer("client", None, None, 0.0, "/", "", headers, None, None))


def test_tokens_are_read_from_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(
        "# comment\n\ns3cret alice a-* b-*\nt0ken\n0perator root +manage\nc4rol carol +manage a-*\n"
        "d4n dan a-* +exclusive\n"
    )
    hook = StaticTokens.from_file(file)
    granted = {token: hook(context(token)) for token in ("s3cret", "0perator", "c4rol", "d4n")}
    assert granted == {
        "s3cret": Grant("alice", devices=["a-*", "b-*"]),
        "0perator": Grant("root", manage=True),
        "c4rol": Grant("carol", devices=["a-*"], manage=True),
        "d4n": Grant("dan", devices=["a-*"], exclusive=True),
    }
    with SignalingServer(authorize=hook) as server, peers_of(server) as peers:
        for device in ("a-1", "c-1"):
            peers.device(device, additional_headers={"Authorization": "Bearer t0ken"})
        assert request(server, "GET", "/devices").status == 401
        listed = {
            token: [device["device_id"] for device in request(server, "GET", "/devices", Authorization=token).json]
            for token in ("Bearer s3cret", "Bearer t0ken")
        }
    assert listed == {"Bearer s3cret": ["a-1"], "Bearer t0ken": ["a-1", "c-1"]}


def test_token_file_protects_a_served_port(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("s3cret alice\n")
    with serve("--no-tls", "--token-file", str(file)) as served:
        with pytest.raises(Exception, match="401"), connect(served.clients):
            pass
        with connect(served.clients, additional_headers={"Authorization": "Bearer s3cret"}):
            pass


@pytest.mark.parametrize(
    ("flag", "content", "words"),
    [
        ("turn-secret-file", None, "turn-secret-file: cannot read"),
        ("turn-secret-file", b"", "turn-secret-file: FILE must have one line"),
        ("turn-secret-file", f"{CANARY}\n{CANARY}\n".encode(), "turn-secret-file: FILE must have one line"),
        ("turn-secret-file", f"\xff{CANARY}".encode("latin-1"), "turn-secret-file: cannot read FILE: it is not UTF-8"),
        ("token-file", None, "token-file: cannot read"),
        ("token-file", b"# none\n", "token-file: FILE has no token"),
        ("token-file", f"{CANARY} +manage\n".encode(), "token-file: FILE: line 1 needs an identity before +manage"),
        (
            "token-file",
            f"{CANARY} +exclusive\n".encode(),
            "token-file: FILE: line 1 needs an identity before +exclusive",
        ),
        ("token-file", f"{CANARY}\n{CANARY} a\n".encode(), "token-file: FILE: line 2 has the same token"),
    ],
)
def test_faulty_file_is_named_without_its_content(
    flag: str, content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    turn = ["--turn", "turn:t"] if flag == "turn-secret-file" else []
    assert main(["serve", "--no-tls", *turn, f"--{flag}", str(file)]) == 2
    said = capsys.readouterr().err
    assert words.replace("FILE", str(file)) in said
    assert CANARY not in said


def test_secret_in_two_places_is_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--turn", "turn:t", "--turn-secret", CANARY, "--turn-secret-file", str(tmp_path / "file")]
    assert main(["serve", *arguments]) == 2
    said = capsys.readouterr().err
    assert "--turn-secret-file: contradicts --turn-secret" in said
    assert CANARY not in said


# Python ---------------------------------------------------------------------------------------------------------------

AS_DICTIONARY: Any = {"urls": "turn:t", "username": "u", "credential": CANARY}
INVALID: Any = {**AS_DICTIONARY, "credential": [CANARY]}


@pytest.mark.parametrize(
    "make",
    [
        lambda: SignalingServer(ice_servers=INVALID),
        lambda: SignalingServer(ice_servers={"iceServers": INVALID}),
        lambda: SignalingServer(ice_servers=IceServer("turn", "u", CANARY)),
        lambda: IceServer("turn:t", "u", [CANARY]),  # type: ignore[arg-type]
        lambda: SignalingServer(ice_servers=[INVALID]),
        lambda: SignalingServer(ice_servers=AS_DICTIONARY | {"urls": f"turn:u:{CANARY}@t"}),
        lambda: SignalingServer(ice_servers=CANARY),  # type: ignore[arg-type]
        lambda: TurnRest("turn:t", secret=[CANARY]),  # type: ignore[arg-type]
        lambda: TurnRest("stun:t", secret=CANARY),
        lambda: StaticTokens([CANARY, ""]),
        lambda: StaticTokens(CANARY),
    ],
)
def test_error_of_invalid_value_has_no_secret(make: Callable[[], Any]) -> None:
    with pytest.raises((ConfigError, TypeError)) as caught:
        make()
    assert CANARY not in "".join(traceback.format_exception_only(caught.type, caught.value))


def test_no_answer_log_or_repr_has_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """A request with secrets in each place, on a server whose hooks fail, at the most verbose level."""
    caplog.set_level(logging.DEBUG, logger="cuttlefish_signaling")
    seen: list[Any] = []

    def authorize(context: Any) -> None:
        seen.append(context)

    def ice_servers(context: Any) -> Any:
        seen.append(context)
        return INVALID

    headers = {"Authorization": f"Bearer {CANARY}", "Cookie": f"a={CANARY}"}
    with SignalingServer(authorize=authorize, ice_servers=ice_servers, dashboard=True) as server:
        for path in ("/devices", "/infra_config", "/nowhere", "/metrics", "/healthz"):
            answer = request(server, "GET", f"{path}?token={CANARY}", None, headers)
            assert CANARY not in str(answer)
        socket = f"{server.device_url}?token={CANARY}"
        with connect(socket, additional_headers=headers, subprotocols=[f"bearer.{CANARY}"]) as device:  # type: ignore[list-item]
            device.send('{"message_type":"register","device_id":"a"}')
            assert "Internal error" in str(device.recv())
        assert request_json(server, "/connect", CANARY.encode())[0] == 400
        shown = [repr(item) for item in (seen, server, server.hook_errors, server.stats(), server.devices())]
        shown += [traceback.format_exception_only(failure.error)[0] for failure in server.hook_errors]
    assert seen[0].query == {"token": CANARY}
    assert len(server.hook_errors) == 2
    assert "token" not in repr(seen[0])
    assert CANARY not in "".join(shown)
    assert CANARY not in caplog.text
    assert "hook ice_servers failed" in caplog.text
