"""The rows of a proxy: the server behind it."""

from __future__ import annotations

from ..errors import ConfigError
from .kinds import Kind, Path, Seconds, Switch
from .row import Flag, Setting

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any


class Behind(Kind):
    """An `Upstream`, its URL, or None."""

    def __init__(self) -> None:
        super().__init__("str | Upstream | None", "a URL, an `Upstream`, or None")

    def check(self, setting: str, value: Any) -> Any:
        """Returns the settings of the core."""
        if value is None:
            return None
        from .._upstream import Upstream

        if not isinstance(value, str | Upstream):
            raise ConfigError(setting, f"must be a URL, an Upstream or None, got {value!r}")
        upstream = Upstream(value) if isinstance(value, str) else value
        return tuple(upstream._given)


UPSTREAM = (
    Setting(
        "upstream",
        Behind(),
        None,
        "The server to which all is passed on, a URL like `wss://HOST:PORT` or `Upstream(...)`: this one is a proxy "
        "then. It has the journal, the faults and the page of a server, the page at `/_proxy/`. See "
        "docs/standing-between.md.",
        special=(("None", "this is a server itself"),),
        on_command_line="The URL.",
        flag=Flag(
            "upstream",
            "the server to which all is passed on, ws://HOST:PORT or wss://HOST:PORT: a proxy, as the command `proxy`",
            metavar="URL",
            kind=Kind("str | None", "a URL"),
        ),
    ),
    Setting(
        "upstream_ca",
        Path(),
        None,
        "File with the certificate authorities of `upstream`, PEM.",
        special=(("None", "those of the system"),),
        group="serve",
        instead="`Upstream(ca=...)`.",
        flag=Flag("upstream-ca", "the certificate authorities of --upstream, PEM", metavar="FILE"),
    ),
    Setting(
        "upstream_insecure",
        Switch(),
        False,
        "Whether the certificate of `upstream` may be any.",
        "A device of Cuttlefish does not check it either.",
        group="serve",
        instead="`Upstream(insecure=True)`.",
        flag=Flag("upstream-insecure", "accept any certificate of --upstream", False),
    ),
    Setting(
        "upstream_timeout",
        Seconds(),
        10.0,
        "Time for a connection to `upstream`, and for its answer to an upgrade. Other answers may take "
        "`limits.polled_timeout`, if that is longer.",
        "A real device disconnects after 10 s.",
        group="serve",
        instead="`Upstream(timeout=...)`.",
        flag=Flag("upstream-timeout", "seconds for a connection to --upstream, and for its answer", 10.0, "SECONDS"),
    ),
)
