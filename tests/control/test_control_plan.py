"""The mesh as a file: what it comes to, that it is written back as it is read, and every mistake with its line."""

from __future__ import annotations

import pathlib

import pytest
from control_world import Script
from msgspec.structs import replace

from caso_mesh.control.documents import job_doc, selection_doc
from caso_mesh.control.exporting import written
from caso_mesh.control.lines import Lines
from caso_mesh.control.plan import Plan
from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import Batch
from caso_mesh.model.logons import Logon, PutLogon
from caso_mesh.model.rules import ErrorRule, Then
from caso_mesh.model.states import Priority

SEED = "01jh0000000000000000000000"

FILE = """\
# a small office
[settings]
stalled-after-s = "10m"
runs-kept = 5000

[pool.vaults]
servers = ["beta", "gamma"]
settings = { server-concurrency = 3 }

[server.beta.settings]
bandwidth-limit = "mon-fri 08:00-18:00 20MB"

[pool.empty]

[server.gamma]
state = "paused"

[device.disk-b]
concurrency = 4
low_space = "10GB"
state = "paused"
quotas = { beta = "2TB" }
disabled = ["beta"]

[device_pool.disks]
devices = ["disk-b:10", "disk-c"]

[media_set.two-years]
protection = "30d"
keep = "730d"
keep_monthly = 24
medium_size = "1TB"

[calendar.holidays]
days = ["2025-12-24..2026-01-01"]

[error_rule.full]
errors = ["device-full", "data"]
retries = 3
every = "20m"
then = "hold"
any_time = true

[device_pool.later]

[selection.office]
paths = ["beta:/etc", "gamma:/srv"]
exclude = ["*.tmp"]
window = "zone Europe/Berlin; 20:00-06:00"
oldest_good = "26h"

[[selection.office.entries]]
path = "beta:/home"
exclude = [
    "*.iso",  # big
    "cache/",
]

[policy.nightly]
zone = "Europe/Berlin"
rules = [
    "on conflict monthly supersedes weekly",
    "when weekly succeeds start check",
]

[policy.nightly.templates.daily]
type = "incremental"
to = "devices:disks"
schedule = "daily 22:00"
calendars = ["holidays"]

[policy.nightly.templates.weekly]
type = "full"
to = "pool:vaults"
schedule = "fri 22:00"
catch_up = true

[policy.nightly.templates.monthly]
type = "full"
to = "pool:vaults"
schedule = "last fri 22:00"
media_set = "two-years"

[policy.nightly.templates.check]
type = "verify"

[associations]
office = ["nightly"]

[job.by-hand]
paths = ["beta:/var", "gamma:/var"]
to = "any"
schedule = "0 3 * * *"
priority = "high"
"""


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma")
    script.device("disk-b", "beta")
    script.device("disk-c", "gamma")
    return script


def plan_of(mesh: Script, text: str) -> Plan:
    """The plan with the mistakes that a rehearsal finds."""
    plan = Plan(mesh.state, text, who="ann", at_ns=mesh.at_ns, seed=SEED)
    plan.rehearse()
    return plan


def apply(mesh: Script, text: str) -> list[str]:
    plan = plan_of(mesh, text)
    assert plan.mistakes == []
    if plan.steps:
        mesh.do(Batch(plan.commands(), SEED))
    return [f"{step.change.action} {step.change.kind} {step.change.name}" for step in plan.steps]


