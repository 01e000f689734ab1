"""Every command: what it asks, and what it prints, plain and as JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_notice_cases import CASES as NOTICE_CASES
from cli_policy_cases import COPY_CASES, POLICY_CASES
from cli_world import FakeDaemon, Shell

from caso_mesh.cli import catalog as catalog_commands
from caso_mesh.model import audit as audit_log
from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model import join_links as links
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.alert_calls import AlertAnswered, AlertDetail
from caso_mesh.model.audit_chain import AuditVerified, AuditVerify, AuditVoter
from caso_mesh.model.calls import BY_NAME, CALLS, LOCAL
from caso_mesh.model.canceling import RunCanceled, RunsCanceled
from caso_mesh.model.cataloguing import DeviceCatalog
from caso_mesh.model.documents import LogonDoc
from caso_mesh.model.entries import EntryType
from caso_mesh.model.erasing import DeviceErase
from caso_mesh.model.history import History, HistoryEntry, HistoryRequest
from caso_mesh.model.inventories import DeviceInventory, ScheduleWords
from caso_mesh.model.job_edits import JobCopy, JobEdit, JobEdited
from caso_mesh.model.listing import CatalogFind, SetStanding
from caso_mesh.model.metrics import Exposition
from caso_mesh.model.report_schedules import (
    ReportScheduleEdit,
    ReportScheduleList,
    ReportScheduleName,
    ReportScheduleView,
)
from caso_mesh.model.reports import ReportInfo, ReportList
from caso_mesh.model.rules import ErrorRule, Then
from caso_mesh.model.selections import unpack
from caso_mesh.model.states import BackupType, DataLocation, DeviceState, Overwrite, Priority, Role, ServerState
from caso_mesh.model.voters import VoterList, VoterRow

SCHEDULED = ReportScheduleView(
    "mornings", "failed-jobs", "daily 07:00", "UTC", ("ann",), ("html", "csv"), 3.0, "beta", None, None,
    "2026-01-17T07:00:00Z", None, "boss",
)  # fmt: skip
REPORT = ReportInfo("failed-jobs", "Failed jobs", "What failed?", 7.0, False, False)
STATUS = v.StatusView("tests", "alpha", "alpha", 3, ("alpha",), 3, 2, 1, "0.1.0")
SERVER = v.ServerView("beta", "b" * 52, "enabled", True, False, True, ("west",), "10.0.0.2:7420", "0.1.0")
PENDING = v.ServerView(
    "new", "n" * 52, "discovered", False, False, False, (), "10.0.0.9:7420", "0.1.0", code="abcdefgh"
)
MODE = c.CatalogModeView(
    "beta", c.CatalogMode.DISTRIBUTED, "pool:west", "moving", sets=5, at_admin=5, at_server=2, to_admin=0, to_server=3, to_drop=0, percent=40.0, connected=True,
)  # fmt: skip
POOL = v.PoolView("west", ("beta", "gamma"))
DEVICE = v.DeviceView(
    "disk1",
    "d1",
    "disk",
    ("beta",),
    {"beta": "/srv/b"},
    "online",
    5_000_000_000,
    1_000_000,
    4,
    1,
    2,
    0,
    ("nearly full",),
)
SUBMITTED = o.Submitted("job1", "job1@1", "backup-alpha", None, ("/x is inside of it",))
SET = b.SetView(
    "set1", "alpha", "beta", "disk1", "BETA-000001", "keep-4-weeks", "full", "job1", "job1@1", "job1@1#1",
    "2025-01-01T00:00:00Z", "2025-01-01T00:01:00Z", 10, 12345, 999, 0, ("/srv",), "2025-02-01T00:00:00Z", None, False,
)  # fmt: skip
GONE = msgspec.structs.replace(SET, expired=True)
EXPIRY = b.ExpiryView(
    "the clock was set",
    (
        b.ExpiryRow("set1", "alpha", "disk1", "nights", "2025-01-01T00:01:00Z", False, None, ("last-good", "daily")),
        b.ExpiryRow("set0", "alpha", "disk1", "nights", "2024-01-01T00:01:00Z", True, "2024-02-01T00:00:00Z", ()),
    ),
)
JOB = o.JobView(
    "job1", "nightly", "backup", "job1@1", None, "ready", "full", "medium", "alpha", None, None, "no-idle-device",
    {"devices": ["disk1"]}, "all devices of the target are busy: disk1", 42.0, 3, 4, 5000, 6, 7000.0, None, None, None, None,
)  # fmt: skip
ATTEMPT = o.AttemptView(
    "job1@1#1", 1, "failed", "full", "alpha", "beta", "disk1", "2025-01-01T00:00:00Z", None, None, 3.5, 3, 4, 5, 6, None,
    {"code": "device-full", "message": "The device disk1 is full.", "hint": ""},
)  # fmt: skip
DETAIL = o.JobDetail(
    "job1", "nightly", "backup", "active", "medium", "2025-01-01T00:00:00Z", "root@alpha", "0 2 * * *", "UTC",
    "2025-01-02T02:00:00Z", {"target": "any", "excludes": []},
    (o.RunView("job1@1", "failed", "2025-01-01T00:00:00Z", None, (), (ATTEMPT,)),
     o.RunView("job1@0", "missed", "2025-01-01T00:00:00Z", None, (), ())),
)  # fmt: skip
LOG = o.JobLogView((o.AttemptLog("job1@1#1", (o.LogLineView("2025-01-01T00:00:00Z", "info", "began"),)),))
ENTRY = b.EntryView("/srv/a\\x0ab", "L3Nydi9hCmI=", "file", 7, "2025-01-01T00:00:00Z", "1735689600000000001", "0644")
MATCH = b.MatchView("alpha", "/srv/a", "L3Nydi9h", "set1", 7, "2025-01-01T00:00:00Z", "1735689600000000001", "file")
USAGE = c.UsageView("/srv", "L3Nydg==", 12, 3456)
VERSION = b.VersionView(
    "/srv/a", "file", 7, "2025-01-01T00:00:00Z", "1", "0644", "set1", "set2", 2, "2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z"
)  # fmt: skip
PROOF = AuditVerified(
    True, 9, 3, 0, 0, "2025-01-02", "2025-02-01", "2025-01-01", (), (AuditVoter("beta", "same", "all of it"),), 0, ()
)
ALERT = v.AlertView(
    "al1", "error", "device-error", "beta", "disk1", "disk1 is full", "2025-01-01T00:00:00Z", None, None, None, None
)
ENTRY_OF_HISTORY = HistoryEntry(
    "job1@1#1", "job1@1", "job1", "nightly", "backup", "full", "failed", "alpha", "beta", "disk1", "2025-01-01T00:00:00Z",
    "2025-01-01T00:00:01Z", None, None, 3.5, 3, 4, 5, 6, 0, 7.0, None,
    {"code": "device-full", "message": "The device disk1 is full.", "hint": ""}, "device", None, "office",
)  # fmt: skip
AUDIT = audit_log.AuditView(
    "2025-01-01T00:00:00Z", "root@alpha", "pool.create", "pool", "done", "alpha", "127.0.0.1:5", {"name": "west"}
)
MEDIUM = v.MediumView("BETA-000001", "disk1", "keep-4-weeks", "beta", "appendable", "2025-01-01T00:00:00Z", "-", 5, 6)
SETTING = v.SettingView("stalled-after-s", 90.0, "mesh", 60.0, "When a server is silent.")
PEERS = v.PeerList((v.PeerView("10.0.0.7:7420", "command"),), "beta")
VOTERS = VoterList((VoterRow("beta", "votes", True, True, "10.0.0.7:7420", 0, 6),), 1, 1, 6)
TOKENS = links.TokenList((
    links.TokenRow("abcdefghijklm", "open", "2025-01-01T00:00:00Z", 1, "root@alpha"),
    links.TokenRow("nopqrstuvwxyz", "used", "2025-01-01T00:00:00Z", 0, "root@alpha", "ann", "ann"),
))  # fmt: skip
ROOTS = b.EntryList((
    b.EntryView("/srv", "L3Nydg==", "directory", 0, "2025-01-01T00:00:00Z", "1735689600000000000", "0755"),
    b.EntryView("/tmp", "L3RtcA==", "directory", 0, None, None, None),
))  # fmt: skip
MEDIA_SETS = v.MediaSetList((v.MediaSetView("keep-4-weeks", 518400.0, None, 2419200.0, True),))

#: Command line, call, what it asks, what is answered, words of the text for people.
KIT = v.KitView("kit1", "2025-01-01T00:00:00Z", "ann", None, ("disk1",), ("disk2",))
CASES: list[tuple[str, str, Any, Any, list[str]]] = [
    ("metrics", "metrics", q.Nothing(), Exposition("up 1\n", mesh=False), ["up 1\n"]),
    ("server list", "server.list", q.ServerListRequest(), v.ServerList((SERVER,)), ["NAME", "beta", "yes", "west"]),
    (
        "server list --discovered",
        "server.list",
        q.ServerListRequest(discovered=True),
        v.ServerList((PENDING,)),
        ["new", "abcdefgh"],
    ),
    ("server list --pool west", "server.list", q.ServerListRequest(pool="west"), v.ServerList(()), ["NAME"]),
    ("server approve new --code abcdefgh", "server.approve", q.ServerApprove("new", "abcdefgh"), SERVER, ["member"]),
    (
        "server set beta --data-location server",
        "server.set",
        q.ServerSet("beta", DataLocation.SERVER),
        SERVER,
        ["the device and media data of beta are on the server"],
    ),
    ("server pause beta", "server.set-state", q.ServerSetState("beta", ServerState.PAUSED), SERVER, ["beta is"]),
    ("server resume beta", "server.set-state", q.ServerSetState("beta", ServerState.ENABLED), SERVER, ["beta is"]),
    ("server enable beta", "server.set-state", q.ServerSetState("beta", ServerState.ENABLED), SERVER, ["beta is"]),
    ("server disable beta", "server.set-state", q.ServerSetState("beta", ServerState.DISABLED), SERVER, ["beta is"]),
    (
        "server hold-queue beta",
        "queue.hold",
        q.QueueHold(True, "beta"),
        v.ServerList((SERVER,)),
        ["the queue of beta is on hold"],
    ),
    ("server hold-queue --all", "queue.hold", q.QueueHold(True), v.ServerList((SERVER,)), ["all servers is on hold"]),
    (
        "server release-queue --pool west",
        "queue.hold",
        q.QueueHold(False, None, "west"),
        v.ServerList((SERVER,)),
        ["the queue of the servers of west runs"],
    ),
    (
        "device set nas --quota beta=10GiB --quota gamma=none",
        "device.set",
        q.DeviceSet("nas", quotas={"beta": 10 << 30, "gamma": None}),
        DEVICE,
        ["disk1"],
    ),
    ("voter add beta", "voter.add", q.ServerName("beta"), SERVER, ["beta"]),
    ("voter list", "voter.list", q.Nothing(), VOTERS, ["beta", "votes", "10.0.0.7:7420"]),
    ("token list --all", "token.list", links.TokenListRequest(True), TOKENS, ["a server", "root@alpha", "operator ann"]),
    ("token list", "token.list", links.TokenListRequest(), TOKENS, ["abcdefghijklm"]),
    ("token revoke abcd", "token.revoke", links.TokenName("abcd"), v.Done(), ["nobody joins by abcd"]),
    ("catalog ls s1", "catalog.ls", b.CatalogList("s1", roots=True), ROOTS, ["/srv", "2025-01-01T00:00:00Z", "/tmp"]),
    ("catalog ls s1 /", "catalog.ls", b.CatalogList("s1"), ROOTS, ["/tmp"]),
    ("voter remove beta", "voter.remove", q.ServerName("beta"), SERVER, ["beta is no voter"]),
    ("admin transfer --to beta", "admin.transfer", q.AdminTransfer("beta"), v.Done(), ["beta has the office"]),
    ("server remove beta", "server.remove", q.ServerName("beta"), v.Done(), ["removed"]),
    (
        "token create --ttl 15m",
        "token.create",
        q.TokenCreate(900.0),
        v.TokenView("caso-mesh://x", "2025-01-01T00:00:00Z"),
        ["caso-mesh://x"],
    ),
    ("peer add 10.0.0.7:7420", "peer.add", q.PeerAdd("10.0.0.7:7420"), PEERS, ["10.0.0.7:7420", "command"]),
    ("peer list", "peer.list", q.Nothing(), PEERS, ["10.0.0.7:7420"]),
    (
        "pool create west --server beta --server gamma",
        "pool.create",
        q.PoolEdit("west", ("beta", "gamma")),
        POOL,
        ["west", "beta, gamma"],
    ),
    ("pool set west --server beta", "pool.set", q.PoolEdit("west", ("beta",)), POOL, ["west"]),
    ("pool delete west", "pool.delete", q.PoolName("west"), v.Done(), ["deleted"]),
    (
        "operator create anna --role restore --server beta --pool west --ttl 15m",
        "operator.create",
        q.OperatorCreate("anna", Role.RESTORE, ("beta",), ("west",), 900.0),
        v.OperatorInvited("anna", "restore", ("beta",), ("west",), "caso-mesh:operator:v1:x", "2025-01-02T03:04:05Z"),
        ["caso-mesh:operator:v1:x"],
    ),
    (
        "operator list",
        "operator.list",
        q.Nothing(),
        v.OperatorList((v.OperatorView("anna", "id1", "active", None, {"beta": "restore"}, {"west": "viewer"}),)),
        ["anna", "active", "beta: restore", "west: viewer"],
    ),
    (
        "admin rotate-ca --overlap 10d",
        "ca.rotate",
        q.CaRotate(864000.0),
        v.CaView("ab12", "announced", "2025-01-01T00:00:00Z", "2025-01-11T00:00:00Z", None, None, ("beta",)),
        ["ab12", "signs from 2025-01-11T00:00:00Z", "beta"],
    ),
    ("admin ca", "ca.show", q.Nothing(), v.CaView("ab12", "never", None, None, None, None, ()), ["never rotated"]),
    ("operator revoke anna", "operator.revoke", q.OperatorName("anna"), v.Done(), ["anna was revoked"]),
    ("pool list", "pool.list", q.Nothing(), v.PoolList((POOL,)), ["west", "beta, gamma"]),
    (
        "device add disk1 --server beta --path /srv/b --concurrency 3 --low-space 10GiB",
        "device.add",
        q.DeviceAdd("disk1", "disk", {"beta": "/srv/b"}, 3, 10 << 30),
        DEVICE,
        ["disk1", "beta=/srv/b"],
    ),
    (
        "device add nas --kind shared --on beta=/mnt/n --on gamma=/nas",
        "device.add",
        q.DeviceAdd("nas", "shared", {"beta": "/mnt/n", "gamma": "/nas"}),
        DEVICE,
        ["disk1"],
    ),
    (
        "device set disk1 --concurrency 4 --low-space 1kB",
        "device.set",
        q.DeviceSet("disk1", None, 4, 1000),
        DEVICE,
        ["disk1"],
    ),
    ("device pause disk1", "device.set", q.DeviceSet("disk1", DeviceState.PAUSED), DEVICE, ["disk1"]),
    ("device resume disk1", "device.set", q.DeviceSet("disk1", DeviceState.ONLINE), DEVICE, ["disk1"]),
    ("device read-only disk1", "device.set", q.DeviceSet("disk1", DeviceState.READ_ONLY), DEVICE, ["disk1"]),
    ("device offline disk1", "device.set", q.DeviceSet("disk1", DeviceState.OFFLINE), DEVICE, ["disk1"]),
    (
        "device set nas --disable beta --enable gamma",
        "device.set",
        q.DeviceSet("nas", enabled={"beta": False, "gamma": True}),
        DEVICE,
        ["disk1"],
    ),
    ("device move disk1 --to beta=/mnt", "device.move", q.DeviceMove("disk1", {"beta": "/mnt"}), DEVICE, ["disk1"]),
    ("device share disk1 --on beta=/mnt", "device.share", q.DeviceShare("disk1", "beta", "/mnt"), DEVICE, ["disk1"]),
    ("device unshare disk1 beta", "device.share", q.DeviceShare("disk1", "beta"), DEVICE, ["disk1"]),
    ("device remove disk1", "device.remove", q.DeviceName("disk1"), v.Done(), ["untouched"]),
    (
        "device erase disk1 --yes --even-last-good --priority high",
        "device.erase",
        DeviceErase("disk1", True, Priority.HIGH),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    (
        "device inventory disk1 nas --priority low",
        "device.inventory",
        DeviceInventory(("disk1", "nas"), Priority.LOW),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    (
        "device inventory --all --schedule 5_2_*_*_* --zone Europe/Berlin --cancel-after 1h --catch-up --name weekly",
        "device.inventory",
        DeviceInventory((), name="weekly", when=ScheduleWords("5 2 * * *", "Europe/Berlin", (), None, 3600.0, True)),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    (
        "catalog rebuild disk1 --no-wait --priority low",
        "catalog.remake",
        DeviceCatalog(("disk1",), Priority.LOW),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    (
        "catalog rebuild --all --schedule 5_2_*_*_* --name monthly",
        "catalog.remake",
        DeviceCatalog((), name="monthly", when=ScheduleWords("5 2 * * *")),
        msgspec.structs.replace(SUBMITTED, run=None, next_due="2025-01-02T02:05:00Z"),
        ["is scheduled"],
    ),
    (
        "job edit nightly --path alpha:/srv --to any --exclude none --pre none --start-window none --catch-up --type full",
        "job.edit",
        JobEdit(
            "nightly", sources=(("alpha", b"/srv"),), target="any", excludes=(), catch_up=True, type=BackupType.FULL,
            clear=("pre", "start_window_s"),
        ),
        JobEdited("job1", "nightly", "daily 02:00", "UTC", "2025-01-02T02:00:00Z", ("a warning",)),
        ["job nightly (job1) was changed; it runs next at 2025-01-02T02:00:00Z"],
    ),
    (
        "job edit weekly --device all --schedule none --exclude-day 2025-12-24 --no-verify --cancel-after 8h",
        "job.edit",
        JobEdit(
            "weekly", devices=(), exclude_days=("2025-12-24",), verify=False, cancel_after_s=28800.0, clear=("schedule",)
        ),
        JobEdited("job1", "weekly"),
        ["it runs when it is asked to"],
    ),
    (
        "job copy nightly second",
        "job.copy",
        JobCopy("nightly", "second"),
        JobEdited("job2", "second", "daily 02:00", "UTC", "2025-01-02T02:00:00Z"),
        ["job second (job2) does what nightly does"],
    ),
    (
        "device list --server beta",
        "device.list",
        q.DeviceListRequest(server="beta"),
        v.DeviceList((DEVICE,)),
        ["disk1", "5.0 GB", "1/2"],
    ),
    ("medium retire B-000001", "medium.retire", q.MediumLabel("B-000001"), v.Done(), ["no further sets"]),
    ("mediaset list", "mediaset.list", q.Nothing(), MEDIA_SETS, ["keep-4-weeks", "28 d", "without end"]),
    ("medium list", "medium.list", q.MediumListRequest(), v.MediumList((MEDIUM,)), ["BETA-000001"]),
    (
        "settings list --pool west",
        "settings.list",
        q.SettingsListRequest(pool="west"),
        v.SettingList((SETTING,)),
        ["stalled-after-s", "90"],
    ),
    (
        "settings set stalled-after-s 90s --server beta",
        "settings.set",
        q.SettingSet("stalled-after-s", "90s", "beta"),
        v.SettingList((SETTING,)),
        ["stalled-after-s is 90"],
    ),
    (
        "settings unset stalled-after-s",
        "settings.set",
        q.SettingSet("stalled-after-s", None),
        v.SettingList((SETTING,)),
        ["stalled-after-s is 90"],
    ),
    (
        "backup alpha:/srv beta:/a:b --to pool:west",
        "backup",
        q.BackupRequest((("alpha", b"/srv"), ("beta", b"/a:b")), "pool:west"),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    (
        ("backup alpha:/srv --to any --type incremental --exclude *.tmp --exclude /srv/cache --one-file-system"
        " --no-default-excludes --media-set keep-infinitely --priority high --verify --name nightly"
        " --schedule 5_2_*_*_* --zone Europe/Berlin --exclude-larger-than 4GiB --exclude-caches --exclude-day 2025-12-24"
        " --start-window 2h --cancel-after 8h --catch-up"),
        "backup",
        q.BackupRequest(
            (("alpha", b"/srv"),),
            "any",
            BackupType.INCREMENTAL,
            ("*.tmp", "/srv/cache"),
            one_file_system=True,
            exclude_caches=True,
            larger_than=4 << 30,
            default_excludes=False,
            media_set="keep-infinitely",
            verify=True,
            priority=Priority.HIGH,
            name="nightly",
            schedule="5 2 * * *",
            zone="Europe/Berlin",
            exclude_days=("2025-12-24",),
            start_window_s=7200.0,
            cancel_after_s=28800.0,
            catch_up=True,
        ),
        o.Submitted("job1", None, "nightly", "2025-01-02T02:05:00Z"),
        ["nightly", "2025-01-02T02:05:00Z"],
    ),
    (
        "backup alpha:@db alpha:/@x --to any --pre a --post b --post-always --ignore-exit-codes",
        "backup",
        q.BackupRequest(
            (("alpha", b"/@dumps/db"), ("alpha", b"/@x")),
            "any",
            pre="a",
            post="b",
            post_always=True,
            ignore_exit_codes=True,
        ),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    (
        "backup alpha:/srv --to any --test-run",
        "backup",
        q.BackupRequest((("alpha", b"/srv"),), "any", test_run=True),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    (
        "restore set1 --into-command beta:db-restore",
        "restore",
        q.RestoreRequest("set1", into_command=("beta", "db-restore")),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    ("restore set1", "restore", q.RestoreRequest("set1"), SUBMITTED, ["submitted job1@1"]),
    (
        "restore set1 /srv/a srv/b --to gamma:/tmp/r --strip --overwrite always --no-ownership --priority lowest",
        "restore",
        q.RestoreRequest(
            "set1",
            (b"/srv/a", b"/srv/b"),
            ("gamma", b"/tmp/r"),
            strip=True,
            overwrite=Overwrite.ALWAYS,
            ownership=False,
            priority=Priority.LOWEST,
        ),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    ("verify set1", "verify", q.VerifyRequest("set1"), SUBMITTED, ["submitted job1@1"]),
    (
        "duplicate set1 --to server:beta --media-set off-site --verify --priority low",
        "duplicate",
        q.DuplicateRequest("set1", "server:beta", "off-site", True, Priority.LOW),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    (
        "synthetic alpha:/srv beta:/srv --media-set off-site --verify --priority low",
        "synthetic",
        q.SyntheticRequest((("alpha", b"/srv"), ("beta", b"/srv")), None, "off-site", True, Priority.LOW),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    ("synthetic office", "synthetic", q.SyntheticRequest(selection="office"), SUBMITTED, ["submitted job1@1"]),
    ("drill set1", "drill", q.DrillRequest("set1", None, 100), SUBMITTED, ["submitted job1@1"]),
    (
        "drill alpha --sample 2.5% --on beta --max-bytes 5MB",
        "drill",
        q.DrillRequest("alpha", "beta", None, 2.5, 5_000_000),
        SUBMITTED,
        ["submitted job1@1"],
    ),
    ("job list", "job.list", q.JobListRequest(), o.JobList((JOB,)), ["nightly", "42 %", "all devices", "7.0 kB/s"]),
    (
        "job list --state all --server beta --pool west",
        "job.list",
        q.JobListRequest("all", "beta", "west"),
        o.JobList((JOB,)),
        ["nightly"],
    ),
    ("job show nightly", "job.show", q.JobName("nightly"), DETAIL, ["0 2 * * * (UTC)", "job1@1#1", "disk1 is full", "job1@0"]),
    ("job log job1@1", "job.log", q.JobLogRequest("job1@1"), LOG, ["2025-01-01T00:00:00Z  info     began"]),
    ("job run nightly", "job.run", q.JobName("nightly"), SUBMITTED, ["submitted job1@1"]),
    (
        "job set job1@1 --priority highest",
        "job.set",
        q.JobSet("job1@1", Priority.HIGHEST),
        v.Done(),
        ["job1@1 has the priority highest"],
    ),
    ("job cancel job1@1 --force", "job.cancel", q.JobCancel("job1@1", by_force=True), RunsCanceled(), ["job1@1 is being canceled"]),
    (
        "error-rule create full --error device-full --error data --retries 3 --every 5m --then hold --any-time",
        "error-rule.create",
        q.ErrorRuleCreate(ErrorRule("full", ("device-full", "data"), 3, 300.0, Then.HOLD, True)),
        v.Done(),
        ["error rule full was made"],
    ),
    (
        "error-rule list",
        "error-rule.list",
        q.Nothing(),
        v.ErrorRuleList((ErrorRule("full", ("device-full",), 3, 300.0, Then.HOLD),)),
        ["full", "device-full", "5m 00s", "hold"],
    ),
    (
        "logon list",
        "logon.list",
        q.Nothing(),
        v.LogonList((v.LogonView("db", LogonDoc("backup", (), ("dbs",)), ("beta",), ("gamma",), "-", "ann"),)),
        ["db", "backup", "dbs", "gamma", "by ann"],
    ),
    ("logon delete db", "logon.delete", q.Named("db"), v.Done(), ["logon db was deleted"]),
    ("error-rule delete full", "error-rule.delete", q.Named("full"), v.Done(), ["error rule full was deleted"]),
    (
        "job cancel nightly",
        "job.cancel",
        q.JobCancel("nightly"),
        RunsCanceled((RunCanceled("job1@1", "canceling", True), RunCanceled("job1@2", "canceled"))),
        ["job1@1 is being canceled already", "job1@2 is canceled\n"],
    ),
    ("job hold nightly", "job.hold", q.JobName("nightly"), v.Done(), ["on hold"]),
    ("job release nightly", "job.release", q.JobName("nightly"), v.Done(), ["released"]),
    ("job delete nightly", "job.delete", q.JobName("nightly"), v.Done(), ["deleted"]),
    (
        "set list --pool west --state locked --since 2025-01-01T00:00Z --until 2025-01-02T00:00Z --limit 1 --after set9",
        "set.list",
        q.SetListRequest(
            pool="west",
            limit=1,
            state=SetStanding.LOCKED,
            since_ns=1_735_689_600_000_000_000,
            until_ns=1_735_776_000_000_000_000,
            after="set9",
        ),
        b.SetList((SET,), more=True),
        ["set1"],
    ),
    (
        "job list --state ready --pool west --since 2025-01-01T00:00Z --after job1@1",
        "job.list",
        q.JobListRequest("ready", pool="west", since_ns=1_735_689_600_000_000_000, after="job1@1"),
        o.JobList((JOB,), more=True),
        ["nightly"],
    ),
    (
        "server list --state stalled --pool west --limit 1",
        "server.list",
        q.ServerListRequest(pool="west", state="stalled", limit=1),
        v.ServerList((SERVER,), more=True),
        ["beta"],
    ),
    (
        "device list --server beta --state offline",
        "device.list",
        q.DeviceListRequest("beta", state="offline"),
        v.DeviceList(()),
        [],
    ),
    (
        "medium list --pool west --state full --until 2025-01-01T00:00Z",
        "medium.list",
        q.MediumListRequest(pool="west", state="full", until_ns=1_735_689_600_000_000_000),
        v.MediumList((MEDIUM,)),
        ["BETA-000001"],
    ),
    (
        "selection list --pool west --after a",
        "selection.list",
        q.SelectionListRequest(pool="west", after="a"),
        v.SelectionViews(()),
        [],
    ),
    (
        "job log job1@1 --level warning --server beta --since 2025-01-01T00:00Z",
        "job.log",
        q.JobLogRequest("job1@1", "beta", level="warning", since_ns=1_735_689_600_000_000_000),
        LOG,
        ["began"],
    ),
    ("set list --source alpha", "set.list", q.SetListRequest(source="alpha"), b.SetList((SET,)), ["set1", "12.3 kB"]),
    ("set list --expired", "set.list", q.SetListRequest(expired=True), b.SetList((GONE,)), ["expired"]),
    ("set expire --dry-run", "set.expiry", q.Nothing(), EXPIRY, ["last-good, daily", "nothing keeps it"]),
    ("set expire --yes", "set.expire", q.Nothing(), b.Expired(3, None), ["3 sets were deleted"]),
    ("catalog ls set1", "catalog.ls", b.CatalogList("set1", roots=True), b.EntryList((ENTRY,)), ["/srv/a\\x0ab", "0644"]),
    (
        "catalog ls set1 /srv/x --after srv/x/b --limit 5",
        "catalog.ls",
        b.CatalogList("set1", b"srv/x", b"srv/x/b", 5),
        b.EntryList((ENTRY,)),
        ["/srv/a"],
    ),
    (
        "catalog find *.conf --server alpha --since 2025-01-01T00:00:00Z --until 2025-01-02T00:00:00Z",
        "catalog.find",
        CatalogFind(b"*.conf", "alpha", 1735689600 * 10**9, 1735776000 * 10**9),
        b.MatchList((MATCH,)),
        ["/srv/a", "set1"],
    ),
    (
        "catalog find *.iso --larger 1GB --smaller 4GiB --modified-since 2025-01-01T00:00:00Z --type f --ignore-case",
        "catalog.find",
        CatalogFind(
            b"*.iso",
            size_min=10**9,
            size_max=4 << 30,
            modified_since_ns=1_735_689_600 * 10**9,
            type=EntryType.FILE,
            ignore_case=True,
        ),
        b.MatchList((MATCH,)),
        ["set1"],
    ),
    ("catalog du set1", "catalog.du", c.CatalogUsage("set1"), c.UsageList("set1", (USAGE,)), ["/srv", "12"]),
    (
        "catalog du set1 /srv --depth 2 --limit 5",
        "catalog.du",
        c.CatalogUsage("set1", b"srv", 2, 5),
        c.UsageList("set1", (USAGE,), True),
        ["/srv", "12"],
    ),
    ("catalog modes", "catalog.modes", c.CatalogModesRequest(), c.CatalogModes((MODE,)), ["distributed", "moving, 40 %", "pool:west"]),
    ("catalog modes --server beta --pool west", "catalog.modes", c.CatalogModesRequest("beta", "west"), c.CatalogModes(()), []),
    ("catalog versions alpha:srv/a", "catalog.versions", b.CatalogVersions("alpha", b"/srv/a"), b.VersionList((VERSION,)), ["set2"]),
    ("kit list", "kit.list", q.Nothing(), v.KitList((KIT,)), ["kit1", "ann", "disk1", "disk2"]),
    ("alert list --all", "alert.list", q.AlertListRequest(all=True), v.AlertList((ALERT,)), ["al1", "disk1 is full"]),
    ("alert answer al1 seen", "alert.answer", q.AlertAnswer("al1", "seen"), AlertAnswered("seen", "ann", True), ["al1 is answered: seen"]),
    ("alert list --local", "local.alert.list", q.AlertListRequest(), v.AlertList((ALERT,)), ["al1", "disk1 is full"]),
    ("alert show al1 --local", "local.alert.show", q.Named("al1"), AlertDetail(msgspec.structs.replace(ALERT, here="the answer"), ()), ["kept here", "the answer"]),
    ("alert answer al1 seen --local", "local.alert.answer", q.AlertAnswer("al1", "seen"), AlertAnswered("seen", "ann", True), ["al1 is answered here: seen"]),
    ("alert answer al1 seen", "alert.answer", q.AlertAnswer("al1", "seen"), AlertAnswered("known", "bob", False), ["answered before: known (by bob)"]),
    *POLICY_CASES,
    *COPY_CASES,
    (
        ("report schedule failed-jobs --cron daily_07:00 --to ann --to ops --as mornings --zone UTC --format html,csv --days 3"
        " --server beta --pool west --list home --replace"),
        "report.schedule",
        ReportScheduleEdit("mornings", "failed-jobs", "daily_07:00", ("ann", "ops"), ("html", "csv"), "UTC", 3.0, "beta", "west",
                           "home", True),
        SCHEDULED,
        ["mornings", "2026-01-17T07:00:00Z"],
    ),
    ("report scheduled", "report.scheduled", q.Nothing(), ReportScheduleList((SCHEDULED,)), ["mornings", "html, csv", "ann"]),
    ("report unschedule mornings", "report.unschedule", ReportScheduleName("mornings"), v.Done(), ["mornings"]),
    *NOTICE_CASES,
    ("report list", "report.list", q.Nothing(), ReportList((REPORT,)), ["failed-jobs", "What failed?", "the last 7 days"]),
    (
        "history --server beta --list office --job j --type full --kind backup --state failed --limit 7 --after a@1#1",
        "history",
        HistoryRequest("beta", None, "office", "j", "failed", "full", "backup", None, None, 7, "a@1#1"),
        History((ENTRY_OF_HISTORY,), more=True),
        ["job1@1#1", "device: The device disk1 is full."],
    ),
    ("audit trim --before 1970-01-01T00:00:09Z", "audit.trim", audit_log.AuditTrim(9 * 10**9), audit_log.AuditTrimmed(3, None), ["3 entries"]),
    ("audit verify", "audit.verify", AuditVerify(), PROOF, ["whole", "3 of before 2025-01-01", "2025-02-01", "beta: same"]),
    ("audit list --category pool --limit 9", "audit.list", audit_log.AuditListRequest(9, "pool"), audit_log.AuditList((AUDIT,)), ["name=west"]),
]  # fmt: skip
#: What a server also answers by itself is asked of it with one more word.
CASES += [
    (f"{line} --local", f"local.{call}", *rest)
    for name in LOCAL
    for line, call, *rest in [case for case in CASES if case[1] == name][:1]
]


def words(line: str) -> list[str]:
    return [word.replace("_", " ") if word.startswith("5_") else word for word in line.split()]


async def test_a_list_that_is_cut_says_how_to_go_on_and_one_that_is_whole_says_nothing(
    daemon: FakeDaemon, shell: Shell
) -> None:
    for call, cut, whole, last in (
        ("set list", b.SetList((SET,), more=True), b.SetList((SET,)), SET.id),
        ("server list", v.ServerList((SERVER,), more=True), v.ServerList((SERVER,)), SERVER.name),
        ("medium list", v.MediumList((MEDIUM,), more=True), v.MediumList((MEDIUM,)), MEDIUM.label),
        ("job list", o.JobList((JOB,), more=True), o.JobList((JOB,)), JOB.run),
    ):
        daemon.answers[call.replace(" ", ".")] = cut
        assert f"There are more: --after {last}" in (await shell(*words(call))).err
        daemon.answers[call.replace(" ", ".")] = whole
        assert (await shell(*words(call))).err == ""


@pytest.mark.parametrize(("line", "call", "request_", "reply", "texts"), CASES, ids=[case[0] for case in CASES])
async def test_a_command_asks_what_it_says_and_prints_the_answer_for_people_and_as_json(
    daemon: FakeDaemon, shell: Shell, line: str, call: str, request_: Any, reply: Any, texts: list[str]
) -> None:
    daemon.answers[call] = reply
    plain = await shell(*words(line))
    as_json = await shell(*words(line), "--json")
    assert [each.call for each in daemon.received] == [call, call]
    assert [each.request for each in daemon.received] == [request_, request_]
    assert plain.status == as_json.status == 0
    for text in texts:
        assert text in plain.out
    assert "\x1b" not in plain.out + plain.err
    assert msgspec.convert(as_json.document, type(reply)) == reply
    assert as_json.err == ""


async def test_whoever_adds_a_peer_is_told_on_which_server_it_holds(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["peer.add"] = PEERS
    told = (await shell("peer", "add", "10.0.0.7:7420")).err
    assert "Only beta calls there" in told
    assert "every voter" in told


def test_the_cases_above_cover_every_call_of_people() -> None:
    people = {call.name for call in CALLS if call.role is not None}
    # these are dialogues of several calls, or no command of their own; over real daemons: tests/mesh/test_as_of, _deleting,
    # _recovery, _contexts
    dialogues = {
        "run.follow",
        # tests/cli/test_cli_screen, _following
        "status",
        "overview",
        # until it is interrupted: tests/cli/test_cli_alert
        "alert.follow",
        "local.alert.follow",
        "log.follow",
        "local.run.follow",
        "kit.create",
        "kit.confirm",
        # tests/cli/test_cli_device_import
        "device.look",
        "device.read",
        "device.import",
        # as JSON its rows are objects: tests/cli/test_cli_report
        "report.show",
        "set.as-of",
        "catalog.as-of",
        # what it restores is read from a file
        "restore.selected",
        "local.restore.selected",
        "file.open",
        "file.read",
        "set.delete",
        "set.lock",
        # for programs of before
        "catalog.rebuild",
        "operator.renew",
        # one command shows what is there, changes it and saves it: tests/cli/test_cli_policies
        "selection.set",
        "policy.set",
        "mediaset.set",
        "recipient.set",
        "notify-rule.set",
        "error-rule.set",
        # a secret is sealed: tests/cli/test_cli_logon
        "logon.recipients",
        "logon.create",
        "logon.set",
        # a file is read or printed
        "config.apply",
        "config.export",
    }
    assert people - {case[1] for case in CASES} == dialogues
    assert all(isinstance(case[2], BY_NAME[case[1]].request) for case in CASES)


async def test_catalogs_that_could_not_be_asked_are_named_and_the_status_says_so(
    daemon: FakeDaemon, shell: Shell
) -> None:
    text = "catalog is on beta, not reachable since 2025-01-01T00:00:00Z"
    away = (c.CatalogAway("beta", "2025-01-01T00:00:00Z", text),)
    daemon.answers["catalog.find"] = b.MatchList((MATCH,), away=away)
    daemon.answers["catalog.versions"] = b.VersionList((VERSION,), away=away)
    for line in ("catalog find x", "catalog versions alpha:/x"):
        plain, as_json = await shell(*words(line)), await shell(*words(line), "--json")
        assert (plain.status, as_json.status) == (7, 7)
        assert f"warning: {text}" in plain.err
        assert as_json.document["away"] == [{"server": "beta", "since": "2025-01-01T00:00:00Z", "text": text}]


async def test_a_search_within_a_role_on_some_servers_says_which_ones(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["catalog.find"] = b.MatchList((), only=("alpha", "beta"))
    plain, as_json = await shell(*words("catalog find x")), await shell(*words("catalog find x --json"))
    assert plain.status == 0 and "only alpha, beta can be searched: your role is limited to them" in plain.err
    assert as_json.document["only"] == ["alpha", "beta"]


LISTS = (
    "alert list", "audit list", "catalog find x", "catalog ls s", "catalog du s", "copy list", "device list", "history",
    "job list", "medium list", "report show x", "schedule preview", "selection list", "server list", "set list",
    "what-if --night",
)  # fmt: skip


@pytest.mark.parametrize("line", LISTS)
async def test_a_limit_of_nothing_is_a_wrong_value_everywhere(daemon: FakeDaemon, shell: Shell, line: str) -> None:
    result = await shell(*words(line), "--limit", "0")
    assert result.status == 2 and "--limit" in result.err and not daemon.received


async def test_alerts_and_copies_that_are_cut_off_say_so_and_how_to_see_more(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["alert.list"] = v.AlertList((), more=True)
    daemon.answers["copy.list"] = v.CopyList((), more=True)
    for line in ("alert list", "copy list"):
        assert "There are more: a higher --limit" in (await shell(*words(line))).err


async def test_a_folder_is_listed_and_measured_as_of_a_time_by_the_set_that_shows_it(
    daemon: FakeDaemon, shell: Shell
) -> None:
    daemon.answers["catalog.as-of"] = c.CatalogChoice("set7", "alpha", "-", "2025-01-31T01:00:00Z", True)
    daemon.answers["catalog.ls"] = b.EntryList((ENTRY,))
    daemon.answers["catalog.du"] = c.UsageList("set7", (USAGE,))
    for line in ("catalog ls alpha:/srv", "catalog du alpha:/srv"):
        result = await shell(*words(line), "--as-of", "2025-01-31T02:00:00Z")
        assert result.status == 0 and "set set7 of alpha, ended 2025-01-31T01:00:00Z" in result.err
        assert daemon.received[-2].request == c.CatalogAsOf("alpha", b"/srv", 1_738_288_800 * 10**9)
    assert daemon.received[-3].request == b.CatalogList("set7", b"srv")
    assert daemon.received[-1].request == c.CatalogUsage("set7", b"srv")
    for line in (
        "catalog ls set1 --as-of 2025-01-31",
        "catalog du alpha:/srv /more",
        "catalog ls a:/x --from-device d",
    ):
        assert (await shell(*words(line))).status == 2


async def test_a_search_that_was_cut_off_says_so_and_its_status_too(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["catalog.find"] = b.MatchList((MATCH,), cut_off=True)
    result = await shell(*words("catalog find ??"))
    assert result.status == 7 and "took too long and was cut off" in result.err
    daemon.answers["catalog.find"] = b.MatchList((), cut_off=True, next="alpha:/srv/it's")
    result = await shell(*words("catalog find ??"))
    assert result.status == 7 and "goes on with --after 'alpha:/srv/it'\"'\"'s'" in result.err
    assert len(daemon.received) == 2


async def test_a_search_is_asked_for_page_by_page_up_to_the_limit_and_says_how_it_goes_on(
    daemon: FakeDaemon, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_commands, "MOST_MATCHES", 2)
    daemon.answers["catalog.find"] = b.MatchList((MATCH,) * 2, more=True, next="alpha:/srv/x")
    result = await shell(*words("catalog find x --after alpha:/srv --limit 3"))
    assert result.status == 0 and "There are more: --after alpha:/srv/x, or a higher --limit" in result.err
    assert [(each.request.after, each.request.limit) for each in daemon.received] == [
        ("alpha:/srv", 2),
        ("alpha:/srv/x", 1),
    ]


async def test_what_a_file_names_is_restored_too_one_path_a_line_escaped_or_ended_by_nul(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    daemon.answers["restore"] = daemon.answers["restore.selected"] = SUBMITTED
    few, nul, many = (tmp_path / name for name in ("few", "nul", "many"))
    few.write_bytes(b"/srv/a\\x0ab\n\nsrv/c\n")
    nul.write_bytes(b"/srv/a\nb\x00/srv/\xff\x00")
    many.write_bytes(b"".join(b"/srv/f%05d\n" % number for number in range(10_000)))
    assert (await shell("restore", "set1", "/etc", "--files-from", str(few), "--escaped")).status == 0
    assert daemon.received[-1].request == q.RestoreRequest("set1", (b"etc", b"srv/a\nb", b"srv/c"))
    assert (await shell("restore", "set1", "--files-from", str(nul), "-0")).status == 0
    assert daemon.received[-1].request == q.RestoreRequest("set1", (b"srv/a\nb", b"srv/\xff"))
    assert (await shell("restore", "set1", "--files-from", str(many))).status == 0
    last = daemon.received[-1]
    assert (last.call, last.request.paths) == ("restore.selected", ())
    assert unpack(last.request.selection) == tuple(b"srv/f%05d" % number for number in range(10_000))
    (tmp_path / "none").write_bytes(b"\n")
    for line in (
        "restore set1 -0",
        f"restore set1 --files-from {tmp_path / 'none'}",
        "restore set1 --files-from /no/such",
    ):
        assert (await shell(*words(line))).status == 2


async def test_servers_of_a_pool_that_get_no_copy_are_warned_of(daemon: FakeDaemon, shell: Shell) -> None:
    error = {"code": "usage", "message": "The selection list home names no place of gamma", "hint": ""}
    daemon.answers["copy.to"] = v.Copied((), (v.CopyRefused("gamma", error),))
    result = await shell("copy", "to", "pool:west", "--selection", "home")
    assert "warning: gamma: The selection list home names no place of gamma" in result.err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("copy to server:beta --settings --overwrite --skip", "--overwrite or --skip"),
        ("associate office nightly --local", "copy them to it"),
        ("restore alpha:/srv --local", "name the set"),
    ],
)
async def test_what_makes_no_sense_of_copies_and_local_work_is_refused_before_anybody_is_asked(
    daemon: FakeDaemon, shell: Shell, line: str, why: str
) -> None:
    result = await shell(*words(line))
    assert result.status == 2
    assert why in result.err
    assert daemon.received == []


async def test_what_was_submitted_to_a_server_itself_is_watched_there(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["local.backup"] = SUBMITTED
    result = await shell("backup", "alpha:/srv", "--to", "any", "--local")
    assert "caso-mesh job watch job1@1 --local" in result.err


async def test_warnings_of_an_answer_go_to_stderr(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["backup"] = SUBMITTED
    result = await shell("backup", "alpha:/srv", "--to", "any")
    assert "warning: /x is inside of it" in result.err
    assert "inside" not in result.out


async def test_global_options_may_stand_before_the_command(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["pool.list"] = v.PoolList((POOL,))
    result = await shell("--state", os.fspath(shell.state), "--json", "--timeout=9s", "pool", "list", state=False)
    assert result.document == {"pools": [{"name": "west", "servers": ["beta", "gamma"]}]}
    assert 0 < daemon.received[0].timeout_s <= 9


async def test_escaped_paths_are_turned_into_their_bytes(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers.update({"backup": SUBMITTED, "restore": SUBMITTED})
    await shell("backup", r"alpha:/a\x0ab\xff\x5c", "--to", "any", "--escaped")
    await shell("restore", "set1", r"x\xfe", "--to", r"beta:/\x09", "--escaped")
    assert daemon.received[0].request.sources == (("alpha", b"/a\nb\xff\\"),)
    assert daemon.received[1].request.paths == (b"/x\xfe",)
    assert daemon.received[1].request.to == ("beta", b"/\t")


async def test_paths_that_are_not_utf8_arrive_as_the_bytes_the_shell_gave(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["backup"] = SUBMITTED
    await shell("backup", "alpha:" + os.fsdecode(b"/a\xff\\x0a"), "--to", "any")
    assert daemon.received[0].request.sources == (("alpha", b"/a\xff\\x0a"),)


async def test_job_list_takes_a_state_of_runs_and_a_state_folder_by_the_same_option(
    daemon: FakeDaemon, shell: Shell
) -> None:
    daemon.answers["job.list"] = o.JobList(())
    folder = os.fspath(shell.state)
    for argv in (("--state", "running", "--state", folder), ("--state", folder, "--state", "running")):
        assert (await shell("job", "list", *argv, state=False)).status == 0
        assert daemon.received[-1].request.state == "running"
    assert (await shell("job", "list", "--state", folder, state=False)).status == 0
    assert daemon.received[-1].request.state is None
    wrong = await shell("job", "list", "--state", "runing", state=False)
    assert wrong.status == 2
    assert "neither a state" in wrong.err


async def test_what_comes_from_elsewhere_cannot_move_the_cursor_of_a_terminal(daemon: FakeDaemon, shell: Shell) -> None:
    evil = o.LogLineView("2025-01-01T00:00:00Z", "info", "\x1b[2J\x9bowned\nnext")
    daemon.answers["job.log"] = o.JobLogView((o.AttemptLog("job1@1#1", (evil,)),))
    result = await shell("job", "log", "job1@1")
    assert "\\x1b[2J\\x9bowned\\x0anext" in result.out
    assert result.out.count("\n") == 1
    # nor turn a line around, so that a program looks like a picture, hide in it, or break it
    turned = "photo\u202egpj.exe\u200b\u2028\U000e0041 \u3000ä\U0001f600"
    daemon.answers["job.log"] = o.JobLogView((o.AttemptLog("job1@1#1", (msgspec.structs.replace(evil, text=turned),)),))
    shown = r"photo\u202egpj.exe\u200b\u2028\U000e0041 " + "\u3000ä\U0001f600"
    assert shown in (await shell("job", "log", "job1@1")).out
    both = msgspec.structs.replace(evil, text=evil.text + turned)
    daemon.answers["job.log"] = o.JobLogView((o.AttemptLog("job1@1#1", (both,)),))
    result = await shell("job", "log", "job1@1", "--json")
    assert result.out.rstrip("\n").isprintable()
    assert result.document["attempts"][0]["lines"][0]["text"] == both.text
