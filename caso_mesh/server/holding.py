"""Deleting and locking sets on this server's devices. Whether a set is still protected is looked at here, by what lies in
the device and by this server's clock, whatever the administrator believes."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.control.importing import refuse_imported
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import ClocksDiffer, DataDamaged, InUse, NotFound, Protected
from caso_mesh.model.orders import Orders
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_instant
from caso_mesh.planning.media import may_delete_at, protection_end_ns
from caso_mesh.server.deletions import Deletions
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.patience import bounded
from caso_mesh.server.vaults import Vaults
from caso_mesh.vault.objects import Signer
from caso_mesh.vault.vault import Vault

#: Clocks that differ by more delete nothing.
MOST_DIFFERENCE_S = 30.0
#: How long a device may take.
_SECONDS = 50.0
_END_OF_TIME = "the end of time"


class SetHolding:
    """Answers ``set.hold``."""

    def __init__(
        self,
        *,
        name: str,
        vaults: Vaults,
        orders: Callable[[], Orders],
        facts: FactWriter,
        signer: Signer,
        clock: Clock,
        deletions: Deletions,
    ) -> None:
        self._deletions = deletions
        self._name = name
        self._vaults = vaults
        self._orders = orders
        self._facts = facts
        self._signer = signer
        self._clock = clock

    async def hold(self, request: n.SetHold, admin: str) -> v.Done:
        """Adds a lock or a tombstone, and tells it; repeated, a tombstone is only told again.

        Raises ``NotFound``, ``DeviceImported``, ``Protected``, ``ClocksDiffer``, ``InUse``, ``DataDamaged`` (a hold that cannot be read), and
        what the device does.
        """
        refuse_imported(self._vaults.device(request.device), "its sets are neither deleted nor locked here")
        access = await self._vaults.access(request.device)
        now_ns = self._clock.now_ns()
        if request.hold == "tombstone":
            apart_s = abs(now_ns - request.now_ns) / 1e9
            if apart_s > MOST_DIFFERENCE_S:
                raise ClocksDiffer(server=self._name, other=admin, seconds=round(apart_s))

        def lock() -> None:
            with self._vaults.opened(access) as vault:
                self._lock(vault, request, now_ns)

        def delete(writes: Callable[[], None]) -> None:
            with self._vaults.opened(access) as vault:
                self._delete(vault, request, now_ns, writes)

        if request.hold == "lock":
            await bounded(lock, what=f"the device {access.name}", seconds=_SECONDS)
            await self._facts.append(facts.SetLocked(request.set, request.device, request.who, request.until_ns))
        else:
            fact = facts.SetDeleted(request.set, request.device, request.who, request.request)
            await self._deletions.delete(fact, delete)
        return v.Done()

    def _lock(self, vault: Vault, request: n.SetHold, now_ns: int) -> None:
        vault.load_set(request.set)
        vault.holds.add(
            request.set, "lock", at_ns=now_ns, who=request.who, signer=self._signer, until_ns=request.until_ns
        )
        if vault.holds.is_gone(request.set):
            raise NotFound(kind="set", name=request.set)

    def _delete(self, vault: Vault, request: n.SetHold, now_ns: int, writes: Callable[[], None]) -> None:
        known = list(vault.sets(deleted=True))
        backup = next((each for each in known if each.id == request.set), None)
        if backup is None:
            raise NotFound(kind="set", name=request.set)
        if vault.holds.is_gone(request.set):
            return
        unreadable = vault.holds.unreadable(request.set)
        if unreadable is not None:
            raise DataDamaged(object=unreadable, detail="it may be a lock, so its set is not deleted")
        self._check_protection(backup, known, request, now_ns)
        self._check_lock(vault, request.set, now_ns)
        for session in vault.open_sessions():
            if request.set in session.parents and session.attempt in request.active:
                raise InUse(kind="set", name=request.set, by=f"the attempt {session.attempt}")
        writes()
        vault.holds.add(request.set, "tombstone", at_ns=now_ns, who=request.who, signer=self._signer)
        if not vault.holds.is_gone(request.set):
            self._check_lock(vault, request.set, now_ns)  # somebody locked it meanwhile
            raise InUse(kind="set", name=request.set, by="a lock")

    def _check_protection(self, backup: BackupSet, known: list[BackupSet], request: n.SetHold, now_ns: int) -> None:
        """By the last write to the medium: of all sets on it, deleted ones too, and what the administrator knows."""
        media_set = next((each for each in self._orders().media_sets if each.name == backup.media_set), None)
        if media_set is None:
            raise Protected(set=backup.id, until=f"its media set {backup.media_set} is known again")
        place = (backup.server, backup.medium)
        written = [each.ended_at_ns for each in known if (each.server, each.medium) == place]
        until_ns = protection_end_ns(max(request.last_write_ns, *written), media_set)
        if not may_delete_at(until_ns, now_ns):
            raise Protected(set=backup.id, until=format_instant(until_ns) or _END_OF_TIME)

    def _check_lock(self, vault: Vault, set_id: str, now_ns: int) -> None:
        lock = vault.holds.lock_of(set_id)
        if lock is not None and lock.locks_at(now_ns):
            raise Protected(set=set_id, until=format_instant(lock.until_ns) or _END_OF_TIME)
