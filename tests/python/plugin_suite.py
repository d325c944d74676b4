"""Suites of users for the tests of the pytest plugin, each run in a process of its own."""

from __future__ import annotations

import re
import textwrap

import pytest

HERMETIC = ("-p", "no:cacheprovider", "-p", "no:randomly")


def run(pytester: pytest.Pytester, *options: str, randomly: bool = False) -> pytest.RunResult:
    """Runs the suite in the folder."""
    arguments = options if randomly else (*HERMETIC, *options)
    return pytester.runpytest_subprocess(*arguments, timeout=300)


def suite(pytester: pytest.Pytester, text: str) -> None:
    """Makes a suite of one file."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = --strict-markers")
    pytester.makepyfile(test_it=textwrap.dedent(text))


FIRST = """
def test_first(signaling_server, fake_device, fake_client):
    device = fake_device("cvd-1", info={"displays": []})
    client = fake_client("cvd-1")
    client.send({"type": "request-offer"})
    device.recv(type="request-offer").reply({"type": "offer"})
    assert client.recv().payload == {"type": "offer"}
    signaling_server.journal.expect_sequence("request-offer", "offer")
    assert client.device_info == {"displays": []}
"""

FAILING = (
    FIRST
    + """
    signaling_server.journal.expect("answer", timeout=0.1)
"""
)

SEVERAL = (
    FAILING
    + """
import pytest

def test_passes(signaling_server):
    pass

def test_without_server():
    assert False

@pytest.mark.parametrize("text", ["a/../b", "x" * 300, "ü", "", "a b"])
def test_ids(text, signaling_server, fake_device):
    fake_device()
    assert False

def test_two_servers(signaling_server, signaling_server_factory, fake_device):
    other = signaling_server_factory()
    fake_device("one")
    fake_device("two", server=other)
    assert False

@pytest.mark.signaling(journal=False)
def test_no_journal(signaling_server):
    assert False

def test_at_teardown(fake_device):
    fake_device(profile="legacy")._peer._mark_lost("of this test")
"""
)


def timeless(output: str) -> str:
    return re.sub(r"\b\d+\.\d{3}\b", "0.000", output)
