"""Three equal nodes behind haproxy, without and with stickiness.

    python examples/cluster/balanced.py

Devices and clients come through haproxy, each to the node that is next. Each pair finds each other, whichever nodes the
two are on. A polled client needs no stickiness either: each of its requests goes to another node. Needs `haproxy` and
`redis-server`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NODES, PAIRS, TIMEOUT = 3, 6, 60

CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend peers
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    balance {balance}
    option httpchk GET /readyz
    {servers}
"""


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start(stack: ExitStack, command: list[str], port: int) -> None:
    """Starts a program, and waits until its port is open. It ends with the stack."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    stack.callback(process.wait, TIMEOUT)
    stack.callback(process.terminate)
    deadline = time.monotonic() + TIMEOUT
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{command[0]} does not listen at port {port}")
        time.sleep(0.05)


def receive(peer: ClientConnection) -> Any:
    """Receives a message."""
    return json.loads(peer.recv(TIMEOUT))


def heard_from_client(device: ClientConnection) -> Any:
    """Receives the next message of a client. Others may have left before."""
    while (message := receive(device))["message_type"] != "client_msg":
        pass
    return message


def register(url: str, device_id: str) -> ClientConnection:
    """Registers a device."""
    device = connect(f"{url}/register_device", open_timeout=TIMEOUT)
    device.send(json.dumps({"message_type": "register", "device_id": device_id, "device_info": {}}))
    assert receive(device)["message_type"] == "config"
    return device


def talk(url: str, device_id: str, device: ClientConnection) -> None:
    """A client says something to a device, which answers."""
    with connect(f"{url}/connect_client", open_timeout=TIMEOUT) as client:
        client.send(json.dumps({"message_type": "connect", "device_id": device_id}))
        assert [receive(client)["message_type"] for _ in range(2)] == ["config", "device_info"]
        client.send(json.dumps({"message_type": "forward", "payload": "hello"}))
        number = heard_from_client(device)["client_id"]
        device.send(json.dumps({"message_type": "forward", "client_id": number, "payload": "hi"}))
        assert receive(client)["payload"] == "hi"


def post(url: str, path: str, body: Any) -> Any:
    """Sends a request, with a TCP connection of its own. Returns the answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return json.loads(answer.read())


def poll(url: str, device_id: str, device: ClientConnection) -> None:
    """A polled client does the same. Its requests go to one node after the other."""
    connection = post(url, "/polled_connections", {"device_id": device_id})["connection_id"]
    post(url, f"/polled_connections/{connection}/:forward", {"payload": "hello"})
    number = heard_from_client(device)["client_id"]
    device.send(json.dumps({"message_type": "forward", "client_id": number, "payload": "hi"}))
    heard: list[Any] = []
    while {"message_type": "device_msg", "payload": "hi"} not in heard:
        with urllib.request.urlopen(f"{url}/polled_connections/{connection}/messages?start={len(heard)}") as answer:
            heard += json.loads(answer.read())


def run(balance: str) -> None:
    """Starts three nodes behind a haproxy with this balance, and connects pairs through it."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine, balancer, *ports = free_ports(2 + NODES)
        start(stack, ["redis-server", "--port", str(engine), "--save", ""], engine)
        for number, port in enumerate(ports):
            serve = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--no-tls", "--port", str(port)]
            cluster = ["--node", f"node{number}", "--cluster", f"redis://127.0.0.1:{engine}"]
            start(stack, [*serve, *cluster, "--trusted-proxy", "127.0.0.1", "--device-wait-timeout", "30"], port)
        servers = "\n    ".join(f"server n{port} 127.0.0.1:{port} check inter 100ms" for port in ports)
        config = directory / "haproxy.cfg"
        config.write_text(CONFIG.format(port=balancer, balance=balance, servers=servers))
        start(stack, ["haproxy", "-f", str(config), "-q"], balancer)
        url = f"127.0.0.1:{balancer}"
        for pair in range(PAIRS):
            with register(f"ws://{url}", f"cvd-{pair}") as device:
                talk(f"ws://{url}", f"cvd-{pair}", device)
                poll(f"http://{url}", f"cvd-{pair}", device)
        print(f"balance {balance}: {PAIRS} pairs and {PAIRS} polled clients talked")


if __name__ == "__main__":
    run("roundrobin")
    run("source")
