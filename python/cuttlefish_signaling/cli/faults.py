"""The faults of a config file: its tables `[[faults]]`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

from ..errors import ConfigError, SignalingError
from ..faults import Fault, Faults, Narrow

KINDS = ("drop", "duplicate", "delay", "reorder", "truncate", "stall", "bandwidth", "disconnect", "reset")
"""The values of `fault`: the methods of `Faults` that make one."""


class FileFault(NamedTuple):
    """A table `[[faults]]`. `fault` is the method of `Faults`, and the other keys are its arguments."""

    table: dict[str, Any]
    place: str
    """The file, line and number of the table."""

    @classmethod
    def read(cls, table: Any, place: Callable[[str], str]) -> FileFault:
        """Checks a table. `place` returns the place of a key, or of the table for "". Raises ConfigError."""
        if not isinstance(table, dict):
            raise ConfigError(place(""), f"must be a table, got {table!r}")
        kind = table.get("fault")
        if kind not in KINDS:
            what = "is missing" if kind is None else f"{kind!r} is not a fault{_hint(kind, KINDS)}"
            raise ConfigError(place("fault"), f"{what}; there are {', '.join(KINDS)}")
        found = cls(table, place(""))
        _check_keys(kind, found._arguments(), place)
        try:
            found.made(Faults(None))
        except ConfigError as error:
            raise ConfigError(place(error.setting), _in_toml(error.what)) from None
        except SignalingError as error:
            key, what = re.fullmatch(r"(?:(\w+)=)?(.*)", str(error), re.DOTALL).groups()  # type: ignore[union-attr]
            raise ConfigError(place(key or ""), _in_toml(what)) from None  # It was `nth=0 is not ...`.
        return found

    def _arguments(self) -> dict[str, Any]:
        return {key: value for key, value in self.table.items() if key != "fault"}

    def made(self, faults: Faults) -> Fault:
        """Makes the fault. Its device may register later, since the file is read before the server starts."""
        make: Callable[..., Fault] = getattr(faults, self.table["fault"])
        return make(**{**self._arguments(), "absent_ok": True})

    def __str__(self) -> str:
        values = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self._arguments().items()]
        return f"{self.table['fault']}({', '.join(values)})"


def _check_keys(kind: str, given: dict[str, Any], place: Callable[[str], str]) -> None:
    """Raises ConfigError for a key that is no argument of this fault, and for one that is missing."""
    parameters = [one for one in inspect.signature(getattr(Faults, kind)).parameters.values() if one.name != "self"]
    own = {one.name: one for one in parameters if one.kind is not one.VAR_KEYWORD}
    known = [*own, *Narrow.__annotations__]
    for key in given:
        if key not in known:
            text = f"unknown key {key!r} of {kind!r}{_hint(key, known)}; there are {', '.join(['fault', *known])}"
            raise ConfigError(place(key), text)
    for name, parameter in own.items():
        if parameter.default is parameter.empty and name not in given:
            raise ConfigError(place(name), f"is missing: {kind!r} needs it")
    if (absent_ok := given.get("absent_ok", True)) is not True:
        what = f"must be true, got {json.dumps(absent_ok)}: no device is registered when the server starts"
        raise ConfigError(place("absent_ok"), what)


def _in_toml(text: str) -> str:
    """Returns the text of an error of Python in the words of a file, which has no None."""
    text = text.replace(" or None", "").replace("neither True nor False", "neither true nor false")
    return re.sub(r"pass (\w+)=False", r"set \1 = false", text)


def _hint(name: Any, known: Any) -> str:
    near = get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
