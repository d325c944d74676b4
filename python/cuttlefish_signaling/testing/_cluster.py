"""A cluster for tests: an engine and several nodes, each a process, on connections that a test can cut."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .._annotations import late_annotations
from .._checks import check_integer, check_seconds
from .._timeouts import DEFAULT_TIMEOUT, seconds_of
from ..errors import ClusterError, ConfigError, UnreachableError, WaitTimeoutError
from ._cluster_node import ClusterNode, arguments_of
from ._engine import MISSING, Engine, find_engine
from ._links import Links
from ._process import POLL_INTERVAL

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_NODES = 16
ENGINE = "engine"

NodeLike: TypeAlias = ClusterNode | str | int
"""A node, its name, or its place in `nodes`."""


class SignalingCluster:
    """Nodes of one cluster and its engine, each a process of its own, on 127.0.0.1.

    All connections between nodes, and between nodes and engine, go through this process, so that a test can cut them.

        with SignalingCluster(nodes=2) as cluster, FakeDevice(cluster.nodes[0]) as device:
            cluster.nodes[1].wait_for_device("cvd-1")

    Args:
        nodes: The number of nodes, or the settings of each. Their names are `node1`, `node2` and so on.
        timeout: Seconds for the nodes to know each other.
        settings: Settings of all nodes: the names of the flags of `serve`, with underscores. Those of one node take
            precedence.

    Raises:
        ConfigError: A setting is invalid.
        ClusterError: There is no redis-server and no valkey-server, or a process has not started.
        WaitTimeoutError: The nodes do not know each other in time.
    """

    def __init__(
        self, nodes: int | Iterable[Mapping[str, Any]] = 3, *, timeout: float = DEFAULT_TIMEOUT, **settings: Any
    ) -> None:
        each = _settings_of_nodes(nodes)
        common = arguments_of("SignalingCluster", settings)
        self._arguments = [
            [*common, *arguments_of(f"SignalingCluster: nodes[{at}]", own)] for at, own in enumerate(each)
        ]
        self._timeout = seconds_of(timeout)
        check_seconds("timeout", self._timeout, zero=False)
        if find_engine() is None:
            raise ClusterError(MISSING)
        self._is_open = False
        self.engine: Engine
        """The engine: `pause()`, `resume()`, `kill()`, `launch()` and `restart(empty=True)`."""
        self.nodes: list[ClusterNode] = []
        """The nodes."""

    def start(self) -> Self:
        """Starts the engine and all nodes, and returns when each node knows all others."""
        if self._is_open:
            raise ClusterError("the cluster is running already")
        self._directory = Path(tempfile.mkdtemp(prefix="cuttlefish-cluster-"))
        self._links = Links(self._processes)
        self._is_open = True
        self.engine = Engine(self._directory, self._links.listen(ENGINE))
        self.nodes = []
        for at, flags in enumerate(self._arguments):
            name = f"node{at + 1}"
            node = ClusterNode(name, self._directory, flags, self.engine.url, self._links.listen(name))
            self.nodes.append(node)
        self.engine.launch()
        self._links.connect_to(ENGINE, self.engine.socket)
        for node in self.nodes:
            self._launch(node)
        self.wait_for_nodes(timeout=self._timeout)
        return self

    def close(self) -> None:
        """Kills all processes and removes their files. A second call does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        for node in self.nodes:
            node._process.end()
        self.engine.end()
        self._links.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *error: object) -> None:
        self.close()

    # Nodes ------------------------------------------------------------------------------------------------------------

    def node(self, node: NodeLike) -> ClusterNode:
        """Returns a node by its name or its place. Raises ClusterError for another value."""
        if isinstance(node, ClusterNode) and any(node is one for one in self.nodes):
            return node
        if isinstance(node, int) and not isinstance(node, bool) and 0 <= node < len(self.nodes):
            return self.nodes[node]
        found = next((one for one in self.nodes if one.name == node), None)
        if found is None:
            names = ", ".join(one.name for one in self.nodes)
            raise ClusterError(f"{node!r} is not a node of this cluster; there are {names}")
        return found

    def kill(self, node: NodeLike) -> None:
        """Kills the process of a node as by SIGKILL (-9)."""
        self.node(node)._process.kill()

    def stop(self, node: NodeLike) -> None:
        """Stops a node as by SIGTERM: it closes its connections and leaves the cluster."""
        self.node(node)._process.stop()

    def pause(self, node: NodeLike) -> None:
        """Stops the process of a node as by SIGSTOP: it does nothing, and its connections stay open."""
        self.node(node)._process.pause()

    def resume(self, node: NodeLike) -> None:
        """Lets a paused node go on."""
        self.node(node)._process.resume()

    def restart(self, node: NodeLike) -> None:
        """Starts a node again, under its name and at its URL. A running one is killed first."""
        found = self.node(node)
        if found.pid is not None:
            found._process.kill()
        self._launch(found)

    def _launch(self, node: ClusterNode) -> None:
        self._links.connect_to(node.name, node._launch())

    def wait_for_nodes(self, count: int | None = None, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Waits until each running node lists this many living nodes, itself included; None: as many as run.

        Raises WaitTimeoutError, which tells what each node lists.
        """
        timeout = seconds_of(timeout)
        check_seconds("timeout", timeout)
        deadline = time.monotonic() + timeout
        while wrong := self._other_counts(count):
            if time.monotonic() >= deadline:
                raise WaitTimeoutError(f"waited {timeout:g} s for the nodes to list each other: {'; '.join(wrong)}")
            time.sleep(POLL_INTERVAL)

    def _other_counts(self, count: int | None) -> list[str]:
        """The running nodes that do not list as many living nodes as wanted."""
        running = [node for node in self.nodes if node.state == "running"]
        wanted = len(running) if count is None else count
        wrong = []
        for node in running:
            try:
                listed = node.nodes()
            except UnreachableError as error:
                wrong.append(f"{node.name}: {error}")
                continue
            alive = [one.name for one in listed if one.state in ("this", "alive")]
            if len(alive) != wanted:
                wrong.append(f"{node.name} lists {', '.join(alive) or 'none'}")
        return wrong

    # Network ----------------------------------------------------------------------------------------------------------

    def partition(self, one: NodeLike, other: NodeLike, *, one_way: bool = False) -> None:
        """Cuts the connections between two nodes, or between a node and "engine", until `heal`.

        The network loses all packets: no byte passes, no connection ends, and new connections are not made.

        Args:
            one: A node, or "engine".
            other: Another one.
            one_way: Only the bytes that `one` sends are lost. Those of `other` arrive.
        """
        self._links.set_cut(*self._ends(one, other), is_cut=True, one_way=one_way)

    def slow(self, one: NodeLike, other: NodeLike, *, delay: float = 0.0, bytes_per_s: int | None = None) -> None:
        """Slows the connections between two nodes, or between a node and "engine", until `heal`.

        Args:
            one: A node, or "engine".
            other: Another one.
            delay: Seconds that each byte takes, in each direction.
            bytes_per_s: Bandwidth of each connection in each direction. None: no limit.

        Raises:
            ConfigError: A number is not in its range.
        """
        check_seconds("delay", delay)
        if bytes_per_s is not None:
            check_integer("bytes_per_s", bytes_per_s, 1, 2**40)
        self._links.set_speed(*self._ends(one, other), delay, bytes_per_s)

    def reset(self, one: NodeLike, other: NodeLike) -> int:
        """Resets the connections between two nodes, or between a node and "engine": TCP RST to both ends.

        Each connection ends when bytes pass it the next time, amid these bytes. Connections that are made later are not
        touched.

        Returns:
            The number of connections.
        """
        return self._links.reset(*self._ends(one, other))

    def heal(self, one: NodeLike | None = None, other: NodeLike | None = None) -> None:
        """Makes the network of two ends whole and fast, or that of all. The bytes that it has held arrive.

        Takes back the `reset` of each connection on which nothing has passed since.
        """
        if (one is None) != (other is None):
            raise ClusterError("heal takes two ends, or none to heal all partitions")
        every = {*self._links.cuts(), *self._links.slow(), *self._links.breaking()}
        for pair in every if one is None or other is None else {self._ends(one, other)}:
            self._links.set_speed(*pair, 0.0, None)
            self._links.set_cut(*pair, is_cut=False)

    def _ends(self, one: NodeLike, other: NodeLike) -> tuple[str, str]:
        first, second = (end if end == ENGINE else self.node(end).name for end in (one, other))
        if first == second:
            raise ClusterError(f"a partition has two ends, and both are {first}")
        return str(first), str(second)

    def _processes(self) -> dict[str, int]:
        return {node.name: pid for node in self.nodes if (pid := node.pid) is not None}

    # Reports ----------------------------------------------------------------------------------------------------------

    def report(self) -> str:
        """Returns the state of the engine, of each node and of the network, and the last lines of each log."""
        if not self._is_open:
            return "the cluster does not run"
        lines = [f"engine: {self.engine.state}"]
        lines += [f"{node.name}: {node.state}{_details(node)}" for node in self.nodes]
        lines += [f"partition: {one} | {other}" for one, other in self._links.cuts()]
        lines += [f"slow: {one} - {other}" for one, other in self._links.slow()]
        for process in (self.engine, *(node._process for node in self.nodes)):
            lines += [f"--- the end of the log of {process.name}", process.last_lines()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        if not self._is_open:
            return "<SignalingCluster not running>"
        nodes = ", ".join(f"{node.name} {node.state}" for node in self.nodes)
        return f"<SignalingCluster {nodes}; engine {self.engine.state}>"


def _details(node: ClusterNode) -> str:
    """The URL, the devices and the nodes that a node lists, for a report."""
    if node.state != "running":
        return ""
    try:
        devices = ", ".join(node.device_ids()) or "none"
        nodes = ", ".join(f"{one.name} {one.state}" for one in node.nodes())
    except UnreachableError as error:
        return f", {node.url}: {error}"
    return f", {node.url}, process {node.pid}; devices: {devices}; nodes: {nodes}"


def _settings_of_nodes(nodes: Any) -> list[Mapping[str, Any]]:
    """Returns the settings of each node. Raises ConfigError."""
    if isinstance(nodes, int) and not isinstance(nodes, bool):
        if not 1 <= nodes <= MAX_NODES:
            raise ConfigError("SignalingCluster: nodes", f"must be between 1 and {MAX_NODES}, got {nodes}")
        return [{}] * nodes
    wanted = "a number of nodes, or a list of the settings of each"
    if not isinstance(nodes, Iterable) or isinstance(nodes, str | bytes | Mapping):
        raise ConfigError("SignalingCluster: nodes", f"must be {wanted}, got {nodes!r}")
    found = list(nodes)
    for own in found:
        if not isinstance(own, Mapping):
            raise ConfigError("SignalingCluster: nodes", f"must be {wanted}, got {own!r} in it")
    if not 1 <= len(found) <= MAX_NODES:
        raise ConfigError("SignalingCluster: nodes", f"must have between 1 and {MAX_NODES} nodes, got {len(found)}")
    return found


late_annotations(globals())
