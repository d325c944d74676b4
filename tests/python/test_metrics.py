"""`GET /metrics` and `/readyz`: for operators."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from cuttlefish_signaling import (
    AuthorizeContext,
    BindError,
    ConfigError,
    Limits,
    Refused,
    SignalingServer,
    StaticTokens,
    Tls,
)

from http_requests import request
from peers import PATIENCE, assert_relays, peers_of, unverified_context, wait_until

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
PREFIX = "cuttlefish_signaling_"

INCIDENTS = (
    "turned_away",
    "openings_cut",
    "foreign",
    "unauthorized",
    "misbehaved",
    "too_fast",
    "slow_consumers",
    "errors_withheld",
    "hooks_not_called",
    "forwarded_ignored",
    "ice_command_failures",
    "silent",
    "upstream_failures",
    "panics",
)


def strict_families(text: str) -> list[Metric]:
    """The families of a text in the format of OpenMetrics."""
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def samples_of(families: Iterable[Metric]) -> dict[str, float]:
    """Samples by name and labels."""
    found = {}
    for family in families:
        for sample in family.samples:
            assert sample.name.startswith(PREFIX)
            given = {name: str(float(value)) if name == "le" else value for name, value in sample.labels.items()}
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(given.items()))
            found[sample.name.removeprefix(PREFIX) + (f"{{{labels}}}" if labels else "")] = float(sample.value)
    return found


def scrape(server: SignalingServer) -> dict[str, float]:
    """Samples by name and labels. The text has to have the format of Prometheus."""
    answer = request(server, "GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples_of(text_string_to_metric_families(answer.body.decode()))


@contextmanager
def busy_server(**settings: Any) -> Iterator[SignalingServer]:
    """A server with observations in each histogram."""
    given: dict[str, Any] = {
        "listen": ["http://127.0.0.1:0", "https://127.0.0.1:0"],
        "tls": Tls.self_signed(),
        "device_wait_timeout": None,
        "authorize": lambda _: None,
        "ice_servers": lambda _: [],
        "filter_device_info": lambda info, _: info,
    }
    with SignalingServer(**{**given, **settings}) as server, peers_of(server) as peers:
        client = peers.connect(server.client_url)
        client.send({"message_type": "connect", "device_id": "cvd-1"})
        wait_until(lambda: server.stats().waiting == 1)
        device = peers.device("cvd-1")
        assert [client.receive()["message_type"] for _ in range(2)] == ["config", "device_info"]
        assert_relays(client, device)
        secure = server.urls[1]
        urllib.request.urlopen(f"{secure}/healthz", timeout=PATIENCE, context=unverified_context()).close()
        yield server


def test_metrics_count_connections_and_forwards() -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        device, client = peers.device("cvd-secret"), peers.client("cvd-secret")
        assert_relays(client, device)
        device.send({"message_type": "forward", "client_id": 7, "payload": 1})
        assert "error" in device.receive()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.url}/devices/unknown%2F1", timeout=PATIENCE)
        for path in ("nonsense", "polled_connections/x/messages"):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(f"{server.url}/{path}", timeout=PATIENCE)
        samples = scrape(server)
        stats = server.stats()
    assert (samples["connections"], samples["devices"], samples["clients"], samples["waiting_clients"]) == (2, 1, 1, 0)
    assert samples["forwards_accepted_total"] == stats.accepted == 3
    for outcome, count in {"delivered": 2, "refused": 1, "gone": 0, "dropped": 0}.items():
        assert samples[f'forwards_total{{outcome="{outcome}"}}'] == count
    kinds = {name for name in samples if name.startswith("incidents_total")}
    assert kinds == {f'incidents_total{{kind="{kind}"}}' for kind in INCIDENTS}
    requests = {
        name.removeprefix("http_requests_total"): samples[name] for name in samples if name.startswith("http_re")
    }
    assert requests == {
        '{endpoint="/register_device",status="1xx"}': 1,
        '{endpoint="/connect_client",status="1xx"}': 1,
        '{endpoint="/devices/{id}",status="4xx"}': 1,
        '{endpoint="/polled_connections/{id}/messages",status="4xx"}': 1,
        '{endpoint="other",status="4xx"}': 1,
    }
    assert samples["start_time_seconds"] > 1.7e9
    version = importlib.metadata.version("cuttlefish-signaling")
    (build,) = [name for name in samples if name.startswith("build_info")]
    assert f'version="{version}"' in build and f'python="{platform.python_version()}"' in build
    assert re.search(r'rust="1\.[0-9]+\.[0-9]+', build)


def promtool(*command: str, text: str = "") -> None:
    """Runs a check of Prometheus' own tool."""
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed: apt install prometheus, or https://prometheus.io/download")
    done = subprocess.run(["promtool", *command], input=text, text=True, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr


def test_each_format_has_the_same_samples_and_passes_its_parser() -> None:
    with busy_server() as server:
        plain = request(server, "GET", "/metrics").body.decode()
        answer = request(server, "GET", "/metrics", Accept=OPENMETRICS)
    assert answer.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.headers["Vary"] == "Accept"
    text = answer.body.decode()
    assert text.endswith("\n# EOF\n")
    promtool("check", "metrics", text=plain)
    # This parser is strict.
    other = samples_of(strict_families(text))
    samples = samples_of(text_string_to_metric_families(plain))
    # Each request counts the one before, and renders nothing.
    changed = {name for name in samples.keys() | other.keys() if samples.get(name) != other.get(name)}
    assert all(re.match("http_requests|hook_|handshake_seconds", name) for name in changed), changed
    assert samples.keys() <= other.keys()
    assert not [family for family in strict_families(text) if not family.documentation]


def test_times_are_observed() -> None:
    with busy_server() as server:
        samples = scrape(server)
    assert samples["device_wait_seconds_count"] == samples["forward_queue_seconds_count"] == 1
    assert samples['handshake_seconds_count{kind="websocket"}'] == 2
    assert samples['handshake_seconds_count{kind="tls"}'] == 1
    calls = {"authorize": 3, "ice_servers": 2, "filter_device_info": 1}  # Of the scrape, authorize has been called.
    for hook, count in calls.items():
        assert samples[f'hook_calls_total{{hook="{hook}",outcome="answered"}}'] == count, hook
        assert samples[f'hook_seconds_count{{hook="{hook}"}}'] == count
    assert samples["certificate_expiry_timestamp_seconds"] > time.time()


def test_outcomes_of_hooks_are_counted() -> None:
    """A refusal, an exception and a time-out are told apart, and a call takes the time of the server's clock."""
    called, release = threading.Event(), threading.Event()

    def authorize(ctx: AuthorizeContext) -> None:
        if ctx.query.get("do") == "hang":
            called.set()
            release.wait(PATIENCE)
        if ctx.query.get("do") == "raise":
            raise ValueError("no")
        if ctx.query.get("do") == "refuse":
            raise Refused("no")

    with SignalingServer(authorize=authorize, hook_timeout=100) as server:
        for what in ("refuse", "raise"):
            request(server, "GET", f"/devices?do={what}")
        with server.clock.frozen() as clock:
            slow = threading.Thread(target=request, args=(server, "GET", "/devices?do=hang"))
            slow.start()
            assert called.wait(PATIENCE)
            clock.advance(3)
            release.set()
            slow.join()
        samples = scrape(server)
    outcome = 'hook_calls_total{{hook="authorize",outcome="{}"}}'.format
    assert [samples[outcome(word)] for word in ("answered", "refused", "failed", "not_called")] == [2, 1, 1, 0]
    within = [samples[f'hook_seconds_bucket{{hook="authorize",le="{bound}"}}'] for bound in ("2.5", "5.0", "inf")]
    assert within == [3, 4, 4]


@pytest.mark.parametrize("accept", [None, OPENMETRICS])
def test_head_has_the_headers_of_get(accept: str | None) -> None:
    headers = {} if accept is None else {"Accept": accept}
    with SignalingServer() as server:
        got, head = (request(server, method, "/metrics", headers=headers) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == got.headers["Content-Type"]


# The listener of its own ----------------------------------------------------------------------------------------------


def read(url: str, path: str = "", method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """The status and the body of a request without a token."""
    asked = urllib.request.Request(url + path, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE, context=unverified_context()) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_listener_for_metrics_needs_no_token_and_has_nothing_else() -> None:
    with SignalingServer(
        authorize=StaticTokens(["s3cret"]),
        tls=Tls.self_signed(),
        metrics=["http://127.0.0.1:0", "https://127.0.0.1:0"],
    ) as server:
        plain, secure = server.metrics_urls
        assert plain.startswith("http://127.0.0.1:") and plain.endswith("/metrics") and secure.startswith("https://")
        for url in (plain, secure):
            status, text = read(url)
            assert status == 200
            promtool("check", "metrics", text=text)
            base = url.removesuffix("/metrics")
            for path in (
                "/",
                "/devices",
                "/register_device",
                "/infra_config",
                "/healthz",
                "/metrics/x",
                "/dashboard/main.js",
            ):
                status, body = read(base, path)
                assert (status, "GET /metrics and nothing else" in body) == (404, True), path
            assert read(base, "/metrics", "POST")[0] == 405
            assert read(base, "/metrics", "HEAD") == (200, "")
        # The numbers are those of the server, and its own path still asks for a token.
        assert 'endpoint="/devices",status="4xx"} 2' in read(plain)[1]
        assert read(server.url, "/metrics")[0] == 401


def test_listener_for_metrics_may_be_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with SignalingServer(metrics=[f"unix:{path}?mode=0600"]) as server:
        assert server.metrics_urls == [f"unix:{path}"]
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert client.makefile("rb").read().startswith(b"HTTP/1.0 200 OK")
    assert not path.exists()


def test_host_of_a_scrape_is_judged_like_all_others() -> None:
    """DNS rebinding would let a page read the numbers."""
    with SignalingServer(metrics=["http://localhost:0"], allowed_hosts=["metrics.lab"]) as server:
        (url,) = server.metrics_urls
        for host, status in (("metrics.lab", 200), ("evil.example", 403), ("127.0.0.1", 200)):
            assert read(url, headers={"Host": host})[0] == status


def test_no_word_of_a_peer_is_in_the_metrics() -> None:
    word = "marked-word"
    with busy_server(metrics=["http://127.0.0.1:0"]) as server, peers_of(server) as peers:
        peers.device(word, {"name": word})
        peers.client(word)
        for path in (f"/devices/{word}", f"/{word}", f"/dashboard/{word}"):
            request(server, "GET", path, headers={"User-Agent": word, "X-Forwarded-For": word, "Origin": word})
        assert word not in request(server, "GET", "/metrics").body.decode()
        assert word not in read(server.metrics_urls[0])[1]


def test_taken_port_names_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError, match=f"^metrics: cannot listen on {url}: Address already in use"):
            SignalingServer(metrics=[url]).start()
        with SignalingServer() as server:  # The one before has left no socket behind.
            assert server.is_running
        with pytest.raises(ConfigError, match=f"^metrics: {url} of listen and {url} are one address"):
            SignalingServer(listen=[url], metrics=[url]).start()


def test_full_listener_for_metrics_takes_no_place_from_peers() -> None:
    limits = Limits(max_metrics_connections=2)
    with SignalingServer(metrics=["http://127.0.0.1:0"], limits=limits) as server, ExitStack() as stack:
        (url,) = server.metrics_urls
        port = int(url.split(":")[2].split("/")[0])
        for _ in range(2):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            held.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert held.recv(12) == b"HTTP/1.1 200"
        assert read(url)[0] == 503
        assert request(server, "GET", "/metrics").status == 200
        with peers_of(server) as peers:
            peers.device("cvd-1")
        assert server.stats().turned_away == 1


def test_metrics_require_authorization() -> None:
    with SignalingServer(authorize=StaticTokens(["s3cret"])) as server:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{server.url}/metrics", timeout=PATIENCE)
        request = urllib.request.Request(f"{server.url}/metrics", headers={"Authorization": "Bearer s3cret"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert b"unauthorized" in answer.read()


def test_readyz_is_ok_while_listening(server: SignalingServer) -> None:
    with urllib.request.urlopen(f"{server.url}/readyz", timeout=PATIENCE) as answer:
        assert answer.read() == b'{"status":"ready"}'
