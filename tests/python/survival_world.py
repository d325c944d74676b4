"""A server of either kind, devices on it, and a client of each: for tests/python/survival.py."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from survival_hooks import FOLDER, Hooks

Policy: TypeAlias = Literal["reject", "replace"]

PATIENCE = 30.0
BACKOFF = 0.05
HOOK_TIMEOUT = 2.0
PROFILES: tuple[Literal["legacy", "current"], ...] = ("legacy", "current", "legacy", "current")
DUPLICATES: tuple[Policy, ...] = ("reject", "replace")


def free_port() -> int:
    """A port below the ephemeral range, so that no connection takes it while the server is down."""
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, max(least, 12_000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Process:
    """`cuttlefish-signaling serve`."""

    def __init__(self, port: int, on_duplicate: Policy, folder: Path) -> None:
        command = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--no-tls", "--port", str(port)]
        command += ["--client-ids", "unique", "--on-duplicate", on_duplicate, "--hook-timeout", str(HOOK_TIMEOUT)]
        command += ["--device-wait-timeout", str(PATIENCE), "--log-level", "debug"]
        command += ["--hooks", f"{Path(__file__).with_name('survival_hooks.py')}:Hooks"]
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("devices: ws://"), line

    def stop(self) -> None:
        """SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def abandon(self) -> None:
        """Ends it in any state."""
        if self.process.returncode is None:
            self.kill()

    def _end(self, number: int) -> None:
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert status == (0 if number == signal.SIGTERM else -number), status


class InProcess:
    """A `SignalingServer`."""

    def __init__(self, port: int, on_duplicate: Policy, hooks: Hooks) -> None:
        self.server = SignalingServer(
            port=port,
            client_ids="unique",
            on_duplicate=on_duplicate,
            hook_timeout=HOOK_TIMEOUT,
            device_wait_timeout=PATIENCE,
            authorize=hooks.authorize,
            ice_servers=hooks.ice_servers,
        ).start()

    def stop(self) -> None:
        """Stops. At rest, each forward has one outcome."""
        self.server.stop()
        assert self.server.stats().balances, self.server.stats()

    def abandon(self) -> None:
        """Ends it in any state."""
        self.server.stop(timeout=0)


class World:
    """A server, devices on it, and a client of each."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.port = free_port()
        os.environ[FOLDER] = str(folder)
        self.set_trouble("")
        self._log = logging.FileHandler(folder / "log")
        logging.getLogger("cuttlefish_signaling").addHandler(self._log)
        self.calls = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.calls.bind(str(folder / "calls"))
        self.calls.settimeout(PATIENCE)
        self._hooks = Hooks()
        self.server: Process | InProcess | None = None
        self.on_duplicate: Policy = "reject"
        self.devices: list[FakeDevice] = []
        self.clients: dict[str, FakeClient] = {}
        self._numbers: dict[str, int] = {}
        self._texts = 0

    def __enter__(self) -> World:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            peers: list[FakeClient | FakeDevice] = [*self.clients.values(), *self.devices]
            for peer in peers:
                peer.close()
        finally:
            if self.server is not None:
                self.server.abandon()
            self.calls.close()
            self._hooks.close()
            logging.getLogger("cuttlefish_signaling").removeHandler(self._log)
            self._log.close()
            os.environ.pop(FOLDER, None)

    def begin(self) -> None:
        """Starts a server, and registers the devices."""
        self._start()
        for number, profile in enumerate(PROFILES, 1):
            device = FakeDevice(self.url, f"{profile}-{number}", profile=profile, backoff=BACKOFF, timeout=PATIENCE)
            self.devices.append(device.start())
        self.settle(self.devices)

    @property
    def url(self) -> str:
        """The URL of the server, which is the same after each restart."""
        return f"http://127.0.0.1:{self.port}"

    # The server -------------------------------------------------------------------------------------------------------

    def _start(self, kind: str | None = None, on_duplicate: Policy | None = None) -> None:
        self.on_duplicate = self.random.choice(DUPLICATES) if on_duplicate is None else on_duplicate
        if (kind or self.random.choice(["process", "in process"])) == "process":
            self.server = Process(self.port, self.on_duplicate, self.folder)
        else:
            self.server = InProcess(self.port, self.on_duplicate, self._hooks)

    def restart(self, kind: str | None = None, on_duplicate: Policy | None = None) -> None:
        """Stops the server, and starts one of this kind, or of a random one."""
        assert self.server is not None
        self.server.stop()
        self._start(kind, on_duplicate)

    def kill(self) -> None:
        """Kills the server with SIGKILL, and starts another one."""
        assert isinstance(self.server, Process)
        self.server.kill()
        self._start()

    def in_process(self) -> SignalingServer:
        """The server, which has to be in this process."""
        assert isinstance(self.server, InProcess)
        return self.server.server

    def set_trouble(self, trouble: str) -> None:
        """Names the hook that has to fail, and the kind of failure."""
        new = self.folder / "trouble.new"
        new.write_text(trouble)
        new.rename(self.folder / "trouble")

    def forget_calls(self) -> None:
        """Discards the calls of hooks that failed before."""
        self.calls.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.calls.recv(100)
        self.calls.settimeout(PATIENCE)

    # Devices and clients ----------------------------------------------------------------------------------------------

    def device(self) -> FakeDevice:
        """A random device."""
        return self.random.choice(self.devices)

    def client_of(self, device: FakeDevice) -> FakeClient:
        """The client of this device."""
        return self.clients[device.device_id]

    def settle(self, concerned: Iterable[FakeDevice]) -> None:
        """The devices concerned get new clients, since the server has closed theirs. Then all devices relay."""
        self._check()
        for device in concerned:
            if (old := self.clients.get(device.device_id)) is not None:
                old.wait_closed(PATIENCE)
                old.close()
            self.clients[device.device_id] = FakeClient(self.url, device.device_id, timeout=PATIENCE).start()
        for device in self.devices:
            self._relay(device)
            self._remove_earlier_peers(device)
        self._check()

    def _check(self) -> None:
        for device in self.devices:
            assert device.is_open, device
            assert not device.is_lost, device.lost_reason
            assert device.errors == [], f"{device} received {device.errors}"
            assert device.extra_connections == 0, f"{device} has opened {device.extra_connections} connections too many"
            assert device.collisions == [], f"{device} gave peers of earlier clients to the clients {device.collisions}"

    def _relay(self, device: FakeDevice) -> None:
        self._texts += 1
        client, there, back = self.client_of(device), f"there-{self._texts}", f"back-{self._texts}"
        client.send({"type": there})
        received = device.recv(PATIENCE, type=there, check_type=False)
        assert received.client_id is not None
        self._numbers[device.device_id] = received.client_id
        received.reply({"type": back})
        client.recv(PATIENCE, type=back, check_type=False)

    def _remove_earlier_peers(self, device: FakeDevice) -> None:
        """A real device still sends to earlier clients. It removes a peer on `client_disconnected`."""
        for client_id in device.clients:
            if client_id != self._numbers[device.device_id]:
                device.send({"type": "ice-candidate"}, client_id)
                self.wait_client_disconnected(device, client_id)
        assert device.clients == [self._numbers[device.device_id]]

    def wait_client_disconnected(self, device: FakeDevice, client_id: int) -> None:
        """Waits for the `client_disconnected` of this client, and skips those of others."""
        while device.recv(PATIENCE, message_type="client_disconnected").client_id != client_id:
            pass
