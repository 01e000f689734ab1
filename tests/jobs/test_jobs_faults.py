"""Killed workers, nurseries and daemons, cut links: nothing half is ever visible, and what can go on does."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from job_site import doors, listen, run
from job_trees import make_tree
from msgspec import structs

from caso_mesh.jobs import framing
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.nursery_runner import NurseryRunner
from caso_mesh.model.errors import WorkersLeft
from caso_mesh.model.states import AttemptState
from caso_mesh.sources.compare import differences


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rsplit(b") ", 1)[1][:1] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(predicate):
    async with asyncio.timeout(30):
        while not predicate():  # noqa: ASYNC110  # another process tells no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("moment", ["at once", "in the middle", "before it may publish"])
async def test_a_killed_worker_is_told_and_publishes_nothing(site, runner, tmp_path, moment):
    tree = make_tree(tmp_path / "tree", large=40 << 20)
    worker = await runner.start(site.task(site.backup_spec(tree)))
    if moment == "at once":
        os.kill(worker.pid, signal.SIGKILL)

    async def kill(message):
        if isinstance(message, say.Began) and moment == "in the middle":
            os.kill(worker.pid, signal.SIGKILL)
        if isinstance(message, say.MayPublish):
            os.kill(worker.pid, signal.SIGKILL)

    heard = await listen(worker, on=kill)
    assert heard.ended.state is AttemptState.INTERRUPTED
    assert heard.ended.failure.code == "worker-died"
    await until(lambda: not alive(worker.pid))
    assert site.sets() == []
    again = await run(runner, site.task(site.backup_spec(tree)))
    assert again.ended.state is AttemptState.SUCCEEDED, again.lines
    with site.opened() as vault:
        assert list(vault.open_sessions()) == []
        assert vault.verify_set(again.set) == []


async def test_kills_at_random_points_leave_whole_sets_or_none(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree", large=8 << 20)
    published = set()
    chance = random.Random(4)
    for _ in range(12):
        worker = await runner.start(site.task(site.backup_spec(tree)))
        killer = asyncio.get_running_loop().call_later(chance.uniform(0.0, 0.25), os.kill, worker.pid, signal.SIGKILL)
        try:
            heard = await listen(worker)
        finally:
            killer.cancel()
        if heard.all(say.MayPublish):
            published.add(heard.all(say.MayPublish)[0].set)
        else:
            assert heard.ended.state is AttemptState.INTERRUPTED
    found = {each.id for each in site.sets()}
    assert found <= published
    with site.opened() as vault:
        for each in vault.sets():
            assert vault.verify_set(each) == []


async def test_a_nursery_that_was_killed_takes_its_workers_along_and_is_started_again(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree", large=40 << 20)
    worker = await runner.start(site.task(site.backup_spec(tree)))
    nursery = runner._nursery.process.pid

    async def kill(message):
        if isinstance(message, say.Began):
            os.kill(nursery, signal.SIGKILL)

    heard = await listen(worker, on=kill)
    assert heard.ended.state is AttemptState.INTERRUPTED
    assert site.sets() == []
    again = await run(runner, site.task(site.backup_spec(tree)))
    assert again.ended.state is AttemptState.SUCCEEDED
    assert runner._nursery.process.pid != nursery


async def test_a_worker_ends_with_its_daemon(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree", large=40 << 20)
    worker = await runner.start(site.task(site.backup_spec(tree)))
    async for message in worker.messages():
        if isinstance(message, say.MayPublish):
            break
    # the daemon's end of the channel goes, as with a daemon that was killed
    worker._messages.shutdown(socket.SHUT_RDWR)
    await until(lambda: not alive(worker.pid))
    await worker.kill()
    assert site.sets() == []


DAEMON = """
import asyncio, sys
from caso_mesh.jobs import framing
from caso_mesh.jobs.nursery_runner import NurseryRunner

