"""The rows of addresses, certificates and local sockets, in the order of `--help`."""

from __future__ import annotations

from .ice import TEXT
from .kinds import (
    CONTROL_LISTENERS,
    MAX_SOCKET_PATH,
    Address,
    Certificate,
    ControlToken,
    Integer,
    Listeners,
    Path,
    Seconds,
    Sockets,
    Switch,
)
from .row import Flag, Setting

STATE_DIR = (
    "the first of `$STATE_DIRECTORY`, which systemd sets, `$XDG_STATE_HOME/cuttlefish-signaling` and "
    "`~/.local/state/cuttlefish-signaling`"
)

NETWORK = (
    Setting(
        "host",
        Address(),
        "127.0.0.1",
        "Address or name to listen on.",
        "By default other machines cannot reach the server.",
        flag=Flag("host", "address to listen on", "127.0.0.1"),
    ),
    Setting(
        "port",
        Integer(0, 65535),
        0,
        "Port to listen on.",
        special=(("0", "the system chooses a free port, and `port` has its number"),),
        flag=Flag("port", "port to listen on; 0 is a free one", 8443),
    ),
    Setting(
        "listen",
        Listeners(),
        (),
        "All addresses to listen on, in the place of `host` and `port`. They share their devices and clients. `https` "
        "needs a certificate. The file of a `unix` socket has the mode, 0660 by default, and its peers count as "
        "peers of this machine.",
        special=(("()", "`host` and `port` count"),),
        on_command_line="It also replaces `--no-tls`.",
        flag=Flag(
            "listen",
            "an address to listen on, in the place of --host, --port and --no-tls: http://HOST:PORT, "
            "https://HOST:PORT or unix:PATH?mode=0660",
            metavar="URL",
        ),
    ),
    Setting(
        "sockets",
        Sockets(),
        (),
        "Sockets that listen already, as systemd passes them. Each takes the place of the one that the server would "
        "open for a listener or a local socket of the same address. They stay open when the server stops.",
        instead="The sockets of `LISTEN_FDS`; see docs/service.md.",
    ),
    Setting(
        "metrics",
        Listeners(),
        (),
        "Addresses at which `GET /metrics` is answered, and nothing else, in the form of `listen`. They ask for no "
        "token: the numbers have no ids in them. `GET /metrics` of the other listeners stays, for those whom "
        "`authorize` admits.",
        special=(("()", "no such address"),),
        flag=Flag(
            "metrics",
            "an address for GET /metrics alone, which needs no token: http://HOST:PORT, https://HOST:PORT or unix:PATH",
            metavar="URL",
        ),
    ),
    Setting(
        "control_api",
        CONTROL_LISTENERS,
        (),
        "Addresses of the control API, with which programs read and change the server, in the form of `listen`. A Unix "
        "socket has the mode 0600 by default. `http` is for addresses of this machine only. See docs/control-api.md.",
        special=(("()", "no control API"),),
        flag=Flag(
            "control-api",
            "an address of the control API, for programs: http://127.0.0.1:PORT, https://HOST:PORT or "
            "unix:PATH?mode=0600; it needs --control-token-file",
            metavar="URL",
        ),
    ),
    Setting(
        "control_token",
        ControlToken(),
        None,
        "Token that each request to the control API needs.",
        special=(("None", "a random one, which `control_token` has"),),
        instead="`--control-token-file`.",
    ),
    Setting(
        "control_token_file",
        TEXT,
        None,
        "File with the token of the control API, on one line. A file that is missing is made with mode 0600 and a "
        "random token. `control_api` needs it.",
        group="serve",
        instead="`control_token`.",
        flag=Flag(
            "control-token-file",
            "the file with the token of the control API; one that is missing is made, with a random token",
            metavar="FILE",
        ),
    ),
    Setting(
        "operator",
        Switch(),
        False,
        "Whether to serve in the place of the operator of a Cuttlefish host: with its ports, local sockets, "
        "certificate, page and defaults. Every other setting overrides a part of that. See docs/cuttlefish.md.",
        group="serve",
        instead="It is a set of other settings.",
        flag=Flag(
            "operator",
            "serve in the place of a Cuttlefish host's operator: http 1080 on loopback, https 1443, its local sockets, "
            "certificate and page, files and adb of devices, unique client ids, no authentication; "
            "every flag overrides a part",
            False,
        ),
    ),
    Setting(
        "operator_defaults",
        TEXT,
        "/etc/default/cuttlefish-operator",
        "The file with the operator's address, ports and certificate directory, for `operator`. It may be missing.",
        group="serve",
        instead="It belongs to `operator`.",
        special=(('""', "no file"),),
        flag=Flag(
            "operator-defaults",
            "the file with the operator's address, ports and certificate directory",
            "/etc/default/cuttlefish-operator",
            metavar="FILE",
        ),
    ),
    Setting(
        "no_tls",
        Switch(),
        False,
        "Whether to serve plain ws and http instead of wss and https.",
        group="serve",
        instead="`tls=None`.",
        flag=Flag("no-tls", "plain ws and http instead of wss and https", False),
    ),
    Setting(
        "tls_cert",
        TEXT,
        None,
        "File with the certificate chain, PEM. It needs `tls_key`.",
        special=(("None", "the server makes a certificate"),),
        group="serve",
        instead="`Tls.from_files(...)`.",
        flag=Flag("tls-cert", "certificate chain, PEM; without one the server makes a certificate", metavar="FILE"),
    ),
    Setting(
        "tls_key",
        TEXT,
        None,
        "File with the private key of `tls_cert`, PEM.",
        group="serve",
        instead="`Tls.from_files(...)`.",
        flag=Flag("tls-key", "its private key, PEM", metavar="FILE"),
    ),
    Setting(
        "state_dir",
        TEXT,
        None,
        "Directory that keeps the certificate that the server makes, with its authority.",
        special=(("None", STATE_DIR),),
        group="serve",
        instead="`Tls.kept_in(...)`.",
        flag=Flag(
            "state-dir",
            "directory that keeps the server's certificate, with its authority; by default systemd's $STATE_DIRECTORY, "
            "or $XDG_STATE_HOME/cuttlefish-signaling, or ~/.local/state/cuttlefish-signaling",
            metavar="DIR",
        ),
    ),
    Setting(
        "tls",
        Certificate(),
        None,
        "Certificate and key: `Tls.self_signed()`, `Tls.kept_in(...)` or `Tls.from_files(...)`.",
        special=(("None", "plain http and ws"),),
        instead="`--tls-cert` with `--tls-key`, `--state-dir`, or `--no-tls`.",
    ),
    Setting(
        "tls_check_interval",
        Seconds(optional=True, least=0.01),
        60.0,
        "Time between two checks whether the files of the certificate have changed. New connections get the new one, "
        "and a certificate of a state directory is made anew in its last 30 days. Files that cannot be used are logged "
        "once, and tried again.",
        "The content of the files counts, so they may be replaced in any way.",
        special=(("None", "no checks"),),
        flag=Flag(
            "tls-check-interval",
            "seconds between two checks whether the files of the certificate have changed; none is never",
            60.0,
            "SECONDS",
        ),
    ),
    Setting(
        "device_socket",
        Path(MAX_SOCKET_PATH),
        None,
        "Path of a local socket for devices of today's Cuttlefish, like `/run/cuttlefish/operator`. It is made with "
        "mode 0770. A socket without a server is replaced.",
        special=(("None", "no such socket"),),
        flag=Flag("device-socket", "a local socket for devices of today's Cuttlefish", metavar="PATH"),
    ),
    Setting(
        "control_socket",
        Path(MAX_SOCKET_PATH),
        None,
        "Path of a local socket on which devices are announced, like `/run/cuttlefish/operator_control`.",
        special=(("None", "no such socket"),),
        flag=Flag("control-socket", "a local socket on which devices are announced", metavar="PATH"),
    ),
)
