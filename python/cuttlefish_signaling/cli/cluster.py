"""The cluster of the command line."""

from __future__ import annotations

from typing import Any

from .. import Cluster
from .._reload import is_other_secret
from .._settings.cluster import CLUSTER
from ..errors import ConfigError
from .secrets import read_secrets
from .sources import Found

_OTHERS = [row.flag.key for row in CLUSTER if row.flag and row.name != "cluster"]
"""The keys of the settings that need `--cluster`."""


def cluster(found: Found) -> Cluster | None:
    """Returns the cluster of these settings. Raises ConfigError."""
    if not found["cluster"]:
        for key in _OTHERS:
            if key in found.origins and found[key]:
                raise ConfigError(key, "has no use without --cluster URL, the engine of the cluster")
        return None
    path = found["cluster_secret_file"]
    return Cluster(
        found["cluster"],
        name=found["cluster_name"],
        listen=found["cluster_listen"],
        address=found["cluster_address"] or None,
        secret=read_secrets("cluster-secret-file", path) if path else None,
        node=found["node"] or None,
        ca=found["cluster_ca"] or None,
        on_outage=found["cluster_on_outage"],
        device_id_template=found["device_id_template"] or None,
    )


def keep_cluster(given: dict[str, Any], running: Cluster | None, found: Found) -> list[str]:
    """Puts the cluster of a server that runs back, unless its secret alone is another one.

    Returns the place of a secret that a server that runs cannot take over.
    The flags are the same as before. The files that they name may have changed.
    """
    if is_other_secret(running, given["cluster"]):
        return []
    is_same = given["cluster"] == running
    given["cluster"] = running
    return [] if is_same else [found.origin("cluster_secret_file")]