def test_a_file_makes_the_mesh_as_it_says_and_again_changes_nothing(mesh):
    changes = apply(mesh, FILE)
    assert changes == [
        "create setting mesh",
        "create setting mesh",
        "create pool vaults",
        "create setting pool vaults",
        "create pool empty",
        "create setting server beta",
        "change server gamma",
        "change device disk-b",
        "change device disk-b",
        "create device pool disks",
        "create device pool later",
        "create media set two-years",
        "create calendar holidays",
        "create error rule full",
        "create selection list office",
        "create policy nightly",
        "create association office nightly",
        "create job by-hand",
    ]
    assert [job.name for job in mesh.state.job_list()] == [
        "by-hand",
        "office.nightly.check",
        "office.nightly.daily",
        "office.nightly.monthly",
        "office.nightly.weekly",
    ]
    assert mesh.state.job_named("by-hand").priority is Priority.HIGH
    assert mesh.state.job_named("office.nightly.daily").schedule.excludes == ("2025-12-24..2026-01-01",)
    assert mesh.state.settings_of("node-beta")["server-concurrency"] == 3
    disk = mesh.state.device_named("disk-b")
    assert (disk.low_space_bytes, disk.state, disk.paths[0].quota_bytes) == (10**10, "paused", 2 * 10**12)
    assert mesh.state.error_rules["full"] == ErrorRule("full", ("device-full", "data"), 3, 1200.0, Then.HOLD, True)
    assert apply(mesh, FILE) == []


def test_what_is_exported_is_as_it_is_and_makes_another_mesh_alike(mesh):
    apply(mesh, FILE)
    text = written(mesh.state)
    assert apply(mesh, text) == []
    other = Script()
    other.admit("beta", "gamma")
    other.device("disk-b", "beta")
    other.device("disk-c", "gamma")
    apply(other, text)
    assert written(other.state) == text


def test_the_order_of_places_in_an_export_is_that_of_names_and_not_of_keys(mesh):
    """Two meshes that were alike wrote different files."""
    apply(mesh, FILE)
    row = next(iter(mesh.state.lists.values()))
    turned = replace(row, entries=row.entries[::-1])
    assert {entry.server for entry in row.entries} == {"node-beta", "node-gamma"}
    assert selection_doc(mesh.state, turned) == selection_doc(mesh.state, row)
    job = mesh.state.job_named("by-hand")
    assert len(job.spec.sources) == 2
    spec = replace(job.spec, sources=job.spec.sources[::-1])
    assert job_doc(mesh.state, replace(job, spec=spec)) == job_doc(mesh.state, job)


def test_an_error_rule_of_a_file_is_changed_in_one_step_and_only_that(mesh):
    apply(mesh, FILE)
    plan = plan_of(mesh, FILE.replace('every = "20m"', 'every = "1h"').replace("any_time = true\n", ""))
    assert [(step.change.action, step.change.name, step.change.details) for step in plan.steps] == [
        ("change", "full", ('every: "20m" -> "1h"', "any_time: true -> as usual"))
    ]
    mesh.do(Batch(plan.commands(), SEED))
    assert mesh.state.error_rules["full"] == ErrorRule("full", ("device-full", "data"), 3, 3600.0, Then.HOLD)


def test_a_quota_is_taken_back_by_a_file_that_says_none(mesh):
    apply(mesh, FILE)
    assert apply(mesh, '[device.disk-b.quotas]\nbeta = "none"\n') == ["change device disk-b"]
    assert mesh.state.device_named("disk-b").paths[0].quota_bytes is None
    assert apply(mesh, '[device.disk-b.quotas]\nbeta = "none"\n') == []


def test_a_device_is_used_again_by_a_server_that_a_file_disables_no_more(mesh):
    apply(mesh, FILE)
    assert apply(mesh, "[device.disk-b]\nconcurrency = 4\n") == []
    assert [path.enabled for path in mesh.state.device_named("disk-b").paths] == [False], "what is not named stays"
    both = '[device.disk-b]\ndisabled = []\nquotas = { beta = "1TB" }\n'
    assert apply(mesh, both) == ["change device disk-b", "change device disk-b"]
    (path,) = mesh.state.device_named("disk-b").paths
    assert (path.enabled, path.quota_bytes) == (True, 10**12)
    assert apply(mesh, both) == []


