"""The OpenAPI document of the control API, by which schemathesis makes requests to a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from control_requests import controlled_server

from cuttlefish_signaling import Limits

from peers import peers_of

SCHEMATHESIS = Path(sys.executable).with_name("st")
EXAMPLES = "12"
ENDLESS = "/control/v1/watch"
"""Its answer has no end. Other tests read it."""

EXCEPTIONS = """
[[operations]]
include-name = "PUT /control/v1/ice_servers"
checks.negative_data_rejection.enabled = false
"""
"""The server takes each form of the setting, and the document describes the plainest one."""


def test_document_is_served_as_it_is_in_the_sources() -> None:
    source = Path(__file__).parents[2] / "src" / "server" / "control" / "openapi.json"
    with controlled_server() as (_, control):
        document = control("GET", "/openapi.json")
    assert document == json.loads(source.read_text(encoding="utf-8"))
    assert document["openapi"] == "3.1.0"


@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Requests within the document are answered as it says; all others are refused."""
    limits = Limits(control_api_wait=0.01, request_per_second=100_000, request_burst=100_000)
    with controlled_server(limits=limits) as (server, control), peers_of(server) as peers:
        peers.device("cvd-1")
        peers.client("cvd-1")
        document = tmp_path / "openapi.json"
        (tmp_path / "schemathesis.toml").write_text(EXCEPTIONS)
        document.write_bytes(control.answer("GET", "/openapi.json").body)
        run = subprocess.run(
            [
                str(SCHEMATHESIS),
                "run",
                str(document),
                f"--url={control.url}",
                f"--header=Authorization: Bearer {control.token}",
                f"--exclude-path={ENDLESS}",
                f"--max-examples={EXAMPLES}",
                "--seed=1",
                "--generation-database=none",
                "--request-timeout=20",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert "Operations:       31 selected / 32 total" in run.stdout, run.stdout
        assert "generated" in run.stdout
        assert "❌" not in run.stdout, run.stdout
        assert control("GET", "")["api"] == 1
        assert server.server_errors == []
