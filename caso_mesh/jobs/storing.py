"""The device's end: opening the vault, choosing what a backup builds on, adopting what dead workers left, publishing."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.task import DeviceAccess, Task
from caso_mesh.model.errors import Canceled, CasoError, DataDamaged, DeviceVanished, Misuse, NotFound
from caso_mesh.model.jobs import BackupSpec
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import BackupSet
from caso_mesh.sealing.signing import verify
from caso_mesh.vault.backend import Backend
from caso_mesh.vault.header import header_of
from caso_mesh.vault.names import FORMAT
from caso_mesh.vault.objects import Signer, VaultKeys, Verify
from caso_mesh.vault.session import Session
from caso_mesh.vault.vault import Vault

BackendFor = Callable[[DeviceAccess], Backend]


def folder_backend(access: DeviceAccess) -> Backend:
    """The device as a folder of this machine. Raises ``DeviceVanished``."""
    return FolderBackend(access.path, access.name, marker=FORMAT)


def signed_by(keys: Mapping[str, bytes], *, unknown: bool = False) -> Verify:
    """Whether one of those whose public keys these are, by node id, has signed; whose key is empty (``unknown``) is believed:
    nobody could tell any more."""

    def signed(server: str, domain: str, message: bytes, signature: bytes) -> bool:
        key = keys.get(server)
        if key is None:
            return False
        return verify(key, domain, message, signature) if key or not unknown else True

    return signed


def device_of(task: Task) -> DeviceAccess:
    if task.device is None:
        raise Misuse("the device's end of an attempt needs a device")
    return task.device


def signer_of(task: Task) -> Signer:
    """This server's signature. Raises ``StateMissing``, ``StateDamaged``."""
    keys = NodeKeys.load(Path(task.identity_folder))
    return Signer(task.server, keys.signing.sign)


@contextmanager
def open_vault(
    task: Task, desk: Desk, backend_for: BackendFor, *, writes: bool = True, at: DeviceAccess | None = None
) -> Iterator[Vault]:
    """The vault of the task's device, or of another one (``at``). What is found damaged in the block is written down there at its end, also if the
    block fails for it, if anything is to be written (``writes``). Raises ``DeviceVanished`` if another one lies there, ``NoKey``."""
    access = at or device_of(task)
    backend = backend_for(access)
    try:
        header = header_of(backend, access.vault, device=access.name, path=access.path)

        foreign = access.foreign
        signed = signed_by(task.public_keys if foreign is None else foreign.signers, unknown=foreign is not None)
        id_key = task.id_key if foreign is None else foreign.id_key
        keys = VaultKeys(id_key=id_key, content_keys=access.content_keys, write_key=access.write_key)
        writes = writes and foreign is None
        # a backup builds on what is there; who reads a set back must see whether its object is still sound
        remembers = isinstance(task.order.spec, BackupSpec)
        vault = Vault(
            backend, header, keys, verify=signed, cache_folder=access.cache_folder or None, remembers=remembers
        )
        try:
            yield vault
        except (Canceled, DeviceVanished):
            raise
        except CasoError:
            if writes:
                _write_down_damage(vault, task, desk, access.writer)
            raise
        else:
            if writes:
                _write_down_damage(vault, task, desk, access.writer)
    finally:
        close = getattr(backend, "close", None)
        if close is not None:
            close()


def _write_down_damage(vault: Vault, task: Task, desk: Desk, writer: str) -> None:
    if not vault.has_new_damage:
        return
    try:
        count = vault.write_down_damage(writer, signer_of(task), attempt=task.order.attempt, at_ns=desk.clock.now_ns())
    except CasoError as error:
        # the attempt has its result already; whoever reads this place next will find it again
        desk.log("warning", f"the damage could not be written down in the device: {error.message}")
        return
    if count:
        desk.log("warning", f"what was found damaged is never reused: later backups store it anew ({count} records)")


def load_set(vault: Vault, set_id: str, source: str = "") -> BackupSet:
    """The set. Raises ``NotFound``; ``DataDamaged`` if it may be one of those that cannot be read."""
    try:
        found = vault.load_set(set_id)
    except NotFound:
        broken = [line for line in vault.problems() if line.startswith("sets/")]
        if broken:
            raise DataDamaged(object=f"the set {set_id}", detail=f"it is not readable here: {broken[0]}") from None
        raise
    if source and found.source != source:
        raise NotFound(kind="set", name=set_id)
    return found


# --- what to build on ---


class Base:
    """What a backup builds on. ``type`` is what really runs, ``parent`` what change is measured against."""

    def __init__(self, type_: BackupType, parent: BackupSet | None) -> None:
        self.type = type_
        self.parent = parent


def choose_base(
    vault: Vault,
    desk: Desk,
    *,
    source: str,
    filters: bytes,
    type_: BackupType,
    avoid: tuple[str, ...],
    among: Collection[bytes] | None = None,
) -> Base:
    """The newest set that an incremental or differential can build on; without one it is a full, and says so. ``among``:
    trees of which it must have one, since another device has those."""
    if type_ in {BackupType.FULL, BackupType.COPY}:
        return Base(type_, None)
    bases = bases_of(vault, source=source, filters=filters, type_=type_, avoid=avoid)
    parent = next((each for each in bases if among is None or each.root in among), None)
    if parent is None and bases and among is not None:
        desk.log("warning", "the two devices have no set of the same tree to build on: everything is read (full)")
        return Base(BackupType.FULL, None)
    if parent is None:
        wanted = "full backup" if type_ is BackupType.DIFFERENTIAL else "earlier backup"
        desk.log("warning", f"this device has no {wanted} of the same paths to build on: everything is read (full)")
        return Base(BackupType.FULL, None)
    if not vault.holds_all(parent):
        desk.log("warning", f"parts of the set {parent.id} are damaged or lost: everything is read (full)")
        return Base(BackupType.FULL, None)
    desk.log("info", f"builds on the set {parent.id}")
    return Base(type_, parent)