async def main(lock, path):
    task = framing.decode_task(open(path, "rb").read()[framing.HEAD:])
    async with NurseryRunner(lock_path=lock) as runner:
        worker = await runner.start(task)
        print(worker.pid, flush=True)
        async for message in worker.messages():
            print(type(message).__name__, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_the_next_daemon_waits_until_the_workers_of_a_killed_one_are_gone(site, tmp_path):
    tree = make_tree(tmp_path / "tree", large=40 << 20)
    lock = tmp_path / "run" / "workers.lock"
    (tmp_path / "task").write_bytes(framing.encode(site.task(site.backup_spec(tree))))
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(lock), str(tmp_path / "task")], stdout=subprocess.PIPE, text=True
    )
    with daemon:
        assert daemon.stdout is not None
        pid = int(await asyncio.to_thread(daemon.stdout.readline))
        assert alive(pid)
        while (line := await asyncio.to_thread(daemon.stdout.readline)) != "Began\n":
            assert line == "Logged\n"
        daemon.kill()
        daemon.wait()
        async with NurseryRunner(lock_path=lock) as runner:
            await until(lambda: not alive(pid))
            assert site.sets() == []
            heard = await run(runner, site.task(site.backup_spec(tree)))
            assert heard.ended.state is AttemptState.SUCCEEDED


async def test_a_second_daemon_is_refused_while_workers_live(tmp_path, monkeypatch):
    monkeypatch.setattr("caso_mesh.jobs.nursery_runner.LOCK_WAIT_S", 0.1)
    lock = tmp_path / "run" / "workers.lock"
    async with NurseryRunner(lock_path=lock):
        with pytest.raises(WorkersLeft):
            async with NurseryRunner(lock_path=lock):
                pass


async def test_a_worker_holds_nothing_of_its_parents(site, runner, tmp_path):
    """Descriptors of other workers would keep their channels open beyond the end of their daemon."""
    tree = make_tree(tmp_path / "tree", large=1 << 20)
    first = await runner.start(site.task(site.backup_spec(tree)))
    second = await runner.start(site.task(site.backup_spec(tree)))
    for worker in (first, second):
        await until(lambda worker=worker: Path(f"/proc/{worker.pid}/comm").read_text() == "caso-worker\n")
        sockets = [
            os.readlink(f"/proc/{worker.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{worker.pid}/fd")
            if os.path.islink(f"/proc/{worker.pid}/fd/{fd}")
        ]
        assert sum(each.startswith("socket:") for each in sockets) == 2
        assert os.getsid(worker.pid) == worker.pid
        await worker.kill()
        await until(lambda worker=worker: not alive(worker.pid))


async def test_cancel_ends_a_process_softly(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree", large=40 << 20)
    worker = await runner.start(site.task(site.backup_spec(tree)))

    async def cancel(message):
        if isinstance(message, say.Began):
            await worker.send(say.Cancel())

    heard = await listen(worker, on=cancel)
    assert heard.ended.state is AttemptState.CANCELED
    assert site.sets() == []


@pytest.mark.parametrize(("interval_s", "reports"), [(0.05, True), (3600.0, False)])
async def test_the_job_status_interval_says_how_often_a_worker_that_nobody_watches_reports(
    site, runner, tmp_path, interval_s, reports
):
    tree = make_tree(tmp_path / "tree", large=1 << 20)
    worker = await runner.start(site.task(site.backup_spec(tree), status_interval_s=interval_s))
    heard, left = [], [say.Publish()]

    async def go_on(message):
        heard.append(type(message))
        if left and say.MayPublish in heard and (not reports or heard.count(say.Progressed) >= 4):
            await worker.send(left.pop())

    done = await listen(worker, publish=False, on=go_on)
    assert done.ended.state is AttemptState.SUCCEEDED
    assert (len(done.all(say.Progressed)) >= 4) is reports


async def test_a_watched_worker_reports_more_often(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree", large=1 << 20)
    worker = await runner.start(site.task(site.backup_spec(tree), status_interval_s=3600.0))
    reports = []

    async def watch(message):
        if isinstance(message, say.MayPublish):
            await worker.send(say.Watch(interval_s=0.05, for_s=60.0))
        if isinstance(message, say.Progressed):
            reports.append(message.progress)
            if len(reports) == 3:
                await worker.send(say.Publish())

    heard = await listen(worker, publish=False, on=watch)
    assert heard.ended.state is AttemptState.SUCCEEDED
    assert reports[-1].counts.files == heard.set.files
    assert reports[-1].path.startswith("/")


# --- links that are cut ---


class Forwarder:
    """A way to a port that can be cut: after each of ``cuts`` bytes of all, every connection is reset."""

    def __init__(self, address, cuts):
        self._host, port = address.rsplit(":", 1)
        self._port = int(port)
        self._cuts = list(cuts)
        self._bytes = 0
        self._writers = set()
        self._tasks = set()
        self.connections = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc):
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self):
        writers, self._writers = self._writers, set()
        for writer in writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        try:
            back, forth = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, forth}
        try:
            await asyncio.gather(self._copy(reader, forth), self._copy(back, writer))
        except OSError:
            pass
        finally:
            for each in self._writers & {writer, forth}:
                each.transport.abort()
            self._writers -= {writer, forth}

    async def _copy(self, reader, writer):
        while data := await reader.read(1 << 16):
            self._bytes += len(data)
            if self._cuts and self._bytes > self._cuts[0]:
                self._cuts.pop(0)
                self.cut()
                return
            if writer not in self._writers:
                return
            writer.write(data)
            await writer.drain()
        if writer in self._writers:
            writer.write_eof()


