"""`Jwt`: tokens that others issue."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar

from . import _native
from ._checks import MOST_KEYS, MOST_TOKEN, check_integer, check_seconds, check_text, names
from ._token_file import ROLES, checked_roles
from .errors import ConfigError


class Jwt:
    """JSON Web Tokens that peers need: `SignalingServer(jwt=Jwt(["jwks.json"], audience=["signaling"]))`.

    The server verifies RS256, ES256, EdDSA and HS256 itself, without Python. A peer sends its token as that of a
    `StaticTokens`. `authorize` is called for a peer with another token, or without one. docs/tokens.md is the guide.

    A claim is named by its name, or by a JSON pointer like `/realm_access/roles`.

    Args:
        keys: The files with the keys of the issuers: public keys or certificates in PEM, or a JSON Web Key Set.
        issuer: The issuers (`iss`) that are accepted. None in the list: the keys alone decide.
        audience: The audiences of which a token names one (`aud`). Without it, a token for an audience is refused.
        leeway: The difference of clocks that `exp` and `nbf` allow.
        identity: The claim that is the identity of the peer.
        devices: The claim with patterns of device ids, a list or a text with spaces. None: all devices.
        rights: The claim whose values are the rights of the token. None: all roles, and neither management nor
            exclusive use.
        values: The right that a value of this claim gives, `VALUE=RIGHT`, with `device`, `client`, `http`, `manage`
            or `exclusive`. An empty list: the values are the names of the rights.
        needed_for: The roles that need a token: `"device"`, `"client"`, `"http"`. All of them by default.
        allow_no_exp: Whether a token without `exp` is accepted. It does not expire.
        max_token: The most bytes of a token.
        max_keys: The most keys of all files.
        check_interval: How often the files are read again. None: at a reload only.

    Raises:
        ConfigError: An argument is not allowed, or a file of keys cannot be used.
    """

    __slots__ = ("_native", "_shown")

    def __init__(
        self,
        keys: Iterable[str | os.PathLike[str]],
        *,
        issuer: Iterable[str] = (),
        audience: Iterable[str] = (),
        leeway: float = 60.0,
        identity: str = "sub",
        devices: str | None = None,
        rights: str | None = None,
        values: Iterable[str] = (),
        needed_for: Iterable[str] = ROLES,
        allow_no_exp: bool = False,
        max_token: int = 8192,
        max_keys: int = 100,
        check_interval: float | None = 60.0,
    ) -> None:
        files = _paths(keys)
        check_seconds("Jwt.leeway", leeway)
        check_seconds("Jwt.check_interval", check_interval, optional=True, zero=False)
        check_text("Jwt.identity", identity)
        check_text("Jwt.devices", devices, optional=True)
        check_text("Jwt.rights", rights, optional=True)
        check_integer("Jwt.max_token", max_token, 256, MOST_TOKEN)
        check_integer("Jwt.max_keys", max_keys, 1, MOST_KEYS)
        if not isinstance(allow_no_exp, bool):
            raise ConfigError("Jwt.allow_no_exp", f"must be True or False, got {allow_no_exp!r}")
        self._native = _native.Jwt(
            files,
            issuer=list(names("Jwt.issuer", issuer)),
            audience=list(names("Jwt.audience", audience)),
            leeway=leeway,
            identity=identity,
            devices=devices,
            rights=rights,
            values=list(names("Jwt.values", values)),
            needed_for=list(checked_roles("Jwt.needed_for", needed_for)),
            allow_no_exp=allow_no_exp,
            max_token=max_token,
            max_keys=max_keys,
            check_interval=check_interval,
        )
        self._shown = files

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Jwt) and self._native == other._native

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Jwt {' '.join(self._shown)}>"


def _paths(keys: Any) -> list[str]:
    if isinstance(keys, str | bytes | os.PathLike) or not isinstance(keys, Iterable):
        raise ConfigError("Jwt.keys", f"must be a list of paths, got {keys!r}")
    found = []
    for path in keys:
        try:
            text = os.fspath(path)
        except TypeError:
            text = None
        if not isinstance(text, str) or not text or "\0" in text:
            raise ConfigError("Jwt.keys", f"must be a list of paths, got {path!r} in it")
        found.append(text)
    return found
