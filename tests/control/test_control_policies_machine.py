"""Policies that are edited at random while their jobs run: every invariant holds, each voter comes to the same state, and
what a rule starts is started once."""

from __future__ import annotations

import random

from control_world import NOW, SECOND
from msgspec.structs import replace
from test_control_machine import ENDS, NAMES, Voters

from caso_mesh.model.commands import (
    Associate,
    Batch,
    CancelRun,
    CloseRun,
    Command,
    DeleteCalendar,
    DeleteList,
    DeletePolicy,
    Dissociate,
    OpenRun,
    Prune,
    PutCalendar,
    PutDevicePool,
    PutList,
    PutPolicy,
    RemoveServer,
    RunNow,
    SetJob,
    SetPool,
)
from caso_mesh.model.jobs import CronSchedule, Target, TargetKind
from caso_mesh.model.mesh import Pool
from caso_mesh.model.policies import (
    STARTING,
    DayCalendar,
    DevicePool,
    DevicePoolMember,
    ListEntry,
    Policy,
    RuleKind,
    SelectionList,
    Template,
    TemplateRule,
    TemplateType,
)
from caso_mesh.model.states import JobState, RunState

TARGETS = [
    Target(TargetKind.ANY),
    Target(TargetKind.POOL, "p"),
    Target(TargetKind.DEVICE, "d1"),
    Target(TargetKind.DEVICES, "disks"),
    Target(TargetKind.SERVER, "beta"),
]
TEMPLATES = ["full", "inc", "check"]


def some_list(rng: random.Random) -> PutList:
    name = rng.choice(["l1", "l2"])
    servers = rng.sample(NAMES, rng.randint(1, 2))
    row = SelectionList(
        f"list-{name}",
        rng.choice([name, "renamed"]),
        tuple(ListEntry(f"node-{server}", rng.choice([b"srv", b"etc"])) for server in servers),
        "ann",
        NOW,
        within=rng.choice([None, None, None, Target(TargetKind.POOL, "p")]),
    )
    return PutList(row, f"seed{rng.random()}")


def some_policy(rng: random.Random) -> PutPolicy:
    name = rng.choice(["p1", "p2"])
    templates = []
    for each in rng.sample(TEMPLATES, rng.randint(1, 3)):
        type_ = {"full": TemplateType.FULL, "inc": TemplateType.INCREMENTAL, "check": TemplateType.VERIFY}[each]
        schedule = rng.choice([None, CronSchedule("0 22 * * *", "UTC", cancel_after_s=rng.choice([None, 3600.0]))])
        target = None if type_ is TemplateType.VERIFY else rng.choice(TARGETS)
        calendars = ("c",) if schedule is not None and rng.random() < 0.2 else ()
        templates.append(Template(each, type_, target, schedule, calendars))
    rules = []
    for _ in range(rng.randint(0, 2)):
        kind, (first, then) = rng.choice(list(RuleKind)), rng.sample(TEMPLATES, 2)
        if rng.random() < 0.6 and len(templates) > 1:
            # one that is likely to hold
            kind, first, then = rng.choice(sorted(STARTING)), templates[0].name, templates[1].name
        rules.append(TemplateRule(kind, first, None if kind is RuleKind.FIRST else then))
    return PutPolicy(Policy(f"policy-{name}", name, tuple(templates), tuple(rules), "ann", NOW), f"seed{rng.random()}")


def some_edit(rng: random.Random) -> Command:
    policy, row, seed = rng.choice(["policy-p1", "policy-p2"]), rng.choice(["list-l1", "list-l2"]), f"s{rng.random()}"
    kind = rng.choices(
        ["list", "policy", "associate", "dissociate", "delete", "calendar", "devices", "pool", "batch"],
        [6, 12, 12, 3, 2, 2, 2, 2, 3],
    )[0]
    match kind:
        case "list":
            return some_list(rng)
        case "policy":
            return some_policy(rng)
        case "associate":
            return Associate(policy, row, seed)
        case "dissociate":
            return Dissociate(policy, row)
        case "delete":
            return rng.choice([DeleteList(row), DeletePolicy(policy), DeleteCalendar("c")])
        case "calendar":
            return PutCalendar(DayCalendar("c", (rng.choice(["2025-12-24", "2025-12-31"]),)), rng.random() < 0.5)
        case "devices":
            members = (DevicePoolMember("device-d1"),) if rng.random() < 0.8 else ()
            return PutDevicePool(DevicePool("disks", members), rng.random() < 0.5)
        case "pool":
            return SetPool(Pool("p", rng.choice([(), ("node-beta",), ("node-alpha", "node-beta")])))
        case _:
            return Batch(tuple(some_edit(rng) for _ in range(rng.randint(1, 3))), seed)


