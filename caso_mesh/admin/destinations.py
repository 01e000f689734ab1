"""Where what a restore brings back goes to, source by source, in the words of people."""

from __future__ import annotations

from collections.abc import Iterator

from caso_mesh.admin.present import place_of, shown_path
from caso_mesh.admin.roots import outermost
from caso_mesh.admin.tables import Tables
from caso_mesh.catalog.sets import is_within
from caso_mesh.control.state import ControlState
from caso_mesh.model import outcomes as o
from caso_mesh.model.host_commands import is_reserved
from caso_mesh.model.jobs import JobSpec, RestoreSpec

#: Of a selection of thousands so many are told.
MOST = 100


async def destinations_of(state: ControlState, tables: Tables, spec: JobSpec) -> tuple[o.Destination, ...]:
    """Of what a restore was asked for, or of the roots of its set; none of any other job. What is not known any more of the
    set is left out."""
    if not isinstance(spec, RestoreSpec):
        return ()
    backup = await tables.set(spec.set)
    roots = () if backup is None else backup.roots
    source = "" if backup is None else backup.source_name
    if backup is not None and state.successor_of(backup.source) is not None:
        source = state.name_of(backup.source)
    server = state.name_of(spec.server)
    found = list(_places(spec, roots))
    if not found:
        return (o.Destination(source, None, server, place_of(spec)),)
    return tuple(o.Destination(source, shown_path(path), server, place) for path, place in found)


def _places(spec: RestoreSpec, roots: tuple[bytes, ...]) -> Iterator[tuple[bytes, str]]:
    """Each path (without its leading slash) of the set, and where it goes."""
    chosen = outermost([path.strip(b"/") for path in spec.chosen()] or list(roots))
    for path in chosen[:MOST]:
        if spec.into_command is not None:
            yield path, place_of(spec)
            continue
        left = path
        if spec.strip and spec.base is not None:
            root = max((each for each in roots if is_within(path, each)), key=len, default=path)
            # a dump is no folder, and keeps its name
            left = path.rpartition(b"/")[2] if path == root and is_reserved(path) else path[len(root) :].strip(b"/")
        base = (spec.base or b"").strip(b"/")
        yield path, shown_path(b"/".join(each for each in (base, left) if each))
