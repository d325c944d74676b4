"""The connections to a control API: requests with JSON, and answers that are read line by line."""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlencode

from ..errors import ControlError, NotRunningError, SignalingError, UnreachableError
from .address import Address
from .answers import VERSION, error_of, parsed, raise_unreachable

ROOT = f"/control/v{VERSION}"

BUSY = ("busy", "too_fast")
"""The codes of requests that the server has not carried out, and that can be repeated."""

LONGEST_PAUSE = 1.0
"""Seconds between two attempts of a request that the server had no room for, whatever `Retry-After` says."""

PART = 65536
"""Bytes that are read at a time."""

SILENCE = 30.0
"""Seconds without a line after which a stream counts as broken. The server sends one each 10 s."""


class _UnixConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connects."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Connection:
    """The connections to one control API. Each thread may use it. A request takes an idle connection, or a new one."""

    def __init__(self, address: Address, token: str | None, ssl_context: ssl.SSLContext | None, timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        self.instance: str | None = None
        """The start of the server that the first answer came from."""
        self.is_of_the_past = False
        """Whether the server was started again since then."""
        self._headers = {"Accept": "application/json", "User-Agent": "cuttlefish-signaling"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._context = address.context(ssl_context)
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        self._process = os.getpid()

    # Requests ---------------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        wait: float = 0.0,
    ) -> Any:
        """Returns the JSON of an answer, for which the server may wait `wait` seconds.

        Raises:
            UnreachableError: There is no answer, or no control API.
            ControlError: The server refuses the request. Other errors of the API are the exceptions that a server of
                this process raises.
        """
        until = time.monotonic() + self.timeout
        while True:
            try:
                return self._request(method, _target(path, query), body, wait)
            except ControlError as error:
                pause = until - time.monotonic()
                if error.code not in BUSY or pause <= 0:
                    raise
                time.sleep(min(pause, LONGEST_PAUSE, error._retry_after))

    def _request(self, method: str, target: str, body: Any, wait: float) -> Any:
        connection, is_new = self._take()
        try:
            response = self._send(connection, is_new, method, target, body, wait)
            text = response.read()
        except (OSError, HTTPException) as error:
            connection.close()
            if method == "GET" and not is_new and isinstance(error, ConnectionError):
                return self._request(method, target, body, wait)  # The server has closed it meanwhile.
            raise_unreachable(self.address, error, self.timeout + wait)
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._put_back(connection)
        self._check_instance(response)
        if response.status >= 300:
            raise self._error(response, text)
        return parsed(text)

    def _error(self, response: HTTPResponse, text: bytes) -> Exception:
        error = error_of(self.address, response.status, text)
        if isinstance(error, ControlError):
            try:
                error._retry_after = float(response.getheader("Retry-After") or LONGEST_PAUSE)
            except ValueError:
                pass
        return error

    def _send(
        self, connection: HTTPConnection, is_new: bool, method: str, target: str, body: Any, wait: float
    ) -> HTTPResponse:
        if is_new:
            connection.connect()
        connection.sock.settimeout(self.timeout + wait)
        headers, text = self._headers, None
        if body is not None:
            headers, text = {**headers, "Content-Type": "application/json"}, json.dumps(body).encode()
        connection.request(method, target, text, headers)
        return connection.getresponse()

    def _check_instance(self, response: HTTPResponse) -> None:
        instance = response.getheader("Cuttlefish-Instance")
        if instance is None:
            return
        if self.instance is None:
            self.instance = instance
        elif instance != self.instance:
            self.is_of_the_past = True
            raise NotRunningError(
                f"the server at {self.address.url} has been started again: its journal, faults and clock are others"
            )

    # Streams ----------------------------------------------------------------------------------------------------------

    def lines(self, path: str, query: Mapping[str, Any] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the lines of an answer as they come, each with its JSON object.

        Raises as `request`, and UnreachableError for an answer that is broken off.
        """
        connection = self._new()
        try:
            response = self._send(connection, True, "GET", _target(path, query), None, 0.0)
            self._check_instance(response)
            if response.status >= 300:
                raise self._error(response, response.read())
            connection.sock.settimeout(SILENCE)
            rest = b""
            # `readline` takes a broken answer for a whole one; `read1` raises IncompleteRead.
            while part := response.read1(PART):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    yield self._line(line)
            if rest:
                raise UnreachableError(f"{self.address.url}: the server ended in the middle of a line")
        except SignalingError:
            raise
        except (OSError, HTTPException) as error:
            raise_unreachable(self.address, error, SILENCE)
        finally:
            connection.close()

    def _line(self, line: bytes) -> tuple[str, dict[str, Any]]:
        value = parsed(line)
        if not isinstance(value, dict):
            raise UnreachableError(f"{self.address.url}: sent {line[:80]!r}, which is no line of JSON")
        return line.decode(), value

    # Connections ------------------------------------------------------------------------------------------------------

    def _take(self) -> tuple[HTTPConnection, bool]:
        """Returns a connection, and whether it is new."""
        with self._lock:
            if self._process != os.getpid():  # The other end of a fork has the same sockets.
                self._idle, self._process = [], os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if connection.sock is not None and not _is_readable(connection.sock):
                    return connection, False
                connection.close()  # The server has closed it.
        return self._new(), True

    def _new(self) -> HTTPConnection:
        address = self.address
        if address.scheme == "unix":
            return _UnixConnection(address.host, self.timeout)
        if self._context is not None:
            return HTTPSConnection(address.host, address.port, timeout=self.timeout, context=self._context)
        return HTTPConnection(address.host, address.port, timeout=self.timeout)

    def _put_back(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._idle.append(connection)

    def close(self) -> None:
        """Closes the idle connections. A later request opens another one."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _is_readable(stream: socket.socket) -> bool:
    """Whether an idle connection has something to read, which is its end."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(0))


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
    return f"{ROOT}{path}{'?' if given else ''}{urlencode(given)}"


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
