"""The figures that every server gives to Prometheus: each with its unit (in the name), its labels, and what it says.

Names and units as https://prometheus.io/docs/practices/naming/ has them. How many series there are is bounded: beside a few
dozen of each server, the one in office has three for each pair of a selection list and a server (at most 10,000 pairs), four
and its states for each device, three for each media set.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Metric(Struct, frozen=True):
    """``of``: ``node`` is told by every server of itself, ``mesh`` by the one in office of all."""

    name: str
    kind: Literal["gauge", "counter"]
    of: Literal["node", "mesh"]
    text: str
    labels: tuple[str, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric("caso_mesh_build_info", "gauge", "node",
           "Always 1; the software of this server.", ("version", "python_version")),
    Metric("caso_mesh_node_info", "gauge", "node", "Always 1; which server this is.", ("mesh", "server")),
    Metric("caso_mesh_in_office", "gauge", "node", "Whether this server is the administrator in office (1) or not (0)."),
    Metric("caso_mesh_voter", "gauge", "node", "Whether this server sits among the voters (1) or not (0)."),
    Metric("caso_mesh_admin_linked", "gauge", "node",
           "Whether this server is in office, or linked with the administrator in office (1), or has nobody (0)."),
    Metric("caso_mesh_term", "gauge", "node", "The term of office that this server knows of."),
    Metric("caso_mesh_applied_index", "gauge", "node",
           "The newest place of the replicated log that this server has applied; of a server without a vote that of its orders."),
    Metric("caso_mesh_links", "gauge", "node", "Open links with other servers."),
    Metric("caso_mesh_journal_facts", "gauge", "node", "Facts that lie in the journal of this server."),
    Metric("caso_mesh_journal_unacknowledged_facts", "gauge", "node",
           "Facts of this server that the administrator has not taken in yet."),
    Metric("caso_mesh_held_attempts", "gauge", "node", "Attempts that this server was given and that have not ended."),
    Metric("caso_mesh_active_attempts", "gauge", "node", "Attempts that run on this server now."),
    Metric("caso_mesh_active_read_bytes", "gauge", "node",
           "What the attempts that run on this server have read so far, as they last reported."),
    Metric("caso_mesh_active_stored_bytes", "gauge", "node",
           "What the attempts that run on this server have stored so far, as they last reported."),
    Metric("caso_mesh_takes_work", "gauge", "node",
           "Whether there is room for new work on the disk of the state folder (1) or not (0)."),
    Metric("caso_mesh_event_loop_delay_seconds", "gauge", "node",
           "The longest time in the last minute that the event loop of the daemon kept something waiting; without a listener "
           "for metrics that of one probe."),
    Metric("caso_mesh_servers", "gauge", "mesh", "Servers of the mesh.", ("state",)),
    Metric("caso_mesh_servers_connected", "gauge", "mesh", "Servers that are linked with the administrator, itself included."),
    Metric("caso_mesh_jobs", "gauge", "mesh", "Jobs that are defined."),
    Metric("caso_mesh_open_runs", "gauge", "mesh", "Runs that have not ended.", ("state",)),
    Metric("caso_mesh_active_attempts_by_state", "gauge", "mesh", "Attempts that have not ended, of all servers.", ("state",)),
    Metric("caso_mesh_waiting_parts", "gauge", "mesh", "Parts of runs (one for each source server) that wait.", ("reason",)),
    Metric("caso_mesh_queued_parts", "gauge", "mesh",
           "Parts of runs that wait to be placed, or were placed and have not begun: the depth of the queue."),
    Metric("caso_mesh_open_alerts", "gauge", "mesh", "Alerts that are neither answered nor over.", ("type",)),
    Metric("caso_mesh_last_good_backup_age_seconds", "gauge", "mesh",
           "How long ago the newest good backup of a server for a selection list ended; +Inf if there never was one.",
           ("selection", "source")),
    Metric("caso_mesh_last_good_backup_duration_seconds", "gauge", "mesh",
           "How long that backup took.", ("selection", "source")),
    Metric("caso_mesh_backup_overdue", "gauge", "mesh",
           "Whether it is older than the selection list allows (1) or not (0). Only of lists that say how old it may be.",
           ("selection", "source")),
    Metric("caso_mesh_oldest_good_backup_allowed_seconds", "gauge", "mesh",
           "How old the newest good backup for a selection list may be.", ("selection",)),
    Metric("caso_mesh_media_set_sets", "gauge", "mesh", "Backup sets of a media set.", ("media_set",)),
    Metric("caso_mesh_media_set_source_bytes", "gauge", "mesh",
           "Size of the files in the backup sets of a media set.", ("media_set",)),
    Metric("caso_mesh_media_set_stored_bytes", "gauge", "mesh",
           "What the backup sets of a media set have added to devices.", ("media_set",)),
    Metric("caso_mesh_dedup_ratio", "gauge", "mesh",
           "Size of the files in all backup sets, divided by what these have added to devices; absent without sets."),
    Metric("caso_mesh_device_online", "gauge", "mesh", "Whether a device can be used (1) or not (0).", ("device",)),
    Metric("caso_mesh_device_free_bytes", "gauge", "mesh",
           "What is free on a device; absent while no server can use it.", ("device",)),
    Metric("caso_mesh_device_stored_bytes", "gauge", "mesh", "What its backup sets have added to a device.", ("device",)),
    Metric("caso_mesh_device_active_attempts", "gauge", "mesh", "Attempts that use a device now.", ("device",)),
    Metric("caso_mesh_attempts_total", "counter", "mesh",
           "Attempts that have ended, as their servers told. Kept by all voters: it goes on with another administrator.",
           ("kind", "type", "state")),
    Metric("caso_mesh_attempt_read_bytes_total", "counter", "mesh", "What ended attempts have read.", ("kind", "type")),
    Metric("caso_mesh_attempt_stored_bytes_total", "counter", "mesh", "What ended attempts have stored.", ("kind", "type")),
    Metric("caso_mesh_attempt_duration_seconds_total", "counter", "mesh", "How long ended attempts took.", ("kind", "type")),
    Metric("caso_mesh_left_out_series", "gauge", "mesh",
           "Pairs of selection list and server, and devices, that are too many to be shown."),
)  # fmt: skip
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


class Exposition(Struct, frozen=True):
    """The figures in the text format of Prometheus, version 0.0.4. ``mesh``: whether those of the mesh are among them, which
    the administrator in office alone has."""

    text: str
    mesh: bool
