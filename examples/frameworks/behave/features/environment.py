"""A server for each scenario."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from behave import fixture, use_fixture

from cuttlefish_signaling import SignalingServer


@fixture
def signaling(context: Any) -> Iterator[SignalingServer]:
    with SignalingServer(journal=True) as context.server, ExitStack() as context.peers:
        yield context.server


def before_scenario(context: Any, scenario: Any) -> None:
    use_fixture(signaling, context)


def after_step(context: Any, step: Any) -> None:
    if step.status.name == "failed":
        print(context.server.journal.transcript())
