"""Options of the commands that list things: of which servers, in which state, of which time, and a page at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Parameter, shared
from caso_mesh.cli.options import Common, ContextOption, JsonOption, TimeoutOption
from caso_mesh.model.errors import UsageError
from caso_mesh.model.units import parse_instant_ns


@shared
@dataclass(frozen=True)
class Listing:
    """The common options where ``--state`` has two meanings: what is listed, or a state folder."""

    state: Annotated[
        tuple[str, ...],
        Parameter(
            name="--state",
            negative=(),
            help="Only what is in this state. Anything that is no state is the state folder of the server to talk to, as in "
            "other commands; --state may be given twice.",
        ),
    ] = ()
    context: ContextOption = None
    timeout: TimeoutOption = "15s"
    json: JsonOption = False

    def split(self, known: Iterable[str]) -> tuple[str | None, Common]:
        """The state, which is one of ``known``, and the common options. Raises ``UsageError``."""
        known = {*known}
        states = [text for text in self.state if text in known]
        folders = [text for text in self.state if text not in known]
        if len(states) > 1:
            raise UsageError(detail=f"Ask for one state at a time, not {' and '.join(states)}")
        if len(folders) > 1 or (folders and os.sep not in folders[0] and not Path(folders[0]).is_dir()):
            wrong = folders[-1]
            raise UsageError(detail=f'"{wrong}" is neither a state ({", ".join(sorted(known))}) nor a state folder')
        folder = Path(folders[0]) if folders else None
        return (states[0] if states else None), Common(folder, self.context, self.timeout, self.json)


LISTING = Listing()


@shared
@dataclass(frozen=True)
class Servers:
    """Of which servers."""

    server: Annotated[str | None, Parameter(help="Only of this server.")] = None
    pool: Annotated[str | None, Parameter(help="Only of the servers of this pool.")] = None


ANY_SERVER = Servers()


@shared
@dataclass(frozen=True)
class Time:
    """Of which time."""

    since: Annotated[str | None, Parameter(help="Only from this time on, as in 2025-01-31T02:00.")] = None
    until: Annotated[str | None, Parameter(help="Only before this time.")] = None

    @property
    def since_ns(self) -> int | None:
        """Raises ``InvalidValue``, as ``until_ns``."""
        return None if self.since is None else parse_instant_ns(self.since)

    @property
    def until_ns(self) -> int | None:
        return None if self.until is None else parse_instant_ns(self.until)


ANY_TIME = Time()

LimitOption = Annotated[int, Parameter(help="At most this many.", at_least=1)]
AfterOption = Annotated[
    str | None, Parameter(help="Go on behind this one, the last of what was shown, as its first column has it.")
]


def note_more(more: bool, last: str | None) -> None:
    """Says how to see what is behind the last row."""
    if more:
        output.note(f"There are more: --after {last}, or a higher --limit")
