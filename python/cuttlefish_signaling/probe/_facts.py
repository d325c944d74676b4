"""The observations of each stage. The steps make them, and the judges read them: neither needs the other."""

from __future__ import annotations

from dataclasses import dataclass

REFUSED, TIMEOUT, UNREACHABLE, CLOSED = "refused", "timeout", "unreachable", "closed"
"""Outcomes that several stages share."""


@dataclass(frozen=True)
class DnsFacts:
    """The answer for the name of the server."""

    host: str
    addresses: tuple[str, ...] = ()
    outcome: str = "resolved"
    """`resolved`, `unknown`, `unavailable`, `timeout`, or `other`."""
    reason: str = ""


@dataclass(frozen=True)
class Attempt:
    """One connection."""

    address: str
    port: int
    outcome: str
    """`connected`, `refused`, `timeout`, `unreachable`, or `other`."""
    reason: str = ""


@dataclass(frozen=True)
class Certificate:
    """One certificate of the chain."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """DNS names and addresses."""
    begins: float
    expires: float


@dataclass(frozen=True)
class TlsFacts:
    """Two handshakes: one that accepts each certificate, and one that verifies."""

    host: str
    now: float
    outcome: str = "verified"
    """`verified`, `unverified`, `not_tls`, `no_http_1`, `timeout`, `closed`, or `other` of the handshake."""
    reason: str = ""
    verify_code: int = 0
    """OpenSSL's X509_V_ERR code; 0 if the chain is trusted."""
    chain: tuple[Certificate, ...] = ()
    version: str = ""
    expiry_days: float = 14.0
    insecure: bool = False


@dataclass(frozen=True)
class HttpFacts:
    """The answer to a GET."""

    path: str
    outcome: str = "answered"
    """`answered`, `silent` (timeout without a byte), `slow` (with some), `closed`, `tls`, `http2`, `garbage`, or
    `other`."""
    status: int = 0
    location: str = ""
    server: str = ""
    body: bytes = b""
    error: str = ""
    """The `error` of a JSON body."""
    reason: str = ""
    has_token: bool = False
    origin: str = ""


@dataclass(frozen=True)
class EndpointFacts:
    """One WebSocket handshake."""

    path: str
    outcome: str = "open"
    """`open`, `status`, `timeout`, `closed`, `bad_handshake`, or `other`."""
    status: int = 0
    error: str = ""
    location: str = ""
    subprotocol: str | None = None
    wanted_subprotocol: str | None = None
    reason: str = ""
    has_token: bool = False
    origin: str = ""


@dataclass(frozen=True)
class PingFacts:
    """Times from pings to their pongs."""

    wanted: int
    seconds: tuple[float, ...] = ()
    outcome: str = "answered"
    """`answered`, `timeout` or `closed`."""
    reason: str = ""


@dataclass(frozen=True)
class DevicesFacts:
    """The list of devices."""

    http: HttpFacts
    ids: tuple[str, ...] | None = None
    """None if the answer is no list of devices."""
    device_id: str | None = None


@dataclass(frozen=True)
class ConnectFacts:
    """The connection of a client to its device."""

    device_id: str
    outcome: str = "connected"
    """`connected`, `refused`, `no_config`, `no_info`, `garbage`, `timeout` or `closed`."""
    error: str = ""
    close: str = ""
    urls: tuple[str, ...] = ()
    """URLs of the ICE servers."""
    strings: bool = False
    """Whether an ICE server has a plain string as `urls`, which a device does not read."""
    expired: tuple[float, ...] = ()
    """Seconds since the expiry of credentials, by the time in their usernames."""


@dataclass(frozen=True)
class TurnFacts:
    """An allocation at one TURN server."""

    url: str
    outcome: str = "allocated"
    """`allocated`, `refused` (a STUN error), `timeout`, `unknown_name`, `unreachable`, `tls`, `bad_url` or `other`."""
    code: int = 0
    reason: str = ""
    relayed: str = ""
    """The address that the server allocated."""
    server_address: str = ""
    has_credentials: bool = True
    expires_in: float | None = None
    """Seconds until the time in the username; None if it has none."""


@dataclass(frozen=True)
class OfferFacts:
    """The answer of the device to the request for an offer."""

    device_id: str
    seconds: float
    outcome: str = "offer"
    """`offer`, `silent`, `other_messages`, `bad_sdp`, `gone`, or `closed`."""
    types: tuple[str, ...] = ()
    """Types of the other messages that came."""
    reason: str = ""
    media: tuple[str, ...] = ()
    """The media sections of the offer."""


@dataclass(frozen=True)
class Candidate:
    """An ICE candidate."""

    type: str
    """`host`, `srflx`, `prflx` or `relay`."""
    protocol: str
    address: str
    port: int


@dataclass(frozen=True)
class Pair:
    """A pair of candidates, and the state of its check."""

    local: Candidate
    remote: Candidate
    state: str
    is_nominated: bool = False


@dataclass(frozen=True)
class AnswerFacts:
    """The answer to the offer, and the candidates of this side."""

    outcome: str = "sent"
    """`sent`, `refused` or `closed`."""
    reason: str = ""
    local: tuple[Candidate, ...] = ()
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class IceFacts:
    """The checks between the candidates."""

    seconds: float
    state: str
    """The last state of ICE."""
    states: tuple[tuple[str, float], ...] = ()
    """The states, each with the seconds since the answer."""
    local: tuple[Candidate, ...] = ()
    remote: tuple[Candidate, ...] = ()
    """The candidates that the device sent."""
    pairs: tuple[Pair, ...] = ()
    urls: tuple[str, ...] = ()
    is_loopback: bool = False
    """Whether the signaling server is reached over loopback."""
    error: str = ""
    """The end of signaling meanwhile."""


@dataclass(frozen=True)
class DtlsFacts:
    """The DTLS handshake."""

    state: str
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class MediaFacts:
    """Video over some seconds."""

    seconds: float
    has_video: bool = True
    first_frame: float | None = None
    """Seconds from the request for an offer."""
    frames: int = 0
    size: str = ""
    packets: int = 0
    lost: int = 0
    max_loss: float = 0.05
    ended: str = ""
    """The end of the connection during the measurement."""

    @property
    def loss(self) -> float:
        """The ratio of lost packets."""
        sent = self.packets + max(self.lost, 0)
        return max(self.lost, 0) / sent if sent else 0.0


@dataclass(frozen=True)
class DataFacts:
    """The data channels."""

    seconds: float
    has_section: bool = True
    labels: tuple[str, ...] = ()
    """Channels that are open."""
    pending: tuple[str, ...] = ()
    """Channels that are not open."""
