"""Wrong input, line by line of what must be shown: each mistake is refused with its reason and its place, all of them at
once, and nothing is applied by halves."""

from __future__ import annotations

import random
from typing import Any

import pytest
from control_world import Script, backup, job
from msgspec.structs import replace

from caso_mesh.control.plan import Plan
from caso_mesh.control.reducer import validate
from caso_mesh.model.commands import (
    Batch,
    CreateJob,
    CreatePool,
    DeleteCalendar,
    DeleteDevicePool,
    DeleteList,
    DeleteMediaSet,
    DeletePolicy,
    DeletePool,
    Dissociate,
    RemoveDevice,
    RemoveServer,
    RunNow,
)
from caso_mesh.model.errors import InUse
from caso_mesh.model.jobs import CronSchedule, Target, TargetKind
from caso_mesh.model.mesh import Pool

SEED = "01jh0000000000000000000000"

SOUND = """\
[pool.vaults]
servers = ["beta"]

[media_set.archive]
keep = "30d"

[device_pool.disks]
devices = ["disk-b"]

[calendar.holidays]
days = ["2025-12-24"]

[selection.home]
paths = ["gamma:/home"]
window = "zone Europe/Berlin; 20:00-06:00"

[policy.nightly]
zone = "Europe/Berlin"
rules = [
    "on conflict full supersedes inc",
    "when full succeeds start check",
]

[policy.nightly.templates.full]
type = "full"
to = "devices:disks"
schedule = "fri 22:00"
media_set = "archive"

[policy.nightly.templates.inc]
type = "incremental"
to = "pool:vaults"
schedule = "daily 22:00"
calendars = ["holidays"]

[policy.nightly.templates.check]
type = "verify"

[associations]
home = ["nightly"]

[job.logs]
paths = ["gamma:/var/log"]
to = "any"
schedule = "hourly :30"
"""


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma")
    script.device("disk-b", "beta")
    return script


def wrong(mesh: Script, *changes: tuple[str, str]) -> list[tuple[str, str, str]]:
    """What is told of the sound file after some changes: the line itself, the place and the reason. Nothing is done."""
    text = SOUND
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    before = mesh.state.snapshot()
    plan = Plan(mesh.state, text, who="ann", at_ns=mesh.at_ns, seed=SEED)
    plan.rehearse()
    assert mesh.state.snapshot() == before
    lines = text.splitlines()
    told = sorted(plan.mistakes, key=lambda each: (each.line, each.place))
    return [(lines[each.line - 1].strip().rstrip(","), each.place, each.message) for each in told]


def saved(mesh: Script) -> None:
    plan = Plan(mesh.state, SOUND, who="ann", at_ns=mesh.at_ns, seed=SEED)
    plan.rehearse()
    assert plan.mistakes == []
    mesh.do(Batch(plan.commands(), SEED))


def test_the_file_that_these_mistakes_are_made_in_is_sound(mesh):
    assert wrong(mesh) == []


def test_conflicting_rules_are_refused_at_the_one_that_contradicts(mesh):
    second = '"full supersedes inc",\n    "on conflict inc supersedes full"'
    (told,) = wrong(mesh, ('"on conflict full supersedes inc"', second))
    assert told[:2] == ('"on conflict inc supersedes full"', "policy.nightly.rules")
    assert '"on conflict full supersedes inc" and "on conflict inc supersedes full" contradict each other' in told[2]
    again = '"when full succeeds start check",\n    "when full completes start check"'
    (told,) = wrong(mesh, ('"when full succeeds start check"', again))
    assert told[:2] == ('"when full completes start check"', "policy.nightly.rules")


