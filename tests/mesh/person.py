"""A plain user of this machine, for tests and measurements that root starts: what it takes to run our product as one."""

from __future__ import annotations

import functools
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass

_CLONE = pathlib.Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Person:
    """A user without any privilege. ``home`` becomes the home of what it runs."""

    name: str
    home: pathlib.Path

    @property
    def ids(self) -> tuple[int, int]:
        """User and group."""
        entry = pwd.getpwnam(self.name)
        return entry.pw_uid, entry.pw_gid

    def give(self, *paths: pathlib.Path | str) -> None:
        """They are this user's now."""
        for path in paths:
            os.chown(path, *self.ids)

    def words(self, *words: str) -> list[str]:
        """A command line that runs another one as this user, without groups and capabilities."""
        uid, gid = self.ids
        ids = ("--reuid", str(uid), "--regid", str(gid), "--clear-groups", "--inh-caps=-all")
        return ["env", f"HOME={self.home}", "setpriv", *ids, *words]

    def python(self) -> list[str]:
        """The words before ``-m caso_mesh``."""
        interpreter, paths = _interpreter(self.name)
        return self.words("env", f"PYTHONPATH={os.pathsep.join(paths)}", "PYTHONDONTWRITEBYTECODE=1", interpreter)

    def absent(self) -> str | None:
        """Why nothing can be run as this user here; ``None`` if it can."""
        if os.geteuid() != 0:
            return "only root may become another user"
        if shutil.which("setpriv") is None:
            return "there is no setpriv"
        try:
            pwd.getpwnam(self.name)
        except KeyError:
            return f"there is no user {self.name}"
        try:
            _interpreter(self.name)
        except LookupError as error:
            return str(error)
        return None


@functools.cache
def _interpreter(name: str) -> tuple[str, tuple[str, ...]]:
    """A Python that the user may run, and what it needs in its path: this clone's, unless it lies in a home that is
    closed to others; then the system's, if it is of the same version. ``LookupError``."""
    own = _CLONE / ".venv" / "bin" / "python"
    ours = str(own) if own.exists() else sys.executable
    ask = "import sys; print(*sys.version_info[:2], sep='.'); print(*sys.path, sep='\\n')"
    version, *paths = subprocess.run([ours, "-c", ask], capture_output=True, check=True, text=True).stdout.splitlines()
    here = tuple(dict.fromkeys([str(_CLONE), *(path for path in paths if path.endswith("site-packages"))]))
    person = Person(name, pathlib.Path("/"))
    for candidate in (ours, f"/usr/bin/python{version}"):
        probe = [
            *person.words("env", f"PYTHONPATH={os.pathsep.join(here)}", candidate),
            "-c",
            "import caso_mesh.daemon",
        ]
        if subprocess.run(probe, capture_output=True, check=False, cwd="/").returncode == 0:
            return candidate, here
    raise LookupError(f"no Python {version} that {name} may run has our packages")
