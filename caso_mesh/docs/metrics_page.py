"""The page of the manual on metrics: the table of ``model/metrics.py``, and how Prometheus is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from caso_mesh.model.metrics import METRICS

_HEAD = """# Metrics

Every server tells of itself, and the administrator in office of the mesh, in the text format of Prometheus. It is off until
`config.toml` of a server says where to listen, and the daemon was started anew:

    [metrics]
    listen = "127.0.0.1:9464"
    # over HTTPS, with two files in PEM; one that is renewed in its place is taken up within a minute
    certificate = "/etc/ssl/certs/backup.pem"
    key = "/etc/ssl/private/backup.key"

| path | what |
| --- | --- |
| `/metrics` | the figures below |
| `/healthz` | 200 while the daemon is alive and its event loop turns |
| `/readyz` | 200 while this server is in office or linked with the administrator in office, and its state folder can be written; else 503, and in `problems` why not |

Nothing can be changed there, and no login is asked for: whoever reaches the address reads the names of servers, devices and
selection lists. Listen on loopback or on a network of your own. Other methods than GET, more than 32 connections at once
and requests that take longer than 15 s are refused; figures are taken once a second at most. While it cannot listen an
alert `metrics-unavailable` says so, and the server works on.

`caso-mesh metrics` prints the same figures, for example for the textfile collector of the node exporter; it needs no listener:

    caso-mesh metrics > /var/lib/prometheus/node-exporter/caso-mesh.prom.new
    mv /var/lib/prometheus/node-exporter/caso-mesh.prom.new /var/lib/prometheus/node-exporter/caso-mesh.prom

## Prometheus

Scrape all servers: any voter may be in office, and only the one in office has the figures of the mesh. Counters of the mesh are
kept by all voters; with another administrator they go on under another `instance`, so sum over instances after `increase`, and take
the maximum of gauges.

```yaml
scrape_configs:
  - job_name: caso-mesh
    scrape_interval: 30s
    static_configs:
      - targets: ["alpha.example:9464", "beta.example:9464", "gamma.example:9464"]
```

Rules to begin with:

```yaml
groups:
  - name: caso-mesh
    rules:
      - alert: BackupTooOld
        expr: max by (selection, source) (caso_mesh_backup_overdue) == 1
        for: 5m
        labels: {severity: critical}
        annotations:
          summary: "{{ $labels.source }} has no good backup for {{ $labels.selection }} that is young enough"
      - alert: NeverBackedUp
        expr: max by (selection, source) (caso_mesh_last_good_backup_age_seconds) == +Inf
        for: 26h
        labels: {severity: warning}
        annotations:
          summary: "{{ $labels.source }} was never backed up for {{ $labels.selection }}"
      - alert: NoBackupAdministrator
        expr: absent(caso_mesh_in_office == 1)
        for: 2m
        labels: {severity: critical}
        annotations:
          summary: "No server that is scraped is the administrator in office"
      - alert: BackupServersSilent
        expr: sum(max by (state) (caso_mesh_servers{state=~"stalled|no-communication"})) > 0
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: "{{ $value }} servers do not answer the administrator"
      - alert: BackupsFail
        expr: sum by (kind, type) (increase(caso_mesh_attempts_total{state=~"failed|timed-out"}[1h])) > 0
        labels: {severity: warning}
        annotations:
          summary: "{{ $labels.kind }} {{ $labels.type }}: {{ $value }} attempts failed within an hour"
      - alert: BackupDeviceOffline
        expr: max by (device) (caso_mesh_device_online) == 0
        for: 15m
        labels: {severity: warning}
        annotations:
          summary: "The device {{ $labels.device }} cannot be used"
      - alert: BackupDeviceFillsUp
        expr: >-
          max by (device) (caso_mesh_device_free_bytes)
          / (max by (device) (caso_mesh_device_free_bytes) + max by (device) (caso_mesh_device_stored_bytes)) < 0.1
        for: 30m
        labels: {severity: warning}
        annotations:
          summary: "Less than a tenth of the device {{ $labels.device }} is free"
      - alert: BackupFactsWait
        expr: caso_mesh_journal_unacknowledged_facts > 0
        for: 30m
        labels: {severity: warning}
        annotations:
          summary: "{{ $labels.instance }} could not tell the administrator what happened for half an hour"
      - alert: BackupDaemonBusy
        expr: caso_mesh_event_loop_delay_seconds > 1
        for: 5m
        labels: {severity: warning}
        annotations:
          summary: "The daemon at {{ $labels.instance }} is late by {{ $value }} s"
```

## How many there are

A server gives some 25 series of itself. The one in office gives, beside some 60 that are always there, up to three for each pair of
a selection list and a server, four for each device, three for each media set, and one for each kind, type and end of
attempts that ever was. With 3,000 servers of which each is in two lists that are 18,000 series, and 12,000 for as many devices. There
never are more than 10,000 pairs and 10,000 devices; `caso_mesh_left_out_series` says how many are beyond that.
"""


def metrics_page(table: Callable[[Sequence[str], Iterable[Sequence[str]]], str]) -> str:
    """``metrics.md``, whose tables ``table`` makes of a head and rows."""
    parts = [_HEAD]
    for of, title in (("node", "Of each server"), ("mesh", "Of the mesh, by the administrator in office")):
        rows = [
            (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.text)
            for each in METRICS
            if each.of == of
        ]
        parts.append(f"## {title}\n\n" + table(("name", "type", "labels", "what"), rows))
    parts.append(
        "Beside these, `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` and others of the daemon's process.\n"
    )
    return "\n".join(parts)
