"""Facts as JSON values."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

_LEFT_OUT = frozenset({"body", "now", "has_token", "has_credentials", "wanted_subprotocol", "insecure", "expiry_days"})
"""Fields that are input of the judges, and no observation."""


def as_json(value: Any) -> Any:
    """Returns facts as JSON values: dataclasses as dictionaries without their empty fields, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
        return {name: item for name, item in found.items() if name not in _LEFT_OUT and item not in ("", None, [])}
    if isinstance(value, dict):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
