"""A device that cannot read some of its sectors: the files hit are named, the rest comes back."""

from __future__ import annotations

import os

import pytest
from job_site import verify_spec

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.perform import Tools, perform
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.errors import DeviceError
from caso_mesh.model.states import AttemptState
from caso_mesh.sources.compare import differences
from caso_mesh.vault.names import FORMAT


class BadSectors(FolderBackend):
    """Reads that touch ``bad`` (object, first byte, byte behind the last) fail, as EIO does."""

    bad: tuple[tuple[str, int, int], ...] = ()

    def get(self, name, offset=0, length=None):
        end = self.size(name) if length is None else offset + length
        for where, begin, behind in self.bad:
            if where == name and offset < behind and begin < end:
                raise DeviceError(device=self.device, detail="Input/output error")
        return super().get(name, offset, length)


def work(task, bad=(), *, on=lambda message, desk: None):
    """What a worker says that runs the task here."""
    heard = []

    def hear(message):
        heard.append(message)
        if isinstance(message, say.MayPublish):
            desk.hear(say.Publish())
        on(message, desk)

    def backend_for(access):
        backend = BadSectors(access.path, access.name, marker=FORMAT)
        backend.bad = bad
        return backend

    desk = Desk(task.order.attempt, hear, SystemClock())
    perform(task, desk, Tools(meet=None, backend_for=backend_for))
    return heard


def excepted(heard):
    return {each.path: each for message in heard if isinstance(message, say.Excepted) for each in message.exceptions}


@pytest.fixture
def stored(site, tmp_path):
    """A tree of small files that share records and of large ones, its set, and the packs of its content."""
    tree = tmp_path / "tree"
    for folder in range(8):
        (tree / f"d{folder}").mkdir(parents=True)
        for number in range(40):
            (tree / f"d{folder}" / f"f{number}").write_bytes(os.urandom(40_000))
    for number in range(3):
        (tree / f"large{number}").write_bytes(os.urandom(9 << 20))
    heard = work(site.task(site.backup_spec(tree)))
    (published,) = (message for message in heard if isinstance(message, say.Published))
    packs = sorted((site.device / "packs" / "d").rglob("*"), key=lambda path: -path.stat().st_size)
    names = [str(path.relative_to(site.device)) for path in packs if path.is_file()]
    return tree, published.set, names


def test_a_restore_names_the_files_of_a_bad_sector_and_brings_back_the_rest(site, stored, tmp_path):
    tree, backup, packs = stored
    # one sector in the middle of each pack
    bad = tuple((name, at, at + 512) for name in packs for at in [(site.device / name).stat().st_size // 2])
    out = tmp_path / "out"
    heard = work(site.task(site.restore_spec(backup.id, out)), bad)
    assert heard[-1].state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    found = excepted(heard)
    assert found
    assert {each.reason for each in found.values()} == {"damaged"}
    assert all("Input/output error" in each.detail for each in found.values())
    lost = {os.fsdecode(path) for path in found}
    every = {os.fsdecode(path).lstrip("/") for path in map(str, tree.rglob("*")) if os.path.isfile(path)}
    # a sector costs the record it lies in: a bundle of small files at most, or one large file
    assert len(lost) <= 60 * len(packs)
    assert lost < every
    for path in every:
        back = out / path
        assert back.exists() == (path not in lost)
        if path not in lost:
            with open("/" + path, "rb") as one, open(back, "rb") as other:
                assert one.read() == other.read()
    assert not [name for _, _, names in os.walk(out) for name in names if name.startswith(".caso")]


def test_a_verification_names_the_same_files(site, stored, tmp_path):
    _, backup, packs = stored
    bad = tuple((name, at, at + 512) for name in packs for at in [(site.device / name).stat().st_size // 2])
    restored = excepted(work(site.task(site.restore_spec(backup.id, tmp_path / "out")), bad))
    heard = work(site.task(verify_spec(backup.id)), bad)
    assert heard[-1].state is AttemptState.FAILED
    assert heard[-1].failure.code == "data-damaged"
    assert {path for path in excepted(heard) if path} == set(restored)


def test_a_bad_sector_in_the_tree_is_damage_of_what_was_asked_for(site, stored, tmp_path):
    """It used to end the whole restore where single paths were asked for."""
    tree, backup, _ = stored
    packs = [path for path in (site.device / "packs" / "m").rglob("*") if path.is_file()]
    bad = tuple((str(path.relative_to(site.device)), 200, 300) for path in packs)
    heard = work(site.task(site.restore_spec(backup.id, tmp_path / "out", tree / "d0")), bad)
    assert heard[-1].state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    (found,) = excepted(heard).values()
    assert (found.path, found.reason) == (os.fsencode(tree / "d0").lstrip(b"/"), "damaged")
    assert "Input/output error" in found.detail


def test_a_restore_that_is_canceled_ends_between_two_pieces_and_leaves_no_half_file(site, stored, tmp_path):
    _, backup, _ = stored
    out = tmp_path / "out"

    def cancel(message, desk):
        if isinstance(message, say.Began):
            desk.hear(say.Cancel())

    heard = work(site.task(site.restore_spec(backup.id, out)), on=cancel)
    assert heard[-1].state is AttemptState.CANCELED
    for parent, _, names in os.walk(out):
        for name in names:
            back = os.path.join(parent, name)
            with open(back, "rb") as one, open(os.path.join("/", os.path.relpath(back, out)), "rb") as other:
                assert one.read() == other.read()


def test_after_bad_sectors_a_sound_device_brings_back_everything(site, stored, tmp_path):
    tree, backup, packs = stored
    out = tmp_path / "out"
    work(site.task(site.restore_spec(backup.id, out)), tuple((name, 0, 1 << 30) for name in packs))
    assert work(site.task(site.restore_spec(backup.id, out)))[-1].state is AttemptState.SUCCEEDED
    assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree))) == []