def test_cycles_among_templates_are_refused_at_the_rules_that_close_them(mesh):
    rules = (
        '"on conflict full then inc",\n    "on conflict inc then more",\n    "on conflict more then full",\n'
        '    "when check succeeds start copy",\n    "when copy fails start check"'
    )
    more = '[policy.nightly.templates.{}]\ntype = "copy"\nto = "any"\n{}\n[associations]'
    told = wrong(
        mesh,
        ('"on conflict full supersedes inc"', rules),
        ("[associations]", more.format("more", 'schedule = "fri 22:00"\n')),
        ("[associations]", more.format("copy", "")),
    )
    assert [each[:2] for each in told] == [
        ('"on conflict more then full"', "policy.nightly.rules"),
        ('"when copy fails start check"', "policy.nightly.rules"),
    ]
    assert "full -> inc -> more -> full" in told[0][2]
    assert "check -> copy -> check" in told[1][2]


def test_empty_target_sets_are_refused_at_their_templates(mesh):
    told = wrong(mesh, ('to = "devices:disks"', 'to = "server:gamma"'), ('servers = ["beta"]', "servers = []"))
    assert [each[:2] for each in told] == [
        ('to = "server:gamma"', "policy.nightly.templates.full"),
        ('to = "pool:vaults"', "policy.nightly.templates.inc"),
    ]
    assert told[1][2] == "No device belongs to the target pool:vaults of the template inc, for the selection list home."
    told = wrong(
        mesh,
        ('to = "devices:disks"', 'to = "devices:none"'),
        ("[selection.home]", '[selection.home]\nwithin = "pool:no"'),
    )
    assert [each[:2] for each in told] == [
        ('within = "pool:no"', "selection.home.within"),
        ('to = "devices:none"', "policy.nightly.templates.full.to"),
    ]  # fmt: skip


@pytest.mark.parametrize("window", ["25:00-26:00", "funday 20:00-06:00", "20:00", "mon-fri 20:00-06:00 06:00-07:00"])
def test_a_window_that_cannot_be_is_refused_at_its_line(mesh, window):
    (told,) = wrong(mesh, ("zone Europe/Berlin; 20:00-06:00", window))
    assert told[:2] == (f'window = "{window}"', "selection.home.window")
    assert window in told[2]


def test_a_window_in_which_a_schedule_cannot_start_is_refused_at_each_of_its_templates(mesh):
    told = wrong(mesh, ("zone Europe/Berlin; 20:00-06:00", "zone Europe/Berlin; sat 08:00-10:00"))
    assert [each[:2] for each in told] == [
        ('schedule = "fri 22:00"', "policy.nightly.templates.full"),
        ('schedule = "daily 22:00"', "policy.nightly.templates.inc"),
    ]
    assert "Friday 22:00 is outside the window" in told[0][2]
    (told,) = wrong(mesh, ('schedule = "fri 22:00"', 'schedule = "fri 22:00"\nstart_window = "0s"'))
    assert told[:2] == ('start_window = "0s"', "policy.nightly.templates.full.start_window")


def test_unknown_zones_are_refused_wherever_one_may_stand(mesh):
    told = wrong(
        mesh,
        ("zone Europe/Berlin; 20", "zone Europe/Berlim; 20"),
        ('zone = "Europe/Berlin"', 'zone = "Berlin"'),
        ('schedule = "fri 22:00"', 'schedule = "fri 22:00"\nzone = "Mars/Olympus"'),
        ('schedule = "hourly :30"', 'schedule = "hourly :30"\nzone = "Europe/Atlantis"'),
    )
    assert [each[1:] for each in told] == [
        ("selection.home.window", 'There is no time zone "Europe/Berlim".'),
        ("policy.nightly.zone", 'There is no time zone "Berlin".'),
        ("policy.nightly.templates.full.zone", 'There is no time zone "Mars/Olympus".'),
        ("job.logs.zone", 'There is no time zone "Europe/Atlantis".'),
    ]


def test_a_cron_line_that_never_fires_is_refused_at_its_line(mesh):
    told = wrong(
        mesh,
        ('schedule = "fri 22:00"', 'schedule = "0 22 30 2 *"'),
        ('schedule = "hourly :30"', 'schedule = "0 0 31 4,6,9,11 *"'),
        ('schedule = "daily 22:00"', 'schedule = "61 22 * * *"'),
    )
    assert [each[:2] for each in told] == [
        ('schedule = "0 22 30 2 *"', "policy.nightly.templates.full.schedule"),
        ('schedule = "61 22 * * *"', "policy.nightly.templates.inc.schedule"),
        ('schedule = "0 0 31 4,6,9,11 *"', "job.logs.schedule"),
    ]
    assert all(" is not valid: " in each[2] for each in told)


