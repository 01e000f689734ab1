"""People are told when something of a server's own journal had to be left out."""

from __future__ import annotations

import asyncio
import logging

from caso_mesh.journal import Journal
from caso_mesh.journal.journal import Mended
from caso_mesh.model.errors import CasoError
from caso_mesh.model.facts import JournalBegun
from caso_mesh.model.states import AlertKind
from caso_mesh.server.facts import FactWriter

log = logging.getLogger(__name__)

CATEGORY = "journal-damaged"
_AGAIN_S = 10.0


async def tell_of_damage(journal: Journal, facts: FactWriter, server: str) -> None:
    """Never returns."""
    while True:
        text = _text(await journal.next_mended(), server)
        while True:
            try:
                await facts.alert(AlertKind.ERROR, CATEGORY, text, object=server)
                break
            except CasoError as error:  # the disk is full: later
                log.error("%s (%s)", text, error)
                await asyncio.sleep(_AGAIN_S)


async def tell_of_old_copy(facts: FactWriter, previous: str, server: str) -> None:
    """The journal began anew after the incarnation ``previous``, since the state folder had been put back."""
    await facts.append(JournalBegun(previous=previous))
    text = f"The state folder of {server} was put back to an older copy; it has begun a new journal"
    await facts.alert(AlertKind.WARNING, "state-rolled-back", text, object=server)


def _text(mended: Mended, server: str) -> str:
    if mended.lost is None:
        lost = "how many facts are lost nobody can tell"
    else:
        lost = (
            f"{mended.lost} facts are lost, but for those that the administrator has"
            if mended.lost
            else "nothing is lost"
        )
    aside = "" if mended.aside is None else f"; the damaged file is {mended.aside} now"
    hint = "" if mended.lost == 0 else ". Sets that it told of are found by caso-mesh catalog rebuild DEVICE"
    return f"The journal of {server} was damaged, {mended.detail}: {lost}{aside}{hint}"
