"""Two Cuttlefish hosts and a gateway as one service, each in a network namespace of its own.

    sudo python examples/cluster/hosts.py

Each host has a device `cvd-1` on its local socket. A client on a fifth machine reaches both through the gateway,
which has no devices. Needs `ip` (iproute2) and `redis-server`.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

ENGINE, GATEWAY, CLIENT = "10.77.0.2", "10.77.0.20", "10.77.0.30"
HOSTS = {"h1": "10.77.0.11", "h2": "10.77.0.12"}
TIMEOUT = 60


def ip(*arguments: str) -> None:
    """Runs `ip`. Raises CalledProcessError."""
    subprocess.run(["ip", *arguments], check=True)


class Network:
    """Network namespaces on one bridge. They end with the block."""

    def __init__(self) -> None:
        self.prefix = f"cuttlefish{os.getpid()}-"
        self.switch = self.prefix + "switch"
        self.names: list[str] = []

    def __enter__(self) -> Network:
        self._add(self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            ip("netns", "delete", name)

    def _add(self, name: str) -> None:
        ip("netns", "add", name)
        self.names.append(name)

    def machine(self, name: str, address: str) -> list[str]:
        """Adds a machine. Returns the command prefix that runs a program on it."""
        space, port = self.prefix + name, f"to-{name}"
        self._add(space)
        ip("-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("-n", self.switch, "link", "set", port, "master", "bridge", "up")
        ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "link", "set", "lo", "up")
        return ["ip", "netns", "exec", space]


class Programs:
    """Programs that end with the block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stack = ExitStack()

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def start(self, name: str, command: list[str], ready: str) -> None:
        """Starts a program, and waits for a line of its output that contains `ready`."""
        log = (self.directory / f"{name}.log").open("w")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.stack.callback(self._end, process)
        assert process.stdout is not None
        for line in process.stdout:
            if ready in line:
                return
        raise SystemExit(f"{name} has ended: {(self.directory / f'{name}.log').read_text()}")

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.terminate()
        process.wait(TIMEOUT)
        assert process.stdout is not None
        process.stdout.close()


class Device:
    """A device on the local socket of a host, as Cuttlefish's own are."""

    def __init__(self, path: Path, device_id: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(str(path))
        self.send({"message_type": "register", "device_id": device_id, "device_info": {"host": path.parent.name}})
        assert self.receive()["message_type"] == "config"

    def send(self, message: Any) -> None:
        self.socket.send(json.dumps(message).encode())

    def receive(self) -> Any:
        return json.loads(self.socket.recv(1 << 20))


def echo_once(device: Device) -> None:
    """Answers one message of a client."""
    message = device.receive()
    device.send({"message_type": "forward", "client_id": message["client_id"], "payload": message["payload"]})


def talk(url: str, device_id: str) -> None:
    """Connects a client to a device, and prints its device info and the answer to one message."""
    with connect(f"{url}/connect_client", open_timeout=TIMEOUT) as client:
        client.send(json.dumps({"message_type": "connect", "device_id": device_id}))
        assert json.loads(client.recv(TIMEOUT))["message_type"] == "config"
        info = json.loads(client.recv(TIMEOUT))["device_info"]
        client.send(json.dumps({"message_type": "forward", "payload": f"hello {device_id}"}))
        answer = json.loads(client.recv(TIMEOUT))["payload"]
        print(f"{device_id} is on {info['host']} and says {answer!r}", flush=True)


def node(name: str, address: str, directory: Path, *flags: str) -> list[str]:
    """The command of a node."""
    password = (directory / "password").read_text()
    return [
        *(sys.executable, "-m", "cuttlefish_signaling", "serve", "--no-tls", "--host", address, "--port", "8080"),
        *("--allow-unauthenticated", "--device-wait-timeout", "30", "--node", name),
        *("--cluster", f"redis://:{password}@{ENGINE}:6379", "--cluster-name", "farm"),
        *("--cluster-listen", f"{address}:7443", "--cluster-secret-file", str(directory / "secret"), *flags),
    ]


def main() -> None:
    """Starts the farm, and talks with both devices through the gateway."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (directory / "secret").write_text(secrets.token_urlsafe(32))
        (directory / "password").write_text(secrets.token_urlsafe(16))
        network = stack.enter_context(Network())
        programs = stack.enter_context(Programs(directory))
        engine = ["redis-server", "--bind", ENGINE, "--save", "", "--requirepass", (directory / "password").read_text()]
        programs.start("engine", [*network.machine("engine", ENGINE), *engine], "Ready to accept connections")
        devices = []
        for name, address in HOSTS.items():
            (directory / name).mkdir()
            path = directory / name / "operator"
            flags = ("--device-socket", str(path), "--device-id-template", "{node}:{id}")
            programs.start(name, [*network.machine(name, address), *node(name, address, directory, *flags)], "http")
            devices.append(Device(path, "cvd-1"))
        gateway = [*network.machine("gateway", GATEWAY), *node("gateway", GATEWAY, directory)]
        programs.start("gateway", gateway, "http")
        client = network.machine("client", CLIENT)
        for name, device in zip(HOSTS, devices, strict=True):
            command = [*client, sys.executable, __file__, f"ws://{GATEWAY}:8080", f"{name}:cvd-1"]
            talking = subprocess.Popen(command)
            echo_once(device)
            if talking.wait(TIMEOUT):
                raise SystemExit(f"the client of {name}:cvd-1 failed")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        talk(sys.argv[1], sys.argv[2])
    else:
        main()
