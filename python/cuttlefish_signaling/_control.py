"""Answers the requests of the control API that the Rust core cannot answer: reload, errors, transcripts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _transcript
from ._log import report
from .errors import ConfigError, NotRunningError, SignalingError

if TYPE_CHECKING:
    from . import _native
    from ._events import EventThread
    from ._hooks import HookRunner


class ControlRequests:
    """The answers of one run. Each request has a thread of its own; the core bounds their number."""

    def __init__(
        self,
        journal: _native.Journal,
        hooks: HookRunner,
        events: EventThread,
        reload: Callable[[], dict[str, Any] | None],
    ) -> None:
        self._journal = journal
        self._hooks = hooks
        self._events = events
        self._read_again = reload

    def __call__(self, request: _native.ProgramRequest) -> None:
        """Answers a request, later. Called by the event thread, which must not wait."""
        thread = threading.Thread(target=self._answer, args=(request,), name="cuttlefish-control", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # The interpreter exits, or the system has no more threads.
            _refuse(request, 503, "busy", f"no thread can be started: {error}")

    def _answer(self, request: _native.ProgramRequest) -> None:
        try:
            if request.name == "transcript":
                request.answer(200, self._transcript(**json.loads(request.arguments)), is_text=True)
                return
            body = self._reload() if request.name == "reload" else self._errors()
            request.answer(200, json.dumps(body))
        except ConfigError as error:
            _refuse(request, 409, "config", str(error), setting=error.setting)
        except NotRunningError as error:
            _refuse(request, 503, "stopping", str(error))
        except (SignalingError, RuntimeError) as error:
            _refuse(request, 409, "config", str(error))
        except BaseException as error:  # The caller must not wait for nothing.
            report(error)
            _refuse(request, 500, "internal", f"{type(error).__name__}, which the log has")

    def _reload(self) -> dict[str, Any]:
        answer = self._read_again()
        if answer is None:
            raise NotRunningError("the server stops")
        return answer

    def _errors(self) -> dict[str, Any]:
        hooks, events = self._hooks, self._events
        failures = [
            {
                "hook": failure.hook,
                "device_id": failure.device_id,
                "peer": failure.peer,
                "role": failure.role,
                "at": failure.at,
                "error": f"{type(failure.error).__name__}: {failure.error}",
            }
            for failure in list(hooks.failures)
        ]
        return {
            "hook_failures": hooks.failure_count,
            "hook_errors": failures,
            "error_count": events.error_count,
            "server_errors": list(events.errors),
        }

    def _transcript(self, format: str, device: str | None, client: int | None, after: int) -> str:
        return _transcript.of(self._journal, format, after, device=device, client=client)


def _refuse(request: _native.ProgramRequest, status: int, code: str, error: str, **more: str) -> None:
    request.answer(status, json.dumps({"error": error, "code": code, **more}))
