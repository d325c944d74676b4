"""The rows of the cluster."""

from __future__ import annotations

from .ice import TEXT
from .kinds import Choice, Kind, Member, Secret
from .row import Flag, Setting


def _of_the_command_line(
    name: str, argument: str, kind: Kind, default: object, text: str, flag: Flag, none: str = ""
) -> Setting:
    """Returns the row of an argument of `Cluster`. `none`: the meaning of None."""
    special = (("None", none),) if none else ()
    instead = f"`Cluster({argument}=...)`."
    return Setting(name, kind, default, text, special=special, group="serve", instead=instead, flag=flag)


CLUSTER = (
    Setting(
        "cluster",
        Member(),
        None,
        "The cluster of which this server is a node, `Cluster(...)`: several servers that are one service, with one "
        "registry in Redis or Valkey. See docs/cluster.md. A reload replaces its secret alone.",
        special=(("None", "this server is alone"),),
        on_command_line="The URL of the engine; a variable or the file hides its password from the process list.",
        flag=Flag(
            "cluster",
            "the engine of the cluster of which this server is a node: redis://HOST:6379 or "
            "redis+sentinel://HOST:26379,HOST:26379/MASTER; rediss in the place of redis for TLS; "
            "USER:PASSWORD@ before its hosts, and ?sentinel_password=PASSWORD at its end where Sentinels have another",
            metavar="URL",
            kind=Secret("str | None", "a URL"),
        ),
    ),
    _of_the_command_line(
        "cluster_name",
        "name",
        TEXT,
        "default",
        "The name of the service. Nodes of one name share a registry.",
        Flag("cluster-name", "the name of the service; nodes of one name share a registry", "default", "NAME"),
    ),
    _of_the_command_line(
        "cluster_listen",
        "listen",
        TEXT,
        "127.0.0.1:0",
        "The address for other nodes. Port 0: the system chooses a free port.",
        Flag("cluster-listen", "the address for other nodes", "127.0.0.1:0", "ADDRESS:PORT"),
    ),
    _of_the_command_line(
        "cluster_address",
        "address",
        TEXT,
        None,
        "The address at which other nodes reach this one.",
        Flag(
            "cluster-address", "where other nodes reach this one, if that is not --cluster-listen", metavar="HOST:PORT"
        ),
        "`cluster_listen`",
    ),
    _of_the_command_line(
        "cluster_secret_file",
        "secret",
        TEXT,
        None,
        "File with the text that all nodes share, at least 32 bytes. Of several lines the first signs, and all verify. "
        "It is needed unless engine and `cluster_listen` are on loopback.",
        Flag("cluster-secret-file", "file with the secret that all nodes share, at least 32 bytes", metavar="FILE"),
        "no secret",
    ),
    _of_the_command_line(
        "cluster_ca",
        "ca",
        TEXT,
        None,
        "File with the certificate authority of the engine, PEM, for TLS.",
        Flag("cluster-ca", "the certificate authority of the engine, PEM, for TLS", metavar="FILE"),
        "those of the system",
    ),
    _of_the_command_line(
        "node",
        "node",
        TEXT,
        None,
        "The name of this node, unique in the cluster.",
        Flag("node", "the name of this node, unique in the cluster; by default the host name", metavar="NAME"),
        "the host name",
    ),
    _of_the_command_line(
        "device_id_template",
        "device_id_template",
        TEXT,
        None,
        "The name in the cluster of a device on a local socket, like `{node}-{id}`. On its own node it keeps its own "
        "id as well.",
        Flag(
            "device-id-template",
            "the name in the cluster of a device on a local socket, like {node}-{id}",
            metavar="TEMPLATE",
        ),
        "its own id",
    ),
    _of_the_command_line(
        "cluster_on_outage",
        "on_outage",
        Choice("admit", "hold"),
        "admit",
        "Whether a device that registers while the engine is unreachable is served by its node alone (`admit`), or is "
        "held and refused after 5 s (`hold`). With `hold`, a start without the engine fails after 10 s.",
        Flag(
            "cluster-on-outage",
            "whether a device that registers while the engine is unreachable is served by its node alone, or is held "
            "and refused after 5 s; with hold, a start without the engine fails after 10 s",
            "admit",
        ),
    ),
)
