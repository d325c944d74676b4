"""`ReplayDevice`: the device that replays a cassette, for synchronous code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from ._cassette import Cassette
from ._endpoint import Endpoint
from ._replay import AsyncReplayDevice
from ._sync import FakeDevice, Peer, documented_by


@documented_by(AsyncReplayDevice)
class ReplayDevice(FakeDevice):
    _peer: AsyncReplayDevice

    def __init__(
        self,
        server: Endpoint | str,
        cassette: Cassette | str | os.PathLike[str],
        device_id: str | None = None,
        *,
        mode: Literal["none", "once", "new"] = "none",
        real: Endpoint | str | None = None,
        real_device_id: str | None = None,
        real_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        recording: dict[str, Any] = {"real": real, "real_device_id": real_device_id, "real_options": real_options}
        Peer.__init__(self, AsyncReplayDevice(server, cassette, device_id, mode=mode, **recording, **options))

    @property
    def cassette(self) -> Cassette:
        """The cassette that the device replays."""
        return self._peer.cassette

    @property
    def unmatched(self) -> list[Any]:
        """The payloads of clients that have no match in the cassette, and that no real device was asked for."""
        return list(self._peer.unmatched)
