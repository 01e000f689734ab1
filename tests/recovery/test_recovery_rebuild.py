"""Rebuilding the administrator in this process: from the newest copy, interrupted anywhere, never twice."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from consensus.consensus_cluster import running
from msgspec import structs

from caso_mesh import recovery
from caso_mesh.config import load_config
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.database import Database
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.founding import init_mesh
from caso_mesh.identity.kit import Kit
from caso_mesh.identity.mesh_copy import MeshCopy, attest
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model.commands import AddKit
from caso_mesh.model.errors import NoMeshCopy, StateNotEmpty
from caso_mesh.model.orders import Authority as Place
from caso_mesh.planning.media import medium_for
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.queue import MIGRATIONS, Queue
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.header import create_vault
from caso_mesh.vault.keys import create_content_key
from caso_mesh.vault.mesh_copies import put_copy, seal_copy


class Clock:
    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


class Lost:
    """A mesh of one whose administrator is gone: what is left is a device and a kit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.device = folder / "device"
        self.new = folder / "new"

    async def make(self) -> None:
        state = self.folder / "old"
        await init_mesh(mesh="home", server="alpha", state=state, listen="127.0.0.1:7311")
        self.identity = IdentityStore(state / "identity")
        self.keys, self.authority = self.identity.load_keys(), self.identity.load_authority()
        self.mesh, id_key = self.identity.load_mesh_id(), self.identity.load_id_key()
        self.kit = Kit(
            id="kit1", mesh=self.mesh, mesh_name="home", root=self.authority.root,
            root_key=self.authority.root_key_bytes(), id_key=id_key, private_key=os.urandom(32),
        )  # fmt: skip
        async with running(state / "consensus.db", self.keys.id) as consensus:
            keeper = ControlKeeper(consensus)
            applying = asyncio.ensure_future(keeper.run())
            await keeper.submit(AddKit("kit1", self.kit.public_key, 1), who="t", request_id="t", at_ns=1)
            self.control, self.place = keeper.state.snapshot(), keeper.authority
            applying.cancel()
            await asyncio.gather(applying, return_exceptions=True)
        self.device.mkdir()
        backend = self.backend(marker=None)
        create_vault(backend, vault="vault1", mesh=self.mesh, chunker=ChunkerParameters(seed=7))
        recipients = {self.keys.id: self.keys.encryption_key, "kit1": self.kit.public_key}
        create_content_key(backend, recipients, key_id="k1", randomness=os.urandom, id_key=id_key)
        backend.close()

    def backend(self, marker: str | None = "format") -> FolderBackend:
        return FolderBackend(str(self.device), "device", marker=marker)

    def lay_down(self, **changes: Any) -> None:
        signing_key, encryption_key = self.keys.to_bytes()
        copy = MeshCopy(
            mesh=self.mesh, mesh_name="home", made_at_ns=1, place=self.place, control=self.control,
            admin=self.keys.id, admin_name="alpha", signing_key=signing_key, encryption_key=encryption_key,
            root=self.authority.root, issuing=self.authority.issuing, issuing_key=self.authority.issuing_key_bytes(),
        )  # fmt: skip
        content = attest(structs.replace(copy, **changes), self.authority, ())
        sealed = seal_copy(content, {"kit1": self.kit.public_key}, mesh=self.mesh, randomness=os.urandom)
        backend = self.backend()
        put_copy(backend, sealed)
        backend.close()

    async def recover(self, **options: Any) -> recovery.Recovered:
        return await recovery.recover_mesh(self.kit, [str(self.device)], self.new, clock=Clock(), **options)


@pytest.fixture
async def lost(tmp_path: Path) -> Lost:
    made = Lost(tmp_path)
    await made.make()
    return made


async def test_the_administrator_is_who_it_was_in_a_higher_lineage(lost: Lost) -> None:
    lost.lay_down()
    done = await lost.recover()
    assert (done.server, done.lineage, done.listen, done.servers) == ("alpha", 2, "127.0.0.1:7311", ("alpha",))
    identity = IdentityStore(lost.new / "identity")
    assert identity.load_keys().id == lost.keys.id
    assert identity.load_mesh_id() == lost.mesh
    assert identity.load_authority().issuing == lost.authority.issuing
    assert not identity.has_root_key
    assert identity.load_operator().key.id != lost.identity.load_operator().key.id
    assert load_config(lost.new / "config.toml").server == "alpha"
    folder = StateFolder(lost.new)
    async with Database.open(folder.queue, MIGRATIONS, durable=True) as database:
        queue = Queue(database)
        orders = await queue.load_orders()
        media = await queue.all_media()
    assert orders is not None
    assert orders.authority > Place(1, 1 << 40, 1 << 40)
    state = next(row for row in orders.roster.rows if row.kind == "operator")
    assert state.id == identity.load_operator().key.id
    # labels go on behind all that may have been given
    later = medium_for(media, orders.media_sets[0], "dev", lost.keys.id, "alpha", 5)
    assert later.label == "ALPHA-001001"


async def test_of_several_copies_the_one_with_the_highest_place_counts_whatever_its_number(lost: Lost) -> None:
    lost.lay_down(place=Place(3, 1, 9), made_at_ns=5)
    lost.lay_down(place=Place(1, 50, 900), made_at_ns=9)
    done = await lost.recover()
    assert (done.lineage, done.made_at_ns) == (4, 5)


async def test_a_lineage_may_be_asked_for_and_never_falls(lost: Lost) -> None:
    lost.lay_down(place=Place(3, 1, 9))
    assert (await lost.recover(least_lineage=2)).lineage == 4
    lost.new = lost.folder / "newer"
    assert (await lost.recover(least_lineage=9)).lineage == 9


async def test_without_a_copy_nothing_is_made(lost: Lost) -> None:
    with pytest.raises(NoMeshCopy):
        await lost.recover()
    assert not (lost.new / "identity" / "mesh.id").exists()
    lost.lay_down()
    assert (await lost.recover()).server == "alpha"


async def test_an_existing_server_is_never_overwritten(lost: Lost) -> None:
    lost.lay_down()
    await lost.recover()
    before = {path: path.stat().st_mtime_ns for path in lost.new.rglob("*") if path.is_file()}
    with pytest.raises(StateNotEmpty):
        await lost.recover()
    assert {path: path.stat().st_mtime_ns for path in lost.new.rglob("*") if path.is_file()} == before
    # a real log without its identity is not an interrupted try
    (lost.new / "identity" / "mesh.id").unlink()
    with pytest.raises(StateNotEmpty):
        await lost.recover()
    assert (lost.new / "consensus.db").exists()


@pytest.mark.parametrize(
    "step", ["write_config", "newcomer_chain", "_begin_log", "_label_gap", "_begin_journal", "is_last"]
)
async def test_interrupted_anywhere_it_may_be_repeated(lost: Lost, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lost.lay_down()

    def fail(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if step == "is_last":
            patched.setattr(IdentityStore, "save_mesh_id", fail)
        else:
            patched.setattr(recovery, step, fail)
        with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
            await lost.recover()
    assert not (lost.new / "identity" / "mesh.id").exists()
    done = await lost.recover()
    assert done.lineage == 2
    async with running(lost.new / "consensus.db", lost.keys.id) as consensus:
        assert consensus.leadership().lineage == 2
    assert not (lost.new / "run" / "recovering").exists()
