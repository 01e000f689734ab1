"""A small site, two weeks of it, as the office gathers it; and the same site named by somebody who means harm."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, structs

from caso_mesh.reports.rows import (
    AgeRow,
    AlertRow,
    AuditRow,
    Cover,
    DeviceRow,
    Gathered,
    MediaSetRow,
    MediumRow,
    PlaceRow,
    ResourceRow,
    RunRow,
    ServerRow,
    SetRow,
    WorkRow,
)

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
#: Friday 2026-01-16, seven in the morning in Berlin.
NOW = 1_768_543_200 * SECOND
MB = 1_000_000
SERVERS = ("alpha", "berta", "gamma", "mail", "files")
LISTS = {"mail": "mail", "office": "files", "own": "alpha"}


def backup_run(name: str, nights_ago: int, state: str = "succeeded", **fields: Any) -> RunRow:
    source = LISTS[name]
    due = NOW - 5 * HOUR - nights_ago * DAY
    values: dict[str, Any] = {
        "run": f"{name}@{nights_ago}", "job": f"{name}.full", "kind": "backup", "state": state, "source": source,
        "due_ns": due, "type": "full", "selection": name, "policy": "nightly", "server": "berta", "device": "vault-b",
        "by": "boss", "started_ns": due + 60 * SECOND, "ended_ns": due + HOUR, "seconds": 3540.0, "attempts": 1,
        "files": 1000 + nights_ago, "bytes": 900 * MB, "bytes_read": 120 * MB, "bytes_stored": (40 + nights_ago) * MB,
        "set": f"set-{name}-{nights_ago}",
    }  # fmt: skip
    return RunRow(**(values | fields))


def runs() -> tuple[RunRow, ...]:
    found = [backup_run(name, nights) for name in LISTS for nights in range(1, 14)]
    failed = {
        "error": "device-full", "error_text": "The device vault-b is full", "error_hint": "Free space or add a device.",
        "bytes_stored": 0, "set": "",
    }  # fmt: skip
    found += [
        backup_run("mail", 0, "failed", **failed, attempts=3),
        backup_run("office", 0, "succeeded-with-exceptions", exceptions=4),
        backup_run("own", 0, "running", ended_ns=None, seconds=None),
        backup_run("own", 15, "failed", **failed, sound_since_ns=NOW - 14 * DAY),
        backup_run("office", 2, "missed", run="office@2m", started_ns=None, seconds=None, server="", device="",
                   attempts=0, error="missed", error_text="It could not start in its window"),
        backup_run("office", 3, "superseded", run="office@3s", note="superseded by office.full"),
        backup_run("mail", 4, kind="restore", run="r@1", job="restore-mail", target="files:/tmp/back", set="set-mail-5"),
        backup_run("mail", 4, "failed", kind="drill", run="d@1", job="drill-mail", set="set-mail-5",
                   error="content-damaged", error_text="One file is not what it was"),
        backup_run("office", 5, kind="verify", run="v@1", job="verify-office", set="set-office-6"),
        backup_run("office", 6, kind="test-run", run="t@1", job="try-office", predicted_files=70, predicted_bytes=90 * MB,
                   predicted_new=10 * MB, predicted_s=125.0),
        backup_run("mail", 6, kind="duplicate", run="c@1", job="mail.off", device="vault-c", server="gamma"),
        backup_run("own", 1, kind="synthetic", run="y@1", job="own.synthetic"),
    ]  # fmt: skip
    return tuple(found)


def sets() -> tuple[SetRow, ...]:
    found = [
        SetRow(
            id=f"set-{name}-{nights}", source=source, server="berta", device="vault-b", medium="BERTA-000001",
            media_set="keep-4-weeks", type="full" if nights % 7 == 6 else "incremental",
            started_ns=NOW - 5 * HOUR - nights * DAY, ended_ns=NOW - 4 * HOUR - nights * DAY, selection=name,
            policy="nightly", roots=(f"/srv/{name}",), files=1000, bytes=900 * MB + (13 - nights) * 3 * MB,
            bytes_read=120 * MB, bytes_stored=(40 + nights) * MB, expires_ns=NOW + (28 - nights) * DAY,
            protected_ns=NOW + (28 - nights) * DAY, kept_by=("last-good",) if nights == 1 else (),
        )
        for name, source in LISTS.items()
        for nights in range(1, 14)
    ]  # fmt: skip
    copy = structs.replace(
        found[0], id="set-copy", device="vault-c", server="gamma", copy=True, medium="GAMMA-000001", locked=True,
        media_set="off-site",
    )  # fmt: skip
    return (*found, copy, structs.replace(found[20], id="set-redundant", redundant=True, expired=True))


def site(**fields: Any) -> Gathered:
    """Everything that any report asks for, of two weeks."""
    places = {
        "vault-b": (PlaceRow("berta", "/mnt/b", True),),
        "vault-c": (PlaceRow("gamma", "/mnt/c", False, "the folder is not there"),),
    }
    values: dict[str, Any] = {
        "mesh": "home",
        "now_ns": NOW,
        "begins_ns": NOW - 14 * DAY,
        "until_ns": NOW,
        "zone": "Europe/Berlin",
        "runs": runs(),
        "sets": sets(),
        "ages": (
            AgeRow("mail", "mail", NOW - 90 * DAY, NOW - 28 * HOUR, "set-mail-1", "vault-b", 26 * 3600.0, "set for the list",
                   True),
            AgeRow("office", "files", NOW - 90 * DAY, NOW - 28 * HOUR, "set-office-1", "vault-b", 187200.0,
                   "2 x 24h 00m between due times + 4h 00m to begin in", False),
            AgeRow("own", "alpha", NOW - 90 * DAY, NOW - 28 * HOUR, "set-own-1", "vault-b", None, "set to never", False),
            AgeRow("own", "gamma", NOW - 90 * DAY, None, "", "", 187200.0, "2 x 1 days", True),
        ),
        "devices": (
            DeviceRow("vault-b", "disk", "online", places["vault-b"], 2, 50_000 * MB, ("main",), 20_000 * MB,
                      2_000_000 * MB, 1, 2),
            DeviceRow("vault-c", "shared", "offline", places["vault-c"], 1, 0, (), None, None, 0, 0),
        ),
        "media": (
            MediumRow("BERTA-000001", "vault-b", "keep-4-weeks", "berta", "appendable", NOW - 6 * DAY, NOW - 4 * HOUR),
            MediumRow("GAMMA-000001", "vault-c", "off-site", "gamma", "imported", NOW - 20 * DAY, NOW - 2 * DAY),
        ),
        "media_sets": (
            MediaSetRow("keep-4-weeks", 6 * 86400.0, 28 * 86400.0, 28 * 86400.0),
            MediaSetRow("keep-infinitely", None, None, None),
            MediaSetRow("off-site", None, 86400.0, 365 * 86400.0, ("12 monthly",)),
        ),
        "servers": tuple(
            ServerRow(name, "no-communication" if name == "gamma" else "enabled", name != "gamma", name == "alpha",
                      name in {"alpha", "berta", "gamma"}, "1.0", ("west",), ("vault-b",) if name == "berta" else (),
                      NOW - 90 * DAY, tuple(key for key, value in LISTS.items() if value == name), 0,
                      NOW - 2 * HOUR if name == "gamma" else None)
            for name in SERVERS
        ),
        "alerts": (
            AlertRow("al-1", "error", "job-failed", "alpha", "mail@0", "mail.full failed for mail: device-full",
                     NOW - 3 * HOUR),
            AlertRow("al-2", "attention-required", "no-recovery-kit", "alpha", "home", "There is no recovery kit",
                     NOW - 50 * DAY),
            AlertRow("al-3", "warning", "clock-differs", "gamma", "gamma", "The clock of gamma differs", NOW - 30 * HOUR,
                     NOW - 29 * HOUR, "ann", "ok", NOW - 28 * HOUR),
        ),
        "audit": (
            AuditRow(NOW - HOUR, "ann", "set.delete", "backup", "protected", "alpha", "10.0.0.7:51000", "set=set-mail-9"),
            AuditRow(NOW - 2 * DAY, "bob", "operator.create", "security", "done", "alpha", "10.0.0.8:51000", "name=eve"),
        ),
        "resources": (
            ResourceRow("alpha", "/", "ext4", Cover.COVERED, ("own",), 400_000 * MB, 100_000 * MB, told_ns=NOW - DAY),
            ResourceRow("files", "/srv", "xfs", Cover.PARTLY, ("office",), 900_000 * MB, 500_000 * MB, told_ns=NOW - DAY),
            ResourceRow("files", "/var/lib/db", "ext4", Cover.UNPROTECTED, (), 90_000 * MB, 50_000 * MB, told_ns=NOW - DAY),
            ResourceRow("berta", "", "", Cover.UNKNOWN),
        ),
        "workload": (
            WorkRow("mail.full", "mail", "succeeded", NOW + 2 * HOUR, "berta", "vault-b", NOW + 2 * HOUR, NOW + 4 * HOUR,
                    50 * MB),
            WorkRow("office.full", "files", "succeeded", NOW + 2 * HOUR, "berta", "vault-b", NOW + 4 * HOUR, NOW + 5 * HOUR,
                    40 * MB, True),
            WorkRow("own.full", "alpha", "missed", NOW + 3 * HOUR, waits="no device that may be used belongs to the target any"),
        ),
    }  # fmt: skip
    return Gathered(**(values | fields))


HOSTILE = (
    "\"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>&amp;\x1b[2J\u202e=cmd|'/c calc'!A1"
)


def hostile_site() -> Gathered:
    """The same, where every name and text is an attempt at somebody's browser, terminal or spreadsheet."""
    known = {"succeeded", "failed", "missed", "running", "backup", "restore", "verify", "drill", "test-run", "online"}

    def poisoned(value: Any) -> Any:
        if isinstance(value, Struct):
            return type(value)(**{name: poisoned(getattr(value, name)) for name in value.__struct_fields__})
        if isinstance(value, tuple):
            return tuple(poisoned(each) for each in value)
        if type(value) is str and value and value not in known and not value.startswith("Europe/"):
            return f"={value}{HOSTILE}"
        return value

    told: Gathered = poisoned(site())
    return told
