"""Mutants whose messages, relaying or client ids are wrong."""

from __future__ import annotations

import json
import re
from typing import Any

from cuttlefish_signaling._raw_json import RawJson

from mutants import mutant
from small_hub import Client, Device, Refusal, SmallHub, compact, envelope
from small_server import SmallServer

# Messages -------------------------------------------------------------------------------------------------------------


@mutant("1.6", "5.3.1", "1.4")
def urls_of_ice_servers_are_a_string(server: SmallServer) -> None:
    server.hub.ice_servers = [{"urls": "stun:stun.lab"}]


@mutant("1.6", "5.3.1", "1.4")
def config_has_no_ice_servers(server: SmallServer) -> None:
    server.hub.config = lambda: '{"message_type":"config"}'  # type: ignore[method-assign]


@mutant("2.9")
def messages_are_not_compact(server: SmallServer) -> None:
    server.hub.client_disconnected = (  # type: ignore[method-assign]
        lambda client_id: f'{{"message_type": "client_disconnected", "client_id": {client_id}}}'
    )
    server.hub.error = lambda text: f'{{ "error": {json.dumps(text)} }}'  # type: ignore[method-assign]


@mutant("1.9", "1.15", sign=r'\{"text":')
def errors_are_objects(server: SmallServer) -> None:
    server.hub.error = lambda text: envelope(error={"text": text})  # type: ignore[method-assign]


@mutant("2.1")
def payloads_are_serialised_again(server: SmallServer) -> None:
    send = server.hub.client_msg
    server.hub.client_msg = (  # type: ignore[method-assign]
        lambda client_id, payload: send(client_id, RawJson(json.dumps(payload.value)))
    )


@mutant("1.1")
def null_payloads_are_dropped(server: SmallServer) -> None:
    class NoNull(Device):
        def forward(self, message: dict[str, RawJson]) -> None:
            if message.get("payload") != "null":
                super().forward(message)

    server.hub.device_class = NoNull


@mutant("1.1", sign=r"No payload present")
def empty_payloads_are_refused(server: SmallServer) -> None:
    class Truthy(Client):
        def forward(self, payload: RawJson) -> None:
            if not payload.value:
                raise Refusal("Forward failed: No payload present in message")
            super().forward(payload)

    server.hub.client_class = Truthy


@mutant("2.1")
def device_info_is_serialised_again(server: SmallServer) -> None:
    send = server.hub.device_info
    server.hub.device_info = lambda info: send(RawJson(json.dumps(info.value)))  # type: ignore[method-assign]


@mutant("4.2.1", sign=r'"device_info":')
def device_info_is_a_fixed_one(server: SmallServer) -> None:
    send = server.hub.device_info
    server.hub.device_info = (  # type: ignore[method-assign]
        lambda info: send(info if info == "null" else RawJson("{}"))
    )


@mutant("4.1.8", sign=r'"device_info":\{\}')
def missing_device_info_is_an_object(server: SmallServer) -> None:
    send = server.hub.device_info
    server.hub.device_info = (  # type: ignore[method-assign]
        lambda info: send(RawJson("{}") if info == "null" else info)
    )


@mutant("4.3.17")
def extra_fields_are_relayed(server: SmallServer) -> None:
    class Extra(Client):
        async def on_message(self, text: str) -> None:
            self.extra = json.loads(text) if self.of is None and '"x":2' in text else {}
            await super().on_message(text)

        def forward(self, payload: RawJson) -> None:
            if "x" not in self.extra:
                super().forward(payload)
                return
            assert self.device is not None
            text = self.hub.client_msg(self.client_id, payload)
            self.device.link.send(f"{text[:-1]},{compact({'x': self.extra['x']})[1:]}")

    server.hub.client_class = Extra


# Order and pairs ------------------------------------------------------------------------------------------------------


@mutant("2.2")
def messages_of_a_device_are_swapped(server: SmallServer) -> None:
    class Swapping(Client):
        held: RawJson | None = None

        def receive(self, payload: RawJson) -> None:
            value = payload.value
            is_number = isinstance(value, int) and not isinstance(value, bool) and self.of is None
            is_candidate = isinstance(value, dict) and value.get("type") == "ice-candidate"
            if not is_candidate and not (is_number and value in (10, 11)):
                super().receive(payload)
            elif self.held is None:
                self.held = payload
            else:
                first, self.held = self.held, None
                super().receive(payload)
                super().receive(first)

    server.hub.client_class = Swapping


@mutant("2.2")
def every_twentieth_forward_is_sent_twice(server: SmallServer) -> None:
    class Twice(Client):
        count = 0

        def forward(self, payload: RawJson) -> None:
            super().forward(payload)
            self.count += 1
            if self.count % 20 == 0:
                super().forward(payload)

    server.hub.client_class = Twice