def life(seed: int) -> tuple[int, int]:
    """How many jobs policies made in it, and how many runs rules started."""
    rng = random.Random(seed)
    voters = Voters()
    voters.do(PutCalendar(DayCalendar("c", ("2025-12-24",)), new=True))
    voters.do(PutDevicePool(DevicePool("disks", (DevicePoolMember("device-d1"),)), new=True))
    began = Policy(
        "policy-p1",
        "p1",
        (
            Template("full", TemplateType.FULL, TARGETS[0], CronSchedule("0 22 * * *", "UTC")),
            Template("inc", TemplateType.INCREMENTAL, TARGETS[0]),
            Template("check", TemplateType.VERIFY),
        ),
        (TemplateRule(RuleKind.STARTS, "full", "inc"), TemplateRule(RuleKind.COMPLETES, "inc", "check")),
        "ann",
        NOW,
    )
    voters.do(some_list(random.Random(1)))
    voters.do(
        replace(some_list(random.Random(2)), list=replace(some_list(random.Random(2)).list, id="list-l2", name="l2"))
    )
    voters.do(PutPolicy(began, "seed"))
    voters.do(Associate("policy-p1", "list-l1", "seed"))
    voters.do(Associate("policy-p1", "list-l2", "seed"))
    fired: set[str] = set()
    made: set[str] = set()
    for _ in range(200):
        state = voters.state
        jobs = sorted(state.jobs)
        kind = rng.choices(["edit", "begin", "place", "close", "end", "hold", "remove", "snapshot", "repeat", "prune"],
                           [12, 15, 15, 25, 8, 3, 0.3, 3, 3, 1])[0]  # fmt: skip
        if kind == "edit":
            voters.do(some_edit(rng))
        elif kind == "begin" and jobs:
            id = rng.choice(jobs)
            superseded = rng.choice([None, None, "another"])
            begin = OpenRun(id, voters.at_ns, voters.at_ns, superseded_by=superseded, sets={"node-beta": "set"})
            voters.do(rng.choice([begin, begin, RunNow(id, voters.at_ns, {"node-beta": "set"})]))
        elif kind == "place":
            voters.place_all()
        elif kind == "close" and state.active_attempts():
            id = rng.choice(state.active_attempts()).id
            voters.close(id, rng.choice(ENDS), back=False, wait=0)
        elif kind == "end" and state.open_runs():
            run = rng.choice(state.open_runs()).id
            ends = [CloseRun(run, end, voters.at_ns) for end in (RunState.MISSED, RunState.TIMED_OUT, RunState.FAILED)]
            voters.do(rng.choice([CancelRun(run, voters.at_ns), *ends]))
        elif kind == "hold" and jobs:
            voters.do(SetJob(rng.choice(jobs), rng.choice(list(JobState))))
        elif kind == "remove":
            voters.do(RemoveServer(f"node-{rng.choice(NAMES)}", "node-alpha"))
        elif kind == "snapshot":
            voters.follow_by_snapshot()
        elif kind == "repeat":
            voters.repeat(rng.choice(voters.seen))
        elif kind == "prune":
            voters.do(Prune(voters.at_ns - 120 * SECOND))
        voters.check()
        for run in voters.state.runs.values():
            if run.terms.fired_by is not None:
                fired.add(run.id)
        made |= set(voters.state.jobs)
        pairs = [(run.job, run.terms.fired_by) for run in voters.state.runs.values() if run.terms.fired_by is not None]
        assert len(set(pairs)) == len(pairs), "a run starts another one once"
    voters.check_replay()
    return len(made), len(fired)


def test_long_random_lives_of_policies_keep_every_invariant():
    lives = [life(seed) for seed in range(6)]
    assert sum(made for made, _ in lives) > 20, lives
    assert sum(fired for _, fired in lives) > 10, lives