def test_deleting_what_is_in_use_is_refused_and_names_who_uses_it(mesh):
    saved(mesh)
    state = mesh.state
    nightly, home, disk = state.policy_named("nightly").id, state.list_named("home").id, state.device_named("disk-b").id
    run = mesh.do(RunNow(state.job_named("home.nightly.full").id, mesh.at_ns))["run"]
    mesh.do(CreatePool(Pool("one", ("node-beta",))))
    daily = CronSchedule("0 3 * * *", "UTC")
    by_hand = job("by-hand", backup("gamma", to=Target(TargetKind.POOL, "one")), schedule=daily)
    mesh.do(CreateJob(by_hand, run_now=False, at_ns=mesh.at_ns))
    before = {
        name: getattr(state, name).copy() for name in ("lists", "policies", "pools", "devices", "jobs", "servers")
    }
    cases: list[tuple[Any, str]] = [
        (DeleteList(home), "policy nightly"),
        (DeletePolicy(nightly), "selection list home"),
        (DeleteMediaSet("archive"), "template full of the policy nightly"),
        (DeleteDevicePool("disks"), "template full of the policy nightly"),
        (DeleteCalendar("holidays"), "template inc of the policy nightly"),
        (DeletePool("vaults"), "template inc of the policy nightly"),
        (DeletePool("one"), "by-hand"),
        (RemoveDevice(disk), "device pool disks"),
        (RemoveServer("node-alpha", admin="node-alpha"), "administrator"),
        (Dissociate(nightly, home), run),
    ]
    for command, user in cases:
        with pytest.raises(InUse) as refused:
            mesh.do(command)
        assert user in refused.value.message, command
    assert {name: getattr(state, name) for name in before} == before
    # what a file dissolves is refused there, with its line
    text = "[associations]\nhome = []\n"
    plan = Plan(state, text, who="ann", at_ns=mesh.at_ns, seed=SEED)
    plan.rehearse()
    assert [(each.line, each.place) for each in plan.mistakes] == [(2, "associations.home")]


def test_a_file_with_ten_different_mistakes_tells_all_of_them_with_line_key_and_reason_and_does_nothing(mesh):
    told = wrong(
        mesh,
        ('servers = ["beta"]', 'servers = ["beta", "nowhere"]'),  # a server that is not there
        ('keep = "30d"', 'keep = "thirty"\nkep_last = 3'),  # no duration; an unknown key
        ('devices = ["disk-b"]', 'devices = ["disk-b:first"]'),  # no priority
        ('days = ["2025-12-24"]', 'days = ["2025-13-24"]'),  # no day
        ('paths = ["gamma:/home"]', 'paths = ["gamma:/home", "gamma:relative"]'),  # no absolute path
        ('"when full succeeds start check"', '"when full succeds start check"'),  # no rule
        ('schedule = "fri 22:00"', 'schedule = "fryday 22:00"\nverify = "yes"'),  # no schedule; a wrong type
        ('type = "verify"', 'type = "verity"'),  # no type
        ('to = "any"', 'to = "everywhere"'),  # no target
        ('home = ["nightly"]', 'home = ["nightly", "weekly"]'),  # no policy
    )
    assert [each[:2] for each in told] == [
        ('servers = ["beta", "nowhere"]', "pool.vaults.servers"),
        ('keep = "thirty"', "media_set.archive.keep"),
        ("kep_last = 3", "media_set.archive.kep_last"),
        ('devices = ["disk-b:first"]', "device_pool.disks.devices"),
        ('days = ["2025-13-24"]', "calendar.holidays.days"),
        ('paths = ["gamma:/home", "gamma:relative"]', "selection.home.paths"),
        ('"when full succeds start check"', "policy.nightly.rules"),
        ('schedule = "fryday 22:00"', "policy.nightly.templates.full.schedule"),
        ('verify = "yes"', "policy.nightly.templates.full.verify"),
        ('type = "verity"', "policy.nightly.templates.check.type"),
        ('home = ["nightly", "weekly"]', "associations.home"),
        ('to = "everywhere"', "job.logs.to"),
    ]
    assert all(each[2] for each in told)


