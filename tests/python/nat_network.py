"""Two machines with 1:1 NAT between them: three network namespaces, which end with the block and with the process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from typing import NamedTuple

from peers import PATIENCE

PROGRAMS = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux", "nsenter": "util-linux"}

RULES = """
table inet nat {{
    counter to_device {{}}
    counter from_device {{}}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        {ip} daddr {outer} meta l4proto udp dnat {ip} to {inner}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        {ip} saddr {inner} oifname "outside" snat {ip} to {outer}
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "outside" meta l4proto udp ct status dnat counter name to_device accept
        iifname "inside" meta l4proto tcp accept
        iifname "inside" meta l4proto udp counter name from_device drop
    }}
}}
"""
"""The device may open TCP connections, and no exchange over UDP: a client has to send the first datagram, to the outer
address. The client has no route to the inner one."""


class Addresses(NamedTuple):
    """The addresses of a network of one family, each with its prefix."""

    device: str
    """The address that the device sees."""
    gateway: str
    outer: str
    """The address at which the device is reached."""
    client: str

    def plain(self) -> Addresses:
        """Returns the addresses without prefixes."""
        return Addresses(*(address.partition("/")[0] for address in self))


ADDRESSES = {
    4: Addresses("172.17.0.2/16", "172.17.0.1/16", "192.0.2.7/24", "192.0.2.10/24"),
    6: Addresses("fd00:17::2/64", "fd00:17::1/64", "2001:db8::7/64", "2001:db8::10/64"),
}


def reason_to_skip() -> str | None:
    """Returns the reason why this machine cannot have such a network; `None` if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in PROGRAMS.items():
        if not shutil.which(program):
            return f"{program} is not installed: apt install {package}"
    probe = ["unshare", "--net", "nft", "add table inet probe"]
    done = subprocess.run(probe, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return f"no network namespace with nftables: {done.stdout}" if done.returncode else None


class NatNetwork:
    """A client and a device, and the gateway between them.

    A namespace lasts as long as a process in it, and that process as long as the pipe to its standard input.
    """

    def __init__(self, family: int) -> None:
        self.family = family
        self.addresses = ADDRESSES[family].plain()
        self._stack = ExitStack()
        self._inside: dict[str, list[str]] = {}

    def __enter__(self) -> NatNetwork:
        with self._stack:
            self._make()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make(self) -> None:
        client, gateway, device = (self._namespace(name) for name in ("client", "gateway", "device"))
        for machine in ("client", "device"):
            # A machine reaches its own addresses over it.
            self._run(machine, ["ip", "link", "set", "lo", "up"])
        given = ADDRESSES[self.family]
        self._link(gateway, "outside", given.outer, client, given.client)
        self._link(gateway, "inside", given.gateway, device, given.device)
        self._run("device", ["ip", "route", "add", "default", "via", self.addresses.gateway])
        forwarding = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}[self.family]
        self._run("gateway", ["sh", "-c", f"echo 1 >/proc/sys/net/{forwarding}"])
        ip = {4: "ip", 6: "ip6"}[self.family]
        rules = RULES.format(ip=ip, outer=self.addresses.outer, inner=self.addresses.device)
        self._run("gateway", ["nft", "-f", "-"], rules)

    def _namespace(self, name: str) -> str:
        """Makes a namespace. Returns the id of the process that holds it."""
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._stack.callback(holder.communicate, timeout=PATIENCE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"  # The namespace is there.
        self._inside[name] = ["nsenter", "--target", str(holder.pid), "--net"]
        return str(holder.pid)

    def _link(self, gateway: str, name: str, address: str, other: str, other_address: str) -> None:
        far = ["type", "veth", "peer", "name", "eth0", "netns", other]
        subprocess.run(["ip", "link", "add", name, "netns", gateway, *far], check=True)
        for holder, link, given in ((gateway, name, address), (other, "eth0", other_address)):
            inside = ["nsenter", "--target", holder, "--net", "ip"]
            # No address but the one given: aioice would offer those that IPv6 makes by itself.
            subprocess.run([*inside, "link", "set", link, "addrgenmode", "none"], check=True)
            # Duplicate address detection would hold an address of IPv6 back for a second.
            nodad = ["nodad"] if self.family == 6 else []
            subprocess.run([*inside, "address", "add", given, "dev", link, *nodad], check=True)
            subprocess.run([*inside, "link", "set", link, "up"], check=True)

    def _run(self, machine: str, command: list[str], text: str | None = None) -> str:
        inside = self.on(machine)
        return subprocess.run([*inside, *command], input=text, stdout=subprocess.PIPE, text=True, check=True).stdout

    def on(self, machine: str) -> list[str]:
        """Returns the command prefix that runs a program on a machine: `client`, `gateway` or `device`."""
        return self._inside[machine]

    def exchanges(self) -> dict[str, int]:
        """Returns the exchanges over UDP that were begun: `to_device`, which pass, and `from_device`, which do not."""
        listed = json.loads(self._run("gateway", ["nft", "--json", "list", "counters"]))["nftables"]
        counters = [entry["counter"] for entry in listed if "counter" in entry]
        return {counter["name"]: counter["packets"] for counter in counters}
