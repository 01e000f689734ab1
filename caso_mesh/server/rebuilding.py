"""What the administrator asks of a device to make its records anew: the sets that lie there, and the catalog detail of
one, read out of its tree."""

from __future__ import annotations

from caso_mesh.jobs.publishing import write_detail
from caso_mesh.model import requests as q
from caso_mesh.server.patience import bounded
from caso_mesh.server.segments import Segments
from caso_mesh.server.vaults import Vaults

#: How long a device may take to list its sets, and to have the tree of one read.
_LIST_S, _DETAIL_S = 120.0, 3600.0
_MOST_SETS = 1000


class Rebuilding:
    """Answers ``vault.sets`` and ``catalog.make``."""

    def __init__(self, *, vaults: Vaults, segments: Segments) -> None:
        self._vaults = vaults
        self._segments = segments

    async def sets(self, request: q.VaultSets) -> q.VaultSetsReply:
        """A page of the sets of a device, by id. Raises ``NotFound``, and what the device does."""
        access = await self._vaults.access(request.device)
        limit = max(1, min(request.limit, _MOST_SETS))

        def work() -> q.VaultSetsReply:
            with self._vaults.opened(access) as vault:
                known = sorted(
                    (each for each in vault.sets(deleted=True) if each.id > request.after), key=lambda each: each.id
                )
                page = known[:limit]
                gone = tuple(each.id for each in page if vault.holds.is_gone(each.id))
                locks = {each.id: lock.until_ns for each in page if (lock := vault.holds.lock_of(each.id)) is not None}
                problems = tuple(vault.problems()[:20]) if not request.after else ()
                return q.VaultSetsReply(tuple(page), gone, locks, len(known) > limit, problems)

        return await bounded(work, what=f"the device {access.name}", seconds=_LIST_S)

    async def make(self, request: q.CatalogMake) -> q.CatalogMade:
        """The catalog detail of a set, whole, ready to be read by ``catalog.read``. Raises ``NotFound``,
        ``DataDamaged``, ``ObjectMissing``, and what the device does."""
        access = await self._vaults.access(request.device)

        def work() -> q.CatalogMade:
            with self._vaults.opened(access) as vault:
                backup = vault.load_set(request.set)
                earlier = [] if request.base is None else [each for each in vault.sets() if each.id == request.base]
                digest, size = write_detail(str(self._segments.path(backup.id)), vault, backup, earlier)
                return q.CatalogMade(digest, size)

        return await bounded(work, what=f"the device {access.name}", seconds=_DETAIL_S)
