"""The Dockerfile and the Compose files of `deploy/`: linted, and their settings are the server's.

`make test-container` does the steps of the Dockerfile.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from cuttlefish_signaling.cli import parser
from cuttlefish_signaling.cli.variables import KNOWN

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = [*sorted((ROOT / "deploy" / "compose").glob("*.yaml")), ROOT / "examples" / "compose" / "compose.yaml"]
PREFIX = "CUTTLEFISH_SIGNALING_"
BIN = Path(sys.executable).parent


def load(file: Path) -> Any:
    return YAML(typ="safe").load(file.read_text(encoding="utf-8"))


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([str(BIN / "hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_compose_files() -> None:
    assert [file.name for file in COMPOSE] == [
        "compose.cluster.yaml",
        "compose.coturn.yaml",
        "compose.monitoring.yaml",
        "compose.yaml",
        "compose.yaml",
    ]


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: f"{file.parents[1].name}-{file.name}")
def test_compose_file_matches_the_schema_of_compose(file: Path) -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_variables_are_settings_of_the_server() -> None:
    named = re.findall(rf"{PREFIX}(\w+)=", DOCKERFILE.read_text(encoding="utf-8"))
    for file in COMPOSE:
        environment = load(file)["services"]["signaling"]["environment"]
        named += [name.removeprefix(PREFIX) for name in environment if name.startswith(PREFIX)]
    assert len(set(named)) >= 8
    assert [name for name in named if PREFIX + name not in KNOWN] == []


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: f"{file.parents[1].name}-{file.name}")
def test_files_and_secrets_of_a_compose_file_exist(file: Path) -> None:
    compose = load(file)
    secrets = compose.get("secrets", {})
    for service in compose["services"].values():
        for secret in service.get("secrets", []):
            # The tokens are those of compose.yaml, which this file is given with.
            assert secret in secrets or secret == "tokens"
            if secret in secrets:
                assert re.fullmatch(r"\$\{\w+:-\./[\w.]+\}", secrets[secret]["file"])
        for value in service.get("environment", {}).values():
            if str(value).startswith("/run/secrets/"):
                assert Path(value).name in service["secrets"]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (file.parent / source).exists(), source
            else:
                assert source in compose["volumes"]


def test_prometheus_reaches_the_metrics_by_a_name_that_is_allowed() -> None:
    folder = COMPOSE[0].parent
    environment = load(folder / "compose.monitoring.yaml")["services"]["signaling"]["environment"]
    ((target,),) = [one["targets"] for one in load(folder / "prometheus.yml")["scrape_configs"][0]["static_configs"]]
    name, port = target.split(":")
    assert environment[f"{PREFIX}METRICS"] == f"http://0.0.0.0:{port}"
    assert name in environment[f"{PREFIX}ALLOW_HOST"].split()


def test_ignored_files_leave_the_wheel() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["*", "!dist/*.whl"]
    assert "source=dist" in DOCKERFILE.read_text(encoding="utf-8")


def test_commands_of_the_image_parse() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    (default,) = re.findall(r'^CMD \["(\w+)"\]$', text, re.MULTILINE)
    (check,) = re.findall(r'HEALTHCHECK .* CMD \["cuttlefish-signaling", "(\w+)"\]', text)
    assert parser().parse_args([default]).command == "serve"
    assert parser().parse_args([check]).command == "health"
