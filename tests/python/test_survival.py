"""Real devices survive their whole life with this server: 20 failures here, 200 in `make soak`."""

from __future__ import annotations

import os
import random

import pytest

from cuttlefish_signaling.testing import _device

from survival import FAILURES, MESSAGES, order_of, survive

FAILURES_HERE = 20
SEED = int(os.environ.get("SURVIVAL_SEED") or random.SystemRandom().randrange(2**32))


def test_real_devices_survive() -> None:
    survive(FAILURES_HERE, SEED)


def test_a_device_that_hears_errors_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server knows a real device by the sub-protocol that it offers. These are real, and offer none."""
    monkeypatch.setattr(_device, "SUBPROTOCOLS", ())
    with pytest.raises(AssertionError, match=rf"^seed {SEED}, event 1, disconnect_device: .*(is lost|heard)"):
        survive(1, SEED, order=["disconnect_device"])


def test_each_kind_of_event_is_among_them() -> None:
    order = order_of(FAILURES_HERE, random.Random(SEED))
    assert set(order) == {*FAILURES, *MESSAGES}
    assert sum(name in FAILURES for name in order) == FAILURES_HERE
    assert order_of(200, random.Random(1)) == order_of(200, random.Random(1))
