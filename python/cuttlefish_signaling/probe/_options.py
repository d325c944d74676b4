"""The options of a probe, with their ranges."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from .._checks import check_number, check_text
from .._field_docs import with_field_docs
from ..errors import ConfigError
from ._report import EXIT_STATUS

MAX_TIMEOUT = 3600.0
MAX_MEDIA_SECONDS = 3600.0
MAX_PINGS = 1000


@with_field_docs
@dataclass(frozen=True)
class ProbeOptions:
    """The options of a probe. A value outside of its range raises ConfigError."""

    token: str | None = field(default=None, repr=False)
    """The token for `Authorization: Bearer`; None sends none. It is in no output."""
    origin: str | None = None
    """The `Origin` of requests and of the client's WebSocket, as a page of it would send."""
    ca: str | None = None
    """A PEM file with authorities that are trusted, in the place of those of the system."""
    insecure: bool = False
    """Whether a faulty certificate is a warning, and the probe goes on. Cuttlefish devices verify none by default."""
    timeout: float = 10.0
    """Seconds for each stage, more than 0, at most 3600. The stage `media` has `seconds` on top."""
    timeouts: Mapping[str, float] | None = None
    """Seconds for some stages, by the names of `EXIT_STATUS`."""
    pings: int = 3
    """Pings to the server, from 1 to 1000."""
    seconds: float = 5.0
    """Seconds for which frames are counted, more than 0, at most 3600."""
    max_loss: float = 0.05
    """The ratio of lost packets above which the stage `media` fails, from 0 to 1."""
    expiry_days: float = 14.0
    """A certificate that expires within so many days is a warning, from 0 to 3650."""
    turn: bool = False
    """Whether the TURN servers that the server hands out are checked."""
    turn_servers: tuple[Mapping[str, object], ...] = field(default=(), repr=False)
    """TURN servers to check in their place: `RTCIceServer` dictionaries with urls, username and credential."""

    def __post_init__(self) -> None:
        for name in ("token", "origin", "ca"):
            check_text(name, getattr(self, name), optional=True, is_secret=name == "token")
        if self.token is not None and (not self.token.isascii() or not self.token.isprintable() or not self.token):
            raise ConfigError("token", "must be one line of printable ASCII characters")
        if self.origin is not None and not self.origin.isprintable():
            raise ConfigError("origin", f"must be one line, got {self.origin!r}")
        self._check_range("timeout", self.timeout, 0, MAX_TIMEOUT, zero=False)
        for stage, seconds in (self.timeouts or {}).items():
            if stage not in EXIT_STATUS:
                raise ConfigError("timeouts", f"there is no stage {stage!r}; there are {', '.join(EXIT_STATUS)}")
            self._check_range(f"timeouts[{stage!r}]", seconds, 0, MAX_TIMEOUT, zero=False)
        self._check_range("seconds", self.seconds, 0, MAX_MEDIA_SECONDS, zero=False)
        self._check_range("max_loss", self.max_loss, 0, 1)
        self._check_range("expiry_days", self.expiry_days, 0, 3650)
        if not isinstance(self.pings, int) or isinstance(self.pings, bool) or not 1 <= self.pings <= MAX_PINGS:
            raise ConfigError("pings", f"must be a whole number between 1 and {MAX_PINGS}, got {self.pings!r}")

    @staticmethod
    def _check_range(name: str, value: float, least: float, most: float, *, zero: bool = True) -> None:
        check_number(name, value)
        if not least <= value <= most or (value == 0 and not zero):
            begin = f"at least {least:g}" if zero else "more than 0"
            raise ConfigError(name, f"must be {begin} and at most {most:g}, got {value!r}")

    def seconds_for(self, stage: str) -> float:
        """Returns the seconds that a stage has."""
        given = (self.timeouts or {}).get(stage, self.timeout)
        return given + self.seconds if stage == "media" else given

    def context(self) -> ssl.SSLContext:
        """Returns the TLS context that verifies the server. Raises ConfigError for a file that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError("ca", f"cannot use {self.ca}: {reason}") from None
        context.set_alpn_protocols(["http/1.1"])
        return context

    def unverified_context(self) -> ssl.SSLContext:
        """Returns a TLS context that accepts each certificate, to look at it."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        return context
