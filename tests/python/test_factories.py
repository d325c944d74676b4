"""The types of the fixtures that are functions."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import (
    AsyncFakeClient,
    AsyncFakeClientFactory,
    AsyncFakeDevice,
    AsyncFakeDeviceFactory,
    FakeClient,
    FakeClientFactory,
    FakeDevice,
    FakeDeviceFactory,
    ServerFactory,
)

FACTORIES: list[tuple[type[Any], type[Any]]] = [
    (FakeDeviceFactory, FakeDevice),
    (FakeClientFactory, FakeClient),
    (AsyncFakeDeviceFactory, AsyncFakeDevice),
    (AsyncFakeClientFactory, AsyncFakeClient),
]


@pytest.mark.parametrize(("factory", "peer"), FACTORIES)
def test_factory_has_the_arguments_of_the_peer(factory: Any, peer: Any) -> None:
    taken = dict(inspect.signature(factory.__call__).parameters)
    server = taken.pop("server")
    assert server.kind is inspect.Parameter.KEYWORD_ONLY
    made = dict(inspect.signature(peer).parameters)
    assert made.pop("server").annotation == server.annotation
    assert list(taken.values())[1:] == list(made.values())


def test_fixtures_are_of_these_types(
    fake_device: FakeDeviceFactory, fake_client: FakeClientFactory, signaling_server_factory: ServerFactory
) -> None:
    server: SignalingServer = signaling_server_factory(device_wait_timeout=5.0, journal=True)
    device: FakeDevice = fake_device("cvd-2", server=server, profile="current", backoff=0.1)
    client: FakeClient = fake_client("cvd-2", server=server, headers={"X-Test": "1"})
    client.send(1)
    assert device.recv().payload == 1
    assert fake_device().device_id == "cvd-1"


@pytest.mark.asyncio
async def test_asynchronous_fixtures_are_of_these_types(
    async_fake_device: AsyncFakeDeviceFactory, async_fake_client: AsyncFakeClientFactory
) -> None:
    device: AsyncFakeDevice = await async_fake_device("cvd-1")
    async with async_fake_client() as client:
        await client.send(1)
        assert (await device.recv()).payload == 1


if TYPE_CHECKING:
    # mypy reports an ignored error that it does not find.

    def misuse(device: FakeDeviceFactory, client: FakeClientFactory, server: ServerFactory) -> None:
        device("cvd-1", backof=1.0)  # type: ignore[call-arg]
        device("cvd-1", profile="lgacy")  # type: ignore[arg-type]
        client(timeout="soon")  # type: ignore[arg-type]
        client().reply(1)  # type: ignore[attr-defined]
        server(prot=1)  # type: ignore[call-arg]
        server(on_duplicate="replce")  # type: ignore[arg-type]
        server("127.0.0.1")  # type: ignore[call-arg]

    async def asynchronous_misuse(device: AsyncFakeDeviceFactory) -> None:
        device().send(1)  # type: ignore[attr-defined]
        print((await device()).recv().payload)  # type: ignore[attr-defined]
