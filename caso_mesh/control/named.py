"""From documents, as people write them, to rows of the control state, and back: servers, devices, device pools, media sets,
calendars, error rules."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from caso_mesh.control.documents import one_of
from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import SetDevice, SetDevicePaths
from caso_mesh.model.documents import (
    NO_END,
    CalendarDoc,
    DeviceDoc,
    DevicePoolDoc,
    ErrorRuleDoc,
    MediaSetDoc,
    ServerDoc,
)
from caso_mesh.model.errors import DeviceNotSeen, InvalidValue, all_errors
from caso_mesh.model.mesh import Server
from caso_mesh.model.policies import DayCalendar, DevicePool, DevicePoolMember
from caso_mesh.model.rules import ErrorRule, Then
from caso_mesh.model.states import DataLocation, DeviceState, ServerState
from caso_mesh.model.storage import Device, MediaSet
from caso_mesh.model.units import duration_text, parse_duration_s, parse_size, size_text
from caso_mesh.planning.schedule import check_days

_PRIORITY = 100


def server_of(doc: ServerDoc) -> tuple[ServerState | None, DataLocation | None]:
    """What was set for a server, and where its data lie. Raises ``InvalidValue``."""
    return (
        None if doc.state is None else one_of(ServerState, doc.state, "state of a server"),
        None if doc.data_location is None else one_of(DataLocation, doc.data_location, "data location"),
    )


def server_doc(server: Server) -> ServerDoc:
    return ServerDoc(
        settings=dict(sorted(server.settings.items())),
        state=None if server.set_state is ServerState.ENABLED else server.set_state.value,
        data_location=None if server.data_location is DataLocation.ADMIN else server.data_location.value,
    )


def media_set_of(name: str, doc: MediaSetDoc) -> MediaSet:
    """Raises ``InvalidValue``."""
    return MediaSet(
        name,
        append_s=_endless(doc.append),
        protection_s=_endless(doc.protection),
        keep_s=_endless(doc.keep),
        keep_last=doc.keep_last,
        keep_daily=doc.keep_daily,
        keep_weekly=doc.keep_weekly,
        keep_monthly=doc.keep_monthly,
        keep_yearly=doc.keep_yearly,
        medium_bytes=None if doc.medium_size == NO_END else parse_size(doc.medium_size),
    )


def media_set_doc(row: MediaSet) -> MediaSetDoc:
    return MediaSetDoc(
        append=duration_text(row.append_s) or NO_END,
        protection=duration_text(row.protection_s) or NO_END,
        keep=duration_text(row.keep_s) or NO_END,
        keep_last=row.keep_last,
        keep_daily=row.keep_daily,
        keep_weekly=row.keep_weekly,
        keep_monthly=row.keep_monthly,
        keep_yearly=row.keep_yearly,
        medium_size=NO_END if row.medium_bytes is None else size_text(row.medium_bytes),
    )


def device_of(state: ControlState, name: str, doc: DeviceDoc) -> SetDevice:
    """What a device that is there is to be. Raises ``NotFound``, ``InvalidValue``."""
    device = state.device_named(name)
    quotas = {state.server_named(server).id: text for server, text in doc.quotas.items()}
    return SetDevice(
        device.id,
        None if doc.state is None else one_of(DeviceState, doc.state, "state of a device"),
        doc.concurrency,
        None if doc.low_space is None else parse_size(doc.low_space),
        tuple((server, None if text == NO_END else parse_size(text)) for server, text in sorted(quotas.items())),
    )


def device_paths_of(state: ControlState, name: str, doc: DeviceDoc) -> SetDevicePaths:
    """By which servers it is to be used, with the quotas of the same document. Raises ``NotFound``, ``DeviceNotSeen``."""
    device, quotas = state.device_named(name), dict(device_of(state, name, doc).quotas)
    disabled = {state.server_named(server).id for server in doc.disabled or ()}
    for server in sorted(disabled):
        if device.path_on(server) is None:
            raise DeviceNotSeen(server=state.name_of(server), device=name)
    paths = tuple(
        msgspec.structs.replace(
            place, enabled=place.server not in disabled, quota_bytes=quotas.get(place.server, place.quota_bytes)
        )
        for place in device.paths
    )
    return SetDevicePaths(device.id, device.kind, paths)


def device_doc(state: ControlState, device: Device) -> DeviceDoc:
    disabled = tuple(sorted(state.name_of(path.server) for path in device.paths if not path.enabled))
    limited = {state.name_of(path.server): path.quota_bytes for path in device.paths if path.quota_bytes is not None}
    return DeviceDoc(
        concurrency=device.concurrency,
        low_space=size_text(device.low_space_bytes),
        state=device.state.value,
        quotas={name: size_text(size) for name, size in sorted(limited.items())},
        disabled=disabled or None,
    )


def device_pool_of(state: ControlState, name: str, doc: DevicePoolDoc) -> DevicePool:
    """Raises ``NotFound``, ``InvalidValue``."""
    members = []
    for text in doc.devices:
        device, colon, priority = text.partition(":")
        if colon and not (priority.isascii() and priority.isdigit()):
            raise InvalidValue(value=text, what="member of a device pool", expected="Use NAME or NAME:PRIORITY")
        members.append(DevicePoolMember(state.device_named(device).id, int(priority) if colon else _PRIORITY))
    return DevicePool(name, tuple(members))


def device_pool_doc(state: ControlState, row: DevicePool) -> DevicePoolDoc:
    names = {device.id: device.name for device in state.device_list()}
    return DevicePoolDoc(
        tuple(
            names[member.device] if member.priority == _PRIORITY else f"{names[member.device]}:{member.priority}"
            for member in row.members
            if member.device in names
        )
    )


def calendar_of(name: str, doc: CalendarDoc) -> DayCalendar:
    """Raises ``InvalidValue``."""
    check_days(doc.days)
    return DayCalendar(name, tuple(sorted(set(doc.days))))


def calendar_doc(row: DayCalendar) -> CalendarDoc:
    return CalendarDoc(row.days)


def error_rule_of(name: str, doc: ErrorRuleDoc) -> ErrorRule:
    """Raises ``InvalidValue``, also for an error that there is not."""
    check_errors(doc.errors)
    return ErrorRule(
        name, doc.errors, doc.retries, parse_duration_s(doc.every), one_of(Then, doc.then, "end"), doc.any_time
    )


def error_rule_doc(rule: ErrorRule) -> ErrorRuleDoc:
    return ErrorRuleDoc(rule.errors, rule.retries, duration_text(rule.every_s) or "0s", rule.then.value, rule.any_time)


def check_errors(errors: Iterable[str]) -> None:
    """Raises ``InvalidValue`` for what is neither the code of an error nor a category of them, as this version knows."""
    known = all_errors()
    categories = {error.category for error in known.values()}
    for error in errors:
        if error not in known and error not in categories:
            expected = f"Use the code of an error (help errors), or {', '.join(sorted(categories))}"
            raise InvalidValue(value=error, what="error", expected=expected)


def _endless(text: str) -> float | None:
    return None if text == NO_END else parse_duration_s(text)
