"""Nothing is deleted by a doubtful clock: those of the administrator and of the server that deletes have to agree."""

from __future__ import annotations

from caso_mesh.admin.ports import Links
from caso_mesh.model.errors import ClocksDiffer

#: Clocks that differ by more delete nothing.
MOST_DIFFERENCE_S = 30.0


async def check_clock(links: Links, *, server: str, name: str, admin: str) -> None:
    """``server`` (id) is to delete what ``admin``, the one in office, lets it. Raises ``ClocksDiffer``, ``Unavailable``."""
    offset_s = await links.clock_offset_s(server)
    if abs(offset_s) > MOST_DIFFERENCE_S:
        raise ClocksDiffer(server=name, other=admin, seconds=round(abs(offset_s)))
