"""What commands about policies ask, and what they print."""

from __future__ import annotations

from typing import Any

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model import what_if as w
from caso_mesh.model.documents import (
    CalendarDoc,
    DevicePoolDoc,
    EntryDoc,
    MediaSetDoc,
    PolicyDoc,
    SelectionDoc,
    TemplateDoc,
)

LISTED = SelectionDoc(
    ("files:/srv",), (EntryDoc("web:/var", ("*.tmp",)),), window="20:00-06:00", within="pool:west", oldest_good="26h"
)
SELECTION = v.SelectionView(
    "office", "l1", LISTED, ("nightly",), ("office.nightly.full",), "2025-01-01T00:00:00Z", "ann"
)
POLICY_DOC = PolicyDoc(
    {
        "full": TemplateDoc("full", to="any", schedule="fri 22:00", catch_up=True, calendars=("holidays",)),
        "check": TemplateDoc("verify"),
    },
    ("when full succeeds start check",),
    zone="Europe/Berlin",
)
POLICY = v.PolicyView("nightly", "p1", POLICY_DOC, ("office",), ("office.nightly.full",), "2025-01-01T00:00:00Z", "ann")
CALENDAR = v.CalendarView("holidays", CalendarDoc(("2025-12-24",)))
POOL = v.DevicePoolView("disks", DevicePoolDoc(("disk1:10", "disk2")))
WHAT_IF = w.WhatIfView(
    verdict="1 of 2 runs are done by 05:12, 12m 00s later than with beta, nas; 1 list misses: home (beta is unreachable).",
    good=False,
    ends="2025-01-11T04:12:00Z",
    usual_ends="2025-01-11T04:00:00Z",
    later_s=720.0,
    begins="2025-01-10T15:00:00Z",
    until="2025-01-11T05:30:00Z",
    zone="Europe/Berlin",
    without=("beta",),
    without_devices=("nas",),
    runs_total=2,
    lists=(
        w.WhatIfList("home", "list", 2, 1, 1, 0, 0, None, "beta is unreachable", ("beta",), usual=False),
        w.WhatIfList("office", "list", 1, 1, 0, 0, 0, None, None, (), usual=True),
    ),
    servers=(w.WhatIfServer("alpha", False, 1, 720.0, 25.0), w.WhatIfServer("beta", True, 0, 0.0, 0.0)),
    devices=(
        w.WhatIfDevice("disk1", False, 1, 720.0, 25.0, 8000, 90_000, 82_000, None, 9000, 9.1),
        w.WhatIfDevice("disk2", False, 1, 720.0, 25.0, 8000, 9000, 1000, "2025-01-11T02:00:00Z", 9000, 0.0),
        w.WhatIfDevice("nas", True, 0, 0.0, 0.0, 0, None, None, None, 0, None),
    ),
    runs=(
        w.WhatIfRun("j@1", "office.nightly.full", "backup", "office", "alpha", "2025-01-10T21:00:00Z", "succeeded",
                    "2025-01-11T04:00:00Z", "2025-01-11T04:12:00Z", "alpha", "disk1", 8000, False, "no-idle-device",
                    "all devices are busy", "succeeded", "2025-01-11T03:48:00Z", "2025-01-11T04:00:00Z"),
        w.WhatIfRun("j@2", "home.nightly.full", "backup", "home", "beta", "2025-01-10T21:00:00Z", "missed", None, None,
                    None, None, 0, False, "source-unreachable", "beta is unreachable", "succeeded"),
    ),
    more=False,
    guessed=0,
    typical_s=600.0,
    notes=("Times of day are those of Europe/Berlin.",),
)  # fmt: skip
PREVIEW = v.PreviewList(
    (
        v.PreviewRow("2025-01-10T21:00:00Z", "office.nightly.full", "full", "office", "nightly", "full", "scheduled",
                     after="office.nightly.x", starts=("when full succeeds start check",)),
        v.PreviewRow("2025-01-10T21:00:00Z", "office.nightly.daily", "incremental", "office", "nightly", "daily",
                     "superseded", by="office.nightly.full", by_due="2025-01-10T21:00:00Z"),
    ),
    more=True,
)  # fmt: skip

