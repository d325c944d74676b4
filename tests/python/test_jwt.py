"""JSON Web Tokens: requests with a token that another program has issued (docs/tokens.md)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from cuttlefish_signaling import ConfigError, Jwt, SignalingServer, StaticTokens
from cuttlefish_signaling.cli import main

from http_requests import request
from openssl_command import openssl
from peers import peers_of, replace_file
from test_renewed_certificate import until

SECRET = b"0123456789abcdef0123456789abcdef"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(secret: bytes = SECRET, header: Any = None, **claims: Any) -> str:
    """A token that expires in an hour, unless the claims say something else."""
    claims = {"sub": "alice", "exp": time.time() + 3600, **claims}
    signed = f"{b64(json.dumps(header or {'alg': 'HS256'}).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def key_file(folder: Path, *secrets: bytes, name: str = "jwks.json") -> Path:
    path = folder / name
    keys = [{"kty": "oct", "k": b64(secret)} for secret in secrets or (SECRET,)]
    replace_file(path, json.dumps({"keys": keys}))
    return path


def test_token_decides_on_each_way(tmp_path: Path) -> None:
    jwt = Jwt([key_file(tmp_path)], devices="devices", rights="scope")
    host = bearer(token(sub="host", scope="device http", devices=["alice-*", "bob-*"]))
    alice = token(scope="client http", devices="alice-*")
    with SignalingServer(jwt=jwt, journal=True) as server, peers_of(server) as peers:
        for device in ("alice-1", "bob-1"):
            peers.device(device, additional_headers=host)
        assert [one["device_id"] for one in request_json_of(server, "/devices", alice)] == ["alice-1"]
        client = peers.client("alice-1", additional_headers=bearer(alice))
        browser = peers.client("alice-1", subprotocols=["webrtc-operator", f"bearer.{alice}"])
        assert [one.identity for one in server.clients("alice-1")] == ["alice", "alice"]
        stranger = peers.pending_client("bob-1", additional_headers=bearer(alice))
        assert [stranger.receive()["message_type"], stranger.receive()] == [
            "config",
            {"error": "Connection failed: Device not found: 'bob-1'"},
        ]
        polled = request(server, "POST", "/polled_connections", b'{"device_id":"alice-1"}', bearer(alice))
        assert polled.status == 200
        with pytest.raises(InvalidStatus) as raised:
            peers.connect(server.device_url, additional_headers=bearer(alice))
        assert raised.value.response.status_code == 403
        assert b"the token is not for the role 'device'" in (raised.value.response.body or b"")
        assert server.stats().unauthorized == 1
        del client, browser


def request_json_of(server: SignalingServer, path: str, text: str) -> Any:
    answer = request(server, "GET", path, headers=bearer(text))
    assert answer.status == 200, answer
    return answer.json


def test_reason_of_a_refusal_is_told_without_the_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = time.time()
    faults = {
        "the token has expired": token(exp=now - 61),
        "the token is not valid yet (`nbf`)": token(nbf=now + 70),
        "the token has another issuer (`iss`)": token(iss="https://other.lab"),
        "the token is for another audience (`aud`)": token(iss="https://id.lab", aud="other"),
        "the signature is wrong": token(b"x" * 32),
        "the algorithm is none of RS256, ES256, EdDSA and HS256": token(header={"alg": "none"}),
        "the header has `crit`, and no extension is understood": token(header={"alg": "HS256", "crit": ["b64"]}),
        "the token has 8193 bytes, and 8192 are allowed": "a" * 8191 + "..",
        "it is no JSON Web Token": "s3cret",
    }
    signed = f"{b64(json.dumps({'alg': 'HS256'}).encode())}.{b64(b'no JSON')}"
    faults["the payload is no valid JSON at line 1, column 2"] = (
        f"{signed}.{b64(hmac.new(SECRET, signed.encode(), hashlib.sha256).digest())}"
    )
    jwt = Jwt([key_file(tmp_path)], issuer=["https://id.lab"], audience=["signaling"])
    with SignalingServer(jwt=jwt) as server:
        for reason, text in faults.items():
            answer = request(server, "GET", "/devices", headers=bearer(text))
            assert (answer.status, answer.error) == (401, f"Invalid token: {reason}")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert request(server, "GET", "/devices").error == "A token is needed"
        assert request(server, "GET", "/healthz").status == 200
        good = token(iss="https://id.lab", aud=["x", "signaling"])
        assert request(server, "GET", "/devices", headers=bearer(good)).status == 200
    for text in faults.values():
        assert text not in caplog.text


def test_megabyte_of_a_token_is_refused(tmp_path: Path) -> None:
    with SignalingServer(jwt=Jwt([key_file(tmp_path)])) as server:
        status = 0
        try:
            status = request(server, "GET", "/devices", headers=bearer("a" * 2**20 + "..")).status
        except OSError:
            pass  # The server may close before all is sent.
        assert status in (0, 400, 401, 431)
        assert request(server, "GET", "/devices", headers=bearer(token())).status == 200


def test_clock_of_the_server_decides(tmp_path: Path) -> None:
    with SignalingServer(jwt=Jwt([key_file(tmp_path)], leeway=0)) as server:
        text = bearer(token())
        assert request(server, "GET", "/devices", headers=text).status == 200
        server.clock.advance(3601)
        assert request(server, "GET", "/devices", headers=text).error == "Invalid token: the token has expired"


def test_other_tokens_are_those_of_authorize(tmp_path: Path) -> None:
    tokens = StaticTokens({"s3cret": "script"}, roles=["client", "http"])
    with SignalingServer(jwt=Jwt([key_file(tmp_path)]), authorize=tokens) as server, peers_of(server) as peers:
        peers.device()
        peers.client(additional_headers=bearer(token()))
        peers.client(additional_headers=bearer("s3cret"))
        assert [client.identity for client in server.clients()] == ["alice", "script"]
        assert request(server, "GET", "/devices").error == "A token is needed"
        bad = request(server, "GET", "/devices", headers=bearer(token(b"x" * 32)))
        assert bad.error == "Invalid token: the signature is wrong"


def test_roles_without_need_are_admitted_without_token(tmp_path: Path) -> None:
    jwt = Jwt([key_file(tmp_path)], needed_for=["client"])
    with SignalingServer(host="0.0.0.0", jwt=jwt) as server, peers_of(server) as peers:
        peers.device()
        assert request(server, "GET", "/devices").status == 200
        assert request(server, "GET", "/devices", headers=bearer(token(b"x" * 32))).status == 401
        with pytest.raises(InvalidStatus):
            peers.connect(server.client_url)


@pytest.mark.parametrize("kind", ["rsa", "certificate", "ec", "ed25519"])
def test_pem_of_openssl_is_a_key(tmp_path: Path, kind: str) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    options = {
        "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        "certificate": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        "ec": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "ed25519": ["-algorithm", "ED25519"],
    }[kind]
    openssl("genpkey", *options, "-out", str(private))
    if kind == "certificate":
        openssl("req", "-new", "-x509", "-key", str(private), "-subj", "/CN=id.lab", "-out", str(public))
    else:
        openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
    with SignalingServer(jwt=Jwt([public])) as server:
        text = _signed_by(private, kind, tmp_path)
        assert request(server, "GET", "/devices", headers=bearer(text)).status == 200
        assert request(server, "GET", "/devices", headers=bearer(text[:-8] + "AAAAAAAA")).status == 401
    with pytest.raises(ConfigError, match=r"Jwt\.keys: .*key\.pem: block 1 is a private key: give the public one"):
        Jwt([private])


def _signed_by(private: Path, kind: str, folder: Path) -> str:
    algorithm = {"ec": "ES256", "ed25519": "EdDSA"}.get(kind, "RS256")
    claims = {"sub": "alice", "exp": int(time.time()) + 60}
    signed = f"{b64(json.dumps({'alg': algorithm}).encode())}.{b64(json.dumps(claims).encode())}"
    text, signature = folder / "text", folder / "signature"
    text.write_text(signed)
    digest = [] if kind == "ed25519" else ["-digest", "sha256"]
    openssl("pkeyutl", "-sign", "-rawin", *digest, "-inkey", str(private), "-in", str(text), "-out", str(signature))
    made = signature.read_bytes()
    if kind == "ec":
        made = b"".join(_integers(made))
    return f"{signed}.{b64(made)}"


def _integers(der: bytes) -> list[bytes]:
    """The two numbers of a signature in DER, with 32 bytes each."""
    first = der[3]
    second = 4 + first
    numbers = der[4:second], der[second + 2 :]
    return [number.lstrip(b"\0").rjust(32, b"\0") for number in numbers]


def test_new_keys_are_taken_while_the_server_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cuttlefish_signaling")
    new = b"n" * 32
    path = key_file(tmp_path)
    with SignalingServer(jwt=Jwt([path], check_interval=0.05)) as server:

        def statuses() -> list[int]:
            given = (token(), token(new))
            return [request(server, "GET", "/devices", headers=bearer(text)).status for text in given]

        assert statuses() == [200, 401]
        replace_file(path, "{}")
        until(lambda: "keys of tokens: the old ones stay" in caplog.text)
        assert statuses() == [200, 401]
        key_file(tmp_path, new)
        until(lambda: "keys of tokens: took 1 new ones" in caplog.text)
        assert statuses() == [401, 200]
    assert caplog.text.count("the old ones stay") == 1


def test_reload_replaces_keys_and_settings(tmp_path: Path) -> None:
    with SignalingServer(jwt=Jwt([key_file(tmp_path)])) as server:
        assert server.reload(jwt=Jwt([key_file(tmp_path)])) == []
        other = Jwt([key_file(tmp_path, b"n" * 32, name="other.json")])
        assert server.reload(jwt=other) == ["jwt"]
        assert request(server, "GET", "/devices", headers=bearer(token(b"n" * 32))).status == 200
        assert server.reload(jwt=None) == ["jwt"]
        assert request(server, "GET", "/devices").status == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keys": []}, "Jwt.keys: must name at least one file with keys"),
        ({"keys": "jwks.json"}, "Jwt.keys: must be a list of paths, got 'jwks.json'"),
        ({"keys": [7]}, "Jwt.keys: must be a list of paths, got 7 in it"),
        ({"keys": ["/nowhere"]}, "Jwt.keys: cannot read /nowhere: No such file or directory"),
        ({"keys": ["/dev/zero"]}, "Jwt.keys: cannot read /dev/zero: it is not a plain file"),
        ({"issuer": "x"}, "Jwt.issuer: must be a list of strings, got 'x'"),
        ({"audience": [7]}, "Jwt.audience: must be a list of strings, got 7 in it"),
        ({"leeway": -1}, "Jwt.leeway: must be a number of seconds, 0 or more, got -1"),
        ({"identity": ""}, "Jwt.identity: must name a claim"),
        ({"identity": None}, "Jwt.identity: must be a string, got None"),
        ({"devices": 7}, "Jwt.devices: must be a string or None, got 7"),
        ({"rights": ""}, "Jwt.rights: must name a claim"),
        ({"values": ["x"]}, 'Jwt.values: "x" is not VALUE=RIGHT, with one of the rights device, client, http, manage'),
        ({"values": ["x=all"]}, 'Jwt.values: "x=all" is not VALUE=RIGHT'),
        ({"needed_for": ["all"]}, "Jwt.needed_for: 'all' is not one of 'device', 'client', 'http'"),
        ({"allow_no_exp": 1}, "Jwt.allow_no_exp: must be True or False, got 1"),
        ({"max_token": 255}, "Jwt.max_token: must be between 256 and 1048576, got 255"),
        ({"max_keys": 10_001}, "Jwt.max_keys: must be between 1 and 10000, got 10001"),
        ({"check_interval": 0}, "Jwt.check_interval: must be a number of seconds or None, more than 0, got 0"),
        ({"check_interval": 0.001}, "Jwt.check_interval: must be at least 0.01 seconds, got 0.001"),
    ],
)
def test_invalid_argument_is_config_error(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Jwt(**{"keys": [key_file(tmp_path)], **arguments})
    assert str(raised.value).startswith(words)


def test_key_set_of_10_000_is_refused_or_bounded(tmp_path: Path) -> None:
    path = key_file(tmp_path, *[SECRET] * 10_000)
    with pytest.raises(ConfigError, match=r"has 10000 keys, and 100 are allowed \(Jwt\.max_keys\)"):
        Jwt([path])
    with SignalingServer(jwt=Jwt([path], max_keys=10_000)) as server:
        answer = request(server, "GET", "/devices", headers=bearer(token()))
        assert "there are 10000 keys of its algorithm: at most 4 are tried" in answer.error


def test_command_line_has_each_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--jwt-keys", str(key_file(tmp_path)), "--jwt-rights", "scope", "--jwt-value", "use=client"]
    flags += ["--jwt-audience", "a", "--jwt-issuer", "i", "--jwt-needed-for", "client", "--jwt-allow-no-exp"]
    assert main(["check", "--no-tls", *flags]) == 0, capsys.readouterr()
    for given, words in (
        (["--jwt-audience", "a"], "--jwt-audience: has no use without --jwt-keys FILE"),
        (["--jwt-keys", "/nowhere"], "--jwt-keys: cannot read /nowhere"),
        ([*flags, "--jwt-value", "x=y"], '--jwt-value: "x=y" is not VALUE=RIGHT'),
        ([*flags[:2], "--jwt-value", "x=http"], "--jwt-value: has no use without --jwt-rights CLAIM"),
        ([*flags, "--jwt-needed-for", "all"], "--jwt-needed-for: 'all' is not one of"),
    ):
        capsys.readouterr()
        assert main(["check", "--no-tls", *given]) == 2
        assert words in capsys.readouterr().err


def test_repr_has_no_key(tmp_path: Path) -> None:
    jwt = Jwt([key_file(tmp_path)])
    assert b64(SECRET) not in repr(jwt) and repr(jwt) == f"<Jwt {tmp_path / 'jwks.json'}>"


def test_programs_of_this_machine_need_the_right_to_manage(tmp_path: Path) -> None:
    """Without tokens they manage. With tokens a claim has to grant it, also where the page itself needs no token."""
    jwt = Jwt([key_file(tmp_path)], rights="scope", needed_for=["client"])
    with SignalingServer(jwt=jwt, dashboard=True) as server, peers_of(server) as peers:
        peers.device()
        path = "/dashboard/disconnect?device=cvd-1"
        assert request(server, "POST", path).status == 403
        assert request(server, "POST", path, headers=bearer(token(scope="http"))).status == 403
        assert request(server, "POST", path, headers=bearer(token(scope="http manage"))).status == 200
