"""A line of the command line is one write, so that a line of the log does not come in the middle of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from typing import TextIO

import pytest

from cuttlefish_signaling.cli import main
from cuttlefish_signaling.cli.output import print_answer, print_if_possible, print_to_stderr


class Writes(io.RawIOBase):
    """A stream that keeps each write."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.made += [bytes(data).decode()] if data else []
        return len(data)


STREAMS: dict[str, Callable[[Writes], TextIO]] = {
    "blocks": lambda writes: io.TextIOWrapper(io.BufferedWriter(writes)),  # type: ignore[type-var]
    "lines": lambda writes: io.TextIOWrapper(io.BufferedWriter(writes), line_buffering=True),  # type: ignore[type-var]
    "unbuffered": lambda writes: io.TextIOWrapper(writes, write_through=True),  # type: ignore[type-var]
}
"""stdout as Python makes it for a file, for a terminal, and with PYTHONUNBUFFERED. stderr has the last two."""


def written(out: str, err: str, prints: Callable[[], object]) -> list[str]:
    """Returns the writes of a call, with these buffers of stdout and of stderr."""
    writes = Writes()
    with redirect_stdout(STREAMS[out](writes)), redirect_stderr(STREAMS[err](writes)):
        prints()
        return writes.made


@pytest.mark.parametrize("out", STREAMS)
@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (("devices: ws://x", "cluster: 127.0.0.1:1"), "devices: ws://x\ncluster: 127.0.0.1:1\n"),
        (("one",), "one\n"),
        (("with an end\n",), "with an end\n"),
        ((), ""),
    ],
)
def test_answer_is_one_write(out: str, lines: tuple[str, ...], text: str) -> None:
    for prints in (print_answer, print_if_possible):
        assert written(out, "lines", partial(prints, *lines)) == ([text] if text else [])


@pytest.mark.parametrize("err", ["lines", "unbuffered"])
def test_error_is_one_write(err: str) -> None:
    assert written("blocks", err, lambda: print_to_stderr("error: x")) == ["cuttlefish-signaling: error: x\n"]
    (error,) = written("blocks", err, lambda: main(["serve", "--token-file", "/nowhere/tokens"]))
    assert error.startswith("cuttlefish-signaling: error: ")
    assert error.index("\n") == len(error) - 1
