"""JSON texts that stay as they were written, like `1.10` and `1e400`, which are other numbers once they were parsed."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from .errors import ConfigError


class RawJson(str):
    """A JSON text. Fake peers send it byte for byte: `device.send(RawJson('{"type": "offer", "n": 1.10}'))`.

    It may stand for a payload, for device info, or for a value in them. `Message.raw` and `Entry.raw` are such texts:
    `message.reply(message.raw)` echoes a payload.

    Raises:
        ConfigError: The text is not JSON. `send_raw()` sends any text.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> RawJson:
        try:
            parse(text)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError("RawJson", f"must be a JSON text, got {text!r:.80}: {error}") from None
        return cls._of(text)

    @classmethod
    def _of(cls, text: str) -> RawJson:
        """Takes a text that is known to be JSON."""
        return super().__new__(cls, text)

    @property
    def value(self) -> Any:
        """The parsed text. `1e400` becomes an infinity, as a whole number does with more digits than `int` takes."""
        return parse(self)


def _int_or_float(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:  # See `sys.set_int_max_str_digits`.
        return float(digits)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_int=_int_or_float, parse_constant=_refuse)
_space = re.compile(r"[ \t\n\r]*")
_surrogate = re.compile("[\ud800-\udfff]")


def parse(text: str) -> Any:
    """Parses a JSON text. Raises ValueError or RecursionError."""
    return _decoder.decode(text)


def _skip(text: str, at: int) -> int:
    space = _space.match(text, at)
    return at if space is None else space.end()


def members(text: str) -> dict[str, RawJson]:
    """The text of each value of a JSON object, by key; of a key that stands twice, the last.

    Raises ValueError or RecursionError, and TypeError for another JSON text.
    """
    if not isinstance(parse(text), dict):
        raise TypeError("it is not a JSON object")
    found: dict[str, RawJson] = {}
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = _decoder.raw_decode(text, at)
        begin = _skip(text, _skip(text, at) + len(":"))
        _, end = _decoder.raw_decode(text, begin)
        found[key] = RawJson._of(text[begin:end])
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def write(value: Any, name: str = "payload") -> RawJson:
    """Writes a value as JSON, and each `RawJson` in it as it is. Raises ConfigError, which names the argument."""
    if isinstance(value, RawJson):
        return value
    try:
        text = _write(value) if _has_raw(value) else _plain(value)
    except (TypeError, ValueError, RecursionError) as error:
        hint = "pass a JSON value, or RawJson(text) for a text that no value stands for, like 1e400"
        raise ConfigError(name, f"cannot be written as JSON: {error}; {hint}") from error
    # A string of Python may have half of a surrogate pair, which UTF-8 does not. In JSON it is an escape.
    return RawJson._of(_surrogate.sub(lambda half: f"\\u{ord(half[0]):04x}", text))


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _has_raw(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return isinstance(value, RawJson)
    for each in value:  # noqa: SIM110  # `any` with a generator takes longer.
        if _has_raw(each):
            return True
    return False


def _write(value: Any) -> str:
    if isinstance(value, RawJson):
        return str(value)
    if isinstance(value, dict):
        keys = [_plain({key: 0})[1 : -len(": 0}")] for key in value]
        texts = map(_write, value.values())
        return "{" + ", ".join(f"{key}: {text}" for key, text in zip(keys, texts, strict=True)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_write, value)) + "]"
    return _plain(value)


def on_lines(name: str, text: RawJson) -> dict[str, Any]:
    r"""The members for a text in a file of JSON lines: itself; if it has line ends, one line of it, and all of it.

    The second is a string: `{"payload": [1, 2], "payload_text": "[1,\n2]"}`.
    """
    line = on_one_line(text)
    return {name: line} if line == text else {name: line, f"{name}_text": str(text)}


def on_one_line(text: str) -> RawJson:
    """The same JSON without a character that ends a line: white space becomes a space, in strings it is an escape."""
    return RawJson._of(text.translate(_LINE_ENDS))


_LINE_ENDS = str.maketrans({"\n": " ", "\r": " ", **{end: f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}})
"""Line breaks of JSON are white space between its values. The other characters are in strings only."""
