"""Attempts of a simulated mesh: scripted by the seed, in virtual time, with a real set in a real vault at the end."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mesh.simulation.engine import EngineWorker
from mesh.simulation.script import Hub, Life, Script, Stage, name_of, script_of
from msgspec import structs

from caso_mesh.catalog.segment import SegmentWriter, chain_of, from_entry
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.runner import Worker
from caso_mesh.jobs.sink import VaultSink
from caso_mesh.jobs.task import DeviceAccess, Task
from caso_mesh.model.clock import Clock
from caso_mesh.model.device_jobs import EraseSpec, InventorySpec
from caso_mesh.model.entries import Entry, EntryType, SourceException
from caso_mesh.model.errors import AttemptFailed, CasoError, LinkLost, NoDataPath, WorkerDied
from caso_mesh.model.facts import LogLine
from caso_mesh.model.jobs import BackupSpec, Counts, DuplicateSpec, Failure, Progress, RestoreSpec, VerifySpec
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.model.storage import BackupSet
from caso_mesh.sealing.signing import verify
from caso_mesh.vault.chunking import chunk_id
from caso_mesh.vault.header import header_of
from caso_mesh.vault.names import FORMAT
from caso_mesh.vault.objects import Signer, VaultKeys
from caso_mesh.vault.tree import TreeWriter
from caso_mesh.vault.vault import Vault

#: Steps of an attempt between which it may be told something.
_STEPS = 4
#: How long one end waits for the other at first.
_MEET_S = 30.0


class SimWorker:
    """See ``runner.Worker``."""

    def __init__(self, task: Task, script: Script, hub: Hub, clock: Clock, life: Life) -> None:
        self.attempt = task.order.attempt
        self._task = task
        self._script = script
        self._hub = hub
        self._clock = clock
        self._heard: asyncio.Queue[say.FromWorker] = asyncio.Queue()
        self._told = asyncio.Event()
        self._may_publish = self._canceled = self._killed = False
        self._counts = Counts()
        self._began_s = clock.monotonic_s()
        order = task.order
        self._stage = Stage(order.attempt, order.run, order.source, order.number, order.end, task.server, self._began_s)
        self._life = life
        hub.begin(self._stage, copies=isinstance(order.spec, DuplicateSpec))
        self._work = asyncio.get_running_loop().create_task(self._run(), name=f"worker {self.attempt}")
        life.workers[self._work] = self

    bulk_channel = None

    async def messages(self) -> AsyncIterator[say.FromWorker]:
        while True:
            message = await self._heard.get()
            yield message
            if isinstance(message, say.Ended):
                await asyncio.wait([self._work])
                return

    async def send(self, message: say.ToWorker) -> None:
        match message:
            case say.Publish():
                self._may_publish = True
            case say.Cancel():
                self._canceled = self._script.course != "deaf"
        self._told.set()

    async def kill(self) -> None:
        self._killed = True
        self._work.cancel()
        await asyncio.wait([self._work])

    async def gone(self) -> None:
        """See ``runner.Worker``."""
        await asyncio.wait([self._work])

    def orphan(self) -> None:
        """Its daemon is dead: it ends within a second, and may write the set that it was allowed to."""
        if not (self._may_publish and self._script.outlives):
            self._killed = True
            self._work.cancel()

    # --- the script ---

    def _say(self, message: say.FromWorker) -> None:
        self._heard.put_nowait(message)

    def _line(self, text: str) -> tuple[LogLine, ...]:
        return (LogLine(self._clock.now_ns(), "info", f"{self.attempt}: {text}"),)

    async def _run(self) -> None:
        end: say.Ended
        try:
            end = await self._perform()
        except CasoError as error:
            end = self._ended(AttemptState.FAILED, failure=Failure(error.code, error.fields))
        except _Canceled:
            end = self._ended(AttemptState.CANCELED)
        except asyncio.CancelledError:
            died = WorkerDied(attempt=self.attempt, detail="it was ended")
            end = self._ended(AttemptState.INTERRUPTED, failure=Failure(died.code, died.fields))
        finally:
            self._hub.end(self._stage)
            self._life.workers.pop(self._work, None)
        if self._stage.end == "device" and end.state is not AttemptState.INTERRUPTED:
            self._hub.over.add(self.attempt)
        self._say(end)

    def _ended(self, state: AttemptState, **more: Any) -> say.Ended:
        seconds = self._clock.monotonic_s() - self._began_s
        return say.Ended(state=state, counts=self._counts, seconds=seconds, lines=self._line(f"ends {state}"), **more)

    async def _perform(self) -> say.Ended:
        task, script = self._task, self._script
        spec = task.order.spec
        if task.far is not None:
            await self._meet(task.far.node)
        if task.order.end == "source":
            return await self._serve()
        self._say(say.Began(self._type(), self._line("begins")))
        for step in range(_STEPS):
            await self._step(script.seconds / _STEPS)
            self._counts = Counts(
                files=step + 1, entries=step + 1, bytes=1000 * (step + 1), bytes_read=1000 * (step + 1)
            )
            self._say(say.Progressed(self._progress()))
            if step == 1:
                await self._turn()
        if isinstance(spec, VerifySpec | RestoreSpec):
            self._look(spec.set)
            if isinstance(spec, RestoreSpec):
                self._hub.restored[self.attempt] = (spec.set, spec.server)
            return self._ended(AttemptState.SUCCEEDED)
        assert isinstance(spec, BackupSpec | DuplicateSpec)
        return await self._publish(spec)

    def _type(self) -> BackupType | None:
        """What it makes: a full of whatever was asked, since nothing here is about what changed."""
        first = self._first()
        if first is not None:
            return first.type
        return BackupType.FULL if isinstance(self._task.order.spec, BackupSpec) else None

    def _first(self) -> BackupSet | None:
        """The set that it copies, if it copies one."""
        spec = self._task.order.spec
        return self._hub.published[spec.set_of(self._task.order.source)] if isinstance(spec, DuplicateSpec) else None

    async def _turn(self) -> None:
        """Where the course of a script shows."""
        match self._script.course:
            case "excepts":
                self._counts = Counts(exceptions=1)
                self._say(say.Excepted((SourceException(b"data/locked", "unreadable", "it is locked"),)))
            case "fails":
                raise AttemptFailed(attempt=self.attempt, detail="as its script says")
            case "dies":
                raise asyncio.CancelledError
            case "hangs" | "deaf":
                while True:
                    await self._step(3600.0)

    async def _publish(self, spec: BackupSpec | DuplicateSpec) -> say.Ended:
        task = self._task
        backup = self._set()
        digest, size = self._segment(backup)
        self._say(say.MayPublish(backup.id, self._line("may it publish?")))
        while not self._may_publish:
            await self._step(3600.0)
        await asyncio.sleep(self._script.write_s)
        self._write(backup)
        if self._life.over:
            raise asyncio.CancelledError
        await asyncio.sleep(self._script.tell_s)
        self._say(say.Published(backup, digest, size, self._line(f"published {backup.id}")))
        if spec.verify:
            self._say(say.Verifying())
            await self._step(self._script.seconds)
            self._look(backup.id)
        excepted = backup.exceptions and backup.copy_of is None
        state = AttemptState.SUCCEEDED_WITH_EXCEPTIONS if excepted else AttemptState.SUCCEEDED
        assert task.device is not None
        return self._ended(state, set=backup.id, type=backup.type)

    async def _step(self, seconds: float) -> None:
        """Works for so long, or until it is told something. Raises ``_Canceled``; ``LinkLost`` where the other end is
        gone."""
        end_s = self._clock.monotonic_s() + seconds
        while True:
            if self._canceled:
                raise _Canceled
            left_s = end_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            if self._task.far is not None:
                await self._stay_together(self._task.far.node)
                left_s = min(left_s, 1.0)
            self._told.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._told.wait()
            if self._may_publish:
                return

    async def _meet(self, far: str) -> None:
        end_s = self._clock.monotonic_s() + _MEET_S
        while self._hub.partner(self._stage, far) is None:
            if self._canceled:
                raise _Canceled
            if self._clock.monotonic_s() >= end_s:
                raise NoDataPath(source=self._task.source_name, server=far[:13])
            await asyncio.sleep(0.5)

    async def _stay_together(self, far: str) -> None:
        """Bulk streams rejoin for a while. An end that is gone for good is told by its own server, not by this one."""
        end_s = self._clock.monotonic_s() + self._script.rejoin_s
        while self._hub.partner(self._stage, far) is None:
            if self._canceled:
                raise _Canceled
            if self._over():
                return
            if self._clock.monotonic_s() >= end_s:
                raise LinkLost(peer=far[:13])
            await asyncio.sleep(0.5)

    async def _serve(self) -> say.Ended:
        """The source's end: as long as the other one works."""
        assert self._task.far is not None
        first = self._first()
        if first is not None:
            self._look(first.id, self._task.reads)
        self._say(say.Began(None, self._line("begins")))
        while self._hub.partner(self._stage, self._task.far.node) is not None or not self._over():
            await self._step(1.0)
        return self._ended(AttemptState.SUCCEEDED)

    def _over(self) -> bool:
        """Whether the other end has come to its end, and said so."""
        return self.attempt in self._hub.over

    def _progress(self) -> Progress:
        return Progress(
            attempt=self.attempt,
            state=AttemptState.RUNNING,
            counts=self._counts,
            at_ns=self._clock.now_ns(),
            elapsed_s=self._clock.monotonic_s() - self._began_s,
            total_bytes=1000 * _STEPS,
        )

    # --- the vault ---

    def _set(self) -> BackupSet:
        task, counts, first = self._task, self._counts, self._first()
        device = task.device
        assert device is not None
        if first is not None:
            if task.reads is not None:
                self._look(first.id, task.reads)
            return structs.replace(
                first, id=task.set, vault=device.vault, server=task.server, server_name=task.server_name,
                device=device.device, device_name=device.name, medium=task.medium, media_set=task.media_set,
                job=task.order.job, run=task.order.run, attempt=self.attempt, parent=None, files=counts.files,
                entries=counts.entries, bytes=counts.bytes, bytes_read=counts.bytes_read, bytes_stored=1000,
                copy_of=first.copy_of or first.id,
            )  # fmt: skip
        ended_ns = self._clock.now_ns()
        return BackupSet(
            id=task.set, mesh=device.mesh, vault=device.vault, source=task.order.kept_as, source_name=task.source_name,
            server=task.server, server_name=task.server_name, device=device.device, device_name=device.name,
            medium=task.medium, media_set=task.media_set, type=BackupType.FULL, job=task.order.job, run=task.order.run,
            attempt=self.attempt, started_at_ns=ended_ns - round(self._script.seconds * 1e9), ended_at_ns=ended_ns,
            roots=self._roots(), filters=b"f" * 32, root=self._tree(self._name), parent=None, files=counts.files, entries=counts.entries,
            bytes=counts.bytes, bytes_read=counts.bytes_read, bytes_stored=1000,
            exceptions=int(self._script.course == "excepts"),
        )  # fmt: skip

    def _entries(self) -> list[Entry]:
        """What the source has at the moment: a folder, and in it one file with the name of the attempt that reads it."""
        first = self._first()
        name = name_of(self._hub.reader_of(first) if first is not None else self.attempt)
        found: list[Entry] = []
        for root in self._roots():
            found.append(Entry(root, EntryType.DIRECTORY, 0o755, modified=(1, 0)))
            found.append(Entry(root + b"/" + name, EntryType.FILE, 0o644, modified=(1, 0)))
        return found

    def _roots(self) -> tuple[bytes, ...]:
        spec, first = self._task.order.spec, self._first()
        if first is not None:
            return first.roots
        assert isinstance(spec, BackupSpec)
        return next(each.roots for each in spec.sources if each.server == self._task.order.source)

    def _name(self, data: bytes) -> bytes:
        return chunk_id(self._task.id_key, data)

    def _tree(self, store: Callable[[bytes], bytes]) -> bytes:
        tree = TreeWriter(store)
        for entry in self._entries():
            tree.add(entry)
        return tree.finish()

    def _segment(self, backup: BackupSet) -> tuple[bytes, int]:
        path = self._task.segment_path
        with suppress(FileNotFoundError):
            os.unlink(path)
        with SegmentWriter(path, set_id=backup.id, chain=chain_of(backup)) as detail:
            for entry in self._entries():
                detail.add(from_entry(entry))
            return detail.finish()

    def _write(self, backup: BackupSet) -> None:
        """All at once, so that nobody sees it half done: what a worker leaves that dies in between is looked at elsewhere."""
        device = self._task.device
        assert device is not None
        keys = self._hub.keys[self._task.server]
        signer = Signer(keys.id, keys.sign)
        with (
            self._opened() as vault,
            vault.open_session(
                writer=device.writer, session=self._task.session, signer=signer, attempt=self.attempt, parents=()
            ) as session,
        ):
            self._tree(VaultSink(session, self._name).store)
            session.publish(backup)
        self._hub.published[backup.id] = backup
        self._hub.sessions[self._task.session] = backup.id
        self._hub.note(f"set {self.attempt}")
        self._hub.on_published(self._task.server)

    def _vault_keys(self, device: DeviceAccess) -> VaultKeys:
        return VaultKeys(id_key=self._task.id_key, content_keys=device.content_keys, write_key=device.write_key)

    def _signed(self, server: str, domain: str, message: bytes, signature: bytes) -> bool:
        key = self._task.public_keys.get(server)
        return key is not None and verify(key, domain, message, signature)

    def _look(self, set_id: str, at: DeviceAccess | None = None) -> None:
        with self._opened(at) as vault:
            vault.load_set(set_id)

    @contextmanager
    def _opened(self, at: DeviceAccess | None = None) -> Iterator[Vault]:
        """The vault that it writes, or another one."""
        device = at or self._task.device
        assert device is not None
        backend = FolderBackend(device.path, device.name, marker=FORMAT)
        try:
            header = header_of(backend, device.vault, device=device.name, path=device.path)
            rng = random.Random(f"{self.attempt}/salt")
            yield Vault(
                backend,
                header,
                self._vault_keys(device),
                verify=self._signed,
                cache_folder=None,
                randomness=rng.randbytes,
            )
        finally:
            backend.close()


class _Canceled(Exception):
    pass


class SimRunner:
    """See ``runner.Runner``."""

    def __init__(self, seed: int, hub: Hub, clock: Clock, life: Life) -> None:
        self._seed = seed
        self._hub = hub
        self._clock = clock
        self._life = life

    async def start(self, task: Task) -> Worker:
        if self._life.over:
            raise WorkerDied(attempt=task.order.attempt, detail="its daemon is dead")
        await asyncio.sleep(0.02)
        if self._life.over:
            raise WorkerDied(attempt=task.order.attempt, detail="its daemon is dead")
        script = self._hub.scripts(script_of(self._seed, task.order.attempt))
        script = self._hub.directed(task, script)
        if isinstance(task.order.spec, EraseSpec | InventorySpec):
            return EngineWorker(task, script, self._hub, self._clock, self._life)
        return SimWorker(task, script, self._hub, self._clock, self._life)
