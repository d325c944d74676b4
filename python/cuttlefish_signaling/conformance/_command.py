"""`cuttlefish-signaling conform`, also `python -m cuttlefish_signaling.conformance`."""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, SignalingError
from ._judge_program import check_program_async
from ._model import Report, Result
from ._profiles import rules_of
from ._program_rules import program_rules_of
from ._report import as_json, as_junit, as_list, as_markdown, as_table, mark_of
from ._server import run_check, server_check, settings_of, token_of
from ._target import tls_context

Print = Callable[[str], None]


def conform(arguments: argparse.Namespace, say: Print) -> int:
    """Runs a command; returns the exit status. `say` prints text to stdout. Raises ConfigError and OSError."""
    check_files(arguments)
    if arguments.list:
        say("\n".join(as_list(_rules(arguments))))
        return 0
    report = asyncio.run(_run(arguments, say))
    for name, write in (("junit", as_junit), ("json", as_json), ("markdown", as_markdown)):
        if (file := getattr(arguments, name)) is not None:
            Path(file).write_text(write(report), encoding="utf-8", errors="backslashreplace")
    say("\n".join(as_table(report)))
    return report.exit_status


def check_files(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for a file that cannot be written, before the rules run."""
    for name in ("junit", "json", "markdown"):
        file = getattr(arguments, name)
        if file is None:
            continue
        try:
            with Path(file).open("a", encoding="utf-8"):
                pass
        except (OSError, ValueError) as error:
            raise ConfigError(f"--{name}", f"{file} cannot be written: {getattr(error, 'strerror', error)}") from None


def _rules(arguments: argparse.Namespace) -> Any:
    if arguments.subject == "server":
        return rules_of(arguments.profile)
    return program_rules_of(arguments.subject, arguments.profile)


async def _run(arguments: argparse.Namespace, say: Print) -> Report:
    judge = _judge_server if arguments.subject == "server" else _judge_program
    return await judge(arguments, _progress())


def _progress() -> Callable[[Result], None] | None:
    """Shows the rules on a terminal as they are done."""
    if not sys.stderr.isatty():
        return None

    def show(result: Result) -> None:
        sys.stderr.write(f"\r\x1b[K{result.rule.id[:60]} {mark_of(result)}\r")
        sys.stderr.flush()

    return show


async def _judge_server(arguments: argparse.Namespace, on_result: Callable[[Result], None] | None) -> Report:
    if arguments.url is None:
        raise ConfigError("URL", "give the URL of the server, or --list")
    uses_tls = arguments.url.startswith(("wss:", "https:"))
    has_options = arguments.ca or arguments.insecure or arguments.cert
    context = None
    if uses_tls and has_options:
        context = tls_context(arguments.ca, insecure=arguments.insecure, cert=arguments.cert, key=arguments.key)
    check = server_check(
        arguments.url,
        profile=arguments.profile,
        only=arguments.only,
        skip=arguments.skip,
        timeout=arguments.timeout,
        token=token_of(arguments.token),
        headers=dict(map(_header, arguments.header)),
        tls=context,
        settings=settings_of(arguments.setting),
        jobs=arguments.jobs,
    )
    return await run_check(check, on_result)


async def _judge_program(arguments: argparse.Namespace, on_result: Callable[[Result], None] | None) -> Report:
    command = arguments.cmd[1:] if arguments.cmd[:1] == ["--"] else arguments.cmd
    return await check_program_async(
        arguments.subject,
        command or None,
        profile=arguments.profile,
        only=arguments.only,
        skip=arguments.skip,
        timeout=arguments.timeout,
        device_id=arguments.device_id,
        listen=_address(arguments.listen),
        tls=_server_context(arguments),
        shows_output=arguments.show_output,
        on_url=None if command else _invite,
        on_result=on_result,
    )


def _invite(url: str) -> None:
    # One write: the output of a program goes to the same stream.
    print(f"start the program with the URL {url}, and again if it ends\n", end="", file=sys.stderr, flush=True)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError("--listen", f"must be HOST:PORT, got {text!r}")
    return host.strip("[]"), int(port)


def _server_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(arguments.cert, arguments.key)
    except OSError as error:
        raise ConfigError("--cert", f"{arguments.cert} cannot be used: {error.strerror or error}") from None
    return context


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ConfigError("--header", "must be NAME:VALUE")
    return name.strip(), value.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line without the rest of the package: `python -m cuttlefish_signaling.conformance`."""
    from .._conform_arguments import DESCRIPTION, add_subjects

    parser = argparse.ArgumentParser(
        prog="python -m cuttlefish_signaling.conformance",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_subjects(parser)
    parsed = parser.parse_args(arguments)
    try:
        return conform(parsed, print)
    except (SignalingError, OSError) as error:
        print(f"conform: error: {error}\n", end="", file=sys.stderr)
        return 2
