"""A session with a fake device, in unittest of Python 3.11 and later."""

import unittest

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice


class SessionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = self.enterContext(SignalingServer(journal=True))
        self.device = self.enterContext(FakeDevice(self.server, "cvd-1"))

    def test_offer_comes(self) -> None:
        client = self.enterContext(FakeClient(self.server, "cvd-1"))
        client.send({"type": "request-offer"})
        self.device.recv(type="request-offer").reply({"type": "offer", "sdp": "v=0"})
        self.assertEqual(client.recv().payload["sdp"], "v=0")
        self.server.journal.expect_sequence("request-offer", "offer")


if __name__ == "__main__":
    unittest.main()
