"""Files of tokens: TOML and JSON with a grant for each token."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import AuthorizeContext, ConfigError, Grant, Refused, SignalingServer, StaticTokens
from cuttlefish_signaling._checks import MAX_SECONDS
from cuttlefish_signaling._models import Headers, Peer

from http_requests import request

CANARY = "c4n4ryt0k3n"

TOML = """\
needed_for = ["client", "http"]

[[tokens]]
token = "0perator"
identity = "operator"

[[tokens]]
sha256 = "{hashed}"
identity = {{ name = "alice", team = "red" }}
devices = ["alice-*", "shared-1"]
manage = true
roles = ["client"]
expires = 2100-01-01T00:00:00Z

[[tokens]]
token = "0ld"
expires = 1999-12-31T23:59:59+01:00

[[tokens]]
token = "n4t"
advertise_address = ["172.17.0.2=192.0.2.7"]
"""


def context(token: str, role: Any = "client") -> AuthorizeContext:
    """The argument of `authorize` for a peer that sends a token."""
    headers = Headers([("authorization", f"Bearer {token}")])
    return AuthorizeContext(role, Peer(role, None, None, 0.0, "/", "", headers, None, None))


def outcome(tokens: StaticTokens, token: str, role: Any = "client") -> Any:
    try:
        return tokens(context(token, role))
    except Refused as refused:
        return refused.status, refused.reason


def written(folder: Path, name: str) -> Path:
    """Writes the document in a format, and returns its path."""
    text = TOML.format(hashed=hashlib.sha256(b"s3cret").hexdigest())
    path = folder / f"tokens.{name}"
    if name == "json":
        entries = [
            {"token": "0perator", "identity": "operator"},
            {
                "sha256": hashlib.sha256(b"s3cret").hexdigest().upper(),
                "identity": {"name": "alice", "team": "red"},
                "devices": ["alice-*", "shared-1"],
                "manage": True,
                "roles": ["client"],
                "expires": "2100-01-01T00:00:00Z",
            },
            {"token": "0ld", "expires": "1999-12-31T23:59:59+01:00"},
            {"token": "n4t", "advertise_address": ["172.17.0.2=192.0.2.7"]},
        ]
        text = json.dumps({"needed_for": ["client", "http"], "tokens": entries})
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["toml", "json"])
def test_each_token_has_its_grant(tmp_path: Path, name: str) -> None:
    tokens = StaticTokens.from_file(written(tmp_path, name))
    alice = Grant({"name": "alice", "team": "red"}, devices=["alice-*", "shared-1"], manage=True)
    granted = outcome(tokens, "s3cret")
    assert granted.valid_for == MAX_SECONDS, "2100 is further away than a grant may last"
    assert outcome(tokens, "0perator") == "operator"
    assert replace(granted, valid_for=None) == alice
    assert outcome(tokens, "s3cret", "http") == (403, "This token is not for the role 'http'")
    assert outcome(tokens, "0ld") == (401, "This token has expired")
    assert outcome(tokens, "n4t") == Grant(None, advertise_address=["172.17.0.2=192.0.2.7"])
    assert outcome(tokens, hashlib.sha256(b"s3cret").hexdigest()) == (401, "This token is not known")
    assert outcome(tokens, "", "device") is None, "devices need no token here"


def test_token_expires_at_its_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens.toml").write_text(
        '[[tokens]]\ntoken = "t0ken"\nidentity = "ann"\nexpires = "2030-01-01T00:00:10Z"\n'
    )
    tokens = StaticTokens.from_file(tmp_path / "tokens.toml")
    monkeypatch.setattr("cuttlefish_signaling._tokens.time.time", lambda: 1893456009.9)
    assert outcome(tokens, "t0ken") == Grant("ann", valid_for=1893456010 - 1893456009.9)
    monkeypatch.setattr("cuttlefish_signaling._tokens.time.time", lambda: 1893456010.0)
    assert outcome(tokens, "t0ken") == (401, "This token has expired")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("toml", "", "FILE has no token; write an entry of `tokens` for each"),
        ("toml", f'a = {CANARY}"', "FILE: line 1, column 5: "),
        ("toml", f'{CANARY} = "alice"', "FILE: line 1: has an unknown key; there are tokens, needed_for"),
        (
            "toml",
            f'[tokens]\n{CANARY} = "alice"',
            "FILE: line 1: tokens: must be an array of tables: write `[[tokens]]`",
        ),
        ("toml", 'needed_for = ["all"]', "FILE: line 1: needed_for: 'all' is not one of 'device', 'client', 'http'"),
        ("toml", 'needed_for = "http"', "FILE: line 1: needed_for: must be a list of strings, got 'http'"),
        ("toml", '[[tokens]]\nidentity = "a"', "FILE: line 1: tokens[0]: needs `token` or `sha256`, and not both"),
        ("toml", f'[[tokens]]\ntoken = "{CANARY}"\nsha256 = "{"0" * 64}"', "FILE: line 1: tokens[0]: needs `token` or"),
        (
            "toml",
            "[[tokens]]\n\ntoken = 7",
            "FILE: line 3: tokens[0].token: must be a string that is not empty and has",
        ),
        ("toml", f'[[tokens]]\ntoken = "{CANARY} x"', "FILE: line 2: tokens[0].token: must be a string that is not"),
        (
            "toml",
            f'[[tokens]]\nsha256 = "{CANARY}"',
            "FILE: line 2: tokens[0].sha256: must be the SHA-256 of the token",
        ),
        (
            "toml",
            f'[[tokens]]\ntoken = "a"\n{CANARY} = 1',
            "FILE: line 3: has an unknown key; there are token, sha256,",
        ),
        (
            "toml",
            '[[tokens]]\ntoken = "a"\ndevices = "x"',
            "FILE: line 3: tokens[0].devices: must be a list of strings",
        ),
        ("toml", '[[tokens]]\ntoken = "a"\nmanage = 1', "FILE: line 3: tokens[0].manage: must be True or False, got 1"),
        ("toml", '[[tokens]]\ntoken = "a"\nidentity = true', "FILE: line 3: tokens[0].identity: must be a name"),
        (
            "toml",
            '[[tokens]]\ntoken = "a"\nroles = ["x"]',
            "FILE: line 3: tokens[0].roles: 'x' is not one of 'device',",
        ),
        (
            "toml",
            '[[tokens]]\ntoken = "a"\nexpires = 7',
            "FILE: line 3: tokens[0].expires: must be a time with its offset",
        ),
        (
            "toml",
            '[[tokens]]\ntoken = "a"\nexpires = 2030-01-01',
            "FILE: line 3: tokens[0].expires: must be a time with",
        ),
        (
            "toml",
            '[[tokens]]\ntoken = "a"\nadvertise_address = ["x"]',
            "FILE: line 3: tokens[0].advertise_address: ",
        ),
        (
            "toml",
            f'[[tokens]]\ntoken = "{CANARY}"\n[[tokens]]\ntoken = "{CANARY}"',
            "FILE: line 3: tokens[1] has the same token as an entry before it",
        ),
        ("json", "[]", 'FILE must be an object, like {"tokens": '),
        ("json", '{"tokens": [\n{"token": "a",}\n]}', "FILE: line 2, column "),
        ("json", '{"tokens": [], "tokens": []}', "FILE has an object with the same key twice"),
        ("json", '{"tokens": [{"token": "a"},\n {"token": ""}]}', "FILE: line 2: tokens[1].token: must be a string"),
        ("json", '{"tokens": [{"token": "a", "identity": NaN}]}', "FILE: line 1: tokens[0].identity: must be a name"),
        ("json", '{"tokens": ' + "[" * 100_000, "FILE"),
    ],
)
def test_error_names_line_and_key_and_has_no_token(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / f"tokens.{name}"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        StaticTokens.from_file(path)
    said = str(raised.value)
    assert said.startswith(f"StaticTokens.from_file: {words.replace('FILE', str(path))}"), said
    assert CANARY not in said


@pytest.mark.parametrize("path", [7, None, b"\x00", "\x00"])
def test_value_that_is_no_path_is_config_error(path: Any) -> None:
    with pytest.raises(ConfigError, match=r"StaticTokens\.from_file: "):
        StaticTokens.from_file(path)


def test_file_is_read_again_and_an_error_keeps_the_old_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text('[[tokens]]\ntoken = "first"\n')
    tokens = StaticTokens.from_file(path)
    with SignalingServer(authorize=tokens) as server:

        def statuses() -> list[int]:
            given = ("first", "second")
            return [request(server, "GET", "/devices", Authorization=f"Bearer {token}").status for token in given]

        assert (statuses(), tokens.reload()) == ([200, 401], False)
        path.write_text('[[tokens]]\ntoken = "second"\n')
        assert (statuses(), tokens.reload(), statuses()) == ([200, 401], True, [401, 200])
        path.write_text("[[tokens]]\n")
        with pytest.raises(ConfigError, match="needs `token` or `sha256`"):
            tokens.reload()
        assert statuses() == [401, 200]
        path.write_text('[[tokens]]\ntoken = "first"\n')
        assert server.reload(authorize=StaticTokens.from_file(path)) == ["authorize"]
        assert statuses() == [200, 401]
    with pytest.raises(ConfigError, match=r"StaticTokens\.reload: these tokens come from no file"):
        StaticTokens(["x"]).reload()


def test_repr_has_no_token(tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text(f'[[tokens]]\ntoken = "{CANARY}"\n')
    tokens = StaticTokens.from_file(tmp_path / "tokens.toml")
    assert repr(tokens) == "<StaticTokens: 1>"
    assert CANARY not in repr(vars(tokens))
