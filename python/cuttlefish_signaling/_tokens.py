"""`StaticTokens`: an `authorize` hook with a fixed set of tokens."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ._checks import names
from .errors import ConfigError, Refused

if TYPE_CHECKING:
    from ._models import AuthorizeContext

ROLES = ("device", "client", "http")
SUBPROTOCOL = "bearer."


class StaticTokens:
    """An `authorize` hook that lets in each peer that sends one of these tokens.

        server = SignalingServer(authorize=StaticTokens({"s3cret": "alice"}))

    A peer sends its token in the header `Authorization: Bearer s3cret`. A browser cannot set a header on a WebSocket.
    It sends the token as a subprotocol behind that of the server:
    `new WebSocket(url, ["webrtc-operator", "bearer.s3cret"])`. A token in a subprotocol may have letters, digits and
    ``!#$%&'*+-.^_`|~`` only (RFC 9110, 5.6.2).

    Args:
        tokens: A mapping from a token to an identity, or to a `Grant` for some devices only; or a list of tokens, for
            peers without an identity.
        roles: The roles that need a token: `"device"`, `"client"`, `"http"`. All of them by default.

    Raises:
        ConfigError: The tokens are missing or empty, or a role is unknown.
    """

    def __init__(self, tokens: Mapping[str, Any] | Iterable[str], *, roles: Iterable[str] = ROLES) -> None:
        if isinstance(tokens, str | bytes) or not isinstance(tokens, Iterable):
            got = type(tokens).__name__  # It may have tokens.
            raise ConfigError(
                "StaticTokens.tokens", f"must be a mapping or a list of tokens, got a value of type {got}"
            )
        pairs = tokens.items() if isinstance(tokens, Mapping) else ((token, None) for token in tokens)
        known = list(pairs)
        if not known or not all(isinstance(token, str) and token for token, _ in known):
            raise ConfigError(
                "StaticTokens.tokens", "must have at least one token, and each token must be a string that is not empty"
            )
        self._roles = names("StaticTokens.roles", roles)
        for role in self._roles:
            if role not in ROLES:
                raise ConfigError("StaticTokens.roles", f"{role!r} is not one of {', '.join(map(repr, ROLES))}")
        # Digests have the same length, so the time of a comparison does not depend on a token.
        self._known = [(_digest(token), identity) for token, identity in dict(known).items()]

    def __call__(self, ctx: AuthorizeContext) -> Any:
        """Returns the identity of the token. Raises Refused."""
        if ctx.role not in self._roles:
            return None
        token = _token_of(ctx)
        if token is None:
            raise Refused("A token is needed", status=401)
        given, found, identity = _digest(token), False, None
        for digest, known in self._known:
            # Compares with all of them, so the time does not depend on which one matches.
            if hmac.compare_digest(digest, given):
                found, identity = True, known
        if not found:
            raise Refused("This token is not known", status=401)
        return identity

    def _has_same(self, other: StaticTokens) -> bool:
        """Whether both have the same tokens, identities and roles."""
        return (self._known, self._roles) == (other._known, other._roles)

    def __repr__(self) -> str:
        return f"<StaticTokens: {len(self._known)}>"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _token_of(ctx: AuthorizeContext) -> str | None:
    scheme, _, token = ctx.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for offered in ctx.headers.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(SUBPROTOCOL):
            return offered.strip().removeprefix(SUBPROTOCOL)
    return None
