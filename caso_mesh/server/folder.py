"""The state folder of a server: its layout, its lock, its version."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caso_mesh.model.errors import StateDamaged, StateLocked, StateTooNew

#: Version of the layout. It rises when an older program could not work with the folder any more.
STATE_VERSION = 1


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
        self.tables = path / "tables"
        self.cache = path / "cache"
        self.run = path / "run"
        self.endpoint = path / "run" / "endpoint"

    def exists(self) -> bool:
        return self.version.exists() and self.config.exists()

    def create(self) -> None:
        """Makes the folder and its parts, 0700, with the version of this program."""
        for folder in (self.path, self.identity, self.catalog, self.segments, self.tables, self.cache, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self.version.write_text(f"{STATE_VERSION}\n", "utf-8")
        self.version.chmod(0o600)

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
        """Holds the folder for one daemon. Raises ``StateLocked``. The lock ends with the process, however it ends."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        temporary = self.endpoint.with_name("endpoint.new")
        temporary.write_text(address + "\n", "utf-8")
        temporary.replace(self.endpoint)

    def read_endpoint(self) -> str | None:
        try:
            return self.endpoint.read_text("utf-8").strip() or None
        except OSError:
            return None
