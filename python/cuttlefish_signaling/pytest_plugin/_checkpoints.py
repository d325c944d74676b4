"""The servers of a test, their counts when it began, and the errors and messages since then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .._server import SignalingServer
    from .._view import View
    from ..testing import AttachedServer

ALLOW_HINT = "(@pytest.mark.signaling(allow_errors=True) lets such a test pass)"

SHARED: dict[str, type[pytest.Collector]] = {
    "signaling_server_class": pytest.Class,
    "signaling_server_module": pytest.Module,
    "signaling_server_session": pytest.Session,
}
"""The fixtures of servers that several tests share, and the node that has the server."""


class Checkpoint:
    """A server, and its counts when a test began. Later errors and messages belong to the test."""

    def __init__(self, server: SignalingServer | AttachedServer) -> None:
        self.server = server
        self._known = (0, 0, 0)
        self.mark()

    def mark(self) -> None:
        """Takes the counts of now: earlier errors and messages belong to other tests."""
        self._run = self.server._last_run
        self._baseline = self._counts()
        self._shown = 0
        self.name = ""
        self.name = self._name()
        if self._run is not None:
            self._run.shown_after = self._baseline[2]

    def _name(self) -> str:
        """The URL of the server, also when it has stopped."""
        if self.server.is_running:
            return self.server.url
        return (
            self.name
            if self.name.startswith("http")
            else f"a server that {'has stopped' if self.run else 'did not run'}"
        )

    def _counts(self) -> tuple[int, int, int]:
        """The number of failed hooks, of logged errors, and of journal entries."""
        try:
            run = self.server._last_run
            if run is None:
                return 0, 0, 0
            self._known = (*run.failure_counts(), run.native.journal.count)
        except (ConnectionError, RuntimeError):
            pass  # A server outside this process, which has ended: nothing is added to the last counts.
        return self._known

    def _counts_at_mark(self) -> tuple[int, int, int]:
        """The counts at the mark; zeros if the test has started the server since."""
        return self._baseline if self.run is self._run else (0, 0, 0)

    @property
    def run(self) -> View | None:
        """The latest run of the server."""
        try:
            return self.server._last_run
        except (ConnectionError, RuntimeError):
            return self._run

    def close(self) -> None:
        """Closes the connections to a server outside this process, if there are any."""
        if self._run is not None:
            self._run.close()

    def new_errors(self) -> tuple[list[Any], list[str]]:
        """The failed hooks and the logged errors since the mark, as far as the server keeps them."""
        failures, errors = (
            now - then for now, then in zip(self._counts()[:2], self._counts_at_mark()[:2], strict=True)
        )
        if failures <= 0 and errors <= 0:
            return [], []
        hook_errors, server_errors = self.server.hook_errors, self.server.server_errors
        return hook_errors[max(0, len(hook_errors) - failures) :], server_errors[max(0, len(server_errors) - errors) :]

    def transcript(self, format: str = "text", *, bounded: bool = False) -> str:
        """The messages since the mark."""
        if self.run is None:
            return "(the server was not started)"
        if not self.server._writes_journal:
            return "(the server has no journal: start it with journal=True)"
        return self._entries(format, self._counts_at_mark()[2], bounded=bounded)

    def _entries(self, format: str, after: int, *, bounded: bool) -> str:
        from .. import _transcript

        assert self.run is not None
        try:
            return _transcript.of(self.run.native.journal, format, after, bounded=bounded)
        except (ConnectionError, RuntimeError) as error:
            return f"(the server does not answer: {error})"

    def news(self) -> tuple[str, str]:
        """A title, and the transcript. After a first report of the test, only the messages since that one."""
        self.name = self._name()
        begin, self._shown = self._shown, self._counts()[2]
        if not begin:
            return f"Signaling transcript of {self.name}", self.transcript(bounded=True)
        if self.run is None or self._shown <= begin:
            return "", ""
        return f"Signaling transcript of {self.name}, continued", self._entries("text", begin, bounded=True)


CHECKPOINTS: pytest.StashKey[list[Checkpoint]] = pytest.StashKey()


def add(owner: pytest.Stash, server: SignalingServer | AttachedServer) -> None:
    """Adds a server to those of a test, of a class, of a module or of the session."""
    checkpoints = owner.setdefault(CHECKPOINTS, [])
    if all(checkpoint.server is not server for checkpoint in checkpoints):
        checkpoints.append(Checkpoint(server))


def _at(node: pytest.Item | pytest.Collector) -> list[Checkpoint]:
    found: list[Checkpoint] | None = node.stash.get(CHECKPOINTS, None)
    return found or []


def of(item: pytest.Item) -> list[Checkpoint]:
    """The servers that a test uses."""
    found: list[Checkpoint] = list(_at(item))
    names = getattr(item, "fixturenames", ())
    for fixture, kind in SHARED.items():
        node = item.getparent(kind)
        if fixture in names and node is not None:
            found += _at(node)
    return found


def mark_shared(item: pytest.Item) -> None:
    """Takes the counts of the servers that the test shares with others."""
    for kind in SHARED.values():
        node = item.getparent(kind)
        checkpoints: list[Checkpoint] = [] if node is None else _at(node)
        for checkpoint in checkpoints:
            checkpoint.mark()


def allows_errors(item: Any) -> bool:
    """Whether a marker permits errors of servers and lost devices."""
    return any(marker.kwargs.get("allow_errors", False) for marker in item.iter_markers("signaling"))


def raise_errors(servers: list[Checkpoint]) -> None:
    """Raises ServerFailedError if a hook has failed, or a server has logged an error, since the test began."""
    failures, errors = [], []
    for checkpoint in servers:
        hooks, logged = checkpoint.new_errors()
        failures += hooks
        errors += logged
    if not failures and not errors:
        return
    from ..errors import ServerFailedError

    lines = [f"hook {failure.hook} failed for {failure.peer}: {failure.error!r}" for failure in failures]
    lines += [f"the server logged an error: {error}" for error in errors]
    lines.append(ALLOW_HINT)
    raise ServerFailedError("\n".join(lines)) from (failures[0].error if failures else None)
