"""People are told of ways on which large packets are lost: all works, more slowly, and nobody else would notice."""

from __future__ import annotations

import logging

from caso_mesh.model.errors import CasoError
from caso_mesh.model.facts import AlertCleared
from caso_mesh.model.states import AlertKind
from caso_mesh.server.facts import FactWriter

log = logging.getLogger(__name__)

CATEGORY = "large-packets-lost"


async def tell_of_packets(facts: FactWriter, server: str, peer: str, address: str, *, lost: bool) -> None:
    """Large packets between ``server`` and ``peer`` at ``address`` are lost, or come through (again)."""
    standing = (await facts.alerts()).standing(CATEGORY, peer, AlertKind.WARNING)
    if lost is (standing is not None):
        return
    text = f"Large packets are lost between {server} and {peer} ({address}); smaller ones are sent, which come through"
    log.log(
        logging.WARNING if lost else logging.INFO,
        "%s",
        text if lost else f"Large packets come through again between {server} and {peer} ({address})",
    )
    try:
        if standing is not None:
            await facts.append(AlertCleared(standing))
        else:
            await facts.alert(AlertKind.WARNING, CATEGORY, text, object=peer)
    except CasoError as error:
        log.error("%s (%s)", text, error)  # the disk is full: told when it is looked at again
