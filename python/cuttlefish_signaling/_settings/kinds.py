"""The types of settings. Each checks values of Python, parses texts, and reads values of a TOML file."""

from __future__ import annotations

import os

from .._checks import MAX_SECONDS, check_integer, check_seconds, names
from ..errors import ConfigError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from .._listen import Listener

MAX_SOCKET_PATH = 96
"""Bytes in the path of a local socket. The kernel has room for 108; a new socket is made with a longer name first."""


class Kind:
    """The type of one setting. The base class is for values that the setting's own code checks."""

    toml: tuple[type, ...] = (str,)
    """The types that a TOML file may have."""
    choices: tuple[str, ...] = ()
    """All values, if they are a few words."""
    repeats = False
    """Whether a flag may be repeated."""
    optional = False
    """Whether `none` is None."""
    wanted = "a text"
    """The values that texts and TOML may have, for errors."""

    def __init__(self, annotation: str, values: str = "") -> None:
        self.annotation = annotation
        """The type of the Python argument."""
        self.values = values
        """The values that are allowed, with the unit, for the reference."""

    def check(self, _setting: str, value: Any) -> Any:
        """Returns the value as the core takes it. Raises ConfigError, which names the setting."""
        return value

    def parse(self, text: str) -> Any:
        """Returns the value of a flag or an environment variable. Raises ValueError."""
        return text

    def read(self, place: str, value: Any) -> Any:
        """Returns the value of a TOML file. Raises ConfigError, which names the place."""
        if not isinstance(value, self.toml) or (isinstance(value, bool) and bool not in self.toml):
            raise ConfigError(place, f"{value!r} is not {self.wanted}")
        return value


class Integer(Kind):
    """A whole number in a range."""

    toml = (int,)

    def __init__(self, least: int, most: int, unit: str = "") -> None:
        end = {2**20: "2^20", 2**24: "2^24", 2**26: "2^26", 2**30: "2^30", 2**32 - 1: "2^32-1"}.get(most, str(most))
        super().__init__("int", f"{least} to {end}{unit and f' {unit}'}")
        self.least = least
        self.most = most
        self.wanted = f"a whole number from {least} to {most}"

    def check(self, setting: str, value: Any) -> int:
        """Returns the number."""
        check_integer(setting, value, self.least, self.most)
        return int(value)

    def parse(self, text: str) -> int:
        """Returns the number."""
        if not _matches("-?[0-9]+", text) or not self.least <= int(text) <= self.most:
            raise ValueError(text)
        return int(text)

    def read(self, place: str, value: Any) -> Any:
        """Returns the number."""
        if not self.least <= super().read(place, value) <= self.most:
            raise ConfigError(place, f"{value!r} is not {self.wanted}")
        return value


class Seconds(Kind):
    """A number of seconds. `optional` allows None, which texts and TOML write as `none`."""

    toml = (int, float)

    def __init__(self, *, optional: bool = False, zero: bool = False, least: float = 0.0) -> None:
        shown = f"{least:g} to 10^9" if zero or least else "more than 0, at most 10^9"
        super().__init__("float | None" if optional else "float", f"seconds, {shown}{', or None' * optional}")
        self.optional = optional
        self.zero = zero
        self.least = least
        self.wanted = f"a number of {self.values}".replace("None", "none")

    def check(self, setting: str, value: Any) -> float | None:
        """Returns the number."""
        check_seconds(setting, value, optional=self.optional, zero=self.zero)
        if value is not None and value < self.least:
            raise ConfigError(setting, f"must be at least {self.least:g} seconds, got {value}")
        return value  # type: ignore[no-any-return]

    def parse(self, text: str) -> float | None:
        """Returns the number, or None."""
        if self.optional and text == "none":
            return None
        if not _matches(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text) or not self._has(float(text)):
            raise ValueError(text)
        return float(text)

    def read(self, place: str, value: Any) -> Any:
        """Returns the number, or None. TOML has no null."""
        if self.optional and value == "none":
            return None
        if not self._has(super().read(place, value)):
            raise ConfigError(place, f"{value!r} is not {self.wanted}")
        return value

    def _has(self, value: float) -> bool:
        return self.least <= value <= MAX_SECONDS and (value > 0 or self.zero)


