"""ICE servers as Python has them: `IceServer`, and the types of dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict

from ._checks import check_text
from ._field_docs import with_field_docs
from .errors import ConfigError


@with_field_docs
@dataclass(frozen=True)
class IceServer:
    """A STUN or TURN server (W3C `RTCIceServer`). TURN needs `username` and `credential`.

    Raises:
        ConfigError: A value has another type.
    """

    urls: str | Sequence[str]
    """One URL or several: `stun:HOST[:PORT]`, `turn:HOST[:PORT][?transport=udp|tcp]`, `stuns:`, `turns:`."""
    username: str | None = None
    """The user name for TURN."""
    credential: str | None = field(default=None, repr=False)
    """The password for TURN."""

    def __post_init__(self) -> None:
        if not isinstance(self.urls, str) and (isinstance(self.urls, bytes) or not isinstance(self.urls, Sequence)):
            raise ConfigError("IceServer.urls", f"must be a string or a list of strings, got {self.urls!r}")
        for url in [self.urls] if isinstance(self.urls, str) else self.urls:
            check_text("IceServer.urls", url)
        check_text("IceServer.username", self.username, optional=True)
        check_text("IceServer.credential", self.credential, optional=True, is_secret=True)

    def _json(self) -> dict[str, Any]:
        urls = self.urls if isinstance(self.urls, str) else list(self.urls)
        named = {"urls": urls, "username": self.username, "credential": self.credential}
        return {key: value for key, value in named.items() if value is not None}


class _Urls(TypedDict):
    urls: str | Sequence[str]


class IceServerDict(_Urls, total=False):
    """The dictionary of an ICE server (W3C `RTCIceServer`). TURN needs `username` and `credential`.

    Instead of `urls` the older name `url` is taken as well, in dictionaries whose type is not checked.
    """

    username: str
    credential: str
    credentialType: Literal["password"]
    """It is not sent."""


class IceServersDict(TypedDict):
    """The answer of a provider of TURN servers, as `RTCPeerConnection` takes it. Further keys are ignored.

    Twilio's, with `ice_servers`, and that of Xirsys, with `iceServers` in `v`, are taken as well.
    """

    iceServers: Sequence[IceServerDict] | IceServerDict


StaticIceServers: TypeAlias = Iterable[IceServer | IceServerDict] | IceServer | IceServerDict | IceServersDict
"""A list of ICE servers, one of them, or the answer of a provider."""
