"""Copied jobs and settings: what goes into a parcel for a server, and what its own control state makes of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from control_world import NOW, Script, backup, device, job, server

from caso_mesh.control.logons import missing_logon
from caso_mesh.control.orders import orders_for
from caso_mesh.control.state import ControlState
from caso_mesh.local.mirror import as_command
from caso_mesh.model.commands import (
    Associate,
    CreateErrorRule,
    CreateJob,
    FoundMesh,
    Prune,
    PutCalendar,
    PutDevicePool,
    PutList,
    PutPolicy,
    RemoveServer,
    RunNow,
    SetJob,
    SetSetting,
)
from caso_mesh.model.copies import Came, Clash, Copy, CopyTo, FollowOrders, NoteCopy, Outcome, TakeCopy
from caso_mesh.model.errors import CasoError, Conflict, EmptyTarget, MadeByPolicy, UsageError
from caso_mesh.model.ids import is_local, is_of_place
from caso_mesh.model.jobs import BackupSpec, CronSchedule, Target, TargetKind
from caso_mesh.model.logons import Logon, PutLogon
from caso_mesh.model.orders import Authority
from caso_mesh.model.policies import (
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
from caso_mesh.model.rules import ErrorRule
from caso_mesh.model.states import JobState
from caso_mesh.model.storage import FACTORY_MEDIA_SETS
from caso_mesh.planning.schedule import next_due_ns

NIGHTLY = CronSchedule("0 22 * * *", "UTC")
BETA = "node-beta"


def listed(name: str, *servers: str, **fields: Any) -> SelectionList:
    return SelectionList(
        f"list-{name}", name, tuple(ListEntry(f"node-{each}", b"srv/data") for each in servers), "ann", NOW, **fields
    )


def full(target: str = "disk", **fields: Any) -> Template:
    return Template("full", TemplateType.FULL, Target(TargetKind.DEVICE, target), NIGHTLY, **fields)


def policy(name: str, *templates: Template, rules: tuple[TemplateRule, ...] = ()) -> Policy:
    return Policy(f"policy-{name}", name, templates or (full(),), rules, "ann", NOW)


def mesh() -> Script:
    """alpha, beta and gamma; a device of beta, one of gamma; the list ``home`` of beta and gamma with the policy ``nightly``."""
    script = Script()
    script.admit("beta", "gamma")
    script.device("disk", "beta")
    script.device("far", "gamma")
    script.do(PutList(listed("home", "beta", "gamma"), "s1"))
    script.do(PutPolicy(policy("nightly"), "s2"))
    script.do(Associate("policy-nightly", "list-home", "s3"))
    return script


def copied(script: Script, *servers: str, **what: Any) -> Copy:
    """The parcel of the first of some servers."""
    command = CopyTo(
        servers=tuple(f"node-{each}" for each in servers or ("beta",)), clash=what.pop("clash", Clash.SKIP),
        seed=f"seed-{script.index:05d}", at_ns=script.at_ns, **what,
    )  # fmt: skip
    (first, *_) = script.do(command)["copies"]
    return script.state.copies[first]


class Own(Script):
    """The own control state of beta, by its orders."""

    def __init__(self, script: Script) -> None:
        super().__init__(founded=False)
        orders = orders_for(script.state, BETA, Authority(1, 1, 1), "node-alpha", lambda _: (), lambda *_: b"")
        self.orders = as_command(orders)
        self.do(FoundMesh(self.orders.mesh, (), self.orders.server, (), FACTORY_MEDIA_SETS))
        self.do(self.orders)

    def take(self, copy: Copy, **more: Any) -> dict[str, tuple[str, str]]:
        """What came of each thing, by its kind and name."""
        result = self.do(TakeCopy(copy, f"0123456789{self.index:06d}/node-beta"[:30]), **more)
        return {f"{each['kind']} {each['name']}": (each["came"], each.get("reason", "")) for each in result}


# --- what goes into a parcel ---


def test_a_policy_is_copied_with_its_lists_as_far_as_they_are_about_the_server():
    copy = copied(mesh(), policies=("policy-nightly",))
    assert [row.name for row in copy.policies] == ["nightly"]
    assert [(row.name, row.servers()) for row in copy.lists] == [("home", (BETA,))]
    assert [each.key for each in copy.associations] == ["policy-nightly/list-home"]


def test_copies_are_part_of_the_orders_until_the_server_has_told_what_came_of_them():
    script = mesh()
    before = script.state.orders_version(BETA)
    copy = copied(script, policies=("policy-nightly",))
    assert script.state.orders_version(BETA) != before

    def pending() -> list[str]:
        orders = orders_for(script.state, BETA, Authority(1, 1, 1), "node-alpha", lambda _: (), lambda *_: b"")
        return [each.id for each in orders.copies]

    assert pending() == [copy.id]
    told = (Outcome("policy", "nightly", Came.MADE),)
    script.do(NoteCopy(copy.id, told, NOW))
    script.do(NoteCopy(copy.id, (), NOW + 5))
    assert pending() == []
    left = script.state.copies[copy.id]
    assert (left.outcomes, left.taken_at_ns, left.policies) == (told, NOW, ())
    again = ControlState()
    again.restore(script.state.snapshot())
    assert again.copies == script.state.copies
    script.do(Prune(NOW + 1))
    assert script.state.copies == {}


def test_parcels_of_one_server_are_numbered_in_the_order_of_the_log():
    script = mesh()
    first, second = (copied(script, policies=("policy-nightly",)) for _ in range(2))
    assert first.number < second.number
    assert [each.id for each in script.state.copy_list(BETA)] == [first.id, second.id]


def test_a_copy_that_a_server_could_not_run_is_refused_with_the_reason_and_nothing_is_copied_to_anybody():
    script = mesh()
    with pytest.raises(EmptyTarget) as refused:
        copied(script, "beta", "gamma", policies=("policy-nightly",))
    assert "server:gamma" in refused.value.message
    assert script.state.copies == {}
    with pytest.raises(UsageError, match="home names no place of alpha"):
        copied(script, "alpha", lists=("list-home",))
    with pytest.raises(UsageError, match="Nothing to copy"):
        copied(script)
    (made,) = [each for each in script.state.job_list() if each.origin is not None]
    with pytest.raises(MadeByPolicy):
        copied(script, jobs=(made.id,))


def test_a_template_that_copies_sets_to_a_device_elsewhere_stays_with_the_administrator():
    script = mesh()
    off = Template("off-site", TemplateType.DUPLICATE, Target(TargetKind.DEVICE, "far"))
    rule = TemplateRule(RuleKind.SUCCEEDS, "full", "off-site")
    script.do(PutPolicy(policy("nightly", full(), off, rules=(rule,)), "s4"))
    copy = copied(script, policies=("policy-nightly",))
    assert [each.name for each in copy.policies[0].templates] == ["full"]
    assert copy.policies[0].rules == ()


def test_a_recurring_job_is_copied_with_the_places_of_the_server_alone():
    script = mesh()
    spec = backup("beta", "gamma", to=Target(TargetKind.DEVICE, "disk"))
    script.do(CreateJob(job("hourly", spec, schedule=NIGHTLY), run_now=False, at_ns=NOW))
    script.do(SetJob("job-hourly", JobState.ON_HOLD))
    copy = copied(script, jobs=("job-hourly",))
    assert copy.jobs[0].state is JobState.ACTIVE, "the one that is held stays with the administrator"
    assert isinstance(copy.jobs[0].spec, BackupSpec)
    assert [source.server for source in copy.jobs[0].spec.sources] == [BETA]


def test_settings_of_the_mesh_become_the_servers_own_skipped_or_overwritten_where_it_has_one():
    for clash, expected in ((Clash.SKIP, 7.0), (Clash.OVERWRITE, 3.0)):
        script = mesh()
        script.do(SetSetting("server-concurrency", 3.0))
        script.do(SetSetting("source-concurrency", 5.0))
        script.do(SetSetting("server-concurrency", 7.0, server=BETA))
        result = script.do(CopyTo((BETA,), clash, "seed", NOW, settings=True))
        assert result == {"copies": []}
        script.do(SetSetting("source-concurrency", 9.0))
        assert script.state.settings_of(BETA)["server-concurrency"] == expected
        assert script.state.settings_of(BETA)["source-concurrency"] == 5.0


def test_parcels_go_with_the_server_they_are_for():
    script = mesh()
    copied(script, policies=("policy-nightly",))
    script.do(RemoveServer(BETA))
    assert script.state.copies == {}


# --- what the server makes of it ---


def test_a_copied_policy_makes_jobs_of_the_servers_own_with_ids_that_name_it():
    script = mesh()
    own = Own(script)
    came = own.take(copied(script, policies=("policy-nightly",)))
    assert came == {"selection-list home": ("made", ""), "policy nightly": ("made", "")}
    (made,) = own.state.job_list()
    assert made.name == "home.nightly.full"
    assert is_local(made.id)
    assert is_of_place(f"{made.id}@20250101T020000Z#1", BETA)
    assert not is_of_place(f"{made.id}@20250101T020000Z#1", "node-gamma")
    assert made.schedule is not None
    assert next_due_ns(made.schedule, made.created_at_ns) == next_due_ns(NIGHTLY, own.at_ns)


def test_a_name_that_is_taken_is_skipped_or_overwritten_as_was_asked():
    script = mesh()
    own = Own(script)
    own.take(copied(script, policies=("policy-nightly",)))
    (before,) = own.state.job_list()
    script.do(PutPolicy(policy("nightly", full(media_set="keep-infinitely")), "s5"))
    came = own.take(copied(script, policies=("policy-nightly",)))
    assert came == {"selection-list home": ("skipped", ""), "policy nightly": ("skipped", "")}
    assert own.state.job_list() == [before]
    came = own.take(copied(script, policies=("policy-nightly",), clash=Clash.OVERWRITE))
    assert {each for each, _ in came.values()} == {"overwritten"}
    (after,) = own.state.job_list()
    assert (after.id, after.created_at_ns) == (before.id, before.created_at_ns), "its history stays"
    assert isinstance(after.spec, BackupSpec)
    assert after.spec.media_set == "keep-infinitely"


def test_a_parcel_that_comes_twice_is_taken_once():
    script = mesh()
    own = Own(script)
    copy = copied(script, policies=("policy-nightly",))
    first = own.take(copy, request_id="copy-1")
    again = own.take(copy, request_id="copy-1")
    assert first == again
    assert len(own.state.job_list()) == 1


def test_what_cannot_be_taken_is_refused_with_its_reason_and_keeps_nothing_else_out():
    script = mesh()
    script.do(CreateErrorRule(ErrorRule("again", ("device-full",), 2, 60.0)))
    spec = backup("beta", to=Target(TargetKind.DEVICE, "disk"))
    script.do(CreateJob(job("hourly", spec, schedule=NIGHTLY), run_now=False, at_ns=NOW))
    own = Own(script)
    copy = copied(script, policies=("policy-nightly",), jobs=("job-hourly",), error_rules=True)
    # its device left the mesh before the parcel came
    own.do(msgspec.structs.replace(own.orders, devices=()))
    came = own.take(copy)
    assert came["error-rule again"] == ("made", "")
    assert came["selection-list home"] == ("made", "")
    assert came["policy nightly"][0] == came["job hourly"][0] == "refused"
    assert "disk" in came["policy nightly"][1]
    assert own.state.job_list() == []
    assert list(own.state.error_rules) == ["again"]


def test_pools_and_calendars_that_a_policy_names_come_with_it():
    script = mesh()
    script.pool("store", "beta", "gamma")
    script.do(PutCalendar(DayCalendar("holidays", ("2025-12-24",)), new=True))
    members = (DevicePoolMember("device-disk", 5), DevicePoolMember("device-far"))
    script.do(PutDevicePool(DevicePool("vaults", members), new=True))
    templates = (
        Template("a", TemplateType.FULL, Target(TargetKind.POOL, "store"), NIGHTLY, calendars=("holidays",)),
        Template("b", TemplateType.INCREMENTAL, Target(TargetKind.DEVICES, "vaults"), NIGHTLY),
    )
    script.do(PutPolicy(policy("nightly", *templates), "s6"))
    own = Own(script)
    came = own.take(copied(script, policies=("policy-nightly",)))
    assert came["policy nightly"] == ("made", "")
    assert own.state.target_servers(Target(TargetKind.POOL, "store")) == {BETA}
    assert own.state.named_devices(Target(TargetKind.DEVICES, "vaults")) == {"device-disk"}
    assert own.state.job_list()[0].schedule.excludes == ("2025-12-24",)


def test_a_copied_job_that_needs_a_logon_has_the_servers_own_copy_of_its_secret():
    script = mesh()
    logon = Logon("db", "backup", (BETA,), (), "v1", 1, {BETA: b"sealed"}, "ann", NOW)
    script.do(PutLogon(logon, 0))
    script.do(PutPolicy(policy("nightly", full(pre="dump", logon="db")), "s8"))
    own = Own(script)
    assert own.take(copied(script, policies=("policy-nightly",)))["policy nightly"] == ("made", "")
    (made,) = own.state.job_list()
    assert missing_logon(own.state, made.spec, BETA) is None
    without = Own(script)
    without.do(msgspec.structs.replace(without.orders, logons=()))
    came = without.take(copied(script, policies=("policy-nightly",)))
    assert came["policy nightly"][0] == "refused"
    assert "db" in came["policy nightly"][1]


def test_the_own_state_follows_the_orders_and_keeps_a_device_while_an_attempt_is_active_there():
    script = mesh()
    own = Own(script)
    own.take(copied(script, policies=("policy-nightly",)))
    run = own.start("now", backup("beta", to=Target(TargetKind.DEVICE, "disk")))
    own.delegate(run, source="beta", server="beta", device="disk")
    own.do(msgspec.structs.replace(own.orders, devices=(device("other", "beta"),)))
    assert sorted(own.state.devices) == ["device-disk", "device-other"]
    assert own.state.settings_of(BETA) == script.state.settings_of(BETA)


def test_orders_of_one_server_never_become_the_state_of_a_mesh():
    script = mesh()
    orders = FollowOrders(script.state.info(), server("beta"), (), (), {})
    with pytest.raises(Conflict, match="orders of one server"):
        script.do(orders)


def test_a_parcel_whose_jobs_have_open_runs_is_refused_as_a_whole():
    script = mesh()
    own = Own(script)
    own.take(copied(script, policies=("policy-nightly",)))
    (made,) = own.state.job_list()
    own.do(RunNow(made.id, own.at_ns))
    renamed = Template("weekly", TemplateType.FULL, Target(TargetKind.DEVICE, "disk"), NIGHTLY)
    script.do(PutPolicy(policy("nightly", renamed), "s7"))
    with pytest.raises(CasoError) as refused:
        own.take(copied(script, policies=("policy-nightly",), clash=Clash.OVERWRITE))
    assert refused.value.code == "in-use"
    assert [each.name for each in own.state.policy_named("nightly").templates] == ["full"]
