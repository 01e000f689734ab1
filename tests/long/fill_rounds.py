"""A device that becomes full at random moments of a backup, and what must hold after each."""

from __future__ import annotations

import errno
import os
import pathlib
import random
import shutil
import time

from long.verifying import verify_all
from mesh.mounts import MEBIBYTE
from mesh.process import ProcessMesh
from mesh.trees import assert_equal

#: What a backup of a round stores, about.
NEW_BYTES = 3 * MEBIBYTE


class Fills:
    """Each round leaves less room than a backup needs, has it fail, makes room, and has the next one succeed."""

    def __init__(self, mesh: ProcessMesh, disk: pathlib.Path, seed: int) -> None:
        self.mesh = mesh
        self.disk = disk
        self.rng = random.Random(seed)
        self.tree = mesh.folder / "data"
        self.filler = disk / "somebody-else's.file"
        self.full = 0
        self.sets: list[str] = []

    def prepare(self, server: str) -> None:
        self.mesh.ok("alpha", "device", "add", "small", "--server", server, "--path", str(self.disk))
        (self.tree / "small").mkdir(parents=True)
        for number in range(200):
            (self.tree / "small" / f"{number}").write_bytes(self.rng.randbytes(self.rng.randrange(5000)))
        self._change()
        self.sets.append(self._backup()["set"])

    def _change(self) -> None:
        (self.tree / "large").write_bytes(self.rng.randbytes(NEW_BYTES))
        (self.tree / "small" / f"{self.rng.randrange(200)}").write_bytes(self.rng.randbytes(5000))

    def _backup(self) -> dict:
        answer = self.mesh.cli("alpha", "backup", f"alpha:{self.tree}", "--to", "device:small", "--wait")
        assert answer.document.get("state"), str(answer)
        return answer.document

    def _free(self) -> int:
        status = os.statvfs(self.disk)
        return status.f_bavail * status.f_frsize

    def leave(self, free: int) -> None:
        """Somebody else fills the device until ``free`` bytes are left."""
        with self.filler.open("ab") as file:
            size = max(0, self._free() - free)
            while size > 4096:
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), size)
                    return
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    size -= 65536

    def one(self, number: int) -> None:
        self._change()
        status = os.statvfs(self.disk)
        reserve = status.f_blocks * status.f_frsize * 2 // 100
        room = self.rng.randrange(0, reserve + NEW_BYTES + MEBIBYTE // 2)
        self.leave(room)
        result = self._backup()
        print(f"round {number}: {room} bytes left: {result['state']} {(result['error'] or {}).get('code')}", flush=True)
        if result["state"] == "failed":
            self.full += 1
            assert result["error"]["code"] == "device-full", result
            assert result["set"] is None
            assert self.mesh.told("job-failed", "device-full")
            assert len(list(self.disk.glob("sets/*/*"))) == len(self.sets)
        self.filler.unlink()
        if result["state"] == "failed":
            result = self._backup()
        assert result["state"] == "succeeded", result
        self.sets.append(result["set"])

    def check_all(self, at: str) -> None:
        """All sets are sound, and the last comes back."""
        assert {row["id"] for row in self.mesh.sets()} == set(self.sets)
        assert len(list(self.disk.glob("sets/*/*"))) == len(self.sets)
        verify_all(self.mesh, self.sets)
        back = self.mesh.folder / f"back-{time.monotonic_ns()}"
        done = self.mesh.ok("alpha", "restore", self.sets[-1], "--to", f"{at}:{back}", "--strip", "--wait")
        assert done["state"] == "succeeded"
        assert_equal(self.tree, back)
        shutil.rmtree(back)
