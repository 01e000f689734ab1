"""The state folder of a server: its layout, its lock, its version."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caso_mesh.identity.private_files import write_private
from caso_mesh.model.errors import StateDamaged, StateDiskFailed, StateForeign, StateFull, StateLocked, StateTooNew

#: Version of the layout. It rises when an older program could not work with the folder any more.
STATE_VERSION = 1
#: What may lie in a folder that was begun and has no version yet.
_OWN_BEFORE_VERSION = frozenset({"lock", "identity", "catalog", "tables", "cache", "run"})


class StateFolder:
    """Paths inside a state folder. Making one touches nothing."""

    def __init__(self, path: Path) -> None:
        # workers and the allow-list must name it as the file system does, wherever the daemon was started
        path = path.absolute()
        self.path = path
        self.config = path / "config.toml"
        self.lock = path / "lock"
        self.version = path / "version"
        self.identity = path / "identity"
        self.consensus = path / "consensus.db"
        self.journal = path / "journal.db"
        self.queue = path / "queue.db"
        self.catalog = path / "catalog"
        self.segments = path / "catalog" / "segments"
        self.own_catalog = path / "catalog" / "own.db"
        self.tables = path / "tables"
        self.cache = path / "cache"
        self.run = path / "run"
        self.endpoint = path / "run" / "endpoint"
        self.local = path / "local"
        self.local_log = path / "local" / "log.db"
        self.scratch = path / "scratch"
        self.snapshots = path / "snapshots"
        self.reserve = path / "run" / "reserve"
        self.pace = path / "run" / "pace"

    def exists(self) -> bool:
        with self._explained(self.path):
            return self.version.exists() and self.config.exists()

    def make(self) -> None:
        """The folder itself, 0700. Raises ``StateForeign`` if something else lies there, ``StateTooNew``,
        ``StateDamaged``, ``StateDiskFailed``, ``StateFull``."""
        with self._explained(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.version.exists():
                self.check_version()
            elif any(name not in _OWN_BEFORE_VERSION for name in os.listdir(self.path)):
                raise StateForeign(state=self.path)
            self.path.chmod(0o700)

    def create(self) -> None:
        """Makes the folder and its parts, 0700, with the version of this program. Raises as ``make``."""
        self.make()
        with self._explained(self.path):
            self.identity.mkdir(mode=0o700, exist_ok=True)
            self.identity.chmod(0o700)
            self.complete()
            write_private(self.version, f"{STATE_VERSION}\n".encode())

    def complete(self) -> None:
        """Makes the parts whose content can be made anew, where somebody has removed them. ``StateDiskFailed``,
        ``StateFull``."""
        with self._explained(self.path):
            for folder in (self.catalog, self.segments, self.tables, self.cache, self.run):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)

    def drop_log(self) -> None:
        """The replicated log goes; nobody has it open."""
        for path in self.path.glob(f"{self.consensus.name}*"):
            path.unlink(missing_ok=True)

    def drop_tables(self) -> None:
        """What is made of journals goes; nobody has it open."""
        for path in [*self.tables.glob("*.db*"), *self.catalog.glob("catalog.db*")]:
            path.unlink(missing_ok=True)

    @staticmethod
    @contextmanager
    def _explained(path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StateFull(state=path) from error
            raise StateDiskFailed(path=error.filename or path, detail=error.strerror or error) from error

    def check_version(self) -> None:
        """Raises ``StateTooNew`` or ``StateDamaged``."""
        try:
            found = int(self.version.read_text("utf-8").strip())
        except (OSError, ValueError) as error:
            raise StateDamaged(path=self.version, detail=error) from None
        if found > STATE_VERSION:
            raise StateTooNew(state=self.path, found=found, known=STATE_VERSION)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for one daemon. Raises ``StateLocked``, ``StateDiskFailed``. The lock ends with the process, however it ends."""
        with self._explained(self.lock):
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateLocked(state=self.path) from None
            yield
        finally:
            os.close(descriptor)

    def write_endpoint(self, address: str) -> None:
        """Where the command line finds this daemon."""
        with self._explained(self.endpoint):
            self.run.mkdir(mode=0o700, exist_ok=True)
            write_private(self.endpoint, f"{address}\n".encode())

    def read_endpoint(self) -> str | None:
        try:
            return self.endpoint.read_text("utf-8").strip() or None
        except OSError:
            return None