def test_mistakes_that_only_the_whole_mesh_shows_are_told_together_as_well(mesh):
    told = wrong(
        mesh,
        ('keep = "30d"', 'keep = "200000d"\nkeep_last = -1\nmedium_size = "1kB"'),
        ('media_set = "archive"', 'media_set = "archive"\npost_always = true'),
        ('calendars = ["holidays"]', 'calendars = ["holidays", "birthdays"]\nmedia_set = "none"'),
        ('paths = ["gamma:/home"]', 'paths = ["gamma:/home", "gamma:/home/"]\noldest_good = "5s"'),
        ('"when full succeeds start check"', '"when full succeeds start check",\n    "inc then nothing"'),
        ('to = "any"', 'to = "any"\nmedia_set = "neither"'),
    )
    assert [each[:2] for each in told] == [
        ('keep = "200000d"', "media_set.archive.keep"),
        ("keep_last = -1", "media_set.archive.keep_last"),
        ('medium_size = "1kB"', "media_set.archive.medium_size"),
        ('paths = ["gamma:/home", "gamma:/home/"]', "selection.home.paths"),
        ('oldest_good = "5s"', "selection.home.oldest_good"),
        ('"inc then nothing"', "policy.nightly.rules"),
        ("post_always = true", "policy.nightly.templates.full.post_always"),
        ('calendars = ["holidays", "birthdays"]', "policy.nightly.templates.inc.calendars"),
        ('media_set = "none"', "policy.nightly.templates.inc.media_set"),
        ('media_set = "neither"', "job.logs.media_set"),
    ]


def test_what_changes_between_a_look_and_its_saving_is_refused_whole(mesh):
    """Two people apply files at once: the second one's was worked out against a mesh that is no more."""
    plan = Plan(mesh.state, SOUND, who="ann", at_ns=mesh.at_ns, seed=SEED)
    plan.rehearse()
    saved(mesh)
    before = replace(mesh.state.policy_named("nightly"))
    with pytest.raises(Exception, match=r"nightly|home|vaults") as refused:
        mesh.do(Batch(plan.commands(), SEED))
    assert refused.value.__class__.__name__ in {"AlreadyExists", "Conflict"}
    assert mesh.state.policy_named("nightly") == before


VALUES = (
    '""', '"x"', "0", "-1", "3.5", "true", "[]", '["x"]', "[1]", "{}", "{ x = 1 }", '"any"', '"pool:nowhere"',
    '"0 0 30 2 *"', '"28d"', '"none"', '"beta:@"', '"\\u007f"', f'"{"a" * 300}"', '"verify"', "nan", str(10**30),
)  # fmt: skip


def test_whatever_stands_in_a_file_is_a_change_that_can_be_made_or_a_mistake_with_its_line(mesh):
    saved(mesh)
    chance = random.Random(5)
    lines = SOUND.splitlines()
    valued = [number for number, line in enumerate(lines) if " = " in line and not line.rstrip().endswith("[")]
    for _ in range(60):
        changed = list(lines)
        for number in chance.sample(valued, 3):
            key = changed[number].partition(" = ")[0]
            changed[number] = f"{key} = {chance.choice(VALUES)}"
        plan = Plan(mesh.state, "\n".join(changed), who="ann", at_ns=mesh.at_ns, seed=SEED)
        plan.rehearse()
        for mistake in plan.mistakes:
            assert 1 <= mistake.line <= len(changed) and mistake.message, mistake
        if not plan.mistakes:
            validate(mesh.state, Batch(plan.commands(), SEED), at_ns=mesh.at_ns)
