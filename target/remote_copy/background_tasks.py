"""Tasks that nobody waits for, kept until they end. [C]"""

import logging
from asyncio import Task, gather
from typing import Any

from storage_model.pair import PairRefused

log = logging.getLogger("pairvol.pair")


class BackgroundTasks:
    """A pair's own tasks: asyncio holds only weak references, and an error must not vanish with its task.

    A handful: requests are refused while one is being decided.
    """

    def __init__(self, pair_name: str) -> None:
        self._pair_name = pair_name
        self._tasks: set[Task[Any]] = set()

    def keep(self, task: Task[Any]) -> None:
        """Hold the task until it ends; log its error, unless that is a refusal, which its requester has been told."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, PairRefused):
            log.error("pair %s: %r", self._pair_name, error)

    async def stop(self) -> None:
        """Cancel them all, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await gather(*tasks, return_exceptions=True)
