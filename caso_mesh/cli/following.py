"""The job log of a run as it grows, until the run has ended; and into a file."""

from __future__ import annotations

import os
from pathlib import Path

from caso_mesh.cli import output
from caso_mesh.cli.client import Client
from caso_mesh.model import outcomes as o
from caso_mesh.model.errors import AlreadyExists, Refused
from caso_mesh.model.history import LogFollow, LogTail

#: So long the administrator waits for lines before it answers that there are none.
_WAIT_S = 10.0


def follow(client: Client, name: str, attempt: int | None, *, as_json: bool) -> None:
    """Prints line after line, until no more come. Lost connections and other administrators are survived, as every call is."""
    seen: dict[str, int] = {}
    away: tuple[str, ...] = ()
    last = ""
    while True:
        wait_s = min(_WAIT_S, client.timeout_s / 2)
        found = client.call("log.follow", LogFollow(name, attempt, seen, wait_s), LogTail)
        for each in found.lines:
            if as_json:
                output.document(each)
                continue
            if each.attempt != last:
                output.line(f"{each.attempt}:")
                last = each.attempt
            output.line(f"{each.line.at}  {each.line.level:<7}  {each.server}: {each.line.text}")
        for server in found.away:
            if server not in away:
                output.warning(f"{server} keeps its part of the log, and cannot be asked now")
        name, seen, away = name if "#" in name else found.run, found.seen, found.away
        if found.ended:
            return


def export(view: o.JobLogView, path: Path) -> None:
    """Writes a job log into a new file. Raises ``AlreadyExists``, ``Refused``."""
    lines = [
        f"{attempt.attempt}  {entry.at}  {entry.level:<7}  {output.clean(entry.text)}\n"
        for attempt in view.attempts
        for entry in attempt.lines
    ]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise AlreadyExists(kind="file", name=path) from None
    except OSError as error:
        raise Refused(detail=f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.writelines(lines)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise Refused(detail=f"{path} cannot be written: {error.strerror or error}") from error
    output.note(f"{len(lines)} lines in {path}")