class Choice(Kind):
    """One of a few words."""

    def __init__(self, *choices: str) -> None:
        super().__init__(f"Literal[{', '.join(_quoted(choice) for choice in choices)}]")
        self.choices = choices
        self.wanted = f"one of {', '.join(choices)}"
        self.values = " or ".join(_quoted(choice) for choice in choices)

    def check(self, setting: str, value: Any) -> str:
        """Returns the word."""
        if value not in self.choices:
            raise ConfigError(setting, f"must be {' or '.join(map(repr, self.choices))}, got {value!r}")
        return value  # type: ignore[no-any-return]

    def read(self, place: str, value: Any) -> Any:
        """Returns the word."""
        if value not in self.choices:
            raise ConfigError(place, f"{value!r} is not {self.wanted}")
        return value


class Switch(Kind):
    """True or False."""

    toml = (bool,)
    wanted = "true or false"

    def __init__(self) -> None:
        super().__init__("bool", "True or False")

    def check(self, setting: str, value: Any) -> bool:
        """Returns the value."""
        if not isinstance(value, bool):
            raise ConfigError(setting, f"must be True or False, got {value!r}")
        return value

    def parse(self, text: str) -> bool:
        """Returns the value of an environment variable: 1, true, yes, on, or 0, false, no, off."""
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off", ""):
            return False
        raise ValueError(text)


class Address(Kind):
    """An address or a host name. It is resolved when the server starts."""

    def __init__(self) -> None:
        super().__init__("str", "an address or a host name")

    def check(self, setting: str, value: Any) -> str:
        """Returns the text."""
        if not isinstance(value, str) or not value:
            raise ConfigError(setting, f"must be an address or a name, got {value!r}")
        return value


class Path(Kind):
    """A path, or None. On the command line and in TOML an empty text is None."""

    def __init__(self, most: int | None = None) -> None:
        bound = f" of at most {most} bytes" if most is not None else ""
        super().__init__("str | os.PathLike[str] | None", f"a path{bound}, or None")
        self.most = most

    def check(self, setting: str, value: Any) -> str | None:
        """Returns the path as a string."""
        if value is None:
            return None
        try:
            text: object = os.fspath(value)
        except TypeError:
            raise ConfigError(setting, f"must be a path or None, got {value!r}") from None
        if not isinstance(text, str) or not text or "\0" in text:
            raise ConfigError(setting, f"must be a path or None, got {text!r}")
        if self.most is not None and len(os.fsencode(text)) > self.most:
            raise ConfigError(setting, f"{text!r} is too long for a local socket: at most {self.most} bytes")
        return text


class Strings(Kind):
    """A list of strings. A flag has one of them and may be repeated; a variable separates them by spaces."""

    repeats = True

    def __init__(self, annotation: str = "Iterable[str]", values: str = "a list of strings") -> None:
        super().__init__(annotation, values)

    def check(self, setting: str, value: Any) -> list[str]:
        """Returns the list."""
        return list(names(setting, value))

    def read(self, place: str, value: Any) -> list[str]:
        """Returns the list."""
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(place, f"{value!r} is not a list of strings")
        return value


class Listeners(Strings):
    """A list of listeners, of which a flag has one."""

    def __init__(self, mode: int = 0o660) -> None:  # `_listen.UNIX_MODE`, whose import takes longer.
        super().__init__(values=f"a list of `http://HOST:PORT`, `https://HOST:PORT` and `unix:PATH?mode={mode:04o}`")
        self._mode = mode

    def check(self, setting: str, value: Any) -> list[Any]:
        """Returns the listeners as tuples."""
        return [self.listener(setting, text) for text in names(setting, value)]

    def listener(self, setting: str, text: str) -> Listener:
        """Reads one of them. Raises ConfigError."""
        from .._listen import Listener

        return Listener.parse(setting, text, most=MAX_SOCKET_PATH, mode=self._mode)


CONTROL_LISTENERS = Listeners(0o600)
"""The listeners of the control API."""


