"""`TurnRest`: time-limited TURN credentials."""

from __future__ import annotations

from collections.abc import Iterable

from . import _native
from ._checks import check_number, check_seconds, check_text, names


class TurnRest:
    """Time-limited TURN credentials, computed for each peer (coturn's `use-auth-secret`).

    The username is `expiry:name`, the expiry in Unix seconds; the password the base64 of HMAC-SHA1(secret, username).
    Registered devices get new ones, in a new `config`, after half of `ttl`.

    Args:
        urls: One `turn:` or `turns:` URL, or several of the same server.
        secret: The secret that the TURN server and this server share. It is never printed.
        ttl: Seconds for which credentials are valid, at least 1.
        name: The text after the colon in usernames.
        stun: `stun:` URLs, which peers get as well.

    Raises:
        ConfigError: A URL, the secret or the ttl is not allowed.
    """

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        secret: str,
        ttl: float = 3600.0,
        name: str = "cuttlefish",
        stun: Iterable[str] = (),
    ) -> None:
        urls = names("TurnRest.urls", [urls] if isinstance(urls, str) else urls)
        check_text("TurnRest.secret", secret, is_secret=True)
        check_seconds("TurnRest.ttl", ttl)
        check_text("TurnRest.name", name)
        self._native = _native.TurnRest(urls, secret, ttl, name, names("TurnRest.stun", stun))

    def config(self, now: float | None = None) -> str:
        """Returns the `config` message as JSON. The credentials expire `ttl` seconds after `now` (Unix seconds)."""
        if now is not None:
            check_number("now", now)
        return self._native.config(now)

    def __repr__(self) -> str:
        return repr(self._native)
