"""`StaticTokens`: an `authorize` hook with a fixed set of tokens."""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._annotations import late_annotations
from ._checks import MAX_SECONDS
from ._models import Grant
from ._token_file import ROLES, KnownToken, checked_roles, digest, read_token_file
from .errors import ConfigError, Refused

if TYPE_CHECKING:
    from ._models import AuthorizeContext

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
        needed = checked_roles("StaticTokens.roles", roles)
        self._table = tuple(KnownToken(digest(token), identity) for token, identity in dict(known).items()), needed
        self._path: str | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> StaticTokens:
        """Returns the tokens of a file, as `--token-file` reads it. docs/tokens.md has the three formats.

        Args:
            path: The file: `.toml`, `.json`, or lines of `TOKEN [IDENTITY [DEVICE_PATTERN ...]]`.

        Raises:
            ConfigError: The file cannot be read, or has an error. The text names line and key, and has no token.
        """
        return cls._from_file("StaticTokens.from_file", path)

    @classmethod
    def _from_file(cls, setting: str, path: str | os.PathLike[str]) -> StaticTokens:
        found = cls.__new__(cls)
        found._table = read_token_file(setting, path)
        found._path = os.fsdecode(path)
        return found

    def reload(self) -> bool:
        """Reads the file again. Peers that are connected stay.

        Returns:
            Whether the tokens are other ones.

        Raises:
            ConfigError: The file cannot be read, or has an error: the old tokens stay. Or these tokens have no file.
        """
        if self._path is None:
            raise ConfigError("StaticTokens.reload", "these tokens come from no file: StaticTokens.from_file reads one")
        before, self._table = self._table, read_token_file("StaticTokens.reload", self._path)
        return before != self._table

    def __call__(self, ctx: AuthorizeContext) -> Any:
        """Returns the identity or the grant of the token. Raises Refused."""
        known, roles = self._table
        if ctx.role not in roles:
            return None
        token = _token_of(ctx)
        if token is None:
            raise Refused("A token is needed", status=401)
        given, found = digest(token), None
        for one in known:
            # Compares with all of them, so the time does not depend on which one matches.
            if hmac.compare_digest(one.digest, given):
                found = one
        if found is None:
            raise Refused("This token is not known", status=401)
        now = time.time()
        if found.expires is not None and found.expires <= now:
            raise Refused("This token has expired", status=401)
        if ctx.role not in found.roles:
            raise Refused(f"This token is not for the role {ctx.role!r}", status=403)
        if found.expires is None:
            return found.result
        grant = found.result if isinstance(found.result, Grant) else Grant(found.result)
        return replace(grant, valid_for=min(found.expires - now, MAX_SECONDS))

    def _has_same(self, other: StaticTokens) -> bool:
        """Whether both have the same tokens, identities and roles."""
        return self._table == other._table

    def __repr__(self) -> str:
        return f"<StaticTokens: {len(self._table[0])}>"


def _token_of(ctx: AuthorizeContext) -> str | None:
    scheme, _, token = ctx.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for offered in ctx.headers.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(SUBPROTOCOL):
            return offered.strip().removeprefix(SUBPROTOCOL)
    return None


late_annotations(globals())
