"""What a hub does beside its requests."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any

from computeops.hub.state import Hub


class Background(ABC):
    """Works that go on as long as the hub runs."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._tasks: list[asyncio.Task[None]] = []

    @abstractmethod
    def works(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Return what is to go on, each of which ends only when it is cancelled."""

    def start(self) -> None:
        """Begin, as tasks of the running event loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work) for work in self.works()]

    async def stop(self) -> None:
        """End; what is under way is done again by the next hub."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
