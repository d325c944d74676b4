"""The rows of tokens that others issue."""

from __future__ import annotations

from .._checks import MOST_KEYS, MOST_TOKEN
from ..errors import ConfigError
from .kinds import Choice, Integer, Kind, Seconds, Strings, Switch
from .row import Flag, Setting

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any


class Issued(Kind):
    """A `Jwt`, or None."""

    def __init__(self) -> None:
        super().__init__("Jwt | None", "a `Jwt`, or None")

    def check(self, setting: str, value: Any) -> Any:
        """Returns the settings of the core."""
        if value is None:
            return None
        from .._jwt import Jwt

        if not isinstance(value, Jwt):
            raise ConfigError(setting, f"must be a Jwt or None, got {value!r}")
        return value._native


CLAIM = Kind("str | None", "the name of a claim, or a JSON pointer like `/realm_access/roles`")


def _row(name: str, kind: Kind, default: Any, text: str, flag: Flag, *, reason: str = "", none: str = "") -> Setting:
    """Returns the row of an argument of `Jwt`."""
    special = (("None", none),) if none else ()
    argument = {"jwt_value": "values"}.get(name, name.removeprefix("jwt_"))
    instead = f"`Jwt({argument}=...)`."
    return Setting(name, kind, default, text, reason, special, group="serve", instead=instead, flag=flag)


JWT = (
    Setting(
        "jwt",
        Issued(),
        None,
        "JSON Web Tokens that peers need, `Jwt(...)`, with the keys of their issuers. `authorize` is called for a peer "
        "with another token, or without one. See docs/tokens.md.",
        special=(("None", "no such token is known"),),
        instead="`--jwt-keys`, and the other flags of `--jwt`.",
    ),
    Setting(
        "on_token_expiry",
        Choice("close", "keep"),
        "close",
        "The end of a connection whose token or `Grant` expires, by `exp`, `expires` or `valid_for`.",
        "Later requests of its peer need another token in any case.",
        special=(
            ('"close"', "it is closed with `Authorization expired` [1008]"),
            ('"keep"', "it stays"),
        ),
        flag=Flag("on-token-expiry", "whether a connection is closed when its token expires, or kept", "close"),
    ),
    _row(
        "jwt_keys",
        Strings(),
        (),
        "Files with the keys of token issuers: public keys or certificates in PEM, or a JSON Web Key Set.",
        Flag("jwt-keys", "keys of the issuers of JSON Web Tokens, PEM or JWKS: peers need a token", metavar="FILE"),
    ),
    _row(
        "jwt_issuer",
        Strings(),
        (),
        "The issuers (`iss`) that are accepted. Without one, the keys alone decide.",
        Flag("jwt-issuer", "an issuer that is accepted", metavar="ISSUER"),
    ),
    _row(
        "jwt_audience",
        Strings(),
        (),
        "The audiences of which a token names one (`aud`).",
        Flag("jwt-audience", "an audience for which tokens may be", metavar="AUDIENCE"),
        reason="Without it, a token for an audience is refused (RFC 7519, 4.1.3).",
    ),
    _row(
        "jwt_leeway",
        Seconds(zero=True),
        60.0,
        "The difference of clocks that `exp` and `nbf` of a token allow.",
        Flag("jwt-leeway", "seconds by which the clocks of issuers may differ", 60.0, "SECONDS"),
    ),
    _row(
        "jwt_identity",
        Kind("str", "the name of a claim, or a JSON pointer"),
        "sub",
        "The claim that is the identity of the peer.",
        Flag("jwt-identity", "the claim that is the identity", "sub", "CLAIM"),
    ),
    _row(
        "jwt_devices",
        CLAIM,
        None,
        "The claim with patterns of the device ids that the peer may use, a list or a text with spaces.",
        Flag("jwt-devices", "the claim with patterns of device ids", metavar="CLAIM"),
        none="all devices",
    ),
    _row(
        "jwt_rights",
        CLAIM,
        None,
        "The claim whose values are the rights of the token, a list or a text with spaces.",
        Flag("jwt-rights", "the claim whose values are rights", metavar="CLAIM"),
        none="all roles, and neither management nor exclusive use of devices",
    ),
    _row(
        "jwt_value",
        Strings(),
        (),
        "The right that a value of `jwt_rights` gives, `VALUE=RIGHT`, with a right of `device`, `client`, `http`, "
        "`manage` and `exclusive`. Without one, the values are the names of the rights.",
        Flag(
            "jwt-value",
            "the right that a value of --jwt-rights gives: device, client, http, manage or exclusive",
            metavar="VALUE=RIGHT",
        ),
    ),
    _row(
        "jwt_needed_for",
        Strings(),
        ("device", "client", "http"),
        "The roles that need a token: `device`, `client`, `http`.",
        Flag(
            "jwt-needed-for", "a role that needs a token: device, client or http; all three without it", metavar="ROLE"
        ),
        reason="Real devices cannot send one.",
    ),
    _row(
        "jwt_allow_no_exp",
        Switch(),
        False,
        "Whether a token without `exp` is accepted.",
        Flag("jwt-allow-no-exp", "accept tokens that do not expire", False),
        reason="It could not be withdrawn without a new key.",
    ),
    _row(
        "jwt_max_token",
        Integer(256, MOST_TOKEN, "bytes"),
        8192,
        "The longest token. `limits.max_request_head` bounds it as well.",
        Flag("jwt-max-token", "bytes of the longest token", 8192, "BYTES"),
    ),
    _row(
        "jwt_max_keys",
        Integer(1, MOST_KEYS),
        100,
        "The most keys of all files of `jwt_keys`.",
        Flag("jwt-max-keys", "the most keys of all files", 100, "NUMBER"),
    ),
    _row(
        "jwt_check_interval",
        Seconds(optional=True),
        60.0,
        "How often the files of `jwt_keys` are read again. New requests are judged by the new keys.",
        Flag(
            "jwt-check-interval", "seconds after which the keys are read again; none: at a reload only", 60.0, "SECONDS"
        ),
        none="at a reload only",
    ),
)
"""The rows, in the order of the reference."""
