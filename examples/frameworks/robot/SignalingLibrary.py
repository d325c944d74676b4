"""Keywords of Robot Framework for a signaling server and fake peers."""

from contextlib import ExitStack
from typing import Any

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice


class SignalingLibrary:
    ROBOT_LIBRARY_SCOPE = "TEST"

    def start_signaling(self, **settings: Any) -> SignalingServer:
        """Starts a server. `device_wait_timeout=${5}` and the like are its settings."""
        self._stack = ExitStack()
        self._server = self._stack.enter_context(SignalingServer(journal=True, **settings))
        return self._server

    def stop_signaling(self) -> None:
        """Closes the peers, stops the server, and logs the conversation."""
        self._stack.close()
        print(self._server.journal.transcript())

    def register_device(self, device_id: str) -> FakeDevice:
        self._device = self._stack.enter_context(FakeDevice(self._server, device_id))
        return self._device

    def connect_client(self, device_id: str) -> FakeClient:
        self._client = self._stack.enter_context(FakeClient(self._server, device_id))
        return self._client

    def client_sends(self, type: str, **fields: Any) -> None:
        self._client.send({"type": type, **fields})

    def device_replies(self, to: str, type: str, **fields: Any) -> None:
        """Waits for a payload, and answers it."""
        self._device.recv(type=to).reply({"type": type, **fields})

    def client_receives(self, type: str) -> Any:
        return self._client.recv(type=type).payload