async def cut_pair(site, runners, spec, cuts):
    workers = {}
    async with doors(site, workers) as addresses, Forwarder(addresses["alpha"], cuts) as way:
        device, source = site.pair(spec, addresses=((way.address,), ()))
        for name, runner, task in (("alpha", runners[0], device), ("beta", runners[1], source)):
            workers[name] = (await runner.start(task), task.order.secret)
        heard = await asyncio.gather(*(listen(workers[name][0]) for name in ("alpha", "beta")))
        return *heard, way.connections


async def test_a_cut_link_is_made_anew_and_nothing_is_lost_or_done_twice(site, runners, tmp_path):
    tree = make_tree(tmp_path / "tree", large=12 << 20)
    cuts = (100_000, 3 << 20, 6 << 20, 9 << 20)
    device, source, connections = await cut_pair(site, runners, site.backup_spec(tree, source=site.beta), cuts)
    assert device.ended.state is source.ended.state is AttemptState.SUCCEEDED, device.lines + source.lines
    assert 5 <= connections <= 20  # a cut may hit one that is just being made
    with site.opened() as vault:
        assert vault.verify_set(device.set) == []
    out = tmp_path / "out"
    spec = site.restore_spec(device.set.id, out, server=site.beta)
    device, target, connections = await cut_pair(site, runners, spec, (50_000, 4 << 20, 8 << 20))
    assert device.ended.state is target.ended.state is AttemptState.SUCCEEDED, device.lines + target.lines
    assert 4 <= connections <= 20
    assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree))) == []


async def test_a_far_end_that_does_not_return_is_a_lost_link(site, runners, tmp_path):
    tree = make_tree(tmp_path / "tree", large=12 << 20)
    workers = {}
    async with doors(site, workers) as addresses, Forwarder(addresses["alpha"], (4 << 20,)) as way:
        device, source = (
            structs.replace(task, rejoin_s=0.5)
            for task in site.pair(site.backup_spec(tree, source=site.beta), addresses=((way.address,), ()))
        )
        workers["alpha"] = (await runners[0].start(device), device.order.secret)
        workers["beta"] = (await runners[1].start(source), source.order.secret)

        async def kill(message):
            if isinstance(message, say.Began):
                os.kill(workers["beta"][0].pid, signal.SIGKILL)

        heard, gone = await asyncio.gather(listen(workers["alpha"][0], on=kill), listen(workers["beta"][0]))
    assert gone.ended.state is AttemptState.INTERRUPTED
    assert heard.ended.state is AttemptState.FAILED
    assert heard.ended.failure.code == "link-lost"
    assert site.sets() == []


@pytest.mark.parametrize("which", ["alpha", "beta"])
async def test_cancel_at_one_end_ends_both(site, runners, tmp_path, which):
    tree = make_tree(tmp_path / "tree", large=30 << 20)
    workers = {}
    async with doors(site, workers) as addresses:
        device, source = site.pair(site.backup_spec(tree, source=site.beta), addresses=((addresses["alpha"],), ()))
        workers["alpha"] = (await runners[0].start(device), device.order.secret)
        workers["beta"] = (await runners[1].start(source), source.order.secret)

        async def cancel(message):
            if isinstance(message, say.Began):
                await workers[which][0].send(say.Cancel())

        one, other = await asyncio.gather(
            *(listen(workers[name][0], on=cancel if name == "alpha" else None) for name in ("alpha", "beta"))
        )
    assert one.ended.state is AttemptState.CANCELED, one.lines
    assert other.ended.state is AttemptState.CANCELED, other.lines
    assert site.sets() == []