class Sockets(Kind):
    """A list of sockets that listen, each as a `socket.socket` or as its descriptor."""

    def __init__(self) -> None:
        super().__init__("Iterable[int | socket.socket]", "a list of sockets or descriptors that listen")

    def check(self, setting: str, value: Any) -> list[int]:
        """Returns the descriptors."""
        try:
            return [self._number(f"{setting}[{index}]", item) for index, item in enumerate(value)]
        except TypeError:
            raise ConfigError(setting, f"must be a list of sockets, got {value!r}") from None

    def _number(self, setting: str, item: Any) -> int:
        import socket

        number = item
        if isinstance(item, socket.socket):
            number = item.fileno()
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**31:
            raise ConfigError(setting, f"must be a socket that is open, or its descriptor, got {item!r}")
        return number


class Secret(Kind):
    """A text that errors do not show."""

    def read(self, place: str, value: Any) -> Any:
        """Returns the text."""
        if not isinstance(value, str):
            raise ConfigError(place, f"must be a text, got a value of type {type(value).__name__}")
        return value


class ControlToken(Secret):
    """The token of the control API, or None."""

    def __init__(self) -> None:
        super().__init__("str | None", "a text of 16 to 512 letters, digits and `-._~+/`, `=` at its end; or None")

    def check(self, setting: str, value: Any) -> str | None:
        """Returns the token. An error does not show it."""
        if value is None:
            return None
        if not isinstance(value, str):
            raise ConfigError(setting, f"must be a text or None, got a value of type {type(value).__name__}")
        if not 16 <= len(value) <= 512:
            raise ConfigError(setting, f"must have a token of 16 to 512 characters, got {len(value)}")
        if not _matches("[A-Za-z0-9._~+/-]+=*", value):
            raise ConfigError(setting, "must have a token of letters, digits and -._~+/ only, with = at its end")
        return value


class Command(Kind):
    """A command: a text with its words, or in a TOML file also the list of them. `None` is no command."""

    def __init__(self) -> None:
        super().__init__("str | None", "a command with its arguments, or None")

    def read(self, place: str, value: Any) -> Any:
        """Returns the text."""
        if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
            import shlex

            return shlex.join(value)
        return super().read(place, value)


class Json(Secret):
    """JSON text, which may have credentials. A TOML file may have the list or table itself."""

    def read(self, place: str, value: Any) -> Any:
        """Returns the text."""
        import json

        return json.dumps(value) if isinstance(value, list | dict) else super().read(place, value)


class Hook(Kind):
    """A function, or None."""

    def __init__(self, annotation: str) -> None:
        super().__init__(annotation, "a `def` or `async def` function, or None")

    def check(self, setting: str, value: Any) -> Any:
        """Returns the function."""
        if value is not None:
            from .._hook_checks import check_hook

            check_hook(setting, value)
        return value


class Certificate(Kind):
    """A `Tls`, or None."""

    def __init__(self) -> None:
        super().__init__("Tls | None", "a `Tls`, or None")

    def check(self, setting: str, value: Any) -> Any:
        """Returns the certificate and key of the core."""
        if value is None:
            return None
        from .._tls import Tls

        if not isinstance(value, Tls):
            raise ConfigError(setting, f"must be a Tls or None, got {value!r}")
        return value._native


class Member(Kind):
    """A `Cluster`, or None."""

    def __init__(self) -> None:
        super().__init__("Cluster | None", "a `Cluster`, or None")

    def check(self, setting: str, value: Any) -> Any:
        """Returns the settings of the core."""
        if value is None:
            return None
        from .._cluster import Cluster

        if not isinstance(value, Cluster):
            # A URL may have a password.
            shown = f"a value of type {type(value).__name__}" if isinstance(value, str | bytes) else repr(value)
            raise ConfigError(setting, f"must be a Cluster or None, got {shown}")
        return value._native


class Group(Kind):
    """A dataclass of settings, which have rows of their own."""

    def __init__(self, dataclass: type) -> None:
        super().__init__(dataclass.__name__, f"a `{dataclass.__name__}`")
        self.dataclass = dataclass

    def check(self, setting: str, value: Any) -> Any:
        """Returns the dataclass."""
        if not isinstance(value, self.dataclass):
            raise ConfigError(setting, f"must be {self.annotation}(...), got {value!r}")
        return value


def _quoted(text: str) -> str:
    return f'"{text}"'


def _matches(pattern: str, text: str) -> bool:
    import re

    return re.fullmatch(pattern, text) is not None
