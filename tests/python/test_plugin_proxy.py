"""The fixture `signaling_proxy` in suites of users."""

from __future__ import annotations

import pytest

from plugin_suite import run, suite


def test_proxy_stands_between_peers_and_a_server(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import socket

        import pytest
        from cuttlefish_signaling import WaitTimeoutError

        PORTS = []

        def test_pair_talks_through_the_proxy(signaling_server_factory, signaling_proxy, fake_device, fake_client):
            behind = signaling_server_factory()
            proxy = signaling_proxy(behind.url)
            device = fake_device("cvd-1", server=proxy)
            assert behind.wait_for_device("cvd-1").device_id == "cvd-1"
            client = fake_client("cvd-1", server=proxy)
            client.send({"type": "request-offer"})
            device.recv(type="request-offer").reply({"type": "offer"})
            assert client.recv().payload == {"type": "offer"}
            # It has a journal, and the faults, without a setting.
            proxy.journal.expect_sequence("request-offer", "offer")
            with proxy.faults.drop(type="request-offer", times=1) as dropped:
                client.send({"type": "request-offer"})
                client.send({"type": "second"})
                assert device.recv().type == "second"
            assert dropped.hits == 1
            # The server behind it gave the client its id. The proxy drops on the way from the server to the device.
            assert [one.client_id for one in behind.clients("cvd-1")] == [1]
            assert behind.stats().accepted == 4
            PORTS.append(proxy.port)

        def test_proxy_has_stopped_with_its_test():
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", PORTS[0]), timeout=5)

        def test_two_proxies_in_a_row(signaling_server_factory, signaling_proxy, fake_device, fake_client):
            behind = signaling_server_factory()
            inner = signaling_proxy(behind.url)
            outer = signaling_proxy(inner.url)
            device = fake_device("cvd-1", server=outer)
            client = fake_client("cvd-1", server=inner)
            client.send({"n": 1})
            assert device.recv().payload == {"n": 1}
            inner.journal.expect(device="cvd-1", direction="client->device")
            outer.journal.expect(device="cvd-1", direction="client->device")

        def test_fails(signaling_server_factory, signaling_proxy, fake_device, fake_client):
            proxy = signaling_proxy(signaling_server_factory().url)
            fake_device("cvd-1", server=proxy)
            fake_client("cvd-1", server=proxy).send({"type": "request-offer"})
            proxy.journal.expect("request-offer")
            proxy.journal.expect("answer", timeout=0.1)
        """,
    )
    result = run(pytester)
    result.assert_outcomes(passed=3, failed=1)
    # The report of a failed test has the conversation of the proxy.
    result.stdout.fnmatch_lines(["*request-offer*"])
