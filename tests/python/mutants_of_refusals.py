"""Mutants whose registry, refusals or reading of JSON are wrong."""

from __future__ import annotations

import json

from cuttlefish_signaling._raw_json import RawJson

from mutants import mutant
from small_hub import Client, Device, Link, Refusal
from small_server import SmallServer


def reworded(server: SmallServer, before: str, after: str) -> None:
    """Changes the text of an error, where it is sent and in the close reason."""
    refuse = server.hub.refuse

    def other(link: Link, refusal: Refusal) -> None:
        refuse(link, Refusal(refusal.text.replace(before, after), refusal.code))

    server.hub.refuse = other  # type: ignore[method-assign]


# Registration ---------------------------------------------------------------------------------------------------------


@mutant("4.1.12", "4.1.13")
def a_newcomer_takes_the_id(server: SmallServer) -> None:
    async def register(device: Device, device_id: str) -> None:
        server.hub.devices[device_id] = device

    server.hub.register = register  # type: ignore[method-assign]


@mutant("4.1.13")
def a_dead_holder_keeps_the_id(server: SmallServer) -> None:
    async def register(device: Device, device_id: str) -> None:
        if device_id in server.hub.devices:
            raise Refusal(f"Device already registered: {device_id}")
        server.hub.devices[device_id] = device

    server.hub.register = register  # type: ignore[method-assign]


@mutant("4.1.12")
def a_refused_newcomer_ends_the_registration_of_the_holder(server: SmallServer) -> None:
    class Evicting(Device):
        def refuse(self, refusal: Refusal) -> None:
            super().refuse(refusal)
            held = refusal.text.removeprefix("Device already registered: ")
            if not self.has_begun and held in self.hub.devices:
                self.hub.devices[held].leave()

    server.hub.device_class = Evicting


@mutant("4.1.7", sign=r"already registered")
def an_id_stays_taken_when_its_device_left(server: SmallServer) -> None:
    async def register(device: Device, device_id: str) -> None:
        if device_id in taken:
            raise Refusal(f"Device already registered: {device_id}")
        taken.add(device_id)
        server.hub.devices[device_id] = device

    taken: set[str] = set()
    server.hub.register = register  # type: ignore[method-assign]


@mutant("4.1.11", sign=r"already registered")
def a_device_may_register_twice(server: SmallServer) -> None:
    class Twice(Device):
        async def register(self, message: dict[str, RawJson]) -> None:
            self.has_begun = False
            self.hub.unregister(self)
            await super().register(message)

    server.hub.device_class = Twice


@mutant("4.1.10")
def any_device_id_is_taken(server: SmallServer) -> None:
    server.hub.is_valid_id = lambda device_id: True  # type: ignore[method-assign]


@mutant("4.1.10")
def device_ids_of_200_bytes_are_refused(server: SmallServer) -> None:
    server.hub.is_valid_id = lambda device_id: len(device_id.encode()) <= 200  # type: ignore[method-assign]


@mutant("4.1.9")
def a_missing_device_id_is_an_empty_one(server: SmallServer) -> None:
    class Lenient(Device):
        async def register(self, message: dict[str, RawJson]) -> None:
            device_id = message.get("device_id", RawJson('""'))
            is_text = isinstance(device_id.value, str) and device_id.value
            await super().register({**message, "device_id": device_id if is_text else RawJson('"unnamed"')})

    server.hub.device_class = Lenient


CLOSED = (
    "4.1.3",
    "4.3.3",
    "4.3.2",
    "4.1.10",
    "4.3.4",
    "4.1.9",
    "4.3.8",
    "4.3.5",
    "4.2.3",
    "4.1.6",
    "4.1.17",
    "4.1.12",
    "4.1.11",
    "4.2.9",
    "4.2.6",
    "1.15",
    "4.2.5",
    "4.2.4",
    "5.3.23",
)
"""Rules about a close with a reason."""


# Refusals -------------------------------------------------------------------------------------------------------------


@mutant("4.1.16", "4.1.17", sign=r"close \[1008\]")
def a_refused_forward_does_not_close(server: SmallServer) -> None:
    def refuse(link: Link, refusal: Refusal) -> None:
        is_forward = refusal.text.startswith("Forward failed: Missing")
        before(link, Refusal(refusal.text, None) if is_forward else refusal)

    before = server.hub.refuse
    server.hub.refuse = refuse  # type: ignore[method-assign]


