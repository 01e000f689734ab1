"""Why a run waits, as a person is told of it in the list of jobs, and what ends that: reason by reason."""

from __future__ import annotations

import asyncio
import pathlib

import pytest
from admin.admin_world import World, admin_world
from admin.test_admin_placing import view_of, waits

from caso_mesh.model import requests as q
from caso_mesh.model.commands import CreatePool
from caso_mesh.model.jobs import Failure
from caso_mesh.model.mesh import Pool
from caso_mesh.model.outcomes import JobView
from caso_mesh.model.rules import ErrorRule
from caso_mesh.model.states import AttemptState, DeviceState, ServerState

pytestmark = pytest.mark.jumping


def state_of(name: str, state: ServerState) -> q.ServerSetState:
    return q.ServerSetState(name, state)


async def is_told(w: World, run: str, reason: str, text: str, ends: str) -> JobView:
    view = await waits(w, run, reason)
    assert (view.state, view.reason, view.reason_text, view.reason_ends) == ("ready", reason, text, ends)
    return view


async def test_a_paused_server_and_a_disabled_source_are_named_and_run_again_when_they_are_released(
    tmp_path: pathlib.Path,
) -> None:
    """A source that somebody had disabled was called unreachable since it joined."""
    async with admin_world(tmp_path) as w:
        await w.ask("server.set-state", state_of("beta", ServerState.PAUSED))
        await w.ask("server.set-state", state_of("gamma", ServerState.DISABLED))
        ends = "ends when one of these is resumed or enabled: "
        run = await w.backup(to="device:dbeta")
        await is_told(w, run, "server-paused", "paused or disabled: beta", f"{ends}beta")
        source = await w.backup("gamma", to="any")
        await is_told(w, source, "server-paused", "paused or disabled: gamma", f"{ends}gamma")
        for name in ("beta", "gamma"):
            await w.ask("server.set-state", state_of(name, ServerState.ENABLED))
        await w.delegated(run)
        await w.delegated(source)


async def test_a_paused_device_an_offline_one_and_a_pool_without_servers_are_named_until_that_ends(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await w.submit(CreatePool(Pool("empty", ())))
        await w.ask("device.set", q.DeviceSet("dbeta", DeviceState.PAUSED))
        await w.ask("device.set", q.DeviceSet("dgamma", DeviceState.OFFLINE))
        paused, offline = await w.backup(to="device:dbeta"), await w.backup(to="device:dgamma")
        either, empty = await w.backup(to="any"), await w.backup(to="pool:empty")
        ends = "ends when one of these is resumed, with caso-mesh device resume NAME: dbeta"
        await is_told(w, paused, "device-paused", "paused: dbeta", ends)
        ends = "ends when one of these can be used again: dgamma"
        await is_told(w, offline, "device-offline", "offline: dgamma", ends)
        names = "dgamma, dbeta (paused)"
        await is_told(
            w, either, "device-offline", f"offline: {names}", f"ends when one of these can be used again: {names}"
        )
        await w.ask("job.cancel", q.JobCancel(either))
        ends = "ends when the pool empty gets a server: caso-mesh pool set empty --server NAME ..."
        await is_told(w, empty, "no-server-in-pool", "the pool empty has no server; add one", ends)
        await w.ask("device.set", q.DeviceSet("dbeta", DeviceState.ONLINE, concurrency=2))
        await w.delegated(paused)
        await w.ask("pool.set", q.PoolEdit("empty", ("beta",)))
        await w.delegated(empty)


async def test_what_reads_a_set_whose_device_is_offline_waits_for_its_medium_which_is_named_with_where_it_is(
    tmp_path: pathlib.Path,
) -> None:
    """Which disk to look for is a person's question then, and only the device was named."""
    async with admin_world(tmp_path) as w:
        first = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(first, medium="BETA-000017")
        await w.report("beta", *w.success(first, backup))
        await w.until(lambda: w.state.run(first.run).closed_at_ns is not None)
        await w.ask("device.set", q.DeviceSet("dbeta", DeviceState.OFFLINE))
        run = str((await w.ask("verify", q.VerifyRequest(backup.id))).run)
        ends = "ends when one of these can be used again: dbeta"
        await is_told(w, run, "waiting-for-media", "it reads BETA-000017, which is on dbeta, offline", ends)
        copies = await w.ask("duplicate", q.DuplicateRequest(backup.id, "device:dgamma"))
        await waits(w, str(copies.run), "waiting-for-media")
        await w.ask("device.set", q.DeviceSet("dbeta", DeviceState.ONLINE))
        await w.delegated(run)


async def test_lists_and_the_run_itself_say_since_when_it_waits_for_that_reason_also_in_another_office(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("device.set", q.DeviceSet("dbeta", DeviceState.PAUSED))
        run = await w.backup(to="device:dbeta")
        await waits(w, run, "device-paused")
        await asyncio.sleep(30)
        paused = await view_of(w, run)
        assert paused.reason_since is not None
        (shown,) = (await w.ask("job.show", q.JobName(run))).runs
        (part,) = shown.waits
        assert (part.source, part.reason, part.reason_since) == ("alpha", "device-paused", paused.reason_since)
        assert (part.reason_text, part.reason_ends) == (paused.reason_text, paused.reason_ends)
        await w.another_office()
        await waits(w, run, "device-paused")
        await w.until(lambda: w.office.means.live.since_ns(run, w.state.run(run).parts[0].source) is not None)
        assert (await view_of(w, run)).reason_since == paused.reason_since
        await w.ask("device.set", q.DeviceSet("dbeta", DeviceState.OFFLINE))
        await waits(w, run, "device-offline")
        await asyncio.sleep(5)
        assert str((await view_of(w, run)).reason_since) > paused.reason_since
        await w.ask("device.set", q.DeviceSet("dbeta", DeviceState.ONLINE))
        await w.delegated(run)
        assert (await view_of(w, run)).reason_since is None


async def test_limits_of_a_source_and_of_a_server_are_told_and_the_end_of_a_job_frees_their_slots(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        for name, value in (("source-concurrency", "1"), ("server-concurrency", "1")):
            await w.ask("settings.set", q.SettingSet(name, value))
        for device in ("dbeta", "dgamma"):
            await w.ask("device.set", q.DeviceSet(device, None, concurrency=3))
        first = await w.delegated(await w.backup(to="device:dbeta"))
        source = await w.backup(to="device:dgamma")
        ends = "ends when a job that uses alpha as its source ends"
        await is_told(w, source, "limit-at-source", "alpha already runs 1 jobs as a source", ends)
        server = await w.backup("gamma", to="device:dbeta")
        ends = "ends when a job of one of these ends: beta"
        await is_told(w, server, "no-idle-server", "all servers of the target are busy: beta", ends)
        await w.report("beta", *w.success(first))
        await w.delegated(source)
        await w.delegated(server)


async def test_a_run_that_is_tried_again_later_says_when(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("error-rule.create", q.ErrorRuleCreate(ErrorRule("full", ("device-full",), 2, 600.0)))
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        await w.report("beta", w.end(attempt, AttemptState.FAILED, failure=Failure("device-full", {"device": "dbeta"})))
        view = await waits(w, attempt.run, "retry-later")
        at = view.reason_fields["at"]
        assert (view.reason_text, view.reason_ends) == (f"tried again at {at}", f"ends at {at}")
        await w.delegated(attempt.run, 2, 700.0)