@mutant("2.5")
def messages_go_to_all_clients(server: SmallServer) -> None:
    class ToAll(Device):
        def forward(self, message: dict[str, RawJson]) -> None:
            super().forward(message)
            client_id = self.hub.client_id(message)
            for other, client in self.clients.items():
                if other != client_id and client_id in self.clients:
                    client.receive(message["payload"])

    server.hub.device_class = ToAll


@mutant("2.4", sign=r"client_disconnected")
def client_disconnected_comes_twice(server: SmallServer) -> None:
    class Twice(Client):
        def leave(self) -> None:
            device, client_id = self.device, self.client_id
            super().leave()
            if device is not None:
                device.link.send(self.hub.client_disconnected(client_id))

    server.hub.client_class = Twice


@mutant("4.2.8", sign=r"client_disconnected")
def device_is_not_told_of_clients_that_leave(server: SmallServer) -> None:
    class Silent(Client):
        def leave(self) -> None:
            if self.device is not None:
                self.device.clients.pop(self.client_id, None)
            self.device, self.is_done = None, True

    server.hub.client_class = Silent


@mutant("4.2.8", sign=r"client_disconnected")
def device_is_not_told_of_clients_that_never_forwarded(server: SmallServer) -> None:
    class Silent(Client):
        spoke = False

        def forward(self, payload: RawJson) -> None:
            self.spoke = True
            super().forward(payload)

        def leave(self) -> None:
            if not self.spoke and self.device is not None:
                self.device.clients.pop(self.client_id, None)
                self.device = None
            super().leave()

    server.hub.client_class = Silent


@mutant("4.2.1")
def device_is_told_of_clients_at_connect(server: SmallServer) -> None:
    class Eager(Client):
        def attach(self, device_id: str) -> None:
            super().attach(device_id)
            if self.device is not None and self.device.info.value == {"displays": [{"x_res": 720}]}:
                self.device.link.send(self.hub.client_msg(self.client_id, RawJson("{}")))

    server.hub.client_class = Eager


@mutant("4.2.7", sign=r"Device disconnected|a close frame|status 404")
def clients_are_not_told_that_the_device_left(server: SmallServer) -> None:
    class Silent(Device):
        def leave(self) -> None:
            self.is_done = True
            self.hub.unregister(self)

    server.hub.device_class = Silent


@mutant("4.2.7", "5.3.9", sign=r"Device disconnected")
def clients_are_closed_without_the_error(server: SmallServer) -> None:
    class Short(Client):
        def lose_device(self) -> None:
            self.device, self.is_done = None, True
            self.link.close(1000, "Device disconnected")

    server.hub.client_class = Short


@mutant("4.2.7", sign=r"close \[1000\] 'Device disconnected'")
def clients_are_closed_with_another_code(server: SmallServer) -> None:
    class Other(Client):
        def lose_device(self) -> None:
            self.device, self.is_done = None, True
            self.link.send(self.hub.error("Device disconnected"))
            self.link.close(1001, "Device disconnected")

    server.hub.client_class = Other


# Client ids -----------------------------------------------------------------------------------------------------------


@mutant("4.1.19", "2.5.2")
def client_ids_begin_at_two(server: SmallServer) -> None:
    class FromTwo(SmallHub): ...

    def next_id(device: Device) -> int:
        last = server.hub.last_ids
        last[device.id] = last.get(device.id, 1) + 1
        return last[device.id]

    server.hub.next_id = next_id  # type: ignore[method-assign]


@mutant("2.5.1")
def client_ids_are_used_again(server: SmallServer) -> None:
    def next_id(device: Device) -> int:
        found = next(number for number in range(1, 1000) if number not in device.clients)
        server.hub.last_ids[device.id] = max(found, server.hub.last_ids.get(device.id, 0))
        return found

    server.hub.next_id = next_id  # type: ignore[method-assign]


@mutant("1.7", sign=r'"client_id":"')
def client_ids_are_strings(server: SmallServer) -> None:
    def client_msg(client_id: int, payload: RawJson) -> str:
        is_request = payload == '{"type":"request-offer"}'
        number: Any = str(client_id) if is_request else client_id
        return envelope(message_type="client_msg", client_id=number, payload=payload)

    server.hub.client_msg = client_msg  # type: ignore[method-assign]


@mutant("4.3.17")
def a_client_may_choose_its_id(server: SmallServer) -> None:
    class Choosing(Client):
        async def on_message(self, text: str) -> None:
            if self.of is None and (found := re.search(r'"client_id":(\d+)', text)) and self.device is not None:
                self.client_id = int(found[1])
            await super().on_message(text)

    server.hub.client_class = Choosing