@mutant("1.15", sign=r'\{"error".*\| close')
def errors_are_a_close_only(server: SmallServer) -> None:
    def refuse(link: Link, refusal: Refusal) -> None:
        if refusal.code is not None:
            link.close(refusal.code, refusal.text)
        elif not link.is_cuttlefish:
            link.send(server.hub.error(refusal.text))

    server.hub.refuse = refuse  # type: ignore[method-assign]


@mutant("4.1.2", sign=r'\| \{"error"')
def cuttlefish_devices_are_sent_errors(server: SmallServer) -> None:
    def refuse(link: Link, refusal: Refusal) -> None:
        link.send(server.hub.error(refusal.text))
        if refusal.code is not None:
            link.close(refusal.code, refusal.text)

    server.hub.refuse = refuse  # type: ignore[method-assign]


@mutant(*CLOSED, sign=r"\| close \[\d+\] ''")
def closes_have_no_reason(server: SmallServer) -> None:
    def refuse(link: Link, refusal: Refusal) -> None:
        if not link.is_cuttlefish:
            link.send(server.hub.error(refusal.text))
        if refusal.code is not None:
            link.close(refusal.code, "")

    server.hub.refuse = refuse  # type: ignore[method-assign]


@mutant("4.3.1", "4.1.21", sign=r"Unknown message type")
def an_unknown_type_closes(server: SmallServer) -> None:
    server.hub.unknown_type = lambda name: Refusal(f"Unknown message type: {name}")  # type: ignore[method-assign]


@mutant("4.3.1", sign=r"Unknown message type|JSON without white space")
def an_unknown_type_is_answered_with_nothing(server: SmallServer) -> None:
    def refuse(link: Link, refusal: Refusal) -> None:
        if refusal.code is not None or not refusal.text.startswith("Unknown message type"):
            before(link, refusal)

    before = server.hub.refuse
    server.hub.refuse = refuse  # type: ignore[method-assign]


@mutant("4.2.2", sign=r"No such device")
def an_unknown_device_is_another_error(server: SmallServer) -> None:
    reworded(server, "Device not found", "No such device")


@mutant("4.2.2", sign=r"\| nothing within|Timed out waiting")
def an_unknown_device_is_silence(server: SmallServer) -> None:
    class Silent(Client):
        def attach(self, device_id: str) -> None:
            if device_id in self.hub.devices:
                super().attach(device_id)

        def connect(self, message: dict[str, RawJson]) -> None:
            if message.get("device_id", RawJson("0")).value in self.hub.devices or not isinstance(
                message.get("device_id", RawJson("0")).value, str
            ):
                super().connect(message)

    server.hub.client_class = Silent


@mutant("4.2.4")
def a_client_may_connect_twice(server: SmallServer) -> None:
    class Twice(Client):
        def connect(self, message: dict[str, RawJson]) -> None:
            if self.device is not None:
                self.device.clients.pop(self.client_id, None)
            self.has_begun = False
            super().connect(message)

    server.hub.client_class = Twice


@mutant("4.2.5")
def a_forward_before_connect_is_ignored(server: SmallServer) -> None:
    class Patient(Client):
        async def on_message(self, text: str) -> None:
            if self.of is None and self.device is None and '"forward"' in text:
                return
            await super().on_message(text)

    server.hub.client_class = Patient


@mutant("4.1.15", sign=r"Device not registered")
def a_forward_before_register_is_ignored(server: SmallServer) -> None:
    class Patient(Device):
        def forward(self, message: dict[str, RawJson]) -> None:
            if self.has_begun:
                super().forward(message)

    server.hub.device_class = Patient


@mutant("4.1.17", "4.2.6")
def a_missing_payload_is_null(server: SmallServer) -> None:
    class Lenient(Client):
        async def on_message(self, text: str) -> None:
            if self.of is None and text == '{"message_type":"forward"}':
                text = '{"message_type":"forward","payload":null}'
            await super().on_message(text)

    class LenientDevice(Device):
        def forward(self, message: dict[str, RawJson]) -> None:
            super().forward({"payload": RawJson("null"), **message})

    server.hub.client_class, server.hub.device_class = Lenient, LenientDevice


