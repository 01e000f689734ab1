"""Recovery kits at the administrator: what is handed over, when the root key goes, what every device gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import KEYS, World, admin_world, node

from caso_mesh.admin import kits as admin_kits
from caso_mesh.admin.kits import INCOMPLETE, KEPT_WAITING_S, NO_KIT
from caso_mesh.control.state import ControlState
from caso_mesh.identity import kit as kits
from caso_mesh.identity.kit import Kit, Secrets
from caso_mesh.identity.mesh_copy import check
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.commands import ConfirmKit, CreatePool
from caso_mesh.model.errors import DeviceVanished, NotFound, Refused, RootKeyGone
from caso_mesh.model.mesh import Pool
from caso_mesh.model.states import AlertKind
from caso_mesh.vault.mesh_copies import open_copy

pytestmark = pytest.mark.jumping
ID_KEY = b"i" * 32


class Devices:
    """The disks of beta and gamma, as far as kits are concerned."""

    def __init__(self, w: World) -> None:
        self.granted: dict[str, set[str]] = {"dev-beta": set(), "dev-gamma": set()}
        self.copies: dict[str, list[bytes]] = {"dev-beta": [], "dev-gamma": []}
        self.broken: set[str] = set()
        for name in ("beta", "gamma"):
            self.serve(w, name)

    def serve(self, w: World, name: str) -> None:
        link = w.links.links[node(name)]
        link.answers["device.grant"] = self.grant
        link.answers["mesh.keep"] = self.keep

    def grant(self, request: n.DeviceGrant) -> n.DeviceGrantReply:
        if request.device in self.broken:
            raise DeviceVanished(device=request.device, detail="it is away")
        new = request.recipients.keys() - self.granted[request.device]
        self.granted[request.device] |= new
        return n.DeviceGrantReply(len(new))

    def keep(self, request: n.MeshKeep) -> v.Done:
        if request.device in self.broken:
            raise DeviceVanished(device=request.device, detail="it is away")
        self.copies[request.device].append(request.copy)
        return v.Done()


class Maker:
    """Somebody who makes a kit."""

    def __init__(self, w: World, name: str = "kit1") -> None:
        self.w, self.name, self.keys = w, name, kits.new_keys()

    async def create(self, *, with_root_key: bool = True) -> q.KitMaterial:
        request = q.KitCreate(self.name, self.keys.public_key, with_root_key)
        self.material: q.KitMaterial = await self.w.ask("kit.create", request)
        self.secrets = kits.open_secrets(self.material.sealed, self.keys, kit=self.name, mesh="mesh-1")
        return self.material

    async def confirm(self, *, with_root_key: bool = True, check_: bytes | None = None) -> v.KitView:
        digest = check_ or kits.check_of(self.material.root, self.secrets)
        view: v.KitView = await self.w.ask("kit.confirm", q.KitConfirm(self.name, digest, with_root_key))
        return view

    def open(self, stored: bytes) -> ControlState:
        copy = self.copy(stored)
        state = ControlState()
        state.restore(copy.control)
        return state

    def copy(self, stored: bytes) -> Any:
        kit = Kit(self.name, "mesh-1", "home", self.material.root, b"", ID_KEY, self.keys.private_key)
        content = open_copy("mesh/1", stored, kit.id, kit.unwrap, mesh="mesh-1")
        return check(content, mesh="mesh-1", root=kit.root, name="mesh/1").copy


async def test_the_alert_stands_until_a_kit_is_confirmed_and_the_root_key_goes_then(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        devices, maker = Devices(w), Maker(w)
        (alert,) = await w.until(lambda: w.facts.alerts(NO_KIT))
        assert alert.alert is AlertKind.ATTENTION
        root_key = w.root_key
        material = await maker.create()
        assert (material.devices, material.missing) == (("dbeta", "dgamma"), ())
        assert maker.secrets == Secrets(root_key or b"", ID_KEY)
        assert w.root_key == root_key
        assert facts.AlertCleared(alert.id) not in w.facts.all
        view = await maker.confirm()
        assert view.confirmed is not None
        assert w.root_key is None
        assert facts.AlertCleared(alert.id) in w.facts.all
        assert (await maker.confirm()).confirmed == view.confirmed
        await w.another_office()
        await w.until(lambda: devices.copies["dev-beta"])
        assert len(w.facts.alerts(NO_KIT)) == 1


async def test_a_kit_that_holds_something_else_is_not_confirmed(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        Devices(w)
        maker = Maker(w)
        material = await maker.create()
        for wrong in (Secrets(b"", ID_KEY), Secrets(maker.secrets.root_key, b"x" * 32)):
            with pytest.raises(Refused):
                await maker.confirm(check_=kits.check_of(material.root, wrong))
        with pytest.raises(NotFound):
            await w.ask("kit.confirm", q.KitConfirm("never-made", b"x" * 32))
        assert w.root_key is not None
        assert w.state.kits["kit1"].confirmed_at_ns is None


async def test_a_further_kit_brings_its_root_key_along(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        Devices(w)
        first, second = Maker(w), Maker(w, "kit2")
        await first.create()
        await first.confirm()
        with pytest.raises(RootKeyGone):
            await second.create()
        await second.create(with_root_key=False)
        assert second.secrets == Secrets(b"", ID_KEY)
        assert (await second.confirm(with_root_key=False)).confirmed
        listed = await w.ask("kit.list", q.Nothing())
        assert [each.id for each in listed.kits] == ["kit1", "kit2"]


async def test_a_root_key_that_a_crash_left_behind_a_confirmed_kit_is_removed(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        Devices(w)
        await Maker(w).create()
        await w.submit(ConfirmKit("kit1", w.clock.now_ns()))
        assert w.root_key is not None
        await w.another_office()
        await w.until(lambda: w.root_key is None)


async def test_a_device_that_is_away_is_completed_when_it_returns_and_told_of_if_that_takes_long(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        devices, maker = Devices(w), Maker(w)
        w.links.down(node("gamma"))
        devices.broken.add("dev-beta")
        material = await maker.create()
        assert material.missing == ("dbeta", "dgamma")
        await maker.confirm()
        alerts = await w.until(lambda: len(w.facts.alerts(INCOMPLETE)) == 2 and w.facts.alerts(INCOMPLETE), 400)
        assert {alert.object for alert in alerts} == {"dbeta", "dgamma"}
        assert w.clock.monotonic_s() >= KEPT_WAITING_S
        devices.broken.clear()
        w.links.up(node("gamma"), "gamma")
        devices.serve(w, "gamma")
        await w.until(lambda: w.state.kits["kit1"].complete == ("dev-beta", "dev-gamma"))
        assert devices.granted == {"dev-beta": {"kit1"}, "dev-gamma": {"kit1"}}
        for alert in alerts:
            await w.until(lambda alert=alert: facts.AlertCleared(alert.id) in w.facts.all)


async def test_copies_are_laid_down_after_changes_and_once_a_day_and_not_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_kits, "AGAIN_S", 1800.0)
    async with admin_world(tmp_path) as w:
        devices, maker = Devices(w), Maker(w)
        await w.until(lambda: w.clock.monotonic_s() > 100, 120)
        assert devices.copies == {"dev-beta": [], "dev-gamma": []}
        await maker.create()
        await maker.confirm()
        await w.until(lambda: all(devices.copies.values()))
        settled = w.clock.monotonic_s() + 60
        await w.until(lambda: w.clock.monotonic_s() > settled, 70)
        before = len(devices.copies["dev-beta"])
        run = await w.backup()
        await w.delegated(run)
        await w.until(lambda: w.clock.monotonic_s() > settled + 60, 70)
        # a job is something that shall be; what its run does is not
        assert len(devices.copies["dev-beta"]) == before + 1
        await w.submit(CreatePool(Pool("late", (node("beta"),))))
        await w.until(lambda: len(devices.copies["dev-gamma"]) == before + 2)
        assert "late" in maker.open(devices.copies["dev-gamma"][-1]).pools
        await w.until(lambda: len(devices.copies["dev-beta"]) == before + 3, 2000)


async def test_a_copy_holds_the_administrator_and_only_kits_open_it(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        devices, first, second = Devices(w), Maker(w), Maker(w, "kit2")
        await first.create()
        await second.create()
        await w.until(lambda: w.state.kits.keys() == {"kit1", "kit2"} and devices.copies["dev-beta"])
        await w.until(lambda: b"kit2" in devices.copies["dev-beta"][-1])
        stored = devices.copies["dev-beta"][-1]
        for maker in (first, second):
            copy = maker.copy(stored)
            assert (copy.admin, copy.admin_name) == (KEYS.id, "alpha")
            assert copy.node_keys().id == KEYS.id
            assert copy.authority().issuing == w.authority.issuing
            assert copy.place.lineage == 1
        assert KEYS.to_bytes()[1] not in stored
        assert w.authority.issuing_key_bytes() not in stored


async def test_a_device_that_takes_no_copy_gets_it_later(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        devices, maker = Devices(w), Maker(w)
        devices.broken.add("dev-gamma")
        await maker.create()
        await w.until(lambda: devices.copies["dev-beta"])
        assert devices.copies["dev-gamma"] == []
        devices.broken.clear()
        await w.until(lambda: devices.copies["dev-gamma"], 120)


async def test_a_new_device_is_made_for_the_kits_that_there_are(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        Devices(w)
        maker = Maker(w)
        await maker.create()
        asked: list[n.DevicePrepare] = []

        def prepare(request: n.DevicePrepare) -> n.DevicePrepareReply:
            asked.append(request)
            return n.DevicePrepareReply(request.vault, True, 1, 2, "/ (ext4)", ())

        w.links.links[node("beta")].answers["device.prepare"] = prepare
        await w.ask("device.add", q.DeviceAdd("late", "disk", {"beta": "/mnt/late"}))
        (request,) = asked
        assert request.recipients == {node("beta"): b"x" * 32, "kit1": maker.keys.public_key}
