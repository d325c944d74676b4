"""A session with a fake device, in Mobly."""

from typing import Any

from mobly import asserts, base_test, test_runner

from cuttlefish_signaling import mobly as signaling
from cuttlefish_signaling.testing import FakeClient, FakeDevice


class SessionTest(base_test.BaseTestClass):
    def setup_class(self) -> None:
        self.servers = self.register_controller(signaling)
        self.server = signaling.named(self.servers, "main")

    def test_offer_comes(self) -> None:
        with FakeDevice(self.server, "cvd-1") as device, FakeClient(self.server, "cvd-1") as client:
            client.send({"type": "request-offer"})
            device.recv(type="request-offer").reply({"type": "offer", "sdp": "v=0"})
            asserts.assert_equal(client.recv().payload["sdp"], "v=0")

    def on_fail(self, record: Any) -> None:
        signaling.save_transcripts(self.servers, self.current_test_info.output_path)


if __name__ == "__main__":
    test_runner.main()
