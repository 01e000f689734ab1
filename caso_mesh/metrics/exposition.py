"""Readings become text: every figure of ``model/metrics.py``, by a registry that is made for one scrape and forgotten.

The library is loaded at the first scrape, so that a daemon which nobody monitors is spared it.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from caso_mesh.admin.measures import DeviceReading, MeshReadings
from caso_mesh.model.metrics import BY_NAME
from caso_mesh.server.measures import NodeReadings

#: A figure: its name, its labels' values, its value.
Sample = tuple[str, tuple[str, ...], float]


class Seat(Struct, frozen=True):
    """What this server is in the mesh. ``index``: what it has applied of the log, if it votes."""

    in_office: bool
    voter: bool
    term: int | None
    index: int | None


def exposition(node: NodeReadings, seat: Seat, loop_delay_s: float, mesh: MeshReadings | None) -> str:
    """The text format, version 0.0.4. Takes about 10 microseconds a figure: for a thread, where there are many."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    samples = [*_of_node(node, seat, loop_delay_s), *(() if mesh is None else _of_mesh(mesh))]

    class Once:
        def collect(self) -> Iterator[Any]:
            families: dict[str, Any] = {}
            for name, labels, value in samples:
                family = families.get(name)
                if family is None:
                    known = BY_NAME[name]
                    kind = CounterMetricFamily if known.kind == "counter" else GaugeMetricFamily
                    family = families[name] = kind(name, known.text, labels=known.labels)
                family.add_metric(labels, value)
            return iter(families.values())

    registry = CollectorRegistry()
    registry.register(Once())
    ProcessCollector(registry=registry)
    return str(generate_latest(registry).decode())


def _of_node(node: NodeReadings, seat: Seat, loop_delay_s: float) -> Iterator[Sample]:
    yield "caso_mesh_build_info", (node.version, platform.python_version()), 1
    yield "caso_mesh_node_info", (node.mesh, node.server), 1
    yield "caso_mesh_in_office", (), seat.in_office
    yield "caso_mesh_voter", (), seat.voter
    yield "caso_mesh_admin_linked", (), seat.in_office or node.admin is not None
    yield "caso_mesh_term", (), node.term if seat.term is None else seat.term
    yield "caso_mesh_applied_index", (), node.index if seat.index is None else seat.index
    yield "caso_mesh_links", (), node.links
    yield "caso_mesh_journal_facts", (), node.facts
    yield "caso_mesh_journal_unacknowledged_facts", (), node.unacknowledged
    yield "caso_mesh_held_attempts", (), node.held
    yield "caso_mesh_active_attempts", (), node.active
    yield "caso_mesh_active_read_bytes", (), node.read_bytes
    yield "caso_mesh_active_stored_bytes", (), node.stored_bytes
    yield "caso_mesh_takes_work", (), node.takes_work
    yield "caso_mesh_event_loop_delay_seconds", (), loop_delay_s


def _of_mesh(mesh: MeshReadings) -> Iterator[Sample]:
    yield from _each("caso_mesh_servers", mesh.servers)
    yield "caso_mesh_servers_connected", (), mesh.connected
    yield "caso_mesh_jobs", (), mesh.jobs
    yield from _each("caso_mesh_open_runs", mesh.runs)
    yield from _each("caso_mesh_active_attempts_by_state", mesh.active)
    yield from _each("caso_mesh_waiting_parts", mesh.waiting)
    yield "caso_mesh_queued_parts", (), mesh.queued
    yield from _each("caso_mesh_open_alerts", mesh.alerts)
    allowed: dict[str, float] = {}
    for last in mesh.last:
        labels = (last.selection, last.source)
        yield "caso_mesh_last_good_backup_age_seconds", labels, math.inf if last.age_s is None else last.age_s
        if last.seconds is not None:
            yield "caso_mesh_last_good_backup_duration_seconds", labels, last.seconds
        if last.oldest_allowed_s is not None:
            yield "caso_mesh_backup_overdue", labels, last.overdue
            allowed[last.selection] = last.oldest_allowed_s
    yield from _each("caso_mesh_oldest_good_backup_allowed_seconds", allowed)
    for each in mesh.media_sets:
        yield "caso_mesh_media_set_sets", (each.name,), each.sets
        yield "caso_mesh_media_set_source_bytes", (each.name,), each.source_bytes
        yield "caso_mesh_media_set_stored_bytes", (each.name,), each.stored_bytes
    stored = sum(each.stored_bytes for each in mesh.media_sets)
    if stored:
        yield "caso_mesh_dedup_ratio", (), sum(each.source_bytes for each in mesh.media_sets) / stored
    for device in mesh.devices:
        yield from _of_device(device)
    yield from _of_attempts(mesh)
    yield "caso_mesh_left_out_series", (), mesh.left_out


def _of_device(device: DeviceReading) -> Iterator[Sample]:
    yield "caso_mesh_device_online", (device.name,), device.state in {"online", "imported"}
    if device.free_bytes is not None:
        yield "caso_mesh_device_free_bytes", (device.name,), device.free_bytes
    yield "caso_mesh_device_stored_bytes", (device.name,), device.stored_bytes
    yield "caso_mesh_device_active_attempts", (device.name,), device.running


def _of_attempts(mesh: MeshReadings) -> Iterator[Sample]:
    sums: dict[tuple[str, str], tuple[int, int, float]] = {}
    for each in mesh.attempts:
        yield "caso_mesh_attempts_total", (each.kind, each.type, each.state), each.attempts
        read, stored, seconds = sums.get((each.kind, each.type), (0, 0, 0.0))
        sums[each.kind, each.type] = (read + each.bytes_read, stored + each.bytes_stored, seconds + each.seconds)
    for labels, (read, stored, seconds) in sums.items():
        yield "caso_mesh_attempt_read_bytes_total", labels, read
        yield "caso_mesh_attempt_stored_bytes_total", labels, stored
        yield "caso_mesh_attempt_duration_seconds_total", labels, seconds


def _each(name: str, counted: dict[str, Any]) -> Iterable[Sample]:
    return ((name, (key,), value) for key, value in sorted(counted.items()))
