"""A session with a fake device, in unittest of any Python: 3.10 has no `enterContext`."""

import unittest
from contextlib import ExitStack

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice


class SessionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)  # Before the first context: a `setUp` that fails closes those before.
        self.server = self.stack.enter_context(SignalingServer(journal=True))
        self.device = self.stack.enter_context(FakeDevice(self.server, "cvd-1"))

    def test_offer_comes(self) -> None:
        client = self.stack.enter_context(FakeClient(self.server, "cvd-1"))
        client.send({"type": "request-offer"})
        self.device.recv(type="request-offer").reply({"type": "offer", "sdp": "v=0"})
        self.assertEqual(client.recv().payload["sdp"], "v=0")


if __name__ == "__main__":
    unittest.main()