STORY = o.Story(
    "office", "list", "2025-01-10", "Europe/Berlin",
    (
        o.StoryRun("j@1", "office.nightly.full", "running", "2025-01-10T21:00:00Z", None,
                   (o.SetOutcome("files", None, "delegated"),)),
        o.StoryRun("j@2", "office.nightly.daily", "superseded", "2025-01-10T21:00:00Z", "2025-01-10T21:00:00Z",
                   (o.SetOutcome("files", None, "superseded"),)),
    ),
    (
        o.StoryLine("2025-01-10T21:00:01Z", "waited", "waited 1m 00s: all devices of the target are busy: dev", run="j@1",
                    name="office.nightly.full", source="files", reason="no-idle-device", seconds=60.0,
                    until="2025-01-10T21:01:01Z"),
    ),
)  # fmt: skip

CREATED = (
    "selection create office files:/srv --exclude *.o --include *.c --priority high --window 20:00-06:00 --within none "
    "--oldest-good 26h --one-file-system --no-default-excludes --exclude-larger-than 5GB --exclude-caches"
)

COPY = v.CopyView(
    "c1", 7, "beta", "taken", "skip", "2025-01-10T21:00:00Z", "ann", "2025-01-10T21:00:01Z",
    (v.CopyOutcome("policy", "nightly", "made"), v.CopyOutcome("job", "logs", "refused", "There is no device disk.")),
)  # fmt: skip
COPY_CASES: list[tuple[str, str, Any, Any, list[str]]] = [
    (
        "copy to pool:west --policy nightly --policy weekly --selection office --overwrite",
        "copy.to",
        q.CopyTo("pool:west", ("nightly", "weekly"), ("office",), overwrite=True),
        v.Copied((COPY,)),
        ["copied to beta", "caso-mesh copy list --server beta"],
    ),
    (
        "copy to server:beta --job logs --error-rules --settings --skip",
        "copy.to",
        q.CopyTo("server:beta", jobs=("logs",), error_rules=True, settings=True),
        v.Copied((), settings=2),
        ["settings of the mesh are those of 2 servers now"],
    ),
    (
        "copy list --server beta",
        "copy.list",
        q.CopyListRequest("beta"),
        v.CopyList((COPY,)),
        ["policy", "nightly", "made", "There is no device disk."],
    ),
]

