"""Tokens that others issue, of the command line."""

from __future__ import annotations

from .. import Jwt
from .._token_file import ROLES
from ..errors import ConfigError
from .sources import Found

_OTHERS = (
    "jwt_issuer",
    "jwt_audience",
    "jwt_leeway",
    "jwt_identity",
    "jwt_devices",
    "jwt_rights",
    "jwt_value",
    "jwt_needed_for",
    "jwt_allow_no_exp",
    "jwt_max_token",
    "jwt_max_keys",
    "jwt_check_interval",
)
"""The settings that need `--jwt-keys`."""


def jwt(found: Found) -> Jwt | None:
    """Returns the tokens of these settings. Raises ConfigError."""
    if not found["jwt_keys"]:
        for key in _OTHERS:
            if key in found.origins:
                raise ConfigError(key, "has no use without --jwt-keys FILE, the keys of the issuers")
        return None
    if found["jwt_value"] and not found["jwt_rights"]:
        raise ConfigError("jwt_value", "has no use without --jwt-rights CLAIM, the claim with these values")
    return Jwt(
        found["jwt_keys"],
        issuer=found["jwt_issuer"] or (),
        audience=found["jwt_audience"] or (),
        leeway=found["jwt_leeway"],
        identity=found["jwt_identity"],
        devices=found["jwt_devices"],
        rights=found["jwt_rights"],
        values=found["jwt_value"] or (),
        needed_for=found["jwt_needed_for"] or ROLES,
        allow_no_exp=found["jwt_allow_no_exp"],
        max_token=found["jwt_max_token"],
        max_keys=found["jwt_max_keys"],
        check_interval=found["jwt_check_interval"],
    )
