"""The nodes of the cluster of which a server is one."""

from __future__ import annotations

from ._annotations import late_annotations
from ._loops import stood_still
from ._timeouts import DEFAULT_TIMEOUT, seconds_of

TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._models import Node
    from ._view import View


class ServerNodes:
    """A server that may be a node of a cluster, of this process or of another one."""

    def _running(self) -> View:
        """Returns the run. Raises NotRunningError for a server that does not run."""
        raise NotImplementedError

    def _latest(self) -> View:
        """Returns the latest run, also of a server that has stopped."""
        raise NotImplementedError

    def _check_journal(self) -> None:
        """Raises JournalOffError for a server without a journal."""
        raise NotImplementedError

    def _check_cluster(self) -> None:
        """Raises ConfigError for a server that is no node of a cluster."""
        raise NotImplementedError

    def nodes(self) -> list[Node]:
        """Returns the nodes of the cluster, this one included, sorted by name; [] without a cluster."""
        return self._running().nodes()

    def wait_for_nodes(self, count: int, *, timeout: float | None = DEFAULT_TIMEOUT) -> list[Node]:
        """Waits until exactly this many nodes of the cluster live, this one included.

        Args:
            count: The number of nodes whose state is `this` or `alive`.
            timeout: Seconds, 5 or `--signaling-timeout` by default; None waits forever.

        Returns:
            The nodes, those of other states as well.

        Raises:
            WaitTimeoutError: Another number of nodes lives. The error lists them.
            ConfigError: The server is no node of a cluster.
            NotRunningError: The server is not running, or stopped during the wait.
        """
        run, timeout = self._running_node(count), seconds_of(timeout)
        hint = stood_still("wait_for_nodes_async()")
        return run.until(lambda: run.living_nodes(count), timeout, lambda: run.other_nodes(timeout, count, hint))

    async def wait_for_nodes_async(self, count: int, *, timeout: float | None = DEFAULT_TIMEOUT) -> list[Node]:
        """`wait_for_nodes()` for coroutines."""
        run, timeout = self._running_node(count), seconds_of(timeout)
        return await run.until_async(lambda: run.living_nodes(count), timeout, lambda: run.other_nodes(timeout, count))

    def _running_node(self, count: int) -> View:
        from ._checks import check_integer

        check_integer("count", count, 1, 2**20)
        self._check_cluster()
        return self._running()


late_annotations(globals())
