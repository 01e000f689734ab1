"""A restore is tried again only when the server whose files it writes has confirmed that the attempt before has ended."""

from __future__ import annotations

import asyncio
import pathlib
from types import SimpleNamespace
from typing import Any

import pytest
from admin.admin_world import KEYS, World, admin_world, name_of, node
from admin.test_admin_placing import waits
from admin.test_admin_recovering import back, lost

from caso_mesh.admin.ends import Ends
from caso_mesh.model import browsing as b
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.commands import AddDevice
from caso_mesh.model.errors import InUse
from caso_mesh.model.jobs import Attempt, BackupSpec, JobSpec, Part, RestoreSpec, Run, Target, TargetKind
from caso_mesh.model.orders import Authority
from caso_mesh.model.states import AttemptState, Priority, RunState
from caso_mesh.model.storage import Device, DeviceKind, DevicePath

RESTORE = RestoreSpec(set="s", server="t")
BACKUP = BackupSpec((), Target(TargetKind.ANY))


def run_of(spec: JobSpec = RESTORE, state: RunState = RunState.READY) -> Run:
    return Run("j@1", "j", "restore", spec, Priority.MEDIUM, 0, 0, "who", (Part("t", state=state),))


def state_of(*numbered: AttemptState) -> Any:
    attempts = [
        Attempt(f"j@1#{number}", "j@1", "j", "t", "m", "d", number, 0, state=each)
        for number, each in enumerate(numbered, 1)
    ]
    return SimpleNamespace(attempts_of=lambda run: attempts)


def beat(index: int, *holding: str, running: tuple[str, ...] = (), term: int = 1) -> Any:
    return SimpleNamespace(beat=n.Heartbeat(0, Authority(1, term, index), running, holding))


RECOVERED = AttemptState.RECOVERED
#: What the target's server was heard to say, since which orders it does not have the attempt, and whether that confirms its end.
WORDS = [
    ("of before it was told", beat(4), Authority(1, 1, 5), False),
    ("of an earlier term", beat(9), Authority(1, 2, 1), False),
    ("it is at it yet", beat(5, "j@1#1"), Authority(1, 1, 5), False),
    ("its worker runs", beat(5, running=("j@1#1",)), Authority(1, 1, 5), False),
    ("it has not taken such orders", beat(5), None, False),
    ("it was not heard", None, Authority(1, 1, 5), False),
    ("it holds another", beat(5, "j@2#1"), Authority(1, 1, 5), True),
    ("it was told more since", beat(9), Authority(1, 1, 5), True),
]


@pytest.mark.parametrize(("heard", "since", "confirmed"), [row[1:] for row in WORDS], ids=[row[0] for row in WORDS])
def test_only_a_word_of_the_server_that_writes_by_orders_without_the_attempt_confirms_its_end(
    heard: Any, since: Authority | None, confirmed: bool
) -> None:
    live: Any = SimpleNamespace(heard={"t": heard} if heard else {})
    ends = Ends(live, lambda server, attempt: since)
    found = ends.missing(state_of(RECOVERED), [run_of()])
    assert found == ({} if confirmed else {("j@1", "t"): "j@1#1"})


def test_what_was_confirmed_once_stays_confirmed_also_while_the_server_is_linked_anew() -> None:
    live: Any = SimpleNamespace(heard={"t": beat(5)})
    since: list[Authority | None] = [Authority(1, 1, 5)]
    ends = Ends(live, lambda server, attempt: since[0])
    assert ends.missing(state_of(RECOVERED), [run_of()]) == {}
    since[0], live.heard = None, {}
    assert ends.missing(state_of(RECOVERED), [run_of()]) == {}
    assert ends.missing(state_of(RECOVERED, RECOVERED), [run_of()]) == {("j@1", "t"): "j@1#2"}


def test_only_what_writes_files_and_is_ready_for_its_next_attempt_waits_for_that() -> None:
    live: Any = SimpleNamespace(heard={})
    ends = Ends(live, lambda server, attempt: None)
    assert ends.missing(state_of(RECOVERED), [run_of(BACKUP)]) == {}
    assert ends.missing(state_of(RECOVERED, AttemptState.RUNNING), [run_of(state=RunState.DELEGATED)]) == {}
    assert ends.missing(state_of(), [run_of()]) == {}
    # also what was interrupted, as the end at the device tells: the other end may be at work yet
    assert ends.missing(state_of(AttemptState.INTERRUPTED), [run_of()]) == {("j@1", "t"): "j@1#1"}


