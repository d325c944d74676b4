"""`probe`: the stages in their order, and the report."""

from __future__ import annotations

import asyncio
import time

from ..errors import ConfigError
from ._deadline import ProbeLoop
from ._needs import require
from ._options import ProbeOptions
from ._report import Report
from ._runner import OnStage, OnStep, Runner
from ._target import target_of
from ._words import shown


async def probe_async(
    url: str,
    device_id: str | None = None,
    options: ProbeOptions | None = None,
    *,
    on_step: OnStep | None = None,
    on_stage: OnStage | None = None,
) -> Report:
    """Runs a probe on this event loop.

    Args:
        url: The server: `ws://`, `wss://`, `http://` or `https://`, with a prefix if it has one.
        device_id: A device, for a session with it.
        options: The options; None takes the defaults.
        on_step: Called with each step when it has ended.
        on_stage: Called when a stage begins, with its name and the seconds that it has.

    Raises:
        ConfigError: An option is wrong, or the extra `probe` or `aiortc` is missing.
    """
    options = options or ProbeOptions()
    target = target_of(url)
    require("websockets", "probe", "a probe")
    if device_id is not None or options.turn or options.turn_servers:
        require("aiortc", "aiortc", "a session with a device, or a check of TURN servers,")
    from ._stages import Stages

    runner = Runner(options, on_step, on_stage)
    stages = Stages(target, device_id, options, runner)
    started, begin = time.time(), time.monotonic()
    try:
        for stage, run in stages.plan():
            await runner.run(stage, run)
    finally:
        await stages.close()
    device = None if device_id is None else shown(device_id)
    return Report(target.shown, device, started, time.monotonic() - begin, tuple(runner.steps))


def probe(
    url: str,
    device_id: str | None = None,
    options: ProbeOptions | None = None,
    *,
    on_step: OnStep | None = None,
    on_stage: OnStage | None = None,
) -> Report:
    """Runs a probe. The arguments and exceptions are those of `probe_async`; Ctrl-C ends it with KeyboardInterrupt."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ConfigError("probe", "an event loop runs in this thread; use `await probe_async(...)`")
    loop = ProbeLoop()
    # Tasks of the libraries that fail after the end of a stage: the facts have the reason.
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        return loop.run_until_complete(probe_async(url, device_id, options, on_step=on_step, on_stage=on_stage))
    finally:
        try:
            loop.run_until_complete(_end_tasks())
        finally:
            loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
