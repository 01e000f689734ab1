"""The calls of people about devices and media."""

from __future__ import annotations

from functools import partial

from msgspec import structs

from caso_mesh.admin import present, set_rows
from caso_mesh.admin.device_states import shown_device_state
from caso_mesh.admin.devices import Devices
from caso_mesh.admin.importing import Importing
from caso_mesh.admin.live import Live
from caso_mesh.admin.moving import Moving
from caso_mesh.admin.paging import page
from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.admin.tables import Tables
from caso_mesh.control import named
from caso_mesh.control.erasing import erasures
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import RetireMedium
from caso_mesh.model.errors import EraseUnfinished, NotFound
from caso_mesh.model.listing import check_state, in_time
from caso_mesh.model.states import DeviceState
from caso_mesh.model.storage import FACTORY_MEDIA_SETS, Device, Medium, MediumState
from caso_mesh.planning.media import media_of


class Stores:
    """Answers of the administrator."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        devices: Devices,
        moving: Moving,
        importing: Importing,
        submit: Submit,
        clock: Clock,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._devices = devices
        self._moving = moving
        self._importing = importing
        self._submit = submit
        self._clock = clock

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "device.add": self._device_add,
            "device.set": self._device_set,
            "device.move": self._device_move,
            "device.share": self._device_share,
            "device.remove": self._device_remove,
            "device.list": self._device_list,
            "mediaset.list": self._mediaset_list,
            "medium.list": self._medium_list,
            "medium.retire": self._medium_retire,
        }

    async def device_view(self, device: Device, warnings: tuple[str, ...] = ()) -> v.DeviceView:
        counts = await self._tables.set_counts()
        return self._shown_device(device, counts, warnings)

    def _shown_device(
        self, device: Device, counts: dict[str, tuple[int, int]], warnings: tuple[str, ...] = ()
    ) -> v.DeviceView:
        state = self._keeper.state
        reports = [self._live.report_of(device.id, place.server) for place in device.paths]
        seen = [report for report in reports if report is not None]
        good = [report for report in seen if report.problem is None]
        shown = shown_device_state(device, seen)
        if device.erasing:
            shown = "erasing" if device.id in erasures(state) else "erase-unfinished"
        sets, stored = counts.get(device.id, (0, 0))
        return v.DeviceView(
            name=device.name,
            id=device.id,
            kind=device.kind.value,
            servers=tuple(state.name_of(place.server) for place in device.paths),
            paths={state.name_of(place.server): place.path for place in device.paths},
            state=shown,
            free_bytes=max((report.free_bytes for report in good), default=None),
            used_bytes=stored,
            sets=sets,
            running=sum(attempt.device == device.id for attempt in state.active_attempts()),
            concurrency=device.concurrency,
            low_space_bytes=device.low_space_bytes,
            quotas={
                state.name_of(place.server): place.quota_bytes
                for place in device.paths
                if place.quota_bytes is not None
            },
            disabled=tuple(state.name_of(place.server) for place in device.paths if not place.enabled),
            warnings=(
                *warnings,
                *(
                    report.detail
                    for report in seen
                    if report.problem is not None and (shown, report.problem) != ("erasing", EraseUnfinished.code)
                ),
            ),
            mesh=None if device.imported is None else device.imported.mesh_name,
        )

    async def _device_add(self, caller: Caller, request: q.DeviceAdd) -> v.DeviceView:
        device, warnings = await self._devices.add(caller, request)
        return await self.device_view(device, warnings)

    async def _device_set(self, caller: Caller, request: q.DeviceSet) -> v.DeviceView:
        return await self.device_view(await self._devices.change(caller, request))

    async def _device_move(self, caller: Caller, request: q.DeviceMove) -> v.DeviceView:
        return await self.device_view(await self._moving.move(caller, request))

    async def _device_share(self, caller: Caller, request: q.DeviceShare) -> v.DeviceView:
        return await self.device_view(await self._moving.share(caller, request))

    async def _device_remove(self, caller: Caller, request: q.DeviceName) -> v.Done:
        device = next((each for each in self._keeper.state.device_list() if each.name == request.name), None)
        if device is not None and device.imported is not None:
            await self._importing.remove(caller, device)
            return v.Done()
        counts = await self._tables.set_counts()
        await self._devices.remove(caller, request, {device: sets for device, (sets, _) in counts.items()})
        return v.Done()

    async def _device_list(self, caller: Caller, request: q.DeviceListRequest) -> v.DeviceList:
        limits = caller.limits()
        only = present.restricted_to(self._keeper.state, request.server, request.pool, limits)
        check_state(request.state, DeviceState)
        counts = await self._tables.set_counts()
        views = (
            self._shown_device(_within(device, limits), counts)
            for device in self._keeper.state.device_list()
            if only is None or any(place.server in only for place in device.paths)
        )
        fits = (view for view in views if request.state in {None, view.state})
        return v.DeviceList(*page(fits, request, lambda view: view.name))

    async def _mediaset_list(self, caller: Caller, request: q.Nothing) -> v.MediaSetList:
        factory = {each.name for each in FACTORY_MEDIA_SETS}
        return v.MediaSetList(
            tuple(
                v.MediaSetView(
                    each.name,
                    each.append_s,
                    each.protection_s,
                    each.keep_s,
                    each.name in factory,
                    named.media_set_doc(each),
                )
                for each in self._keeper.state.media_set_list()
            )
        )

    async def _medium_retire(self, caller: Caller, request: q.MediumLabel) -> v.Done:
        """Raises ``NotFound``."""
        if done_before(self._keeper, caller) is None:
            media = [each for each in await self._tables.media() if each.label == request.label]
            device = next((each.device for each in media if each.device in self._keeper.state.devices), None)
            if device is None:
                raise NotFound(kind="medium", name=request.label)
            command = RetireMedium(device, request.label)
            await self._submit(command, who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _media(self) -> list[Medium]:
        """What servers told of their media, and those of imported devices, of which nobody does; by label."""
        media = await self._tables.media()
        for device in self._keeper.state.device_list():
            if device.imported is not None:
                media += media_of(await self._tables.ask(partial(set_rows.on_device, device=device.id)))
        return sorted(media, key=lambda medium: (medium.label, medium.server))

    async def _medium_list(self, caller: Caller, request: q.MediumListRequest) -> v.MediumList:
        state, now_ns = self._keeper.state, self._clock.now_ns()
        only = present.restricted_to(state, request.server, request.pool, caller.limits())
        check_state(request.state, MediumState)
        there = await self._tables.on_media()
        views = (
            present.medium_view(state, medium, now_ns, *there.get((medium.server, medium.label), (0, 0)))
            for medium in await self._media()
            if (only is None or medium.server in only)
            and not _is_gone(state.devices.get(medium.device), medium)
            and in_time(medium.last_write_at_ns, request.since_ns, request.until_ns)
        )
        fits = (view for view in views if request.state in {None, view.state})
        return v.MediumList(*page(fits, request, lambda view: view.label))


def _is_gone(device: Device | None, medium: Medium) -> bool:
    """Whether the device was erased since."""
    return device is not None and medium.opened_at_ns < device.formatted_at_ns


def _within(device: Device, limits: frozenset[str] | None) -> Device:
    """A device as whoever is limited to some servers sees it."""
    if limits is None:
        return device
    return structs.replace(device, paths=tuple(place for place in device.paths if place.server in limits))