async def restored(w: World, to: str) -> Any:
    """The first attempt of a restore to a server, of a set that beta and gamma reach."""
    places = (DevicePath(node("beta"), "/mnt/s"), DevicePath(node("gamma"), "/mnt/s"))
    await w.submit(AddDevice(Device("dshared", "dev-shared", DeviceKind.SHARED, "v-s", places)))
    attempt = await w.delegated(await w.backup(to="device:dshared"))
    backup = w.made_set(attempt)
    await w.report(name_of(attempt), *w.success(attempt, backup))
    for link in w.links.links.values():
        link.answers["path.check"] = lambda _: n.PathCheckReply()
    submitted = await w.ask("restore", q.RestoreRequest(backup.id, to=(to, b"/tmp/x")))
    return await w.delegated(submitted.run)


@pytest.mark.jumping
async def test_a_restore_that_lost_its_media_server_goes_to_another_one_once_its_target_confirms_the_end(
    tmp_path: pathlib.Path,
) -> None:
    """It was handed to another one while the worker that writes the files might run yet, and its end was awaited nowhere."""
    async with admin_world(tmp_path) as w:
        first = await restored(w, "alpha")
        w.holding[KEYS.id] = (first.id,)
        await lost(w, first)
        view = await waits(w, first.run, "end-unconfirmed")
        text = f"alpha has not confirmed yet that {first.id}, which writes the same files, has ended there"
        assert view.reason_text == text
        await asyncio.sleep(120)
        await w.another_office()  # which has heard nothing of it
        await waits(w, first.run, "end-unconfirmed")
        assert f"{first.run}#2" not in w.state.attempts
        w.holding.clear()
        second = await w.delegated(first.run, 2)
        assert {first.server, second.server} == {node("beta"), node("gamma")}


@pytest.mark.jumping
async def test_a_restore_whose_target_is_lost_begins_again_there_once_it_is_back_and_has_ended_the_first(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        first = await restored(w, "gamma")
        target = node("gamma")
        assert first.source == target
        w.silent.add(target)
        w.links.down(target)
        await w.until(lambda: w.state.attempts[first.id].state is RECOVERED, 1400)
        assert (await waits(w, first.run, "source-unreachable")).reason_fields["source"] == "gamma"
        w.holding[target] = (first.id,)
        back(w, target)
        await waits(w, first.run, "end-unconfirmed")
        w.holding.clear()
        assert (await w.delegated(first.run, 2)).source == target


@pytest.mark.jumping
async def test_a_restore_whose_only_reader_is_lost_goes_on_with_a_copy_of_its_set_on_the_device_of_another_server(
    tmp_path: pathlib.Path,
) -> None:
    """It waited for the lost server, with all that it needed on a disk beside it."""
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup))
        copied = (await w.ask("duplicate", q.DuplicateRequest(backup.id, "device:dgamma"))).run
        copies = await w.delegated(copied)
        copy = w.made_set(copies, copy_of=backup.id, ended_at_ns=backup.ended_at_ns)
        await w.report("gamma", *w.success(copies, copy))
        await w.until(lambda: w.state.run(copied).closed_at_ns is not None)
        for link in w.links.links.values():
            link.answers["path.check"] = lambda _: n.PathCheckReply()
        run = (await w.ask("restore", q.RestoreRequest(backup.id, to=("alpha", b"/tmp/x")))).run
        first = await w.delegated(run)
        assert (first.server, first.set) == (node("beta"), "")
        await lost(w, first)
        second = await w.delegated(run, 2)
        assert (second.server, second.device, second.set) == (node("gamma"), "dev-gamma", copy.id)
        with pytest.raises(InUse):
            await w.ask("set.delete", b.SetName(copy.id))
        specs = {
            order["spec"]["set"]
            for told in w.links.links[node("gamma")].told("orders")
            for order in told["attempts"]
            if order["attempt"] == second.id
        }
        assert specs == {copy.id}
