"""Signals and limits of the process."""

from __future__ import annotations

import atexit
import os
import queue
import resource
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from ..errors import NotRunningError
from .output import last_words

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

RELOAD_SIGNAL = signal.SIGHUP
"""It reloads. It stops where the terminal of the process is gone: then a shell, not an administrator, has sent it."""

SIGNALS = (*STOP_SIGNALS, RELOAD_SIGNAL)

SAME_REQUEST = 1.0
"""Seconds after the first signal in which others are part of it: a terminal and a supervisor often send one each."""


SAME_REQUEST_IN_A_DRAIN = 0.25
"""The same while the server drains. A second signal costs less then: it ends the drain, not the process."""


Outcome: TypeAlias = dict[str, Any] | Exception
"""The answer of the control API to a reload, or the error."""


class Interrupted(BaseException):
    """A signal that stops the server has come while settings were loaded."""


class StopSignals:
    """Takes the signals that stop or reload the server, on a thread of its own.

    The interpreter writes the number of each signal to a socket, in whichever thread the kernel runs its handler. The
    thread reads them, so the main thread may be busy. The signals are not blocked: programs that hooks run would
    inherit that.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        """The name of the first signal."""
        self._first_at = 0.0
        self.end_drain: Callable[[], bool] | None = None
        """Ends the drain of the server, and returns whether there was one. Set when the server is about to drain."""
        self._numbers: set[int] = set()
        self._wants_reload = False
        self._answers: deque[queue.SimpleQueue[Outcome]] = deque()
        self._waits = True  # Until `wait` has returned.
        self._is_interruptible = False
        # The handler may come before the thread has noted the signal.
        self._has_handled = False
        self._has_terminal = _has_terminal()
        self._came = threading.Event()
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self._fd_before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._read, name="cuttlefish-signals", daemon=True)

    def take(self) -> None:
        """Sets the handlers. Called again after hooks were loaded, which may have set others.

        A handler of hooks stays and runs as well. A SIGHUP that is ignored (nohup) or handled by hooks does nothing.
        """
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if number == signal.SIGHUP and handler not in (signal.SIG_DFL, _taken_by_the_thread):
                self._numbers.discard(number)
                continue
            self._numbers.add(number)
            if not callable(handler) or handler in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler):
                signal.signal(number, _taken_by_the_thread)
        if self._thread.ident is None:
            self._thread.start()

    def wait(self, reload: Callable[[StopSignals], Outcome] = lambda _signals: {}) -> str:
        """Waits for the first signal that stops, and returns its name. Handlers of hooks need this thread meanwhile.

        SIGHUPs and requests that come during a `reload` lead to one more.
        """
        try:
            while self.first is None:
                self._came.wait()
                self._came.clear()
                if self._wants_reload and self.first is None:
                    self._wants_reload = False
                    answers = self._take_answers()
                    outcome = reload(self)
                    for answer in answers:
                        answer.put(outcome)
            return self.first
        finally:
            self._waits = False
            for answer in self._take_answers():
                answer.put(NotRunningError("not reloaded, since the server stops"))

    def request_reload(self) -> dict[str, Any]:
        """Has the thread of `wait` reload, and returns the outcome. Called by another thread. Raises the error."""
        answer: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._answers.append(answer)
        self._wants_reload = True
        self._came.set()
        if not self._waits:
            raise NotRunningError("not reloaded, since the server stops")
        outcome = answer.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _take_answers(self) -> list[queue.SimpleQueue[Outcome]]:
        """Takes the queues of those that wait for the next reload."""
        answers = []
        while self._answers:
            answers.append(self._answers.popleft())
        return answers

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A signal that stops the server raises `Interrupted` in this context, so that hooks cannot delay the stop."""
        self._is_interruptible = True
        try:
            if self.first is not None or self._has_handled:
                raise Interrupted
            yield
        finally:
            self._is_interruptible = False

    def interrupt(self) -> None:
        """Raises `Interrupted`, where that is allowed. Called in the main thread, by the handler of a signal."""
        self._has_handled = True
        if self._is_interruptible:
            self._is_interruptible = False
            raise Interrupted

    def on_signal(self, number: int, now: float) -> bool:
        """Notes a signal. Returns whether the process is to end at once. In a drain, the signal ends the drain."""
        if number not in self._numbers:
            return False  # A signal that hooks handle.
        if number == RELOAD_SIGNAL and not (self._has_terminal and not _has_terminal()):
            self._wants_reload = True
            return False
        if self.first is None:
            self.first, self._first_at = signal.Signals(number).name, now
            return False
        since = now - self._first_at
        if self.end_drain is not None and since > SAME_REQUEST_IN_A_DRAIN and self.end_drain():
            self._first_at = now
            return False
        return since > SAME_REQUEST

    def restore(self) -> None:
        """Sets the handlers and the descriptor of before."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._fd_before)

    def ignore(self) -> None:
        """Ignores the signals from now on. The end of the interpreter would set their defaults, which are to kill."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        self.close()

    def close(self) -> None:
        """Ends the thread."""
        self._sender.close()
        if self._thread.ident is not None:
            self._thread.join()
        self._receiver.close()

    def _read(self) -> None:
        while numbers := self._receiver.recv(64):
            for number in numbers:
                if self.on_signal(number, time.monotonic()):
                    name = signal.Signals(number).name
                    last_words(f"{name} after {self.first}: ends at once, connections are not closed in order")
                    os._exit(0)
            self._came.set()


def _taken_by_the_thread(number: int, _frame: object) -> None:
    """The handler in Python, without which the interpreter has none."""
    if number in STOP_SIGNALS and _current is not None:
        _current.interrupt()


def _has_terminal() -> bool:
    """Whether the process has a terminal that can hang up."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


_current: StopSignals | None = None


_masks = threading.local()


def _before_fork() -> None:
    """Blocks the signals: a forked process has the socket too, and a signal to it would stop the server."""
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _after_fork_in_child() -> None:
    if _current is not None:
        _current.restore()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


@contextmanager
def stop_signals(*, until_exit: bool) -> Iterator[StopSignals]:
    """Takes SIGINT, SIGTERM and SIGHUP until the context or, with `until_exit`, the process ends.

    The first one stops the server. The second one ends its drain; without a drain, one that comes later than
    `SAME_REQUEST` ends the process at once, as PID 1 too.
    """
    global _current
    signals = _current = StopSignals()
    try:
        signals.take()
        yield signals
    finally:
        if until_exit:
            atexit.register(signals.ignore)  # Until then a signal still ends a process that waits for threads of hooks.
        else:
            _current = None
            signals.restore()
            signals.close()


def raise_descriptor_limit() -> None:
    """Raises the soft limit of open files to the hard one. Each connection takes a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # The limit stays. The server logs when it has no descriptors left.
