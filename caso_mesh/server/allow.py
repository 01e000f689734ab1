"""What may be read and written on this server at all: its own file decides, not the administrator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from caso_mesh.model.errors import CommandNotAllowed, NotAllowedHere, SourcePathMissing
from caso_mesh.model.host_commands import CommandKind, HostCommand, dump_name, is_reserved


class AllowList:
    """Folders that may be read and written, less the state folder and the devices (``closed``), which never may; and
    commands that may be run.

    A backup of a folder *above* a closed one is allowed: the closed part is left out of it, with a warning. Looks at
    the file system, so it belongs into a thread. ``real`` resolves these places; one of them may hang.
    """

    def __init__(
        self,
        server: str,
        read: Iterable[str],
        write: Iterable[str],
        closed: Iterable[str],
        commands: Mapping[str, HostCommand] | None = None,
        real: Callable[[str], str] = os.path.realpath,
    ) -> None:
        self._server = server
        self._read = [real(place) for place in read]
        self._write = [real(place) for place in write]
        self._closed = [real(place) for place in closed]
        self._commands = commands or {}

    def check_command(self, name: str, kind: CommandKind) -> HostCommand:
        """What a name means here. Raises ``CommandNotAllowed``."""
        command = self._commands.get(name)
        if command is None or command.kind is not kind:
            raise CommandNotAllowed(server=self._server, name=name, kind=kind.value)
        return command

    def check_read(self, path: bytes) -> list[str]:
        """Warnings. Raises ``NotAllowedHere``, ``SourcePathMissing``; ``CommandNotAllowed`` for a dump.

        What is not allowed is refused whether it is there or not: nobody learns what else lies on this machine.
        """
        if is_reserved(path):
            name = dump_name(path)
            if name is None:
                raise NotAllowedHere(server=self._server, action="read", path=path)
            self.check_command(name, CommandKind.DUMP)
            return []
        real = self._resolved(path, "read", keep_last=True)
        if not any(within(real, place) for place in self._read) or any(within(real, c) for c in self._closed):
            raise NotAllowedHere(server=self._server, action="read", path=path)
        if not os.path.lexists(path):
            raise SourcePathMissing(server=self._server, path=path)
        return [
            f"{_shown(closed)} on {self._server} is left out: it belongs to caso-mesh"
            for closed in self._closed
            if within(closed, real)
        ]

    def check_write(self, path: bytes) -> None:
        """Raises ``NotAllowedHere``. The path need not exist."""
        real = self._resolved(path, "write", keep_last=False)
        if not any(within(real, place) for place in self._write) or any(within(real, c) for c in self._closed):
            raise NotAllowedHere(server=self._server, action="write", path=path)

    def _resolved(self, path: bytes, action: str, *, keep_last: bool) -> str:
        if b"\0" in path or not path.startswith(b"/"):
            raise NotAllowedHere(server=self._server, action=action, path=path)
        folder, name = os.path.split(path.rstrip(b"/") or b"/")
        if keep_last and name not in {b"", b".", b".."}:
            # a root that is itself a symlink is kept as a symlink: only its folder is resolved
            return os.path.join(os.path.realpath(os.fsdecode(folder)), os.fsdecode(name))
        return os.path.realpath(os.fsdecode(path))


def within(path: str, folder: str) -> bool:
    """Whether a real path is that folder, or lies in it."""
    return folder in ("/", path) or path.startswith(folder + "/")


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