def test_a_dry_run_tells_each_value_that_changes(mesh):
    apply(mesh, FILE)
    changed = FILE.replace('schedule = "daily 22:00"', 'schedule = "daily 21:00"').replace("keep_monthly = 24", "")
    plan = plan_of(mesh, changed)
    assert [(step.change.kind, step.change.details) for step in plan.steps] == [
        ("media set", ("keep_monthly: 24 -> as usual",)),
        ("policy", ('templates.daily.schedule: "daily 22:00" -> "daily 21:00"',)),
    ]


def test_what_the_file_does_not_name_stays_and_the_policies_of_a_list_it_names_are_those_alone(mesh):
    apply(mesh, FILE)
    assert apply(mesh, '[calendar.holidays]\ndays = ["2026-05-01"]\n') == ["change calendar holidays"]
    assert len(mesh.state.jobs) == 5
    assert apply(mesh, "[associations]\noffice = []\n") == ["delete association office nightly"]
    assert [job.name for job in mesh.state.job_list()] == ["by-hand"]


def test_a_job_by_hand_is_changed_and_keeps_its_id(mesh):
    apply(mesh, FILE)
    id = mesh.state.job_named("by-hand").id
    assert apply(mesh, FILE.replace('"0 3 * * *"', '"daily 04:00"')) == ["change job by-hand"]
    assert (mesh.state.job_named("by-hand").id, mesh.state.job_named("by-hand").schedule.text) == (id, "daily 04:00")
    wrong = plan_of(mesh, FILE.replace("[job.by-hand]", '[job."office.nightly.daily"]'))
    assert [mistake.message.partition(" was made")[0] for mistake in wrong.mistakes] == [
        'The job "office.nightly.daily"'
    ]


MISTAKES = """\
[settings]
stalled-after-s = "soon"
no-such-setting = 1

[pool.vaults]
servers = ["beta", "nowhere"]

[media_set.archive]
keep = "28 days or so"
kep_last = 3

[selection.office]
paths = ["beta:/etc", "beta:srv"]

[selection.home]
paths = ["gamma:/home"]
window = "whenever"

[policy.nightly]
rules = [
    "full then inc",
    "full eats inc",
]
[policy.nightly.templates.full]
type = "full"
to = "pool:vaults"
schedule = "0 0 30 2 *"
zone = "Europe/Atlantis"
[policy.nightly.templates.inc]
type = "duplicate"
catch_up = "yes"

[policy.good.templates.full]
type = "full"
to = "device:disk-x"

[associations]
home = ["nightly", "never"]

[colour.red]
[server.gamma]
state = "asleep"
data_location = "server"
"""


def test_a_dozen_mistakes_in_one_file_are_all_told_with_their_lines_and_nothing_is_done(mesh):
    before = mesh.state.snapshot()
    plan = plan_of(mesh, MISTAKES)
    assert sorted((mistake.line, mistake.place) for mistake in plan.mistakes) == [
        (2, "settings.stalled-after-s"),
        (3, "settings.no-such-setting"),
        (6, "pool.vaults.servers"),
        (9, "media_set.archive.keep"),
        (10, "media_set.archive.kep_last"),
        (13, "selection.office.paths"),
        (17, "selection.home.window"),
        (21, "policy.nightly.rules"),
        (22, "policy.nightly.rules"),
        (27, "policy.nightly.templates.full.schedule"),
        (28, "policy.nightly.templates.full.zone"),
        (31, "policy.nightly.templates.inc.catch_up"),
        (35, "policy.good.templates.full.to"),
        (38, "associations.home"),
        (40, "colour"),
        (42, "server.gamma.state"),
        (43, "server.gamma.data_location"),
    ]
    assert mesh.state.snapshot() == before


def test_what_only_follows_from_another_mistake_is_not_told(mesh):
    plan = plan_of(
        mesh,
        '[media_set.archive]\nkeep = "x"\n[policy.p.templates.t]\ntype = "full"\nto = "any"\nmedia_set = "archive"\n',
    )
    assert [(mistake.line, mistake.place) for mistake in plan.mistakes] == [(2, "media_set.archive.keep")]


