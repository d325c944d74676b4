"""The errors of a control API as exceptions, and the texts for a server that does not answer."""

from __future__ import annotations

import json
import ssl
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from typing import Any, NoReturn

from .. import __version__
from .._entry import printable
from ..errors import (
    ConfigError,
    ControlError,
    FaultError,
    JournalOffError,
    NodeUnreachableError,
    NotRunningError,
    RestartRequiredError,
    SignalingError,
    UnreachableError,
)
from .address import Address

VERSION = 1
"""The version of the API that this client speaks."""

TOKEN = "token_file (--control-token-file, --signaling-control-token-file)"

HINTS = {
    "token_missing": f"it asks for a token: give {TOKEN}, the file that its --control-token-file names",
    "token_wrong": f"the token is another one: give {TOKEN}, the file that its --control-token-file names; after a "
    "change of that file, the server has to reload",
    "not_supported": "",
}
"""Texts in the place of the server's, which does not know how this side is told."""


def parsed(body: bytes) -> Any:
    """Returns the JSON of an answer; None for another body."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def error_of(address: Address, status: int, body: bytes) -> SignalingError:
    """Returns the exception for an answer that is an error."""
    answer = parsed(body)
    if not isinstance(answer, dict) or not isinstance(answer.get("code"), str):
        return _no_control_api(address, status)
    code, text = answer["code"], printable(str(answer.get("error", "")))
    if code == "unknown_version":
        return _other_version(address, answer.get("version"))
    if code == "config":
        return ConfigError(str(answer.get("setting", "")), text)
    if code == "restart_required":
        return RestartRequiredError([str(name) for name in answer.get("settings", ())])
    if code == "node_unreachable":
        return NodeUnreachableError(str(answer.get("node", "")), text)
    if code == "other_node":
        return FaultError(text)
    if code == "journal_off":
        return JournalOffError(f"the server at {address.url} writes no journal: start it with --journal")
    if code == "stopping":
        return NotRunningError(f"the server at {address.url} is stopping")
    where = f"{answer['path']}: " if isinstance(answer.get("path"), str) else ""
    return ControlError(
        f"{address.url}: {where}{HINTS.get(code) or text or f'status {status}'}", code=code, status=status
    )


def _no_control_api(address: Address, status: int) -> UnreachableError:
    return UnreachableError(
        f"{address.url} is no control API (status {status}): give the address of the server's --control-api, which it "
        "prints as `control:`"
    )


def _other_version(address: Address, version: object) -> UnreachableError:
    of = f" of cuttlefish-signaling {version}" if isinstance(version, str) else ""
    return UnreachableError(
        f"the server{of} at {address.url} has another version of the control API; this is cuttlefish-signaling "
        f"{__version__}, which needs version {VERSION}: use the version of the server here"
    )


def check_hello(address: Address, status: int, answer: Any) -> dict[str, Any]:
    """Returns the facts of a server, which are its first answer. Raises UnreachableError for another one."""
    if not isinstance(answer, dict) or not isinstance(answer.get("api"), int):
        raise _no_control_api(address, status)
    if answer["api"] != VERSION:
        raise _other_version(address, answer.get("version"))
    return answer


def raise_unreachable(address: Address, error: Exception, timeout: float) -> NoReturn:
    """Raises UnreachableError for a failed exchange, with the remedy."""
    raise UnreachableError(f"{address.url}: {_reason(address, error, timeout)}") from error


def _reason(address: Address, error: Exception, timeout: float) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; give ssl_context (--ca, --signaling-ca)"
    if isinstance(error, ssl.SSLError):
        return f"it does not speak TLS: {error.reason or error}; write http: for an address without TLS"
    if isinstance(error, TimeoutError):
        return f"the server did not answer within {timeout:g} s"
    if isinstance(error, PermissionError) and address.scheme == "unix":
        return "permission denied: run as a user or group that its mode lets in, or serve with unix:PATH?mode=0660"
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return f"no server listens there ({error.strerror}): start it with --control-api, or give its address"
    if isinstance(error, RemoteDisconnected | ConnectionError):
        tls = "; for an address with TLS, write https:" if address.scheme == "http" else ""
        return f"the server closed the connection without an answer{tls}"
    if isinstance(error, IncompleteRead):
        return "the server ended in the middle of its answer"
    if isinstance(error, HTTPException):
        return "it does not speak HTTP: give the address of the server's --control-api"
    return str(getattr(error, "strerror", None) or error)