@mutant("4.1.16", sign=r"client id")
def client_ids_are_read_leniently(server: SmallServer) -> None:
    def client_id(message: dict[str, RawJson]) -> int:
        try:
            return int(float(json.loads(message.get("client_id", RawJson("0"))) or 0))
        except (TypeError, ValueError):
            return 0

    server.hub.client_id = client_id  # type: ignore[method-assign]


@mutant("4.1.16")
def client_ids_are_read_as_integers_only(server: SmallServer) -> None:
    def client_id(message: dict[str, RawJson]) -> int:
        if not message.get("client_id", RawJson("null")).isdigit():
            raise Refusal("Forward failed: Missing or invalid client id")
        return before(message)

    before = server.hub.client_id
    server.hub.client_id = client_id  # type: ignore[method-assign]


@mutant("4.1.19", sign=r"Unknown client|client_disconnected")
def an_unknown_client_closes_the_device(server: SmallServer) -> None:
    class Strict(Device):
        def forward(self, message: dict[str, RawJson]) -> None:
            if self.has_begun and "payload" in message and self.hub.client_id(message) not in self.clients:
                raise Refusal(f"Forward failed: Unknown client {message['client_id']}")
            super().forward(message)

    server.hub.device_class = Strict


@mutant("4.1.20", sign=r"client_disconnected")
def a_client_that_left_is_an_error(server: SmallServer) -> None:
    class Forgetful(Device):
        def forward(self, message: dict[str, RawJson]) -> None:
            if self.has_begun and "payload" in message and not self.link.is_cuttlefish:
                client_id = self.hub.client_id(message)
                if client_id not in self.clients:
                    raise Refusal(f"Forward failed: Unknown client {client_id}", None)
            super().forward(message)

    server.hub.device_class = Forgetful


@mutant("2.8")
def devices_are_sent_large_messages(server: SmallServer) -> None:
    class Large(Client):
        def forward(self, payload: RawJson) -> None:
            assert self.device is not None
            self.device.link.send(self.hub.client_msg(self.client_id, payload))

    server.hub.client_class = Large


@mutant("2.6")
def messages_for_old_clients_reach_new_ones(server: SmallServer) -> None:
    class Guessing(Device):
        def forward(self, message: dict[str, RawJson]) -> None:
            if self.has_begun and "payload" in message and self.clients and message["payload"] == '"late"':
                next(iter(self.clients.values())).receive(message["payload"])
                return
            super().forward(message)

    server.hub.device_class = Guessing


# JSON -----------------------------------------------------------------------------------------------------------------


@mutant("4.3.3")
def json_is_read_leniently(server: SmallServer) -> None:
    def is_json(text: str) -> bool:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return before(text)
        return True

    before = server.hub.is_json
    server.hub.is_json = is_json  # type: ignore[method-assign]
    parse = server.hub.parse
    server.hub.parse = lambda text: parse(text.replace("NaN", "1"))  # type: ignore[method-assign]


@mutant("4.3.3")
def short_invalid_json_is_ignored(server: SmallServer) -> None:
    class Deaf(Client):
        async def on_message(self, text: str) -> None:
            if len(text) > 5 or self.hub.is_json(text):
                await super().on_message(text)

    server.hub.client_class = Deaf


@mutant("4.3.4")
def nesting_is_not_limited(server: SmallServer) -> None:
    server.hub.depth = lambda text: 0  # type: ignore[method-assign]


@mutant("4.3.4")
def nesting_of_100_is_refused(server: SmallServer) -> None:
    depth = server.hub.depth
    server.hub.depth = lambda text: 1000 if depth(text) > 100 else 0  # type: ignore[method-assign]


@mutant("4.3.4")
def brackets_in_strings_count(server: SmallServer) -> None:
    def depth(text: str) -> int:
        return max(text.count("[") + text.count("{") - 1, before(text)) if len(text) < 4000 else before(text)

    before = server.hub.depth
    server.hub.depth = depth  # type: ignore[method-assign]


@mutant("4.3.2")
def duplicate_keys_are_taken(server: SmallServer) -> None:
    server.hub.has_duplicates = lambda text: False  # type: ignore[method-assign]


@mutant("4.3.2")
def other_json_is_invalid_json(server: SmallServer) -> None:
    reworded(server, "Invalid message format", "Received Invalid JSON")


@mutant("4.3.8")
def silence_is_not_ended(server: SmallServer) -> None:
    server.hub.first_message_timeout = 3600