POLICY_CASES: list[tuple[str, str, Any, Any, list[str]]] = [
    (
        "selection list",
        "selection.list",
        q.SelectionListRequest(),
        v.SelectionViews((SELECTION,)),
        ["office", "files:/srv, web:/var"],
    ),
    (
        "selection show office",
        "selection.show",
        q.Named("office"),
        SELECTION,
        ["exclude *.tmp", "pool:west", "26h", "nightly", "office.nightly.full"],
    ),
    (
        CREATED,
        "selection.create",
        q.SelectionCreate(
            "office",
            SelectionDoc(
                ("files:/srv",),
                exclude=("*.o",),
                include=("*.c",),
                one_file_system=True,
                exclude_caches=True,
                exclude_larger_than="5GB",
                default_excludes=False,
                priority="high",
                window="20:00-06:00",
                oldest_good="26h",
            ),
        ),
        SELECTION,
        ["office"],
    ),
    ("selection rename office site", "selection.rename", q.Renamed("office", "site"), SELECTION, ["office"]),
    ("selection copy office site", "selection.copy", q.Renamed("office", "site"), SELECTION, ["office"]),
    ("selection delete office", "selection.delete", q.Named("office"), v.Done(), ["deleted"]),
    ("policy list", "policy.list", q.Nothing(), v.PolicyViews((POLICY,)), ["nightly", "full, check", "office"]),
    (
        "policy show nightly",
        "policy.show",
        q.Named("nightly"),
        POLICY,
        ["when full succeeds start check", "fri 22:00", "catch-up", "calendar=holidays"],
    ),
    (
        "policy create nightly --zone Europe/Berlin",
        "policy.create",
        q.PolicyCreate("nightly", PolicyDoc(zone="Europe/Berlin")),
        POLICY,
        ["nightly"],
    ),
    ("policy rename nightly n", "policy.rename", q.Renamed("nightly", "n"), POLICY, ["nightly"]),
    ("policy copy nightly n", "policy.copy", q.Renamed("nightly", "n"), POLICY, ["nightly"]),
    ("policy delete nightly", "policy.delete", q.Named("nightly"), v.Done(), ["deleted"]),
    ("associate office nightly", "associate", q.AssociationEdit("office", "nightly"), POLICY, ["office.nightly.full"]),
    (
        "associate office nightly --remove",
        "dissociate",
        q.AssociationEdit("office", "nightly"),
        POLICY,
        ["not backed up by the policy nightly any more"],
    ),
    ("calendar list", "calendar.list", q.Nothing(), v.CalendarViews((CALENDAR,)), ["holidays", "2025-12-24"]),
    (
        "calendar create holidays --day 2025-12-24",
        "calendar.create",
        q.CalendarEdit("holidays", CalendarDoc(("2025-12-24",))),
        CALENDAR,
        ["holidays"],
    ),
    (
        "calendar set holidays --day 2025-12-24",
        "calendar.set",
        q.CalendarEdit("holidays", CalendarDoc(("2025-12-24",))),
        CALENDAR,
        ["holidays"],
    ),
    ("calendar delete holidays", "calendar.delete", q.Named("holidays"), v.Done(), ["deleted"]),
    ("device pool list", "device-pool.list", q.Nothing(), v.DevicePoolViews((POOL,)), ["disks", "disk1:10, disk2"]),
    (
        "device pool create disks --device disk1:10 --device disk2",
        "device-pool.create",
        q.DevicePoolEdit("disks", DevicePoolDoc(("disk1:10", "disk2"))),
        POOL,
        ["disk1:10"],
    ),
    (
        "device pool set disks --device disk1",
        "device-pool.set",
        q.DevicePoolEdit("disks", DevicePoolDoc(("disk1",))),
        POOL,
        ["disk1:10"],
    ),
    ("device pool delete disks", "device-pool.delete", q.Named("disks"), v.Done(), ["deleted"]),
    (
        "mediaset create archive --protection 365d --keep none --keep-monthly 24 --medium-size 1TB",
        "mediaset.create",
        q.MediaSetEdit("archive", MediaSetDoc(protection="365d", keep="none", keep_monthly=24, medium_size="1TB")),
        v.Done(),
        ["archive"],
    ),
    ("mediaset delete archive", "mediaset.delete", q.Named("archive"), v.Done(), ["deleted"]),
    (
        "schedule preview office --days 30 --limit 9",
        "schedule.preview",
        q.SchedulePreview("office", 30.0, 9),
        PREVIEW,
        ["superseded", "office.nightly.full is due at 2025-01-10T21:00:00Z", "runs after office.nightly.x"],
    ),
    (
        "what-if --without beta --without-device nas --night --until 06:30 --runs --limit 7",
        "what-if",
        w.WhatIf(("beta",), ("nas",), morning="06:30", limit=7),
        WHAT_IF,
        [
            "1 of 2 runs are done by 05:12, 12m 00s later than with beta, nas; 1 list misses: home (beta is unreachable).",
            "1 of 2",
            "not done",
            "in 9 days",
            "at 2025-01-11T02:00:00Z",
            "8.0 kB",
            "office.nightly.full",
            "missed",
            "all devices are busy",
            "25 %",
        ],
    ),
    (
        "what-if --days 3 --from 2025-01-10T20:00:00+01:00",
        "what-if",
        w.WhatIf(from_ns=1_736_535_600_000_000_000, days=3),
        WHAT_IF,
        ["1 of 2 runs are done", "disk1"],
    ),
    (
        "why office --night 2025-01-10",
        "why",
        q.Why("office", "2025-01-10"),
        STORY,
        [
            "list office, night of 2025-01-10 (Europe/Berlin)",
            "2025-01-10T21:00:01Z  office.nightly.full: waited 1m 00s: all devices of the target are busy: dev",
            "office.nightly.daily (j@2): superseded, no set",
        ],
    ),
]
