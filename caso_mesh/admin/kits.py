"""Recovery kits: handing over what goes into one, wrapping every device's content keys to all of them, and laying down
sealed copies of the mesh in the devices."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.ports import Answer, Caller, Links, Submit
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.recovery import essence
from caso_mesh.identity import kit as kits
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.mesh_copy import MeshCopy, attest
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.commands import AddKit, ConfirmKit, NoteKitDevice
from caso_mesh.model.errors import CasoError, NotFound, Refused, RootKeyGone, ServerNotLinked, TimedOut
from caso_mesh.model.mesh import RecoveryKit
from caso_mesh.model.states import AlertKind
from caso_mesh.model.storage import Device
from caso_mesh.model.units import format_instant
from caso_mesh.vault.mesh_copies import seal_copy
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Struct)

NO_KIT, INCOMPLETE, TOO_LONG = "no-recovery-kit", "recovery-kit-incomplete", "mesh-copy-too-long"
#: How long ``kit.create`` waits for devices; those that take longer are completed afterwards.
_FIRST_ROUND_S = 8.0
_ASK_S = 60.0
#: Pauses between two looks: after a change, and at most.
_SOON_S, _LATEST_S = 2.0, 30.0
#: After this time every device gets a copy again, and its keys are looked at again.
AGAIN_S = 86400.0
#: A device that cannot be completed for this long is told of.
KEPT_WAITING_S = 300.0
#: A copy travels in one message.
_LONGEST_COPY = 7 << 20


class Kits:
    """``root_key`` gives the root key (PKCS #8 DER) while it lies on this server, ``drop_root_key`` removes it; both
    block."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        submit: Submit,
        links: Links,
        alarms: Alarms,
        keys: NodeKeys,
        server_name: str,
        authority: Authority,
        id_key: bytes,
        root_key: Callable[[], bytes | None],
        drop_root_key: Callable[[], None],
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._keeper = keeper
        self._submit = submit
        self._links = links
        self._alarms = alarms
        self._keys = keys
        self._server_name = server_name
        self._authority = authority
        self._id_key = id_key
        self._root_key = root_key
        self._drop_root_key = drop_root_key
        self._clock = clock
        self._randomness = randomness
        self._checked_s: dict[str, float] = {}
        self._copied: dict[str, tuple[bytes, float]] = {}
        self._waits_since: dict[str, float] = {}
        self._completing = asyncio.Lock()
        self._wake = asyncio.Event()

    def handlers(self) -> dict[str, Answer]:
        return {"kit.create": self._create, "kit.confirm": self._confirm, "kit.list": self._list}

    # --- people ---

    async def _create(self, caller: Caller, request: q.KitCreate) -> q.KitMaterial:
        root_key = await asyncio.to_thread(self._root_key) if request.with_root_key else b""
        if root_key is None:
            if self._confirmed():
                raise RootKeyGone(server=self._server_name)
            root_key = b""  # a certification authority that was brought without its root key: there never was one here
        info = self._keeper.state.info()
        sealed = kits.seal_secrets(
            kits.Secrets(root_key, self._id_key),
            kit=request.id,
            public_key=request.public_key,
            mesh=info.id,
            randomness=self._randomness,
        )
        added = AddKit(request.id, request.public_key, self._clock.now_ns())
        await self._submit(added, who=caller.who, request_id=caller.request_id)
        try:
            async with asyncio.timeout(_FIRST_ROUND_S):
                await self._complete()
        except TimeoutError:
            log.info("some devices are given to the recovery kit %s later", request.id)
        self._wake.set()
        view = self._view(self._kit(request.id))
        return q.KitMaterial(info.id, info.name, self._authority.root, sealed, view.devices, view.missing)

    async def _confirm(self, caller: Caller, request: q.KitConfirm) -> v.KitView:
        kit = self._kit(request.id)
        if kit.confirmed_at_ns is not None:
            return self._view(kit)
        root_key = await asyncio.to_thread(self._root_key) if request.with_root_key else b""
        handed_over = kits.Secrets(root_key or b"", self._id_key)
        if not hmac.compare_digest(request.check, kits.check_of(self._authority.root, handed_over)):
            raise Refused(detail=f"the recovery kit {kit.id} does not hold what was handed over")
        await self._submit(ConfirmKit(kit.id, self._clock.now_ns()), who=caller.who, request_id=caller.request_id)
        if request.with_root_key:
            await asyncio.to_thread(self._drop_root_key)
        await self._tell()
        self._wake.set()
        return self._view(self._kit(request.id))

    async def _list(self, caller: Caller, request: q.Nothing) -> v.KitList:
        return v.KitList(tuple(self._view(kit) for kit in self._keeper.state.kit_list()))

    def _confirmed(self) -> bool:
        return any(kit.confirmed_at_ns is not None and not self._is_old(kit) for kit in self._keeper.state.kit_list())

    def _is_old(self, kit: RecoveryKit) -> bool:
        """Whether it was made before the CA was rotated: what it holds is the old root."""
        rotation = self._keeper.state.rotation
        switched_ns = rotation.switched_at_ns if rotation is not None else None
        return switched_ns is not None and kit.created_at_ns < switched_ns

    def _kit(self, id_: str) -> RecoveryKit:
        kit = self._keeper.state.kits.get(id_)
        if kit is None:
            raise NotFound(kind="kit", name=id_)
        return kit

    def _view(self, kit: RecoveryKit) -> v.KitView:
        devices = self._devices()
        return v.KitView(
            id=kit.id,
            created=format_instant(kit.created_at_ns) or "",
            created_by=kit.created_by,
            confirmed=format_instant(kit.confirmed_at_ns),
            devices=tuple(device.name for device in devices if device.id in kit.complete),
            missing=tuple(device.name for device in devices if device.id not in kit.complete),
        )

    # --- the duty ---

    async def run(self) -> None:
        """Keeps kits complete and copies new. Never returns."""
        if self._confirmed() and await asyncio.to_thread(self._root_key) is not None:
            await asyncio.to_thread(self._drop_root_key)  # an end came between the confirmation and this
        unobserve = self._links.observe(lambda node, linked: self._wake.set())
        try:
            while True:
                self._wake.clear()
                seen = self._keeper.position.index
                await self._tell()
                await self._complete()
                await self._copy()
                await asyncio.sleep(_SOON_S)
                await self._change(seen)
        finally:
            unobserve()

    async def _change(self, seen: int) -> None:
        waits = [asyncio.ensure_future(self._keeper.wait_change(seen)), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(waits, timeout=_LATEST_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _tell(self) -> None:
        mesh = self._keeper.state.info().name
        if self._confirmed():
            await self._alarms.ends(NO_KIT, mesh)
            return
        old = any(kit.confirmed_at_ns is not None for kit in self._keeper.state.kit_list())
        text = (
            "The recovery kits are of the time before the certification authority was rotated: no mesh can be rebuilt with "
            'them. Make one with "caso-mesh kit create FILE" and keep it elsewhere'
            if old
            else 'There is no recovery kit: if this mesh is lost, its backups are lost with it. Make one with "caso-mesh kit '
            'create FILE" and keep it elsewhere'
        )
        await self._alarms.begins(AlertKind.ATTENTION, NO_KIT, text, object=mesh)

    async def _complete(self) -> None:
        """Wraps the content keys of every device to the kits that lack them, and of each device to all once a day."""
        async with self._completing, asyncio.TaskGroup() as group:
            kits, now_s, told = (
                self._keeper.state.kit_list(),
                self._clock.monotonic_s(),
                self._alarms.standing(INCOMPLETE),
            )
            for device in self._devices():
                again = now_s - self._checked_s.get(device.id, -AGAIN_S) >= AGAIN_S
                if device.name in told or (kits and (again or any(device.id not in kit.complete for kit in kits))):
                    group.create_task(self._complete_device(device))

    def _devices(self) -> list[Device]:
        """Those of this mesh: what is imported is opened by the kits of the mesh that it came from, and nothing is written there."""
        return [device for device in self._keeper.state.device_list() if device.imported is None]

    async def _complete_device(self, device: Device) -> None:
        state, now_s = self._keeper.state, self._clock.monotonic_s()
        everybody = {kit.id: kit.public_key for kit in state.kit_list()}
        lacking = {kit.id for kit in state.kit_list() if device.id not in kit.complete}
        again = now_s - self._checked_s.get(device.id, -AGAIN_S) >= AGAIN_S
        if not everybody or not (lacking or again):
            await self._alarms.ends(INCOMPLETE, device.name)
            return
        try:
            await self._at_device(device, "device.grant", n.DeviceGrant(device.id, everybody), n.DeviceGrantReply)
        except CasoError as error:
            log.debug("recovery kits have no key for %s yet: %s", device.name, error)
            if lacking and now_s - self._waits_since.setdefault(device.id, now_s) >= KEPT_WAITING_S:
                text = f"No recovery kit made lately opens the device {device.name}, which cannot be reached: {error}"
                await self._alarms.begins(AlertKind.WARNING, INCOMPLETE, text, object=device.name)
            return
        self._checked_s[device.id] = now_s
        self._waits_since.pop(device.id, None)
        try:
            if lacking:
                await self._submit(NoteKitDevice(device.id, tuple(sorted(lacking))))
            await self._alarms.ends(INCOMPLETE, device.name)
        except CasoError as error:
            log.warning("that recovery kits open %s is not noted yet: %s", device.name, error)

    async def _at_device(self, device: Device, call: str, request: Struct, reply: type[T]) -> T:
        """Asks a server that reaches the device; the next one if that one cannot. Raises the last error."""
        last: CasoError = ServerNotLinked(server="that reaches the device")
        for place in device.paths:
            if not place.enabled or not self._links.linked(place.server):
                continue
            try:
                return await ask(self._links.get(place.server), call, request, reply, timeout_s=_ASK_S)
            except CasoError as error:
                last = error
        raise last

    # --- copies ---

    async def _copy(self) -> None:
        """A copy into every device that has none of what the mesh is now, or none of today."""
        state, now_s = self._keeper.state, self._clock.monotonic_s()
        recipients = {kit.id: kit.public_key for kit in state.kit_list()}
        if not recipients:
            return
        digest = hashlib.sha256(essence(state)).digest()
        due = []
        for device in self._devices():
            known, at_s = self._copied.get(device.id, (b"", 0.0))
            if known != digest or now_s - at_s >= AGAIN_S:
                due.append(device)
        if not due:
            return
        # all of it as of one moment: sealing happens in a thread
        anchors = tuple(each for anchor in state.anchors for each in (anchor.certificate, *anchor.above))
        sealed = await asyncio.to_thread(self._sealed, self._content(), anchors, recipients)
        mesh = state.info().name
        if len(sealed) > _LONGEST_COPY:
            text = f"The copy of the mesh for its devices has {len(sealed)} bytes, which is too long: none is written"
            await self._alarms.begins(AlertKind.ERROR, TOO_LONG, text, object=mesh)
            return
        await self._alarms.ends(TOO_LONG, mesh)
        async with asyncio.TaskGroup() as group:
            for device in due:
                group.create_task(self._copy_to(device, sealed, digest))

    async def _copy_to(self, device: Device, sealed: bytes, digest: bytes) -> None:
        try:
            await self._at_device(device, "mesh.keep", n.MeshKeep(device.id, sealed), v.Done)
        except (ServerNotLinked, TimedOut) as error:
            log.debug("no copy of the mesh in %s yet: %s", device.name, error)
        except CasoError as error:
            log.info("no copy of the mesh in %s: %s", device.name, error)
        else:
            self._copied[device.id] = (digest, self._clock.monotonic_s())

    def _content(self) -> MeshCopy:
        signing_key, encryption_key = self._keys.to_bytes()
        info = self._keeper.state.info()
        return MeshCopy(
            mesh=info.id,
            mesh_name=info.name,
            made_at_ns=self._clock.now_ns(),
            place=self._keeper.authority,
            control=self._keeper.state.snapshot(),
            admin=self._keys.id,
            admin_name=self._server_name,
            signing_key=signing_key,
            encryption_key=encryption_key,
            root=self._authority.root,
            issuing=self._authority.issuing,
            issuing_key=self._authority.issuing_key_bytes(),
        )

    def _sealed(self, copy: MeshCopy, anchors: tuple[bytes, ...], recipients: dict[str, bytes]) -> bytes:
        return seal_copy(
            attest(copy, self._authority, anchors), recipients, mesh=copy.mesh, randomness=self._randomness
        )
