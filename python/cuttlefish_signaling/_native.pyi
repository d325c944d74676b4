"""The Rust core. Private: use the package."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, final

__all__ = [
    "Clock",
    "Cluster",
    "Disconnection",
    "Events",
    "Faults",
    "IceCommand",
    "Inquiry",
    "Job",
    "Journal",
    "Jwt",
    "LogRecords",
    "ProgramRequest",
    "Reload",
    "Server",
    "Tls",
    "TurnRest",
    "Unsaved",
    "__version__",
    "address_rules_fault",
    "allowance_fault",
    "check_settings",
    "checked_ice_servers",
    "default_settings",
    "machine_addresses",
    "same_ice_servers",
    "toml_to_json",
]
__version__: str

_Place: TypeAlias = tuple[str, str, str, int]
_Device: TypeAlias = tuple[
    str, str | None, int | None, float, str | None, int | None, str, _Place, int | None, str | None, str | None
]

@final
class Tls:
    """A server's certificate and key."""

    @staticmethod
    def from_pem(
        certificate: bytes, key: bytes, client_ca: bytes | None, files: tuple[str, str, str | None] | None
    ) -> Tls: ...
    @staticmethod
    def self_signed(names: Sequence[str], client_ca: bytes | None) -> Tls: ...
    @staticmethod
    def kept_in(
        directory: str | PathLike[str], names: Sequence[str], client_ca: bytes | None
    ) -> tuple[Tls, Path, list[tuple[bool, str]], Unsaved]: ...
    @staticmethod
    def authority_kept_in(
        directory: str | PathLike[str], names: Sequence[str]
    ) -> tuple[str, list[tuple[bool, str]]]: ...
    @staticmethod
    def is_name(name: str) -> bool: ...
    def renew(self) -> tuple[bool, list[tuple[bool, str]]]: ...
    def is_same(self, other: Tls) -> bool: ...
    @property
    def is_renewable(self) -> bool: ...
    @property
    def trusted_pem(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def authority_fingerprint(self) -> str | None: ...

@final
class Reload:
    """Settings of a running server that were checked, and that wait to be put into effect."""

    def apply(self) -> None: ...

@final
class Unsaved:
    """Files for a state directory that are not written yet, and the lock of the directory."""

    def save(self) -> None: ...

@final
class Cluster:
    """The settings of a node of a cluster."""

    def __new__(
        cls,
        engine: str,
        *,
        name: str,
        node: str,
        listen: str,
        address: str | None,
        secrets: list[str],
        ca: str | None,
        hold_on_outage: bool,
        device_id_template: str | None,
    ) -> Cluster: ...
    def is_same_but_secrets(self, other: Cluster) -> bool: ...
    @property
    def engine(self) -> str: ...

@final
class Disconnection:
    """The disconnection of a peer on another node, which is under way."""

    def wait(self, timeout: float) -> bool | None: ...

@final
class Jwt:
    """The checked settings of tokens, with the keys of their files."""

    def __new__(
        cls,
        keys: list[str],
        *,
        issuer: list[str],
        audience: list[str],
        leeway: float,
        identity: str,
        devices: str | None,
        rights: str | None,
        values: list[str],
        needed_for: list[str],
        allow_no_exp: bool,
        max_token: int,
        max_keys: int,
        check_interval: float | None,
    ) -> Jwt: ...

@final
class Inquiry:
    """A question to the node that has a device, which is under way."""

    def wait(self, timeout: float) -> tuple[str | None] | None: ...

@final
class IceCommand:
    """A command that prints ICE servers."""

    def __new__(cls, argv: list[str], timeout: float, ttl: float, fallback: str) -> IceCommand: ...

@final
class TurnRest:
    """Time-limited TURN credentials."""

    def __new__(cls, urls: Sequence[str], secret: str, ttl: float, name: str, stun: Sequence[str]) -> TurnRest: ...
    def config(self, now: float | None) -> str: ...

@final
class Journal:
    """The messages of one server."""

    def find(
        self,
        after: int,
        limit: int,
        *,
        closed: bool | None = None,
        direction: str | None = None,
        device: str | None = None,
        client: int | None = None,
        message_type: str | None = None,
        payload_type: str | None = None,
    ) -> list[
        tuple[int, float, bool, str, str | None, int | None, int, str, str, str | None, str, tuple[list[str], int]]
    ]: ...
    @property
    def count(self) -> int: ...
    @property
    def forgotten(self) -> int: ...

@final
class Faults:
    """The faults of one server."""

    def arm(
        self,
        effect: str,
        first: float | None = None,
        second: float | None = None,
        *,
        to: str | None = None,
        device: str | None = None,
        client: int | None = None,
        payload_type: str | None = None,
        nth: int | None = None,
        probability: float = 1.0,
        times: int | None = None,
    ) -> int: ...
    def disarm(self, id: int) -> tuple[int, int, int] | None: ...
    def stats(self, id: int) -> tuple[int, int, int] | None: ...
    def seed(self, seed: int) -> None: ...

@final
class Clock:
    """The clock of one server."""

    def freeze(self) -> None: ...
    def resume(self) -> None: ...
    def advance(self, seconds: float) -> None: ...
    @property
    def now(self) -> float: ...
    @property
    def is_frozen(self) -> bool: ...

@final
@final
class LogRecords:
    """Log records of the core."""

    def at_least(self, level: int) -> list[tuple[int, str, dict[str, str | int | float]]]: ...

@final
class Events:
    """The event queue of one server."""

    def __new__(cls, hook_queue: int, hook_threads: int) -> Events: ...
    def set_bounds(self, hook_queue: int, hook_threads: int) -> None: ...
    def wait_first(self, lowest_level: int) -> bool: ...
    def next(
        self, lowest_level: int
    ) -> (
        tuple[
            LogRecords,
            int,
            bool,
            list[tuple[str, str | None, str, float | None, int, str | None]],
            int,
            list[int],
            bool,
            list[ProgramRequest],
        ]
        | None
    ): ...
    def next_job(self, finished: int | None = None) -> tuple[Job, bool] | None: ...
    def watch(self, more: bool) -> None: ...
    def close(self) -> None: ...

@final
class ProgramRequest:
    """A request of the control API that Python answers."""

    @property
    def name(self) -> str: ...
    @property
    def arguments(self) -> str: ...
    def answer(self, status: int, body: str, *, is_text: bool = False) -> None: ...

@final
class Job:
    """A call of a hook."""

    @property
    def key(self) -> int: ...
    @property
    def hook(self) -> str: ...
    @property
    def role(self) -> Any: ...
    @property
    def device_id(self) -> str | None: ...
    @property
    def info(self) -> str | None: ...
    @property
    def peer(
        self,
    ) -> tuple[str, str | None, int | None, float, str, str, list[tuple[str, str]], str | None, str | None]: ...
    @property
    def wanted(self) -> bool: ...
    @property
    def place(self) -> tuple[str, str, str, int]: ...
    def settle(
        self,
        json: str | None,
        devices: list[str] | None = None,
        manage: bool = False,
        advertise: list[str] | None = None,
        valid_for: float | None = None,
        exclusive: bool = False,
    ) -> None: ...
    def settle_ice_servers(self, json: str) -> None: ...
    def refuse(self, reason: str | None, status: int) -> None: ...
    def fail(self) -> None: ...

@final
class Server:
    """One running server."""

    def __new__(cls, settings: dict[str, Any], hooks: Sequence[str], events: Events) -> Server: ...
    @property
    def listeners(self) -> list[tuple[str, str, int]]: ...
    @property
    def metrics_listeners(self) -> list[tuple[str, str, int]]: ...
    @property
    def control_listeners(self) -> list[tuple[str, str, int]]: ...
    @property
    def process(self) -> int: ...
    @property
    def is_running(self) -> bool: ...
    def beat_every(self, interval: float) -> None: ...
    def begin_drain(self, wait: float, spread: float) -> None: ...
    def wait_drained(self, timeout: float) -> bool: ...
    def stop(self, deadline: float) -> bool: ...
    def devices(self) -> list[_Device]: ...
    def device(self, device_id: str) -> _Device | None: ...
    def nodes(self) -> list[tuple[str, str, str, str, str, int]]: ...
    def engine_failure(self) -> tuple[str, str] | None: ...
    @property
    def node_address(self) -> str | None: ...
    def clients(self, device_id: str | None) -> list[tuple[str, int, str | None, int | None, float, str | None]]: ...
    def waiting(self) -> list[tuple[str, str | None, int | None, float, str | None]]: ...
    def disconnect_device(self, device_id: str) -> bool: ...
    def disconnect_client(self, device_id: str, client_id: int) -> bool: ...
    def begin_disconnect(self, device_id: str, client_id: int | None) -> Disconnection | None: ...
    def begin_ask(self, device_id: str, clients: bool, delay: float) -> Inquiry | None: ...
    def set_ice_servers(self, source: TurnRest | IceCommand | str | None) -> None: ...
    def prepare_reload(self, settings: dict[str, Any], hooks: list[str], renews_ice: bool) -> Reload: ...
    def set_authorize(self, is_set: bool) -> None: ...
    def set_filter_device_info(self, is_set: bool) -> None: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def faults(self) -> Faults: ...
    @property
    def clock(self) -> Clock: ...
    def incidents(self) -> list[tuple[str, int]]: ...
    def peers(self) -> tuple[int, int, int, int]: ...
    def stats(self) -> tuple[int, int, int, int, int]: ...
    def changes(self) -> int: ...
    def wait_change(self, seen: int, timeout: float) -> int: ...

def address_rules_fault(rules: list[str]) -> str | None: ...
def allowance_fault(setting: str, text: str) -> str | None: ...
def checked_ice_servers(json: str) -> str: ...
def same_ice_servers(one: TurnRest | IceCommand | str | None, other: TurnRest | IceCommand | str | None) -> bool: ...
def check_settings(settings: dict[str, Any], authenticates: bool) -> None: ...
def default_settings() -> dict[str, Any]: ...
def machine_addresses() -> list[str]: ...
def toml_to_json(text: str) -> tuple[str, list[tuple[str, int]]]: ...
