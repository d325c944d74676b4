"""Devices with profiles survive failures of this server: 20 here, 200 in `make soak`."""

from __future__ import annotations

import os
import random

import pytest

from cuttlefish_signaling.testing import _device

from survival import FAILURES, MESSAGES, order_of, survive

FAILURES_HERE = 20
SEED = int(os.environ.get("SURVIVAL_SEED") or random.SystemRandom().randrange(2**32))


def test_devices_survive_20_failures() -> None:
    survive(FAILURES_HERE, SEED)


def test_device_without_subprotocol_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server recognises Cuttlefish's own devices by the subprotocol that they offer. These offer none."""
    monkeypatch.setattr(_device, "SUBPROTOCOLS", ())
    with pytest.raises(AssertionError, match=rf"^seed {SEED}, event 1, disconnect_device: .*(is lost|received)"):
        survive(1, SEED, order=["disconnect_device"])


def test_order_has_each_kind_of_event() -> None:
    order = order_of(FAILURES_HERE, random.Random(SEED))
    assert set(order) == {*FAILURES, *MESSAGES}
    assert sum(name in FAILURES for name in order) == FAILURES_HERE
    assert order_of(200, random.Random(1)) == order_of(200, random.Random(1))
