"""Which sets full ones are made of, when a person asks for that."""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec import Struct

from caso_mesh.admin.newest import is_base, newest_set
from caso_mesh.admin.tables import Tables
from caso_mesh.control.documents import clean_path
from caso_mesh.control.dues import backup_jobs
from caso_mesh.control.state import ControlState
from caso_mesh.model import requests as q
from caso_mesh.model.errors import InvalidValue, NotFound, UsageError
from caso_mesh.model.host_commands import dump_name, is_reserved
from caso_mesh.model.storage import DEFAULT_MEDIA_SET, BackupSet
from caso_mesh.model.units import escape_path


class Bases(Struct, frozen=True):
    """One set of each server. ``list`` is the id of a selection list, if one was named; ``name`` what the job is called by."""

    sets: tuple[BackupSet, ...]
    media_set: str
    name: str
    list: str = ""


async def bases_of(state: ControlState, tables: Tables, request: q.SyntheticRequest, barred: Collection[str]) -> Bases:
    """Without those that are ``barred`` (ids). Raises ``NotFound`` for a server, list or media set, and where there is no set to
    make a full one of; ``UsageError``."""
    if bool(request.sources) == (request.selection is not None):
        raise UsageError(detail="Name what to make full sets of: SERVER:PATH ... or a selection list")
    found: list[BackupSet] = []
    listed = ""
    if request.selection is not None:
        row = state.list_named(request.selection)
        listed, name, jobs = row.id, row.name, backup_jobs(state, row.id)
        for server in row.servers():
            what = f"any of {state.name_of(server)} in {row.name}"
            found += [await _base(state, tables, server, jobs, barred, is_base, what)]
    else:
        roots: dict[str, set[bytes]] = {}
        for server, path in request.sources:
            roots.setdefault(state.server_named(server).id, set()).add(root_of(path))
        name = "-".join(state.name_of(server) for server in sorted(roots))
        for server, wanted in sorted(roots.items()):
            shown = " ".join(f"{state.name_of(server)}:{escape_path(b'/' + root)}" for root in sorted(wanted))

            def fits(backup: BackupSet, wanted: set[bytes] = wanted) -> bool:
                return is_base(backup) and set(backup.roots) == wanted

            found.append(await _base(state, tables, server, None, barred, fits, f"any of {shown}"))
    known = {row.name for row in state.media_set_list()}
    own = found[0].media_set if found[0].media_set in known else DEFAULT_MEDIA_SET
    state.media_set_named(request.media_set or own)
    return Bases(tuple(found), request.media_set or own, name, listed)


def root_of(path: bytes) -> bytes:
    """A place as the root of a set. Raises ``InvalidValue``."""
    cleaned = clean_path(path)
    if is_reserved(cleaned) and dump_name(cleaned) is None:
        raise InvalidValue(value=escape_path(path), what="path", expected="Use SERVER:@NAME for a dump")
    return cleaned


async def _base(
    state: ControlState,
    tables: Tables,
    server: str,
    jobs: Collection[str] | None,
    barred: Collection[str],
    fits: Callable[[BackupSet], bool],
    name: str,
) -> BackupSet:
    found = await newest_set(state, tables, jobs, server, barred, fits)
    if found is None:
        raise NotFound(kind="set", name=name)
    return found
