"""Options that many commands share, and how their values are read."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from caso_mesh.cli.grammar import Parameter, shared
from caso_mesh.model.errors import InvalidValue, UsageError
from caso_mesh.model.host_commands import dump_path
from caso_mesh.model.ids import NAME, SOURCE_NAME, split_server_path
from caso_mesh.model.units import parse_duration_s, unescape_path

STATE_VARIABLE = "CASO_MESH_STATE"

StateOption = Annotated[
    Path | None,
    Parameter(
        name="--state",
        help="State folder of the server to talk to (else CASO_MESH_STATE, else the folder of this user).",
    ),
]
OwnStateOption = Annotated[
    Path | None,
    Parameter(name="--state", help="State folder of this server (else CASO_MESH_STATE, else the folder of this user)."),
]
ContextOption = Annotated[
    str | None, Parameter(name="--context", help="Talk to a mesh from a machine that is no server, by this context.")
]
TimeoutOption = Annotated[
    str, Parameter(name="--timeout", help="How long to wait for an answer before giving up, as in 15s or 2m.")
]
JsonOption = Annotated[
    bool, Parameter(name="--json", negative=(), help="Print one JSON document instead of text for people.")
]
EscapedOption = Annotated[
    bool, Parameter(name="--escaped", negative=(), help=r"Paths are given with \xHH for bytes, as output shows them.")
]


@shared
@dataclass(frozen=True)
class Common:
    """What every command takes that talks to a daemon."""

    state: StateOption = None
    context: ContextOption = None
    timeout: TimeoutOption = "15s"
    json: JsonOption = False

    @property
    def timeout_s(self) -> float:
        """Raises ``InvalidValue``."""
        return parse_duration_s(self.timeout)

    @property
    def folder(self) -> Path:
        """The state folder that is meant."""
        return self.state if self.state is not None else default_state()


DEFAULTS = Common()


@shared
@dataclass(frozen=True)
class Waiting:
    """What commands take that submit work."""

    wait: Annotated[
        bool, Parameter(name="--wait", negative=(), help="Wait for the end; exit status 0, 7 (exceptions) or 1.")
    ] = False
    json_lines: Annotated[
        bool,
        Parameter(name="--json-lines", negative=(), help="With --wait: print progress as JSON, one record a line."),
    ] = False


NOT_WAITING = Waiting()


@shared
@dataclass(frozen=True)
class Local:
    """What commands take that a server also answers by itself."""

    local: Annotated[
        bool,
        Parameter(
            name="--local",
            negative=(),
            help="Of what the server that is asked does by itself: answered by it alone, also without an administrator.",
        ),
    ] = False

    @property
    def words(self) -> str:
        """What a command line needs for the same."""
        return " --local" if self.local else ""

    def call(self, name: str) -> str:
        """The call that is meant."""
        return f"local.{name}" if self.local else name


NOT_LOCAL = Local()


def check_waiting(common: Common, waiting: Waiting) -> None:
    """Raises ``UsageError`` for options that contradict each other."""
    if waiting.json_lines and not waiting.wait:
        raise UsageError(detail="--json-lines needs --wait")
    if waiting.json_lines and common.json:
        raise UsageError(detail="Give --json or --json-lines, not both")


def default_state() -> Path:
    """``CASO_MESH_STATE``, else ``/var/lib/caso-mesh`` for root, else the user's state folder."""
    given = os.environ.get(STATE_VARIABLE)
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/caso-mesh")
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "caso-mesh"


def raw_path(text: str, *, escaped: bool) -> bytes:
    """The bytes of a path argument."""
    return unescape_path(text) if escaped else os.fsencode(text)


def rooted_path(text: str, *, escaped: bool) -> bytes:
    """The bytes of a path inside a set, which may be given without its leading slash."""
    return b"/" + raw_path(text, escaped=escaped).lstrip(b"/")


def place(text: str, *, escaped: bool) -> tuple[str, bytes]:
    """Server and path bytes of ``SERVER:/PATH``. Raises ``InvalidValue``."""
    server, path = split_server_path(text)
    return server, raw_path(path, escaped=escaped)


def source_place(text: str, *, escaped: bool) -> tuple[str, bytes]:
    """As ``place``; ``SERVER:@NAME`` is the path that stands for what the command NAME writes. An absolute path never
    begins with ``@``, so that it cannot mean a file. Raises ``InvalidValue``."""
    server, colon, path = text.partition(":")
    if colon and path.startswith("@"):
        if not NAME.match(server) or not NAME.match(path[1:]):
            raise InvalidValue(value=text, what="dump", expected="Use SERVER:@NAME")
        return server, b"/" + dump_path(path[1:])
    return place(text, escaped=escaped)


def command_place(text: str) -> tuple[str, str]:
    """Server (empty: where the set came from) and name of ``[SERVER:]NAME``. Raises ``InvalidValue``."""
    server, _, name = text.rpartition(":")
    name = name.removeprefix("@")
    if not NAME.match(name) or (server and not NAME.match(server)):
        raise InvalidValue(value=text, what="command", expected="Use NAME or SERVER:NAME")
    return server, name


def rooted_place(text: str, *, escaped: bool) -> tuple[str, bytes]:
    """Server and path bytes of ``SERVER:PATH``, whose leading slash may be missing. Raises ``InvalidValue``."""
    server, colon, path = text.partition(":")
    if not colon or not SOURCE_NAME.match(server) or not path:
        raise InvalidValue(value=text, what="place", expected="Use SERVER:PATH")
    return server, rooted_path(path, escaped=escaped)


def interactive() -> bool:
    """Whether a person may be asked: only when both ends are terminals."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def confirm(question: str) -> bool:
    """Asks a person; only ``y`` or ``yes`` agree."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False
