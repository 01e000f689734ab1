"""The names of servers whose files sets hold: of this mesh, or ``NAME@MESH`` of another one."""

from __future__ import annotations

from collections.abc import Iterable

from caso_mesh.admin.set_rows import source_called
from caso_mesh.admin.tables import Tables
from caso_mesh.control.importing import source_named
from caso_mesh.control.state import ControlState
from caso_mesh.model.errors import NotFound


async def source_of(state: ControlState, tables: Tables, name: str) -> str:
    """The id under which the sets of a server are kept. Copies of sets of another mesh stay when the device that they were copied
    from has left this one; they still say whose they are. Raises ``NotFound``, ``Ambiguous``."""
    try:
        return source_named(state, name)
    except NotFound:
        found = await tables.ask(lambda c: source_called(c, name)) if "@" in name else None
        if found is None:
            raise
        return found


async def names_of_sources(state: ControlState, tables: Tables, sets: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The names of sources (node ids), each with a set of its own."""
    names: dict[str, str] = {}
    for source, set_id in sets:
        if source in names:
            continue
        names[source] = state.name_of(source)
        if names[source] == source:
            backup = await tables.set(set_id)
            names[source] = source if backup is None else backup.source_name
    return names
