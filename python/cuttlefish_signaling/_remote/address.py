"""The address of a control API, its token, and the certificate that is trusted."""

from __future__ import annotations

import os
import re
import ssl
from typing import NamedTuple

from .._checks import check_text
from .._listen import EVERY_ADDRESS, Listener
from ..errors import ConfigError

MOST_OF_PATH = 107
"""Bytes that the path of a Unix socket may have (`sun_path`, unix(7))."""

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""A token of RFC 6750, 2.1."""


class Address(NamedTuple):
    """The place of a control API."""

    scheme: str
    host: str
    """The host to connect to; the path of a Unix socket."""
    port: int
    url: str
    """The address as the server prints it, for texts."""

    @classmethod
    def of(cls, setting: str, text: object) -> Address:
        """Reads an address in the form of `control_api`. Raises ConfigError."""
        check_text(setting, text)
        listener = Listener.parse(setting, str(text), most=MOST_OF_PATH)
        if listener.scheme != "unix" and not listener.number:
            raise ConfigError(setting, f"{text!r} has the port 0: give the port that the server prints as `control:`")
        host = listener.place
        if host in EVERY_ADDRESS:
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        return cls(listener.scheme, host, listener.number, listener.url)

    @property
    def is_on_loopback(self) -> bool:
        """Whether the connection stays on this machine."""
        return self.host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", self.host) is not None

    def check_secrecy(self, setting: str) -> None:
        """Raises ConfigError for an address to which a token would be sent in plain text over a network."""
        if self.scheme == "http" and not self.is_on_loopback:
            raise ConfigError(
                setting,
                f"{self.url} would send the token in plain text to another machine: write https:, or use a "
                f"tunnel: ssh -L {self.port}:127.0.0.1:{self.port} HOST",
            )

    def context(self, given: ssl.SSLContext | None) -> ssl.SSLContext | None:
        """Returns the TLS context of connections; None without TLS.

        The certificate of a server on this machine is not verified unless a context is given: its authority is its own.
        """
        if self.scheme != "https":
            return None
        if given is not None:
            return given
        context = ssl.create_default_context()
        if self.is_on_loopback:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def read_token(setting: str, path: str | os.PathLike[str]) -> str:
    """Returns the token of a file. Raises ConfigError."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except (OSError, UnicodeError) as error:
        # The text of a UnicodeError would quote the file.
        why = error.strerror if isinstance(error, OSError) else "it is no text of ASCII"
        hint = "; `serve --control-token-file` makes it" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(setting, f"cannot read {os.fspath(path)}: {why}{hint}") from None
    return checked_token(setting, text, f"{os.fspath(path)} ")


def checked_token(setting: str, token: object, place: str = "") -> str:
    """Returns the token. Raises ConfigError, which does not show it."""
    check_text(setting, token, is_secret=True)
    if _TOKEN.fullmatch(str(token)) is None:
        raise ConfigError(
            setting, f"{place}must have one token: letters, digits, `-._~+/`, and `=` at its end (RFC 6750)"
        )
    return str(token)
