"""Who begins an office asks the other voters what they hold: what the last one in office told one of them, and not this
one, it cannot tell any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path

from caso_mesh.admin.following import Following
from caso_mesh.admin.ports import Links
from caso_mesh.admin.tables import Tables
from caso_mesh.model.errors import CasoError

log = logging.getLogger(__name__)

#: How often it is looked whether there is a voter to ask.
_ASK_EACH_S = 1.0


class Asking:
    """Each of ``voters`` (node ids, ``own`` may be among them) is asked once in a term, as soon as there is a link, all at
    the same time: one that hangs holds up no other. ``changed`` and ``copies`` as in ``Following``."""

    def __init__(
        self,
        *,
        tables: Tables,
        links: Links,
        voters: Callable[[], Collection[str]],
        own: str,
        changed: Callable[[], None],
        copies: Path,
    ) -> None:
        self._tables = tables
        self._links = links
        self._voters = voters
        self._changed = changed
        self._copies = copies
        self._taking_over = asyncio.Lock()
        self._answered = {own}

    def enough(self, voters: Collection[str]) -> bool:
        """Whether what a majority of ``voters`` holds is known here: nothing that was ever pruned is missing."""
        return sum(node in self._answered for node in voters) > len(voters) // 2

    async def run(self) -> None:
        """Never returns."""
        asked: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                for voter in self._voters():
                    task = asked.get(voter)
                    if voter not in self._answered and self._links.linked(voter) and (task is None or task.done()):
                        asked[voter] = group.create_task(self._ask(voter))
                await asyncio.sleep(_ASK_EACH_S)

    async def _ask(self, voter: str) -> None:
        following = Following(self._tables, self._changed, self._copies, taking_over=self._taking_over)
        try:
            link = self._links.get(voter)
        except CasoError:
            return
        try:
            await following.catch_up(link)
            self._answered.add(voter)
        except CasoError as error:
            log.info("what %s holds is asked for again: %s", link.peer.name, error)
