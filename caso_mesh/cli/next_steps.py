"""What is printed to do next, once a state folder is that of a member: commands that work as they are printed."""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from pathlib import Path

from caso_mesh.cli.options import default_state


def start_it(folder: Path) -> list[str]:
    """How the daemon of a state folder is started, now and at boot."""
    place = shlex.quote(os.path.abspath(folder))
    return [
        f"Start it:              caso-mesh run --state {place}",
        f"Or start it at boot:   {_as_root()} service install --state {place}{_as_user()}",
    ]


def at(folder: Path) -> str:
    """The option by which commands of the same shell reach the daemon of a state folder; nothing, if they do without."""
    given = os.path.abspath(folder)
    return "" if given == os.path.abspath(default_state()) else f" --state {shlex.quote(given)}"


def _as_root() -> str:
    """How the program is called by root, whose path may be another one."""
    if os.geteuid() == 0:
        return "caso-mesh"
    program = Path(os.path.abspath(sys.argv[0]))
    if program.name == "caso-mesh" and program.exists():
        return f"sudo {shlex.quote(os.fspath(program))}"
    return f"sudo {shlex.quote(sys.executable)} -m caso_mesh"


def _as_user() -> str:
    """Whom the state folder belongs to, if that is not root."""
    if os.geteuid() == 0:
        return ""
    try:
        return f" --user-name {shlex.quote(pwd.getpwuid(os.geteuid()).pw_name)}"
    except KeyError:
        return ""  # a user without a name can be given none
