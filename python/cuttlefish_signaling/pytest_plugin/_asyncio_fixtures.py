"""The fixtures that close asynchronous fake peers with pytest-asyncio: one for each scope of its event loops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ._peers import ASYNCIO_FIXTURE, AsyncPeers, async_peers


def _fixture(loop_scope: Any) -> object:
    async def peers(request: pytest.FixtureRequest) -> AsyncIterator[AsyncPeers]:
        async for found in async_peers(request):
            yield found

    return pytest_asyncio.fixture(loop_scope=loop_scope, name=f"{ASYNCIO_FIXTURE}{loop_scope}")(peers)


function_peers = _fixture("function")
class_peers = _fixture("class")
module_peers = _fixture("module")
package_peers = _fixture("package")
session_peers = _fixture("session")