def bases_of(
    vault: Vault, *, source: str, filters: bytes, type_: BackupType, avoid: tuple[str, ...]
) -> list[BackupSet]:
    """The sets that an incremental or differential could build on, the newest first."""
    good = [
        each
        for each in vault.sets()
        if each.source == source and each.filters == filters and each.type is not BackupType.COPY
        and each.id not in avoid and (type_ is BackupType.INCREMENTAL or each.type is BackupType.FULL)
    ]  # fmt: skip
    return sorted(good, key=_age, reverse=True)


def newest(vault: Vault, fits: Callable[[BackupSet], bool]) -> BackupSet | None:
    """The newest set for which ``fits`` holds."""
    return max((each for each in vault.sets() if fits(each)), key=_age, default=None)


def _age(backup_set: BackupSet) -> tuple[int, bool, str]:
    # a full set that was made of another one has the times of that one, and is as good a base or a better one
    return backup_set.started_at_ns, backup_set.made_of is not None, backup_set.id


# --- sessions ---

#: After so many stored bytes a session names its packs: until then each new id takes memory.
FLUSH_BYTES = 16 * 1024 * 1024 * 1024

#: Sessions at work in this process, for devices without a folder where locks could lie.
_LIVE: set[tuple[str, str]] = set()
_LIVE_LOCK = threading.Lock()


class SessionLock:
    """Says to other workers of this server that a session is at work: held by the kernel, it ends with the process."""

    def __init__(self, access: DeviceAccess, session: str) -> None:
        self._key = (access.vault, session)
        self._fd = -1
        self._path = ""
        if access.cache_folder:
            folder = os.path.join(access.cache_folder, "sessions")
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._path = os.path.join(folder, session)

    def take(self) -> bool:
        """False if another worker holds it."""
        with _LIVE_LOCK:
            if self._key in _LIVE:
                return False
            if self._path:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)
                    return False
                self._fd = fd
            _LIVE.add(self._key)
            return True

    def release(self, *, ended: bool) -> None:
        """``ended``: the session is closed in the vault, nobody will ask for it again."""
        with _LIVE_LOCK:
            _LIVE.discard(self._key)
            if self._fd >= 0:
                if ended:
                    os.unlink(self._path)
                os.close(self._fd)
                self._fd = -1


class Writing:
    """A session that is at work, with what it takes to end it."""

    def __init__(self, vault: Vault, task: Task, desk: Desk, session: Session, signer: Signer) -> None:
        self.vault = vault
        self.session = session
        self._task = task
        self._desk = desk
        self._signer = signer
        self._flushed = 0

    def pause(self) -> None:
        """Called now and then: tells how much is stored, and makes it durable and named when it is a lot."""
        stored = self._desk.tally.bytes_stored = self.session.bytes_stored
        if stored - self._flushed >= FLUSH_BYTES:
            self._flushed = stored
            self.session.flush()

    def adopt(self) -> None:
        """Takes over what dead workers of this server left in the vault, so that it need not be stored again."""
        access = device_of(self._task)
        dead: list[tuple[str, SessionLock]] = []
        try:
            for record in self.vault.open_sessions(access.writer, look_at_ended=False):
                if record.session == self._task.session:
                    continue
                lock = SessionLock(access, record.session)
                if lock.take():
                    dead.append((record.session, lock))
            if not dead:
                return
            size = self.session.adopt([session for session, _ in dead])
            self.session.flush()
            if size:
                self._desk.log("info", f"takes over {size} bytes that an interrupted attempt had stored")
            while dead:
                session, lock = dead[-1]
                self.vault.end_session(access.writer, session, self._signer)
                dead.pop()
                lock.release(ended=True)
        finally:
            for _, lock in dead:
                lock.release(ended=False)


@contextmanager
def writing(vault: Vault, task: Task, desk: Desk, parents: list[str]) -> Iterator[Writing]:
    """A session of this server's writer; if the block fails, it is left open in the vault for the next one to adopt."""
    access = device_of(task)
    lock = SessionLock(access, task.session)
    if not lock.take():
        raise Misuse(f"the session {task.session} is already at work")
    ended = False
    try:
        signer = signer_of(task)
        session = vault.open_session(
            writer=access.writer,
            session=task.session,
            signer=signer,
            attempt=task.order.attempt,
            parents=list(dict.fromkeys(parents)),
        )
        try:
            work = Writing(vault, task, desk, session, signer)
            work.adopt()
            yield work
            try:
                session.close()
                ended = True
            except CasoError as error:
                # What was published is there; the next worker ends the session in the vault.
                desk.log("warning", f"the session was not closed in the vault: {error.message}")
        finally:
            session.abort()
    finally:
        lock.release(ended=ended)
