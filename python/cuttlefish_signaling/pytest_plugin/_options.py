"""The options of the plugin: on the command line, in the environment, in the ini file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import pytest

URL_VARIABLE = "CUTTLEFISH_SIGNALING_URL"
CA_VARIABLE = "CUTTLEFISH_SIGNALING_CA"
CONTROL_VARIABLE = "CUTTLEFISH_SIGNALING_CONTROL"
TOKEN_VARIABLE = "CUTTLEFISH_SIGNALING_CONTROL_TOKEN_FILE"
VARIABLES = {
    "url": URL_VARIABLE,
    "ca": CA_VARIABLE,
    "control": CONTROL_VARIABLE,
    "control-token-file": TOKEN_VARIABLE,
}

TRACES = ("off", "on-failure", "always")
UNAVAILABLE = ("skip", "fail")
CASSETTES = ("none", "once", "new")
CONFORMANCE_PROFILES = ("spec", "reference", "operator", "strict")

MAX_TIMEOUT = 86_400.0
"""The greatest `--signaling-timeout`: a day."""

HELP = {
    "url": ("URL", "use the running signaling server at URL and start none"),
    "ca": (
        "FILE",
        "PEM file that verifies the certificate of --signaling-url, --signaling-control and --signaling-real",
    ),
    "control": (
        "URL",
        "the control API of that server, as --control-api of serve: for its journal, faults and clock",
    ),
    "control-token-file": ("FILE", "the token of --signaling-control, as --control-token-file of serve"),
    "trace": ("WHEN", "off, on-failure or always: when a report has the transcript of the test's servers; on-failure"),
    "output": ("DIR", "write the transcripts of each failed test to a folder in DIR, as text, mermaid and jsonl"),
    "timeout": ("SECONDS", f"default timeout of waits and of fake peers, up to {MAX_TIMEOUT:g}; 5"),
    "unavailable": (
        "WHAT",
        "skip or fail: with --signaling-url, the outcome of a test that needs a server in this process; skip",
    ),
    "cassettes": (
        "MODE",
        "none, once or new: whether a real device answers what the cassettes lack; that of the marker, or none",
    ),
    "real": ("URL", "the server of the real device for cassettes; --signaling-ca verifies its certificate"),
    "conformance": ("URL", "collect the rules of the conformance kit as tests of the signaling server at URL"),
    "conformance-profile": ("NAME", "spec, reference, operator or strict: the rules of --signaling-conformance; spec"),
    "conformance-token": ("TOKEN", "token for the server of --signaling-conformance; @FILE reads it from a file"),
    "conformance-settings": ("TEXT", "settings that this server is known to have, as NAME=VALUE, separated by spaces"),
}


@dataclass(frozen=True)
class Options:
    """The values of all options."""

    url: str | None
    ca: Path | None
    control: str | None
    control_token_file: Path | None
    trace: str
    output: Path | None
    timeout: float | None
    skips_unavailable: bool
    cassettes: str | None
    real: str | None
    conformance: str | None
    conformance_profile: str
    conformance_token: str | None
    conformance_settings: tuple[str, ...]

    @property
    def attaches(self) -> bool:
        """Whether the tests use a server that runs already."""
        return self.url is not None or self.control is not None


OPTIONS: pytest.StashKey[Options] = pytest.StashKey()


def add(parser: pytest.Parser) -> None:
    """Adds the options, and the ini option of each: `--signaling-url` and `signaling_url`."""
    group = parser.getgroup("signaling", "Cuttlefish signaling")
    for name, (metavar, text) in HELP.items():
        variable = f", environment: {VARIABLES[name]}" if name in VARIABLES else ""
        group.addoption(
            f"--signaling-{name}",
            default=None,
            metavar=metavar,
            help=f"{text} (ini: {_ini(name)}{variable})",
        )
        parser.addini(_ini(name), f"{text}; --signaling-{name} takes precedence", default=None)


def _ini(name: str) -> str:
    """The name in the ini file."""
    return f"signaling_{name}".replace("-", "_")


def read(config: pytest.Config) -> Options:
    """The options. Raises UsageError for an invalid one, which names the place that has it."""
    ca, output = _path(config, "ca"), _path(config, "output")
    if ca is not None and not ca.is_file():
        raise pytest.UsageError(f"{_given(config, 'ca')[1]}: there is no file {str(ca)!r}; give a PEM file")
    if output is not None:
        place = _given(config, "output")[1]
        # The workers of pytest-xdist get the absolute path.
        config.option.signaling_output = str(output)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"{place}: cannot make the directory: {error}") from None
    return Options(
        url=_given(config, "url")[0],
        ca=ca,
        control=_given(config, "control")[0],
        control_token_file=_token_file(config),
        trace=_choice(config, "trace", TRACES, "on-failure"),
        output=output,
        timeout=_seconds(config),
        skips_unavailable=_choice(config, "unavailable", UNAVAILABLE, "skip") == "skip",
        cassettes=_choice(config, "cassettes", CASSETTES, "") or None,
        real=_given(config, "real")[0],
        conformance=_given(config, "conformance")[0],
        conformance_profile=_choice(config, "conformance-profile", CONFORMANCE_PROFILES, "spec"),
        conformance_token=_given(config, "conformance-token")[0],
        conformance_settings=tuple((_given(config, "conformance-settings")[0] or "").split()),
    )


def _given(config: pytest.Config, name: str) -> tuple[str | None, str]:
    """The text of an option, and the place that has it. The order is command line, environment, ini file."""
    flag = f"--signaling-{name}"
    if (text := config.getoption(flag)) is not None:
        return text or None, flag
    if text := os.environ.get(VARIABLES.get(name, ""), ""):
        return text, VARIABLES[name]
    text = config.getini(_ini(name))
    return (str(text) if text else None), f"{_ini(name)} in {config.inipath.name if config.inipath else 'ini'}"


def _choice(config: pytest.Config, name: str, choices: tuple[str, ...], default: str) -> str:
    text, place = _given(config, name)
    if text is None:
        return default
    if text not in choices:
        raise pytest.UsageError(f"{place}: {text!r} is not one of {', '.join(choices)}")
    return text


def _token_file(config: pytest.Config) -> Path | None:
    path, place = _path(config, "control-token-file"), _given(config, "control-token-file")[1]
    if path is None or _given(config, "control")[0] is None:
        return None  # The variable may be meant for `serve`.
    if not path.is_file():
        raise pytest.UsageError(f"{place}: there is no file {str(path)!r}; give the --control-token-file of the server")
    return path


def _seconds(config: pytest.Config) -> float | None:
    text, place = _given(config, "timeout")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not isfinite(seconds) or not 0 < seconds <= MAX_TIMEOUT:
        raise pytest.UsageError(f"{place}: {text!r} is not a number of seconds above 0, up to {MAX_TIMEOUT:g}")
    return seconds


def _path(config: pytest.Config, name: str) -> Path | None:
    """A path: relative to the ini file if that has it, else to the folder that pytest was started in."""
    text, place = _given(config, name)
    if text is None:
        return None
    is_ini = place.startswith("signaling_") and config.inipath is not None
    base = config.inipath.parent if is_ini and config.inipath is not None else config.invocation_params.dir
    return (base / Path(text).expanduser()).resolve()
