"""Rows of reports about what is now: servers, devices, media, sets, alerts. Pure, for a thread."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping

from msgspec import Struct, structs

from caso_mesh.admin import present, tables
from caso_mesh.admin.audit_rows import AuditRow
from caso_mesh.admin.device_states import shown_device_state
from caso_mesh.admin.run_rows import Names
from caso_mesh.control.coverage import cover, is_backup_disk, named_places
from caso_mesh.control.state import ControlState
from caso_mesh.model.nodes import DeviceReport
from caso_mesh.model.resources import FileSystem
from caso_mesh.model.settings import number
from caso_mesh.model.storage import BackupSet, Device, MediaSet, Medium
from caso_mesh.planning.choosing import Flaw
from caso_mesh.planning.media import shown_state
from caso_mesh.planning.retention import BY_PLACE, Keep, Verdict
from caso_mesh.reports import rows as r


class Seen(Struct, frozen=True):
    """What the one in office sees now. ``reports`` by device and server (ids)."""

    own: str
    linked: frozenset[str]
    reports: Mapping[tuple[str, str], DeviceReport]


def names_of(state: ControlState) -> Names:
    """Names as they are now; copies, so that a thread may read them."""
    return Names(
        servers={
            **{
                node: each.imported.shown(node, name)
                for each in state.devices.values()
                if each.imported is not None
                for node, name in each.imported.names.items()
            },
            **state.removed,
            **{id: server.name for server in state.servers.values() for id in (*server.succeeds, server.id)},
        },
        devices={device.id: device.name for device in state.devices.values()},
        lists={row.id: row.name for row in state.lists.values()},
        jobs=dict(state.jobs),
        policies={row.id: row.name for row in state.policies.values()},
    )


def resource_rows(
    state: ControlState, told: Mapping[str, tuple[int, tuple[FileSystem, ...]]], only: frozenset[str] | None
) -> list[r.ResourceRow]:
    """The file systems of each server, but for those that hold devices; one row without a path for a server that has not
    told what it has."""
    places, found = named_places(state), list[r.ResourceRow]()
    for server in state.server_list():
        if only is not None and server.id not in only:
            continue
        if server.id not in told:
            found.append(r.ResourceRow(server.name, "", "", r.Cover.UNKNOWN))
            continue
        at_ns, systems = told[server.id]
        devices = [os.fsencode(path.path) for each in state.devices_of(server.id) if (path := each.path_on(server.id))]
        for system in systems:
            if is_backup_disk(system, devices):
                continue
            wholly, partly = cover(system, places.get(server.id, ()))
            found.append(
                r.ResourceRow(
                    server=server.name,
                    path=present.shown_path(system.path),
                    file_system=system.kind,
                    cover=r.Cover.COVERED if wholly else r.Cover.PARTLY if partly else r.Cover.UNPROTECTED,
                    selections=tuple(sorted(wholly or partly)),
                    total_bytes=system.total_bytes,
                    used_bytes=system.used_bytes,
                    told_ns=at_ns,
                )
            )
    return found


def server_rows(state: ControlState, seen: Seen, only: frozenset[str] | None) -> Iterator[r.ServerRow]:
    """One after the other: thousands of servers take a while."""
    running: dict[str, int] = {}
    for attempt in state.active_attempts():
        running[attempt.server] = running.get(attempt.server, 0) + 1
    lists = {
        server: list(dict.fromkeys(place.by for place in places)) for server, places in named_places(state).items()
    }
    devices: dict[str, list[str]] = {}
    for device in state.device_list():
        for place in device.paths:
            devices.setdefault(place.server, []).append(device.name)
    for server in state.server_list():
        if server.id not in state.servers or (only is not None and server.id not in only):
            continue  # removed meanwhile, or nobody's who asks
        yield r.ServerRow(
            name=server.name,
            state=server.state.value,
            connected=server.id in seen.linked or server.id == seen.own,
            admin=server.id == seen.own,
            voter=server.voter,
            version=server.version,
            pools=tuple(pool.name for pool in state.pools_of(server.id)),
            devices=tuple(devices.get(server.id, ())),
            joined_ns=server.joined_at_ns,
            selections=tuple(lists.get(server.id, ())),
            running=running.get(server.id, 0),
            silent_since_ns=server.silent_since_ns,
            queue_on_hold=number(state.settings_of(server.id), "queue-on-hold") >= 1.0,
            data_location=server.data_location.value,
        )


def device_rows(state: ControlState, seen: Seen, only: frozenset[str] | None) -> list[r.DeviceRow]:
    confirmed = [kit for kit in state.kit_list() if kit.confirmed_at_ns is not None]
    busy: dict[str, int] = {}
    for attempt in state.active_attempts():
        busy[attempt.device] = busy.get(attempt.device, 0) + 1
    found = []
    for device in state.device_list():
        places = [place for place in device.paths if only is None or place.server in only]
        if only is not None and not places:
            continue
        reports = [report for place in places if (report := seen.reports.get((device.id, place.server))) is not None]
        good = [report for report in reports if report.problem is None]
        found.append(
            r.DeviceRow(
                name=device.name,
                kind=device.kind.value,
                state=shown_device_state(device, reports),
                places=tuple(
                    r.PlaceRow(
                        state.name_of(place.server),
                        place.path,
                        place.enabled
                        and (place.server in seen.linked or place.server == seen.own)
                        and (report is None or report.problem is None),
                        report.detail or report.problem if report is not None and report.problem is not None else "",
                    )
                    for place in places
                    for report in [seen.reports.get((device.id, place.server))]
                ),
                concurrency=device.concurrency,
                low_space_bytes=device.low_space_bytes,
                pools=tuple(
                    sorted(
                        pool.name
                        for pool in state.device_pools.values()
                        if any(member.device == device.id for member in pool.members)
                    )
                ),
                free_bytes=max((report.free_bytes for report in good), default=None),
                total_bytes=max((report.total_bytes for report in good), default=None),
                running=busy.get(device.id, 0),
                kits=sum(device.id in kit.complete for kit in confirmed),
                mesh=device.imported.mesh_name if device.imported is not None else "",
            )
        )
    return found


def medium_rows(
    media: Iterable[Medium],
    media_sets: Mapping[str, MediaSet],
    devices: Mapping[str, Device],
    names: Names,
    sets: Mapping[tuple[str, str], int],
    now_ns: int,
    only: frozenset[str] | None,
) -> list[r.MediumRow]:
    """``sets``: how many are on each medium now, by server (id) and label."""
    return [
        r.MediumRow(
            label=medium.label,
            device=names.device(medium.device),
            media_set=medium.media_set,
            server=names.server(medium.server),
            state=shown_state(
                structs.replace(medium, sets=sets.get((medium.server, medium.label), 0)),
                media_sets.get(medium.media_set),
                devices.get(medium.device),
                now_ns,
            ).value,
            opened_ns=medium.opened_at_ns,
            last_write_ns=medium.last_write_at_ns,
        )
        for medium in media
        if only is None or medium.server in only
    ]


def media_set_rows(state: ControlState) -> list[r.MediaSetRow]:
    return [
        r.MediaSetRow(
            each.name,
            each.append_s,
            each.protection_s,
            each.keep_s,
            tuple(f"{amount} {what}" for amount, what in each.counts() if amount),
        )
        for each in state.media_set_list()
    ]


def set_row(
    backup: BackupSet, verdict: Verdict, names: Names, originals: Mapping[str, BackupSet], *, flaws: Collection[Flaw]
) -> r.SetRow:
    """``originals``: by id, the sets of which others are copies: a copy belongs to the list and the policy of its set."""
    origin = originals.get(backup.copy_of or "", backup)
    return r.SetRow(
        id=backup.id,
        source=names.servers.get(backup.source, backup.source_name),
        server=names.servers.get(backup.server, backup.server_name),
        device=names.devices.get(backup.device, backup.device_name),
        medium=backup.medium,
        media_set=backup.media_set,
        type=backup.type.value,
        started_ns=backup.started_at_ns,
        ended_ns=backup.ended_at_ns,
        selection=names.selection(origin.job),
        policy=names.policy(origin.job),
        roots=tuple(present.shown_path(root) for root in backup.roots),
        files=backup.files,
        bytes=backup.bytes,
        bytes_read=backup.bytes_read,
        bytes_stored=backup.bytes_stored,
        exceptions=backup.exceptions,
        redundant=Flaw.REDUNDANT in flaws,
        missing=Flaw.MISSING in flaws,
        damaged=Flaw.DAMAGED in flaws,
        copy=backup.copy_of is not None,
        made=backup.made_of is not None,
        locked=Keep.LOCKED in verdict.kept_by,
        expires_ns=verdict.expires_at_ns,
        protected_ns=verdict.protected_until_ns,
        expired=verdict.goes,
        kept_by=tuple(reason.value for reason in verdict.kept_by if reason in BY_PLACE),
    )


def alert_row(state: ControlState, row: tables.AlertRow) -> r.AlertRow:
    answer = state.answers.get(row.id)
    return r.AlertRow(
        id=row.id,
        alert=row.alert,
        category=row.category,
        server=state.name_of(row.server),
        object=row.object,
        text=row.text,
        raised_ns=row.raised_at_ns,
        answered_ns=answer.at_ns if answer is not None else None,
        answered_by=answer.who if answer is not None else "",
        response=answer.response if answer is not None else "",
        cleared_ns=row.cleared_at_ns,
    )


def audit_row(state: ControlState, row: AuditRow) -> r.AuditRow:
    return r.AuditRow(
        at_ns=row.at_ns,
        who=row.who,
        what=row.what,
        category=row.category,
        outcome=row.outcome,
        server=state.name_of(row.server),
        source=row.source,
        fields=" ".join(f"{key}={value}" for key, value in row.fields.items() if value is not None),
    )
