"""What the desks of an office make their duties with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Facts, Links, Submit
from caso_mesh.admin.rotation import NextAuthority
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.model.clock import Calendar, Clock, Randomness
from caso_mesh.model.commands import Command
from caso_mesh.model.ids import IdSource


class Means(Struct, frozen=True):
    """Of one office. ``own`` and ``name``: the node id and the name of the server that it is on. A desk takes it apart; a duty
    is given by name what it needs."""

    keeper: ControlKeeper
    tables: Tables
    live: Live
    links: Links
    facts: Facts
    alarms: Alarms
    submit: Submit
    own: str
    name: str
    clock: Clock
    calendar: Calendar
    new_id: IdSource
    randomness: Randomness


class Custody(Struct, frozen=True):
    """What the server in office holds of the secrets of the mesh. ``root_key``: the root's private key while it still lies
    here; ``drop_root_key`` removes it."""

    keys: NodeKeys
    authority: Authority
    id_key: bytes
    root_key: Callable[[], bytes | None]
    drop_root_key: Callable[[], None]
    next_authority: NextAuthority


def submitting(keeper: ControlKeeper, clock: Clock, new_id: IdSource) -> Submit:
    """Into the log of ``keeper``, now; under a new request id where none is given."""

    async def submit(command: Command, *, who: str = "admin", request_id: str | None = None) -> Any:
        return await keeper.submit(command, who=who, request_id=request_id or new_id(), at_ns=clock.now_ns())

    return submit
