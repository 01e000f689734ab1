"""Rotating the CA at the administrator: announced, switched after the overlap, finished when the old certificates have ended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import KEYS, World, admin_world, node
from waiting import wait_for_async

from caso_mesh.identity.certificates import signed_by
from caso_mesh.identity.keys import SigningKey
from caso_mesh.identity.roster import Peer
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.commands import AddKit, ConfirmKit
from caso_mesh.model.errors import Conflict, InvalidValue

pytestmark = pytest.mark.jumping

_DAY_S = 86400.0


async def stage(w: World, wanted: str) -> Any:
    async def there() -> Any:
        view = await w.ask("ca.show", q.Nothing())
        return view if view.rotation == wanted else None

    return await wait_for_async(there, 300.0, what=f"the CA is {wanted}", every_s=0.5)


async def test_nothing_is_signed_by_the_new_ca_before_the_overlap_is_over(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("settings.set", q.SettingSet("clock-steady-s", "60s"))
        old_root, old = w.authority.root, w.authority.issuing
        with pytest.raises(InvalidValue):
            await w.ask("ca.rotate", q.CaRotate(overlap_s=_DAY_S))
        made = await w.ask("ca.rotate", q.CaRotate(), id="r1")
        assert await w.ask("ca.rotate", q.CaRotate(), id="r1") == made
        assert w.state.anchors[0].certificate == old_root
        new = w.state.anchors[-1]
        assert (new.voter, new.until_ns, new.certificate != old) == (None, None, True)
        reply = await w.node_call(KEYS.id, "identity.renew", q.Nothing())
        assert signed_by(reply.certificate[0], old)
        await wait_for_async(lambda: _told(w), 60.0, what="all servers have taken it", every_s=0.5)
        w.clock.wall_offset_s += 7 * _DAY_S
        assert (await w.ask("ca.show", q.Nothing())).rotation == "announced"
        w.clock.wall_offset_s += 2 * _DAY_S
        switched = await stage(w, "switched")
        assert w.authority.issuing == new.certificate == w.state.anchors[1].certificate
        assert (w.state.anchors[0].certificate, w.state.anchors[1].voter) == (w.authority.root, KEYS.id)
        assert next(a for a in w.state.anchors if a.certificate == old).until_ns is not None
        assert set(switched.lacking) >= {"alpha", "beta", "gamma", "boss"}
        with pytest.raises(Conflict):
            await w.ask("ca.rotate", q.CaRotate())
        reply = await w.node_call(node("alpha"), "identity.renew", q.Nothing())
        assert signed_by(reply.certificate[0], new.certificate)
        assert reply.certificate[1] == new.certificate
        assert {"alpha", "boss"}.isdisjoint((await w.ask("ca.show", q.Nothing())).lacking)
        # what the old one has issued is believed for as long as it can last
        w.clock.wall_offset_s += 7 * _DAY_S
        assert (await w.ask("ca.show", q.Nothing())).rotation == "switched"
        w.clock.wall_offset_s += 2 * _DAY_S
        await stage(w, "finished")
        assert [a.certificate for a in w.state.anchors] == [w.authority.root, w.authority.issuing]
        again = await w.ask("ca.rotate", q.CaRotate())
        assert again.rotation == "announced"


async def test_a_clock_that_is_days_ahead_for_a_while_neither_switches_nor_finishes_anything(tmp_path: Path) -> None:
    """By such a clock the old authority was dropped in a second: every server that it had certified had to join again by hand."""
    async with admin_world(tmp_path) as w:
        await w.ask("settings.set", q.SettingSet("clock-steady-s", "900s"))
        await w.ask("ca.rotate", q.CaRotate())
        await wait_for_async(lambda: _told(w), 60.0, what="all servers have taken it", every_s=0.5)
        for wanted in ("announced", "switched"):
            assert (await w.ask("ca.show", q.Nothing())).rotation == wanted
            w.clock.wall_offset_s += 20 * _DAY_S
            await asyncio.sleep(300)
            assert (await w.ask("ca.show", q.Nothing())).rotation == wanted
            w.clock.wall_offset_s -= 20 * _DAY_S
            await asyncio.sleep(300)
            assert (await w.ask("ca.show", q.Nothing())).rotation == wanted
            if wanted == "announced":
                # it is so: nine days have passed
                await w.ask("settings.set", q.SettingSet("clock-steady-s", "60s"))
                w.clock.wall_offset_s += 9 * _DAY_S
                await stage(w, "switched")
                await w.ask("settings.set", q.SettingSet("clock-steady-s", "900s"))


async def _told(w: World) -> bool:
    return (await w.ask("ca.show", q.Nothing())).lacking == ()


async def test_an_urgent_one_is_finished_when_everybody_has_renewed(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        anna = SigningKey.create()
        await w.ask("ca.rotate", q.CaRotate(urgent=True))
        lacking = set((await stage(w, "switched")).lacking)
        assert lacking == {"alpha", "beta", "gamma", "boss"}
        for name in ("alpha",):
            await w.node_call(node(name), "identity.renew", q.Nothing())
        assert set((await w.ask("ca.show", q.Nothing())).lacking) == {"beta", "gamma"}
        for name in ("beta", "gamma"):
            await w.ask("server.remove", q.ServerName(name))
        await stage(w, "finished")
        assert len(w.state.anchors) == 2
        assert anna.id not in w.state.operators


async def test_a_kit_of_before_is_none_and_says_so_until_there_is_another(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        for link in w.links.links.values():
            link.answers["device.grant"] = lambda _: n.DeviceGrantReply(0)
            link.answers["mesh.keep"] = lambda _: v.Done()
        await w.submit(AddKit("kit-1", b"k" * 32, w.clock.now_ns()))
        await w.submit(ConfirmKit("kit-1", w.clock.now_ns()))

        async def stands(wanted: bool) -> bool:
            alerts = await w.tables.alerts()
            return any(a.category == "no-recovery-kit" and a.cleared_at_ns is None for a in alerts) is wanted

        await wait_for_async(lambda: stands(False), 60.0, what="there is a kit", every_s=0.5)
        await w.ask("ca.rotate", q.CaRotate(urgent=True))
        await stage(w, "switched")
        await wait_for_async(lambda: stands(True), 60.0, what="the kit is of the old root", every_s=0.5)
        text = next(
            a.text for a in await w.tables.alerts() if a.cleared_at_ns is None and a.category == "no-recovery-kit"
        )
        assert "rotated" in text
        material = await w.ask("kit.create", q.KitCreate("kit-2", b"n" * 32))
        assert material.root == w.authority.root
        await w.submit(ConfirmKit("kit-2", w.clock.now_ns()))
        await wait_for_async(lambda: stands(False), 60.0, what="there is a kit again", every_s=0.5)


async def test_a_switch_that_was_cut_off_is_taken_up_by_the_next_office(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        take, w.next_authority.take = w.next_authority.take, lambda issuing: None  # type: ignore[method-assign]
        old = w.authority.issuing
        await w.ask("ca.rotate", q.CaRotate(urgent=True))
        await stage(w, "switched")
        assert w.authority.issuing == old
        peer = Peer(node("alpha"), "alpha", "node")
        assert peer.id == KEYS.id
        await w.node_call(KEYS.id, "identity.renew", q.Nothing())
        assert "alpha" in (await w.ask("ca.show", q.Nothing())).lacking  # it was signed by the old one
        w.next_authority.take = take  # type: ignore[method-assign]
        await w.another_office()
        await wait_for_async(lambda: _is_new(w, old), 60.0, what="the new authority is in use", every_s=0.5)


async def _is_new(w: World, old: bytes) -> bool:
    return w.authority.issuing != old
