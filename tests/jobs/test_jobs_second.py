"""One read, two devices: what a source is read for once lies on both, and each set restores alone."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import pytest
from job_site import ANY, Second, doors, listen, run
from job_trees import make_tree
from msgspec import structs
from waiting import wait_for

from caso_mesh.jobs import messages as say
from caso_mesh.jobs.backup import SETTLE_NS
from caso_mesh.jobs.task import FarEnd
from caso_mesh.model.host_commands import CommandKind, HostCommand
from caso_mesh.model.jobs import DuplicateSpec
from caso_mesh.model.orders import AttemptOrder, SecondEnd
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.sources.compare import differences


@pytest.fixture
def second(site):
    return Second(site)


def settled(tree):
    """What changed less than 20 ms before a backup begins is read again by the next one: where a worker starts as quickly
    as that, a tree that was just made would be (its last 23 files, once)."""
    last = max(path.lstat().st_ctime_ns for path in tree.rglob("*"))
    wait_for(lambda: time.time_ns() > last + 2 * SETTLE_NS, what="nothing of it is too new to be trusted")


class Both:
    """A backup of ``source`` to the first device at alpha and to the second one at ``at``, by as many workers as it takes.
    What each said."""

    def __init__(self, site, runners, second, *, source=None, at=None, join_s=60.0, rejoin_s=60.0):
        self.site = site
        self.runners = dict(zip(("alpha", "beta"), runners, strict=True))
        self.second = second
        self.source = source or site.alpha
        self.at = at or site.beta
        self.limits = {"join_s": join_s, "rejoin_s": rejoin_s}

    def order(self, spec, number: int, *, media, device: str, **rest) -> AttemptOrder:
        self.site.serial += 1
        order = AttemptOrder(
            attempt=f"job@{self.site.serial}#{number}", run=f"job@{self.site.serial}", job="job", job_name="job",
            source=self.source.id, media=media.id, end="device", device=device, spec=spec, number=number,
            secret=os.urandom(32), **rest,
        )  # fmt: skip
        return structs.replace(order, ticket=self.site.ticket(order))

    def far(self, node, addresses) -> FarEnd:
        return FarEnd(node.id, node.name, (addresses[node.name],))

    def task(self, node, order, **changes):
        return structs.replace(self.site.base_task(node, order), tls=self.site.tls(node), **self.limits, **changes)

    async def run(self, spec, *, on_second=None, on_first=None, alone=False, **changes):
        """``alone``: the end of the second device never comes."""
        site, alpha = self.site, self.site.alpha
        spec = structs.replace(spec, second=ANY)
        workers = {"alpha": [], "beta": []}
        async with doors(site, workers) as addresses:
            first = self.order(spec, 1, media=alpha, device="dev1")
            other = self.order(spec, 1, media=self.at, device="dev2", beside=first.attempt)
            reads = SecondEnd(other.attempt, self.at.id, "dev2", other.ticket, other.secret)
            local = self.source is alpha
            tasks = []
            if not alone:
                there = structs.replace(self.second.access, writer=self.at.writer)
                tasks.append((self.at, self.task(self.at, other, device=there, far=self.far(self.source, addresses))))
            if local:
                order = structs.replace(first, end="both", second=reads, ticket=b"")
                far = self.far(self.at, addresses)
                tasks.append((alpha, self.task(alpha, order, device=site.access, second_far=far, **changes)))
            else:
                there = self.task(alpha, first, device=site.access, far=self.far(self.source, addresses))
                here = structs.replace(first, end="source", second=reads)
                ends = {"far": self.far(alpha, addresses), "second_far": self.far(self.at, addresses)}
                tasks += [(alpha, there), (self.source, self.task(self.source, here, **ends, **changes))]
            started = []
            for node, task in tasks:
                worker = await self.runners[node.name].start(task)
                workers[node.name].append((worker, task.order.secret))
                started.append((worker, task))

            def heard(worker, task):
                hook = on_second if task.order.beside else on_first
                return listen(worker, on=None if hook is None else lambda message: hook(worker, message))

            answers = await asyncio.gather(*(heard(worker, task) for worker, task in started))
        found = {task.order.attempt: said for said, (_, task) in zip(answers, started, strict=True)}
        if not local:
            self.reader = answers[-1]
            found[first.attempt] = answers[-2]
        return found[first.attempt], found.get(other.attempt)

    async def restored(self, device: str, set_id: str, out):
        """A restore out of one of the devices."""
        task = self.site.task(self.site.restore_spec(set_id, out))
        if device == "dev2":
            task = structs.replace(task, device=structs.replace(self.second.access, writer=self.site.alpha.writer))
        heard = await run(self.runners["alpha"], task)
        assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines


async def check(both, first, other, tree, tmp_path):
    """Both sets are there, and what either gives back is the tree."""
    assert first.ended.state is AttemptState.SUCCEEDED, (first.lines, other.lines)
    assert other.ended.state is AttemptState.SUCCEEDED, (first.lines, other.lines)
    assert (first.set.copy_of, other.set.copy_of) == (None, first.set.id)
    assert (first.set.device, other.set.device) == ("dev1", "dev2")
    for field in ("root", "filters", "source", "type", "files", "entries", "bytes", "bytes_read"):
        assert getattr(other.set, field) == getattr(first.set, field), field
    assert both.second.sets()[-1] == other.set
    for device, set_id in (("dev1", first.set.id), ("dev2", other.set.id)):
        out = tmp_path / f"out-{device}-{set_id}"
        await both.restored(device, set_id, out)
        assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree), holes=True)) == []


@pytest.mark.parametrize("at", ["alpha", "beta"])
async def test_what_is_read_once_lies_on_two_devices_of_one_server_or_of_two(site, runners, second, tmp_path, at):
    tree = make_tree(tmp_path / "tree")
    (tree / "large").write_bytes(os.urandom(12_000_000))
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    both = Both(site, runners, second, at=getattr(site, at))
    first, other = await both.run(site.backup_spec(tree, verify=True))
    await check(both, first, other, tree, tmp_path)
    assert first.ended.counts.bytes_read <= size
    assert other.set.server == getattr(site, at).id


async def test_a_far_source_is_read_once_for_two_devices_at_one_server(site, runners, second, tmp_path):
    tree = make_tree(tmp_path / "tree")
    settled(tree)
    both = Both(site, runners, second, source=site.beta, at=site.alpha)
    first, other = await both.run(site.backup_spec(tree, source=site.beta))
    assert both.reader.ended.state is AttemptState.SUCCEEDED, both.reader.lines
    await check(both, first, other, tree, tmp_path)
    (tree / "new").write_bytes(os.urandom(200_000))
    settled(tree)
    first, other = await both.run(site.backup_spec(tree, source=site.beta, type_=BackupType.INCREMENTAL))
    await check(both, first, other, tree, tmp_path)
    assert first.set.type is BackupType.INCREMENTAL
    assert both.reader.ended.counts.bytes_read <= 201_000, both.reader.lines


async def test_a_dump_that_can_be_read_only_once_is_the_same_on_both(site, runners, second):
    text = "import os, sys; [sys.stdout.buffer.write(os.urandom(65536)) for _ in range(100)]"
    dump = HostCommand(CommandKind.DUMP, (sys.executable, "-c", text), "", 60.0, {})
    both = Both(site, runners, second)
    first, other = await both.run(site.backup_spec("/@dumps/once"), commands={"once": dump})
    assert first.ended.state is AttemptState.SUCCEEDED, (first.lines, other.lines)
    assert other.ended.state is AttemptState.SUCCEEDED, (first.lines, other.lines)
    assert first.set.root == other.set.root
    assert first.set.bytes == first.ended.counts.bytes_read == 6_553_600
    assert min(first.set.bytes_stored, other.set.bytes_stored) >= 6_553_600


async def test_an_incremental_builds_on_both_and_stores_on_both_only_what_is_new(site, runners, second, tmp_path):
    tree = make_tree(tmp_path / "tree")
    settled(tree)
    both = Both(site, runners, second)
    before, before_there = await both.run(site.backup_spec(tree))
    (tree / "new").write_bytes(os.urandom(300_000))
    settled(tree)
    first, other = await both.run(site.backup_spec(tree, type_=BackupType.INCREMENTAL))
    await check(both, first, other, tree, tmp_path)
    assert (first.set.parent, other.set.parent) == (before.set.id, before_there.set.id)
    assert first.set.type is BackupType.INCREMENTAL
    assert first.ended.counts.bytes_read == 300_000
    assert max(first.set.bytes_stored, other.set.bytes_stored) < 400_000


async def test_without_a_common_set_everything_is_read_and_a_copy_is_one(site, runners, second, tmp_path):
    tree = make_tree(tmp_path / "tree")
    settled(tree)
    alone = (await run(runners[0], site.task(site.backup_spec(tree)))).set
    both = Both(site, runners, second)
    spec = site.backup_spec(tree, type_=BackupType.INCREMENTAL)
    first, other = await both.run(spec)
    await check(both, first, other, tree, tmp_path)
    assert (first.set.type, first.set.parent) == (BackupType.FULL, None)
    assert any("the two devices have no set of the same tree" in line for line in first.lines)
    (tree / "new").write_bytes(os.urandom(100_000))
    settled(tree)
    # what only the first device has is made good by a copy, on which both build
    later = (await run(runners[0], site.task(spec))).set
    task = site.task(DuplicateSpec((site.alpha.id,), ANY, (later.id,)))
    order = structs.replace(task.order, reader=site.alpha.id, from_device="dev1", device="dev2")
    there = structs.replace(second.access, writer=site.alpha.writer)
    copy = (await run(runners[0], structs.replace(task, order=order, device=there, reads=site.access))).set
    (tree / "newer").write_bytes(os.urandom(100_000))
    settled(tree)
    first, other = await both.run(spec)
    await check(both, first, other, tree, tmp_path)
    assert (first.set.parent, other.set.parent) == (later.id, copy.id)
    assert first.ended.counts.bytes_read == 100_000
    assert alone.id != later.id


async def test_the_first_set_is_good_when_the_second_device_is_gone(site, runners, second, tmp_path):
    tree = make_tree(tmp_path / "tree")
    second.folder.rename(tmp_path / "gone")
    both = Both(site, runners, second)
    first, other = await both.run(site.backup_spec(tree))
    assert other.ended.state is AttemptState.FAILED, other.lines
    assert other.ended.failure.code == "device-vanished", other.lines
    assert first.ended.state is AttemptState.SUCCEEDED, first.lines
    assert any("nothing goes to the second device at beta" in line for line in first.lines), first.lines
    await both.restored("dev1", first.set.id, tmp_path / "out")


@pytest.mark.parametrize("told", [False, True])
async def test_the_first_set_is_good_when_the_second_end_dies_in_the_midst(site, runners, second, tmp_path, told):
    """It waits for that end to come back, but no longer than somebody believes in it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"{number}").write_bytes(os.urandom(1_000_000))

    async def die(worker, message):
        if isinstance(message, say.Began):
            await worker.kill()
            gone.set()

    async def tell(worker, message):
        if told and gone.is_set():
            await worker.send(say.Alone())

    gone = asyncio.Event()
    both = Both(site, runners, second, rejoin_s=300.0 if told else 1.0)
    async with asyncio.timeout(100):
        first, other = await both.run(site.backup_spec(tree), on_second=die, on_first=tell)
    assert other.ended.state is AttemptState.INTERRUPTED, other.lines
    assert first.ended.state is AttemptState.SUCCEEDED, first.lines
    assert second.sets() == []
    out = tmp_path / "out"
    await both.restored("dev1", first.set.id, out)
    assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree), holes=True)) == []


async def test_the_first_set_is_good_when_the_second_end_never_comes(site, runners, second, tmp_path):
    tree = make_tree(tmp_path / "tree")
    both = Both(site, runners, second, join_s=0.5)
    first, _ = await both.run(site.backup_spec(tree), alone=True)
    assert first.ended.state is AttemptState.SUCCEEDED, first.lines
    assert any("nothing goes to the second device" in line for line in first.lines), first.lines


async def test_there_is_no_second_set_without_the_first(site, runners, second, tmp_path):
    tree = make_tree(tmp_path / "tree")

    async def refuse(worker, message):
        if isinstance(message, say.MayPublish):
            await worker.send(say.Cancel())

    both = Both(site, runners, second)
    first, other = await both.run(site.backup_spec(tree), on_first=refuse)
    assert first.ended.state is AttemptState.CANCELED, first.lines
    assert other.ended.state is not AttemptState.SUCCEEDED, other.lines
    assert second.sets() == site.sets() == []
