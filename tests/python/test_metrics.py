"""`GET /metrics` and `/readyz`: for operators."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

import pytest

from cuttlefish_signaling import SignalingServer, StaticTokens

from peers import PATIENCE, assert_relays, peers_of

SAMPLE = re.compile(r'cuttlefish_signaling_([a-z_]+)((?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})?) ([0-9.]+)')


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
    "panics",
)


def scrape(server: SignalingServer) -> dict[str, float]:
    """Samples by name and labels. The text has to have the format of Prometheus."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = answer.read().decode().splitlines()
    samples, family = {}, ""
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split()[2]
        elif line.startswith("# TYPE "):
            assert line.split()[2:] in [[family, "gauge"], [family, "counter"]]
            assert family.endswith("_total") == line.endswith(" counter")
        else:
            found = SAMPLE.fullmatch(line)
            assert found is not None, line
            assert line.startswith(family)
            samples[found[1] + found[2]] = float(found[3])
    return samples


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
