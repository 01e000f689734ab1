"""What calls about alerts carry, beside the list."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.requests import AlertListRequest
from caso_mesh.model.views import AlertView


class AlertDetail(Struct, frozen=True):
    """One alert. ``about``: the servers that it is about, none: the mesh itself. ``means`` is that of its
    category, ``do`` too, with what is known filled in; one that ``stands`` is over by itself with its condition."""

    alert: AlertView
    about: tuple[str, ...]
    means: str = ""
    do: str = ""
    stands: bool = False


class AlertAnswered(Struct, frozen=True):
    """The answer that counts: the ``first`` one, which may be that of somebody else. (An earlier administrator says only that
    it was done.)"""

    response: str = ""
    who: str = ""
    first: bool = True


class AlertFollow(Struct, frozen=True):
    """``which``: of what; ``known``: the mark of the last answer; ``wait_s``: how long to wait for another one."""

    which: AlertListRequest
    known: str = ""
    wait_s: float = 10.0


class AlertsNow(Struct, frozen=True):
    """All that fits, newest first, and a mark of it."""

    mark: str
    alerts: tuple[AlertView, ...]