@pytest.mark.parametrize(
    ("text", "line"),
    [("[pool.x\n", 1), ("[a]\nb = 1\nb = 2\n", 3), ('x = """\n', 1), ("pool = 3\n", 1), ("[policy]\nnightly = 3\n", 2)],
)
def test_what_is_no_such_file_is_one_mistake_with_its_line(mesh, text, line):
    plan = Plan(mesh.state, text, who="ann", at_ns=1, seed=SEED)
    assert plan.steps == []
    assert [mistake.line for mistake in plan.mistakes][:1] == [line]


def test_a_schedule_outside_the_window_of_a_list_in_the_file_is_told_at_its_template(mesh):
    bad = FILE.replace('schedule = "fri 22:00"', 'schedule = "fri 12:00"')
    (mistake,) = plan_of(mesh, bad).mistakes
    assert (mistake.line, mistake.place) == (
        bad.splitlines().index('schedule = "fri 12:00"') + 1,
        "policy.nightly.templates.weekly",
    )
    assert "outside the window" in mistake.message


def test_lines_are_found_through_long_lists_texts_and_dotted_keys():
    lines = Lines(
        'a.b = 1\nc = [\n  "x = 1",\n  "[d]",\n]\nt = """\n[no]\nno = 1\n"""\n["q r".\'s\']\nkey = {z = [1]}\nlast = 2\n'
    )
    assert lines.of(("a", "b")) == 1
    assert lines.of(("c",)) == 2
    assert lines.of(("d",)) == 1
    assert lines.of(("no",)) == 1
    assert lines.of(("q r", "s", "key")) == 11
    assert lines.of(("q r", "s", "last")) == 12
    assert lines.of_value(("c",), ["[d]"]) == 4


def test_a_plan_leaves_the_state_alone(mesh):
    before = mesh.state.snapshot()
    plan_of(mesh, FILE)
    assert mesh.state.snapshot() == before
    state = ControlState()
    state.restore(before)


def test_the_file_in_the_guide_is_one_that_can_be_applied():
    guide = (pathlib.Path(__file__).parents[2] / "caso_mesh" / "docs" / "guide.md").read_text("utf-8")
    text = guide.split("```toml\n[settings]", 1)[1].split("```", 1)[0]
    mesh = Script()
    mesh.admit("beta", "gamma", "files", "web")
    mesh.device("disk1", "beta")
    mesh.device("attic", "gamma")
    assert len(apply(mesh, "[settings]" + text)) == 14
    assert apply(mesh, "[settings]" + text) == []


LOGONS = """\
[selection.dbs]

[[selection.dbs.entries]]
path = "beta:@pg"
logon = "accounts"

[policy.nightly.templates.full]
type = "full"
to = "any"
pre = "stop"
logon = "accounts"

[job.weekly]
paths = ["beta:@pg"]
to = "any"
schedule = "sun 02:00"
logon = "accounts"
"""


def test_a_file_names_logons_which_are_not_in_it_and_every_mistake_about_one_has_its_line(mesh):
    absent = plan_of(mesh, LOGONS)
    assert [(each.line, each.message) for each in absent.mistakes] == [
        (5, 'There is no logon "accounts".'), (11, 'There is no logon "accounts".'), (17, 'There is no logon "accounts".'),
    ]  # fmt: skip
    mesh.do(PutLogon(Logon("accounts", "backup", ("node-gamma",), (), "v1", 0, {}, "", 0), 0))
    elsewhere = plan_of(mesh, LOGONS)
    assert [(each.line, each.message) for each in elsewhere.mistakes] == [
        (4, "beta may not use the logon accounts."), (17, "beta may not use the logon accounts."),
    ]  # fmt: skip
    mesh.do(PutLogon(Logon("accounts", "backup", ("node-beta",), (), "v1", 0, {"node-beta": b"sealed"}, "", 0), 1))
    apply(mesh, LOGONS)
    text = written(mesh.state)
    assert text.count('logon = "accounts"') == 3 and "sealed" not in text
    assert plan_of(mesh, text).steps == []
