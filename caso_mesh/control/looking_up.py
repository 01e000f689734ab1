"""One row of a table of the control state, by its key or its name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from caso_mesh.model.errors import NotFound
from caso_mesh.model.jobs import Job
from caso_mesh.model.logons import Logon
from caso_mesh.model.mesh import Operator, Pool, Server
from caso_mesh.model.policies import DayCalendar, DevicePool, Policy, SelectionList
from caso_mesh.model.storage import Device, MediaSet

_Record = TypeVar(
    "_Record", Server, Pool, Device, Job, MediaSet, Operator, DevicePool, DayCalendar, SelectionList, Policy, Logon
)


def kept(table: dict[str, Any], id: str, kind: str) -> Any:
    """Raises ``NotFound``."""
    try:
        return table[id]
    except KeyError:
        raise NotFound(kind=kind, name=id) from None


def named(rows: Iterable[_Record], name: str, kind: str) -> _Record:
    """Raises ``NotFound``."""
    found = next((row for row in rows if row.name == name), None)
    if found is None:
        raise NotFound(kind=kind, name=name)
    return found
