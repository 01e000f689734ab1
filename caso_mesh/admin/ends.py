"""Whether an attempt that wrote files has ended where it wrote them: the next one at the same files begins only then.

The files of a restore are written by the server they are for, and by nobody else, whoever reads the device. So it is
that server whose word counts. It confirms an end by a heartbeat that stands on orders without the attempt, which it
cannot begin any more then, and in which it holds nothing of it. What the media server says, or that it is lost, is no
such word: the other end may be at work yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from caso_mesh.admin.live import Live
from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import RestoreSpec, Run
from caso_mesh.model.orders import Authority
from caso_mesh.model.states import ATTEMPT_ACTIVE, RunState


class Ends:
    """What servers have confirmed to this office. ``without(server, attempt)``: since which orders that a linked server has
    taken the attempt is not in them, ``None`` while it is not known to have taken such."""

    def __init__(self, live: Live, without: Callable[[str, str], Authority | None]) -> None:
        self._live = live
        self._without = without
        self._confirmed: frozenset[str] = frozenset()

    def missing(self, state: ControlState, runs: Iterable[Run]) -> Mapping[tuple[str, str], str]:
        """By (run, source), of parts that are ready, an earlier attempt whose end the server there has not confirmed."""
        known, found = set[str](), dict[tuple[str, str], str]()
        for run in runs:
            if not isinstance(run.spec, RestoreSpec):
                continue
            for attempt in state.attempts_of(run.id):
                if attempt.state in ATTEMPT_ACTIVE:
                    continue
                if attempt.id in self._confirmed or self._confirms(attempt.source, attempt.id):
                    known.add(attempt.id)
                elif any(part.source == attempt.source and part.state is RunState.READY for part in run.parts):
                    found[run.id, attempt.source] = attempt.id
        self._confirmed = frozenset(known)
        return found

    def _confirms(self, server: str, attempt: str) -> bool:
        heard, since = self._live.heard.get(server), self._without(server, attempt)
        if heard is None or since is None:
            return False
        beat = heard.beat
        return beat.authority is not None and beat.authority >= since and attempt not in (*beat.holding, *beat.running)
