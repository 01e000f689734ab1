"""The products that are measured: ours, through its daemons and its command line, and its peers."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import ClassVar

from bench.metering import CommandFailed, Meter
from mesh.process import ProcessMesh

#: The clone that is measured: its code, whatever else is installed.
CLONE = pathlib.Path(__file__).resolve().parents[2]


class Product:
    """One product at work in ``folder``. What a method does is measured by the meter it is given; ``start`` and ``stop``
    are not measured. ``backup`` is called with 1 for the first, 2 without changes, 3 after them."""

    name = ""
    note = ""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        folder.mkdir(parents=True)

    @classmethod
    def absent(cls) -> str | None:
        """Why it cannot be measured here."""
        return None

    @classmethod
    def version(cls) -> str:
        raise NotImplementedError

    #: Phases that it has no word for, with the reason.
    without: ClassVar[dict[str, str]] = {}

    def start(self) -> None:
        self.store.mkdir()

    def stop(self) -> None:
        return

    def daemons(self) -> Sequence[int]:
        return ()

    def backup(self, meter: Meter, source: pathlib.Path, number: int) -> None:
        raise NotImplementedError

    def restore(self, meter: Meter, source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        """Everything, as of the last backup, below ``target``; the folder that corresponds to ``source``."""
        raise NotImplementedError

    def restore_one(self, meter: Meter, source: pathlib.Path, path: str, target: pathlib.Path) -> pathlib.Path:
        """The file ``source/path``; where it is now."""
        raise NotImplementedError

    def verify(self, meter: Meter) -> None:
        """Reads back all of the last backup."""
        raise NotImplementedError

    def stored(self) -> int:
        """Bytes of everything that it keeps of the backups."""
        return size_of(self.store)


def size_of(folder: pathlib.Path) -> int:
    return sum(os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(folder) for name in names)


def _said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, check=False, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]


class Copy(Product):
    name, note = "cp", "cp -a: a plain copy, the floor"
    without: ClassVar[dict[str, str]] = {
        "unchanged": "copies all again",
        "churn": "copies all again",
        "verify": "keeps no checksums",
    }

    @classmethod
    def absent(cls) -> str | None:
        return _absent("cp")

    @classmethod
    def version(cls) -> str:
        return _said("cp", "--version")

    def backup(self, meter: Meter, source: pathlib.Path, number: int) -> None:
        meter.run(["cp", "-a", f"{source}/.", str(self.store / "copy")])

    def restore(self, meter: Meter, source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        meter.run(["cp", "-a", f"{self.store}/copy/.", str(target)])
        return target

    def restore_one(self, meter: Meter, source: pathlib.Path, path: str, target: pathlib.Path) -> pathlib.Path:
        meter.run(["cp", "-a", str(self.store / "copy" / path), str(target / "one")])
        return target / "one"


class Tar(Product):
    name, note = "tar+zstd", "tar | zstd -1 -T2: neither encrypted nor deduplicated"
    without: ClassVar[dict[str, str]] = {"unchanged": "packs all again", "churn": "packs all again"}

    @classmethod
    def absent(cls) -> str | None:
        return _absent("tar", "zstd")

    @classmethod
    def version(cls) -> str:
        return f"{_said('tar', '--version')}, {_said('zstd', '--version').strip('* ')}"

    def backup(self, meter: Meter, source: pathlib.Path, number: int) -> None:
        archive = str(self.store / "archive.tar.zst")
        meter.run(["tar", "--xattrs", "--acls", "-I", "zstd -q -1 -T2", "-C", str(source), "-cf", archive, "."])

    def restore(self, meter: Meter, source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        archive = str(self.store / "archive.tar.zst")
        meter.run(["tar", "--xattrs", "--acls", "-p", "-I", "zstd -q -T2", "-C", str(target), "-xf", archive])
        return target

    def restore_one(self, meter: Meter, source: pathlib.Path, path: str, target: pathlib.Path) -> pathlib.Path:
        archive = str(self.store / "archive.tar.zst")
        meter.run(["tar", "-p", "-I", "zstd -q -T2", "-C", str(target), "-xf", archive, f"./{path}"])
        return target / path

    def verify(self, meter: Meter) -> None:
        meter.run(["zstd", "-q", "-t", str(self.store / "archive.tar.zst")])


class Restic(Product):
    name, note = "restic", "encrypted, deduplicated, compressed (auto)"

    @classmethod
    def absent(cls) -> str | None:
        return _absent("restic")

    @classmethod
    def version(cls) -> str:
        return _said("restic", "version").partition(" compiled")[0]

    def _run(self, meter: Meter, *words: str, cwd: pathlib.Path | None = None) -> None:
        meter.run(
            ["restic", "-q", "-r", str(self.store), "--cache-dir", str(self.folder / "cache"), *words],
            cwd=cwd,
            env={"RESTIC_PASSWORD": "bench"},
        )

    def start(self) -> None:
        with Meter(sample_memory=False) as meter:
            self._run(meter, "init")

    def backup(self, meter: Meter, source: pathlib.Path, number: int) -> None:
        self._run(meter, "backup", ".", cwd=source)

    def restore(self, meter: Meter, source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        self._run(meter, "restore", "latest", "--target", str(target))
        return target

    def restore_one(self, meter: Meter, source: pathlib.Path, path: str, target: pathlib.Path) -> pathlib.Path:
        self._run(meter, "restore", "latest", "--target", str(target), "--include", f"/{path}")
        return target / path

    def verify(self, meter: Meter) -> None:
        self._run(meter, "check", "--read-data")


class Borg(Product):
    name, note = "borg", "encrypted (repokey-blake2), deduplicated, zstd,1"

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._last = 0

    @classmethod
    def absent(cls) -> str | None:
        return _absent("borg")

    @classmethod
    def version(cls) -> str:
        return _said("borg", "--version")

    def _run(self, meter: Meter, *words: str, cwd: pathlib.Path | None = None) -> None:
        env = {
            "BORG_PASSPHRASE": "bench",
            "BORG_BASE_DIR": str(self.folder / "base"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }
        meter.run(["borg", *words], cwd=cwd, env=env, accepted=(0, 1))

    def start(self) -> None:
        with Meter(sample_memory=False) as meter:
            self._run(meter, "init", "-e", "repokey-blake2", str(self.store))

    def backup(self, meter: Meter, source: pathlib.Path, number: int) -> None:
        self._last = number
        self._run(meter, "create", "-C", "zstd,1", f"{self.store}::{number}", ".", cwd=source)

    def restore(self, meter: Meter, source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        self._run(meter, "extract", f"{self.store}::{self._last}", cwd=target)
        return target

    def restore_one(self, meter: Meter, source: pathlib.Path, path: str, target: pathlib.Path) -> pathlib.Path:
        self._run(meter, "extract", f"{self.store}::{self._last}", f"pp:{path}", cwd=target)
        return target / path

    def verify(self, meter: Meter) -> None:
        self._run(meter, "check", "--verify-data", str(self.store))


class _BenchMesh(ProcessMesh):
    """Daemons and commands of this clone, with their bytecode kept as an installation keeps it."""

    def environment(self) -> dict[str, str]:
        env = super().environment()
        del env["PYTHONDONTWRITEBYTECODE"]
        return {**env, "PYTHONPATH": str(CLONE)}


class Ours(Product):
    """One server: source and device on it."""

    name, note = "caso-mesh", "daemon, command line with --wait; encrypted, deduplicated, compressed"
    servers = 1

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._mesh = _BenchMesh(folder / "mesh")
        self._set = ""

    @classmethod
    def version(cls) -> str:
        from caso_mesh import __version__

        commit = subprocess.run(
            ["git", "-C", str(CLONE), "describe", "--always", "--dirty"], capture_output=True, check=False, text=True
        )
        return f"caso-mesh {__version__} ({commit.stdout.strip() or 'no commit'}), Python {sys.version.split()[0]}"

    @property
    def _source(self) -> str:
        return self._mesh.names[-1]

    def start(self) -> None:
        self.store.mkdir()
        self._mesh.start(self.servers)
        # one call to each daemon first: what is measured is a mesh at work, not one that starts
        words = ["device", "add", "disk", "--server", self._mesh.names[0], "--path", str(self.store)]
        self._mesh.ok(self._mesh.names[0], *words)

    def stop(self) -> None:
        for name in reversed(self._mesh.names):
            if self._mesh.is_running(name) and self._mesh.terminate(name):
                raise CommandFailed(f"the daemon of {name} did not end well:\n{self._mesh.log(name)}")

    @property
    def state(self) -> pathlib.Path:
        """The state folder of the administrator."""
        return self._mesh.state(self._mesh.names[0])

    @property
    def name_of_source(self) -> str:
        """The server whose files are backed up."""
        return self._source

    def daemons(self) -> Sequence[int]:
        return [self._mesh.pid(name) for name in self._mesh.names]

    def _run(self, meter: Meter, *words: str) -> dict[str, object]:
        command = [*self._mesh.command(self._mesh.names[0], *words), "--wait", "--json"]
        result: dict[str, object] = json.loads(meter.run(command, env=self._mesh.environment()))
        return result

    def status(self, meter: Meter) -> None:
        """A command that asks one question."""
        meter.run([*self._mesh.command(self._mesh.names[0], "status"), "--json"], env=self._mesh.environment())

    def backup(self, meter: Meter, source: pathlib.Path, number: int) -> None:
        kind = "full" if number == 1 else "incremental"
        result = self._run(meter, "backup", f"{self._source}:{source}", "--to", "device:disk", "--type", kind)
        self._set = str(result["set"])

    def restore(self, meter: Meter, source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        self._run(meter, "restore", self._set, "--to", f"{self._source}:{target}", "--strip")
        return target

    def restore_one(self, meter: Meter, source: pathlib.Path, path: str, target: pathlib.Path) -> pathlib.Path:
        self._run(meter, "restore", self._set, str(source / path), "--to", f"{self._source}:{target}", "--strip")
        return target / path

    def verify(self, meter: Meter) -> None:
        self._run(meter, "verify", self._set)


class OursRemote(Ours):
    """Two servers: the source on the second, the device on the first; content goes over TLS on loopback."""

    name, note = "caso-mesh/tls", "as caso-mesh, the source on a second server, over mutual TLS on loopback"
    servers = 2


def _absent(*programs: str) -> str | None:
    missing = [program for program in programs if shutil.which(program) is None]
    return f"{', '.join(missing)} not found on PATH" if missing else None


PRODUCTS: tuple[type[Product], ...] = (Ours, OursRemote, Restic, Borg, Tar, Copy)
