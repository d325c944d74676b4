"""The stages up to the list of devices: each asks for its facts, has them judged, and puts them into words."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING, Any

from ._as_json import as_json
from ._facts import DevicesFacts, EndpointFacts, HttpFacts, TlsFacts
from ._http import Route, get, json_of
from ._judge_http import judge_devices, judge_endpoint, judge_http, judge_ping
from ._judge_network import judge_dns, judge_tcp, judge_tls
from ._network import connect_to_all, handshake, resolve
from ._options import ProbeOptions
from ._runner import Outcome, Runner, Stage
from ._target import Target
from ._websocket import CLIENTS, DEVICES, SUBPROTOCOL, closed, ping, try_endpoint
from ._words import listed, shown

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from ._device import DeviceStages


class Stages:
    """The stages of one probe, and the connections that they share."""

    def __init__(self, target: Target, device_id: str | None, options: ProbeOptions, runner: Runner) -> None:
        self._target = target
        self._device_id = device_id
        self._options = options
        self._addresses: tuple[str, ...] = ()
        self._route = Route(target, target.host, options.context() if target.is_tls else None, options)
        self._client: ClientConnection | None = None
        self._device: DeviceStages | None = None
        if device_id is not None or options.turn or options.turn_servers:
            from ._device import DeviceStages

            self._device = DeviceStages(target, device_id, options, runner, self.ice_servers)

    def plan(self) -> list[tuple[str, Stage]]:
        """Returns the stages in their order."""
        plan: list[tuple[str, Stage]] = [("dns", self.dns), ("tcp", self.tcp)]
        if self._target.is_tls:
            plan.append(("tls", self.tls))
        plan += [("http", self.http), ("websocket", self.websocket), ("ping", self.ping), ("devices", self.devices)]
        return plan + (self._device.plan() if self._device else [])

    async def close(self) -> None:
        """Closes all connections."""
        if self._client is not None:
            await closed(self._client)
        if self._device is not None:
            await self._device.close()

    async def dns(self, seconds: float) -> Outcome:
        """Looks up the name."""
        facts = await resolve(self._target, seconds)
        self._addresses = facts.addresses
        text = f"{shown(facts.host)} is {listed(facts.addresses)}" if facts.addresses else "no address"
        if facts.addresses == (facts.host,):
            text = f"{facts.host} is an address"
        return Outcome(text, as_json(facts), judge_dns(facts))

    async def tcp(self, seconds: float) -> Outcome:
        """Connects to each address, and takes the first one that answers for the stages behind."""
        attempts = await connect_to_all(self._addresses, self._target.port, seconds)
        reached = [one.address for one in attempts if one.outcome == "connected"]
        if reached:
            self._use(reached[0])
        text = f"port {self._target.port} is open at {listed(reached)}" if reached else "no connection"
        return Outcome(text, {"attempts": as_json(attempts)}, judge_tcp(attempts))

    def _use(self, address: str) -> None:
        self._route = self._route._replace(address=address)
        if self._device is not None:
            self._device.route = self._route

    async def tls(self, seconds: float) -> Outcome:
        """Looks at the certificates, and verifies them."""
        facts = await handshake(self._target, self._route.address, self._options, seconds)
        if facts.outcome == "unverified" and self._options.insecure:
            self._route = self._route._replace(context=self._options.unverified_context())
            self._use(self._route.address)
        found = as_json(facts)
        if facts.chain:
            found["expires"] = facts.chain[0].expires
        return Outcome(_tls_text(facts), found, judge_tls(facts))

    async def http(self, seconds: float) -> Outcome:
        """Asks for `/healthz`. Other servers answer 404: that is an answer too."""
        facts = await get(self._route, "/healthz", seconds)
        if facts.outcome != "answered":
            text = "no answer"
        elif facts.status == 200 and json_of(facts.body) == {"status": "ok"}:
            text = "the server is healthy"
        else:
            text = f"GET {shown(facts.path)} is answered with {facts.status}"
        return Outcome(text, as_json(facts), judge_http(facts))

    async def websocket(self, seconds: float) -> Outcome:
        """Opens a WebSocket at both endpoints. The device is not registered, and the client is kept for pings."""
        tried = [(DEVICES, SUBPROTOCOL), (CLIENTS, None)]
        results = await asyncio.gather(*(try_endpoint(self._route, path, name, seconds) for path, name in tried))
        (device, device_connection), (client, self._client) = results
        if device_connection is not None:
            await closed(device_connection)
        if device.status == client.status == 404 and await self.ice_servers(seconds) is not None:
            if self._device is not None:
                self._device.is_operator = True
            return Outcome(_OPERATOR, {"dialect": "operator"}, ())
        findings = judge_endpoint(device) + judge_endpoint(client)
        facts = {"register_device": as_json(device), "connect_client": as_json(client)}
        return Outcome(_endpoints_text((device, client)), facts, findings)

    async def ping(self, seconds: float) -> Outcome:
        """Pings the server on the connection of the client."""
        client, self._client = self._client, None
        if client is None:
            return Outcome("the current operator has a WebSocket for a device only", {}, (), is_skipped=True)
        facts = await ping(client, self._options.pings, seconds)
        await closed(client)
        found = as_json(facts)
        if not facts.seconds:
            return Outcome("no pong", found, judge_ping(facts))
        found["median_seconds"] = median(facts.seconds)
        text = f"{len(facts.seconds)} pongs, median {median(facts.seconds) * 1000:.1f} ms"
        return Outcome(text, found, judge_ping(facts))

    async def devices(self, seconds: float) -> Outcome:
        """Asks for the list of devices."""
        http = await get(self._route, "/devices", seconds)
        facts = DevicesFacts(http, device_ids(http), self._device_id)
        found: dict[str, Any] = {"status": http.status}
        text = "no list"
        if facts.ids is not None:
            found |= {"count": len(facts.ids), "ids": [shown(one) for one in facts.ids[:MOST_IDS]]}
            text = f"{len(facts.ids)} registered{': ' if facts.ids else ''}{listed(facts.ids)}"
        return Outcome(text, found, judge_devices(facts))

    async def ice_servers(self, seconds: float) -> list[Any] | None:
        """Returns the ICE servers of `GET /infra_config`; None if the server has no answer for it."""
        answer = json_of((await get(self._route, "/infra_config", seconds)).body)
        servers = answer.get("ice_servers") if isinstance(answer, dict) else None
        return servers if isinstance(servers, list) else None


_OPERATOR = "the current operator: clients at /devices/ID/connect, devices at its local socket"

MOST_IDS = 100
"""Device ids in the facts. No setting: `count` has their number."""


def device_ids(http: HttpFacts) -> tuple[str, ...] | None:
    """Returns the ids of a list of devices, in the shape of the current operator or of the reference server."""
    answer = json_of(http.body) if http.outcome == "answered" and http.status == 200 else None
    if not isinstance(answer, list):
        return None
    ids = [one.get("device_id") if isinstance(one, dict) else one for one in answer]
    found = [one for one in ids if isinstance(one, str)]
    return tuple(found) if len(found) == len(ids) else None


def _tls_text(facts: TlsFacts) -> str:
    if not facts.chain:
        return facts.version or "no TLS"
    leaf = facts.chain[0]
    day = time.strftime("%Y-%m-%d", time.gmtime(leaf.expires))
    chain = " < ".join(shown(one.subject) for one in facts.chain)
    return f"{facts.version}, {chain}, for {listed(leaf.names) or 'no name'}, until {day}"


def _endpoints_text(endpoints: tuple[EndpointFacts, ...]) -> str:
    parts = [f"{one.path} is open" for one in endpoints if one.outcome == "open"]
    names = {one.subprotocol for one in endpoints if one.subprotocol}
    with suppress(KeyError):
        parts.append(f"sub-protocol {names.pop()}")
    return ", ".join(parts) or "no WebSocket"
