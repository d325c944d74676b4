"""The rows of ICE servers."""

from __future__ import annotations

from .kinds import Command, Json, Kind, Seconds, Secret, Strings
from .row import Flag, Setting

TEXT = Kind("str | None", "a text, or None")

ICE = (
    Setting(
        "stun",
        Strings("list[str]", "a list of `stun:` and `stuns:` URLs"),
        (),
        "STUN servers in `config`.",
        group="serve",
        instead='`ice_servers=[IceServer("stun:...")]`.',
        flag=Flag("stun", "a STUN server for peers", metavar="URL"),
    ),
    Setting(
        "turn",
        Strings("list[str]", "a list of `turn:` and `turns:` URLs"),
        (),
        "URLs of the TURN server in `config`. They need `turn_secret`.",
        group="serve",
        instead="`ice_servers=TurnRest(...)`.",
        flag=Flag("turn", "a URL of the TURN server for peers; needs --turn-secret", metavar="URL"),
    ),
    Setting(
        "turn_secret",
        Secret("str | None", "a text, or None"),
        None,
        "The secret that the TURN server and this server share (coturn: `static-auth-secret`). Credentials are made "
        "from it for each peer.",
        group="serve",
        instead="`TurnRest(secret=...)`.",
        flag=Flag(
            "turn-secret",
            "the secret shared with the TURN server (coturn: static-auth-secret); better in a file",
            metavar="SECRET",
        ),
    ),
    Setting(
        "turn_secret_file",
        TEXT,
        None,
        "File with one line, the `turn_secret`.",
        "Every user of the machine can list the arguments of a process until the process has overwritten them.",
        group="serve",
        instead="`TurnRest(secret=...)`.",
        flag=Flag("turn-secret-file", "file with that secret", metavar="FILE"),
    ),
    Setting(
        "turn_ttl",
        Seconds(),
        3600.0,
        "Time for which TURN credentials are valid. Devices get new ones after half of it.",
        group="serve",
        instead="`TurnRest(ttl=...)`.",
        flag=Flag("turn-ttl", "seconds for which TURN credentials are valid", 3600.0, "SECONDS"),
    ),
    Setting(
        "ice_servers",
        Kind("IceServers", "`IceServer`s or dictionaries, a `TurnRest`, an `IceCommand`, or a function"),
        (),
        "ICE servers in the `config` message: a list of `IceServer` or dictionaries, one of them, the JSON answer of a "
        "TURN provider, a `TurnRest`, an `IceCommand`, or a function that is called with an `IceContext` for each peer "
        "and returns or yields them.",
        "By default no peer contacts a public STUN server.",
        on_command_line="JSON, or `@` and the name of a file with JSON.",
        flag=Flag(
            "ice-servers",
            "ICE servers as JSON: a list of RTCIceServer, one of them, or the answer of a TURN provider",
            metavar="JSON|@FILE",
            kind=Json("str", "JSON of RTCIceServer, or `@FILE`"),
        ),
    ),
    Setting(
        "ice_servers_command",
        Command(),
        None,
        "A command that prints ICE servers as JSON, as the delegate of Cuttlefish's operator does. `stun` and "
        "`ice_servers` are used while it fails.",
        "No shell reads it: quotes group words, and nothing else is special.",
        group="serve",
        instead="`ice_servers=IceCommand(...)`.",
        flag=Flag("ice-servers-command", "a command that prints ICE servers as JSON", metavar="'COMMAND ARGUMENTS'"),
    ),
    Setting(
        "ice_servers_timeout",
        Seconds(),
        5.0,
        "Time after which a run of `ice_servers_command` is killed.",
        "A real device disconnects after 10 s.",
        group="serve",
        instead="`IceCommand(timeout=...)`.",
        flag=Flag("ice-servers-timeout", "seconds after which that command is killed", 5.0, "SECONDS"),
    ),
    Setting(
        "ice_servers_ttl",
        Seconds(),
        300.0,
        "Time for which the servers of a run of `ice_servers_command` are used. Credentials have to be valid for twice "
        "that time, unless the command prints their `ttl`.",
        group="serve",
        instead="`IceCommand(ttl=...)`.",
        flag=Flag("ice-servers-ttl", "seconds for which the servers of that command are used", 300.0, "SECONDS"),
    ),
)
