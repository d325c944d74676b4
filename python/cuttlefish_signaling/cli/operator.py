"""`serve --operator`: the settings of a server in the place of the host package's operator.

Each of them is a default: a flag, a variable or the config file overrides it.
"""

from __future__ import annotations

import os
import shlex
from typing import NamedTuple

from .._listen import Listener, url
from ..errors import ConfigError
from .listeners import ONE_LISTENER, listeners
from .machine import machine_hosts, machine_names
from .sources import Found

RUN_DIRECTORY = "/run/cuttlefish"
"""The directory of the local sockets, which other services of the host share."""

CERTIFICATE_DIRECTORY = "/etc/cuttlefish-common/operator/cert"
"""The operator's certificate directory where the file of defaults names none."""

PAGE_DIRECTORY = "/usr/share/cuttlefish-common/operator/static"
"""The files of the operator's page."""

HTTP_PORT, HTTPS_PORT = 1080, 1443
"""The ports by which the host's orchestrator and `cvd` reach the operator."""

WEB_PORTS = (("http", 2080), ("https", 2443))
"""The ports of the host's web server (nginx of the package cuttlefish-orchestration)."""

DRAIN_SPREAD = 5.0
"""Seconds over which a stop closes the connections of a host's devices."""

KNOWN = (
    "operator_listen_address",
    "operator_http_port",
    "operator_https_port",
    "operator_tls_cert_dir",
    "operator_webui_url",
)


class Value(NamedTuple):
    """A value in the file of defaults, and its place for errors."""

    text: str
    place: str


class Defaults(NamedTuple):
    """The operator's file of defaults."""

    exists: bool
    values: dict[str, Value]
    notices: list[str]
    """A line for the log about each line that is not understood."""


def read_defaults(path: str) -> Defaults:
    """Reads assignments of a shell. Raises ConfigError where the file cannot be read. A missing file has no values."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return Defaults(False, {}, [])
    except (OSError, UnicodeError) as error:
        raise ConfigError("operator-defaults", f"cannot read {path}: {error}") from None
    values, notices = {}, []
    for number, line in enumerate(lines, 1):
        place = f"{path}, line {number}"
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # A quote without an end.
            words = [line, ""]
        if not words:
            continue
        name, assigned, text = words[0].partition("=")
        if len(words) > 1 or not assigned or name not in KNOWN or any(mark in text for mark in "$`"):
            notices.append(f"{place}: {line.strip()!r} is not understood and has no effect")
        else:
            values[name] = Value(text, f"{place}: {name}")
    return Defaults(True, values, notices)


def apply_preset(found: Found) -> list[str]:
    """Sets the settings of `--operator` that were not given. Returns lines for the log. Raises ConfigError."""
    if not found["operator"]:
        return []
    if others := [key for key in ONE_LISTENER if key in found.origins and found[key] is not False]:
        flags = " and ".join(found.origin(key) for key in others)
        raise ConfigError(found.origin("operator"), f"contradicts {flags}: write the addresses as --listen URL")
    defaults = read_defaults(found["operator_defaults"]) if found["operator_defaults"] else Defaults(False, {}, [])
    origin = f"--operator, with {found['operator_defaults']}" if defaults.exists else "--operator"
    notices = list(defaults.notices)

    def preset(key: str, value: object) -> None:
        if key not in found.origins:
            found[key], found.origins[key] = value, origin

    preset("listen", _listen(defaults))
    given = {"tls_cert", "tls_key", "state_dir"} & found.origins.keys()
    if any(one.is_tls for one in listeners(found)) and not given:
        for key, path in _certificate(defaults, notices).items():
            preset(key, path)
    preset("device_socket", f"{RUN_DIRECTORY}/operator")
    preset("control_socket", f"{RUN_DIRECTORY}/operator_control")
    # The web server of the host serves this file.
    preset("log_file", f"{RUN_DIRECTORY}/operator.log")
    preset("proxy_device_files", True)
    preset("adb", True)
    preset("client_ids", "unique")
    preset("drain_spread", DRAIN_SPREAD)
    if "allow_host" not in found.origins:
        preset("allow_host", machine_names())
    if "allow_origin" not in found.origins:
        preset("allow_origin", _origins(found))
    # The operator does not authenticate peers either.
    preset("allow_unauthenticated", True)
    if os.path.isfile(f"{PAGE_DIRECTORY}/index.html"):
        preset("assets_dir", PAGE_DIRECTORY)
        preset("dashboard", "off")
    if page := defaults.values.get("operator_webui_url", Value("", "")).text:
        notices.append(f"operator_webui_url={page} has no effect: --assets-dir DIR serves the files of a page")
    return notices


def _origins(found: Found) -> list[str]:
    """Returns the origins of pages of this machine: at the ports of the host's web server, and at this server's own.

    The web server replaces `Host`, so the origin of its pages is not that of the request.
    """
    own = [(one.scheme, one.number) for one in listeners(found) if one.scheme != "unix" and one.number]
    return [url(scheme, host, port) for scheme, port in dict.fromkeys([*WEB_PORTS, *own]) for host in machine_hosts()]


def _listen(defaults: Defaults) -> list[str]:
    """Returns the listeners: plain on loopback, for the host's orchestrator, and TLS at the operator's address."""
    found = [url("http", "127.0.0.1", _port(defaults, "operator_http_port", HTTP_PORT))]
    secure = _port(defaults, "operator_https_port", 0 if defaults.exists else HTTPS_PORT)
    if not secure:
        return found
    given = defaults.values.get("operator_listen_address", Value("", ""))
    text = url("https", given.text.strip("[]") or "127.0.0.1", secure)
    try:
        Listener.parse("listen", text, most=0)
    except ConfigError:
        raise ConfigError(given.place, f"{given.text!r} is not an address") from None
    return [*found, text]


def _port(defaults: Defaults, name: str, default: int) -> int:
    given = defaults.values.get(name)
    if given is None or not given.text:
        return default
    if not (given.text.isascii() and given.text.isdecimal() and 1 <= int(given.text) <= 65535):
        raise ConfigError(given.place, f"{given.text!r} is not a port: ports are between 1 and 65535")
    return int(given.text)


def _certificate(defaults: Defaults, notices: list[str]) -> dict[str, str]:
    """Returns the operator's certificate and key, or nothing if one of them is missing."""
    given = defaults.values.get("operator_tls_cert_dir")
    directory = given.text if given and given.text else CERTIFICATE_DIRECTORY
    files = {"tls_cert": f"{directory}/cert.pem", "tls_key": f"{directory}/key.pem"}
    missing = [path for path in files.values() if not os.path.exists(path)]
    if not missing:
        return files
    notices.append(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: using another certificate")
    return {}
