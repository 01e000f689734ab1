"""Handing the keys of a device to a server that sees its folder: it shows them as they were wrapped to others, one of those
wraps them anew, and they are laid beside the others. That one need not see the folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from caso_mesh.admin.ports import Links
from caso_mesh.control.state import ControlState
from caso_mesh.model import nodes as n
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError, NoKey
from caso_mesh.model.mesh import Server
from caso_mesh.model.storage import Device
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0


async def hand_keys(state: ControlState, links: Links, device: Device, server: Server, path: str) -> None:
    """By way of any server that opens the device's keys. Raises ``NoKey`` if none does that is linked, and what ``server``
    answers."""
    where = n.DeviceKeys(device.name, path, device.vault)
    link = links.get(server.id)
    sealed = await ask(link, "device.keys", where, n.DeviceKeysReply, timeout_s=_TIMEOUT_S)
    for opener in _openers(state, links, sealed):
        keys = {key_id: to[opener] for key_id, to in sealed.keys.items() if opener in to}
        asked = n.DeviceRewrap(device.vault, keys, server.id, server.encryption_key)
        try:
            reply = await ask(links.get(opener), "device.rewrap", asked, n.DeviceKeysReply, timeout_s=_TIMEOUT_S)
        except CasoError as error:
            log.info("%s wraps no key of %s: %s", state.name_of(opener), device.name, error)
            continue
        handed = {key_id: to[server.id] for key_id, to in reply.keys.items() if server.id in to}
        recipients = {server.id: server.encryption_key}
        take = n.DeviceTakeKeys(device.name, path, device.vault, handed, recipients)
        await ask(link, "device.take-keys", take, v.Done, timeout_s=_TIMEOUT_S)
        return
    raise NoKey(device=device.name)


def _openers(state: ControlState, links: Links, sealed: n.DeviceKeysReply) -> Sequence[str]:
    """Linked servers that open the keys, those first that open most of them."""
    counts: dict[str, int] = {}
    for to in sealed.keys.values():
        for recipient in to:
            counts[recipient] = counts.get(recipient, 0) + 1
    linked = [each for each in counts if each in state.servers and links.linked(each)]
    return sorted(linked, key=lambda each: (-counts[each], each))
