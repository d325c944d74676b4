"""The rows of `SignalingServer` and of the command line, in the order of `--help`."""

from __future__ import annotations

from .._limits import DEFAULT_KEEPALIVE, DEFAULT_LIMITS, Keepalive, Limits
from .audit import AUDIT_LOG
from .cluster import CLUSTER
from .ice import ICE, TEXT
from .jwt import JWT
from .kinds import (
    Choice,
    Group,
    Hook,
    Integer,
    Path,
    Seconds,
    Strings,
    Switch,
)
from .network import NETWORK
from .row import Flag, Setting
from .upstream import UPSTREAM

SERVER = (
    *NETWORK,
    *ICE,
    Setting(
        "filter_device_info",
        Hook("FilterDeviceInfo | None"),
        None,
        "`hook(info, FilterContext)`, which returns the part of the device info that this client may see. It is called "
        "for each client, and its result is sent to that client only. A result that equals the info is sent as the "
        "device sent it, byte for byte. It may edit the info in place, and returns it then as well.",
        special=(("None", "each client gets the device info as the device sent it, byte for byte"),),
        is_core=False,
        instead="It is a function: `--hooks` names a file of functions.",
    ),
    Setting(
        "authorize",
        Hook("Authorize | None"),
        None,
        "`hook(AuthorizeContext)`, which returns an identity (any JSON value), a `Grant` or None, or raises `Refused`. "
        "It is called for each request except `GET /healthz`, `GET /readyz` and the server's own page and scripts, "
        "which are the same for all.",
        special=(("None", "all peers are accepted"),),
        is_core=False,
        instead="It is a function: `--hooks` names a file of functions, `--token-file` one of tokens.",
    ),
    Setting(
        "device_wait_timeout",
        Seconds(optional=True, zero=True),
        0.0,
        "Time that a client waits for a device that is not registered.",
        special=(("0", "the client is refused at once"), ("None", "the client waits forever")),
        flag=Flag(
            "device-wait-timeout",
            "seconds that a client waits for a device that is not registered; 0 refuses at once, none waits forever",
            0.0,
            "SECONDS",
        ),
    ),
    Setting(
        "on_duplicate",
        Choice("reject", "replace"),
        "reject",
        "The rule for a device id that another connection holds.",
        special=(
            ('"reject"', "the new device is refused, if the holder answers a ping"),
            ('"replace"', "the new device gets the id, and the holder is closed"),
        ),
        flag=Flag(
            "on-duplicate",
            "whether a second device with the same id is refused or replaces the first one",
            "reject",
        ),
    ),
    Setting(
        "one_client_per_device",
        Switch(),
        False,
        "Whether a device has one client at a time, at most. The next one is refused with `Connection failed: "
        "Device in use: 'ID'` [1013] until the first has left. `Grant(exclusive=True)` says so for single clients.",
        flag=Flag("one-client-per-device", "refuse a client while its device has another one", False),
    ),
    Setting(
        "client_ids",
        Choice("from_one", "unique"),
        "from_one",
        "Where the client ids of a registration begin.",
        "Either way they are above the last id that this server gave for the device. The peers of a real device "
        "outlive a restart of the server, and must not get the id of another client.",
        special=(
            ('"from_one"', "at 1"),
            ('"unique"', "at a number made from the time of day, for real devices"),
        ),
        flag=Flag(
            "client-ids",
            "where client ids of a registration begin: at 1, or, for real devices, at a number made from the time of "
            "day",
            "from_one",
        ),
    ),
    Setting(
        "allowed_hosts",
        Strings(),
        (),
        "Names in `Host` by which the server may be reached, besides IP addresses, `localhost`, `host` and the names "
        "of a self-signed certificate.",
        "Other names are refused, because DNS rebinding needs them.",
        special=(("`*.lab`", "each name below `lab`"), ("`*`", "any name")),
        flag=Flag("allow-host", "a name by which the server may be reached, besides IP addresses", metavar="NAME"),
    ),
    Setting(
        "allowed_origins",
        Strings(),
        (),
        "Origins whose pages may use the server, besides its own, like `https://panel.lab`.",
        special=(
            ("`https://*.lab`", "the origins of each name below `lab`"),
            ("`*`", "any origin"),
        ),
        flag=Flag("allow-origin", "an origin whose pages may use the server", metavar="ORIGIN"),
    ),
    Setting(
        "trusted_proxies",
        Strings(),
        (),
        "Proxies whose `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` headers count: addresses, networks like "
        "`10.0.0.0/8`, and `unix` for all peers on Unix sockets.",
        "Each of them has to write or remove all of these headers. Those of other peers are ignored and counted.",
        flag=Flag("trusted-proxy", "a proxy whose X-Forwarded and Forwarded headers count", metavar="ADDRESS|NETWORK"),
    ),
    Setting(
        "advertise_address",
        Strings(),
        (),
        "Addresses at which clients reach devices behind 1:1 NAT, like a container's: `172.17.0.2=192.0.2.7`, or "
        "networks like `10.0.0.0/24=192.0.2.0/24`.",
        "They replace those of the host candidates that devices send; all other bytes stay. A pre-registration and "
        "`Grant.advertise_address` replace them for a device.",
        flag=Flag(
            "advertise-address",
            "the address at which clients reach a device that sees another one, such as in a container",
            metavar="INNER=OUTER",
        ),
    ),
    Setting(
        "allow_unauthenticated",
        Switch(),
        False,
        "Whether the server may listen on other addresses than loopback without `authorize`.",
        flag=Flag("allow-unauthenticated", "listen on other addresses than loopback without an authorize hook", False),
    ),
    Setting(
        "hooks",
        TEXT,
        None,
        "`FILE.py:OBJECT` or `MODULE:OBJECT`, an object with any of `authorize`, `filter_device_info` and "
        "`ice_servers`. Without `:OBJECT` it is the file or the module.",
        group="serve",
        instead="`authorize`, `filter_device_info` and `ice_servers`.",
        flag=Flag("hooks", "hooks, from a Python file or module", metavar="FILE_OR_MODULE:OBJECT"),
    ),
    Setting(
        "token_file",
        TEXT,
        None,
        "File of tokens, as an `authorize` hook. Each line has a token, its identity, and patterns of the device ids "
        "that it may use; the last two may be missing. The word `+manage` among the patterns lets the token disconnect "
        "peers and export payloads on the dashboard; `+exclusive` keeps other clients out of a device that it uses. A "
        "`.toml` or `.json` file has a grant for each token.",
        special=(("None", "no token is asked for"),),
        group="serve",
        instead="`authorize=StaticTokens.from_file(...)`.",
        flag=Flag(
            "token-file",
            "tokens that peers need: lines of TOKEN [IDENTITY [DEVICE_PATTERN ...]], or FILE.toml or FILE.json",
            metavar="FILE",
        ),
    ),
    *JWT,
    Setting(
        "hook_timeout",
        Seconds(),
        5.0,
        "Time for a hook to return. Hooks are `def` or `async def`. When one raises, takes longer or returns invalid "
        "data, the peer that it was called for is closed (`Internal error` [1011]), and no other peer is affected. "
        "A `def` hook that hangs keeps its thread: use `async def` for a hook that may hang.",
        "A real device disconnects after 10 s.",
        flag=Flag("hook-timeout", "seconds in which a hook must return", 5.0, "SECONDS"),
    ),
    *CLUSTER,
    *UPSTREAM,
    Setting(
        "dashboard",
        Switch(),
        False,
        "Whether there is a dashboard page at `/`: devices, conversations, a viewer.",
        on_command_line="`auto` is on for a loopback address.",
        flag=Flag(
            "dashboard",
            "the dashboard page at /; auto is on where only this machine reaches it",
            "auto",
            kind=Choice("auto", "on", "off"),
        ),
    ),
    Setting(
        "access_log",
        Switch(),
        False,
        "Whether each HTTP response is logged once it has ended: method, path without query, status, bytes, duration, "
        "peer and user agent. `limits` bounds the rate.",
        flag=Flag("access-log", "log each HTTP response", False),
    ),
    AUDIT_LOG,
    Setting(
        "journal",
        Switch(),
        False,
        "Whether the messages are recorded, for `journal` and the dashboard page. `limits` bounds the journal.",
        flag=Flag("journal", "record the messages, for the conversations on that page", False),
    ),
    Setting(
        "assets_dir",
        Path(),
        None,
        "A directory whose files are served besides the endpoints: the web client of a Cuttlefish host package "
        "(`client.html`, `js/app.js`). `js/server_connector.js` is always the server's own. Links in it are followed.",
        special=(("None", "no files"),),
        flag=Flag("assets-dir", "directory of files to serve as well: the web client of a host package", metavar="DIR"),
    ),
    Setting(
        "proxy_device_files",
        Switch(),
        False,
        "Whether `/devices/ID/files/...` reaches the device's own web server, on 127.0.0.1 at the port that it named "
        "on the device socket.",
        "It is off because it lets each client reach a port of this machine.",
        flag=Flag(
            "proxy-device-files",
            "let /devices/ID/files/ reach the web servers of devices on the device socket",
            False,
        ),
    ),
    Setting(
        "adb",
        Switch(),
        False,
        "Whether `WS /devices/ID/adb` carries bytes to and from the device's adb port, on 127.0.0.1. The port is that "
        "of the announcement, or, for a device on this machine, that of its device info.",
        "It is off because adb is a shell on the device, and lets each client reach a port of this machine.",
        flag=Flag("adb", "let /devices/ID/adb reach the adb ports of devices", False),
    ),
    Setting(
        "devices_format",
        Choice("full", "ids"),
        "full",
        "The default format of `GET /devices`. A request chooses with `?format=full` and `?format=ids`.",
        special=(
            ('"full"', "an object for each device"),
            ('"ids"', "the list of ids that the page of the reference server expects"),
        ),
        flag=Flag(
            "devices-format",
            "default format of GET /devices; the page of the reference server expects ids",
            "full",
        ),
    ),
    Setting(
        "workers",
        Integer(1, 1024),
        1,
        "OS threads that relay messages.",
        flag=Flag("workers", "threads that relay messages", 1),
    ),
    Setting(
        "log_level",
        Choice("debug", "info", "warning", "error"),
        "info",
        "The least severe level to log.",
        group="serve",
        instead="The logger `cuttlefish_signaling` of `logging`.",
        flag=Flag("log-level", "least severe level to log", "info"),
    ),
    Setting(
        "log_format",
        Choice("text", "json"),
        "text",
        "The format of log lines, on stderr.",
        group="serve",
        instead="A formatter of `logging`.",
        flag=Flag("log-format", "format of the log on stderr", "text"),
    ),
    Setting(
        "log_file",
        TEXT,
        None,
        "A file that gets the log as well. Lines are added to it.",
        special=(("None", "stderr alone"),),
        group="serve",
        instead="A handler of `logging`.",
        flag=Flag("log-file", "a file that gets the log as well", metavar="FILE"),
    ),
    Setting(
        "log_file_size",
        Integer(4096, 2**30, "bytes"),
        8 * 1024 * 1024,
        "The size at which `log_file` is renamed to `FILE.1`, which replaces the one before.",
        "The log of a Cuttlefish host is in memory, in /run.",
        group="serve",
        instead="`logging.handlers.RotatingFileHandler`.",
        flag=Flag("log-file-size", "bytes after which the log file begins anew; the last one is FILE.1", 8388608),
    ),
    Setting(
        "limits",
        Group(Limits),
        DEFAULT_LIMITS,
        "Bounds on the resources that peers may use.",
        is_core=False,
        instead="Each field has a flag.",
    ),
    Setting(
        "keepalive",
        Group(Keepalive),
        DEFAULT_KEEPALIVE,
        "When a silent connection is closed.",
        is_core=False,
        instead="Each field has a flag.",
    ),
    Setting(
        "drain",
        Seconds(zero=True),
        0.0,
        "Time before a stop in which `GET /readyz` answers 503 and peers are served, for load balancers.",
        flag=Flag("drain", "seconds after SIGTERM in which /readyz answers 503 and all else goes on", 0.0, "SECONDS"),
        is_core=False,
    ),
    Setting(
        "drain_spread",
        Seconds(zero=True),
        0.0,
        "Time over which a stop closes the connections, evenly, each device with its clients.",
        "Thousands of devices that are closed at once also return at once.",
        flag=Flag(
            "drain-spread",
            "seconds over which the connections are then closed, so that devices do not all return at once",
            0.0,
            "SECONDS",
        ),
        on_command_line="`operator` makes it 5 s.",
        is_core=False,
    ),
    Setting(
        "stop_timeout",
        Seconds(zero=True),
        2.0,
        "Time for all peers to complete the closing handshake when the server stops.",
        is_core=False,
        flag=Flag(
            "stop-timeout", "seconds for all peers to complete the closing handshake at the end", 10.0, "SECONDS"
        ),
    ),
)
