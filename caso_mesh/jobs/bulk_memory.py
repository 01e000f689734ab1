"""The bulk channel between two workers in one process, for meshes in memory: a call is a call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from caso_mesh.jobs.bulk import TERMS_DIFFER_S, Admission, Answering, BulkChannel, agree, bulk_token, far_of, join_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.task import Task
from caso_mesh.model.errors import CasoError, LinkLost, NoDataPath, TicketInvalid, WrongPeer


class _Party:
    """One end that is there."""

    def __init__(self, task: Task, desk: Desk, answering: Answering) -> None:
        self.task = task
        self.desk = desk
        self.answering = answering
        self.other: _Party | None = None
        self.gone = False
        #: Why the other end went.
        self.told: CasoError | None = None


class _Answer:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def result(self) -> Any:
        return self._answer


class _Channel:
    def __init__(self, party: _Party, other: _Party) -> None:
        self._party = party
        self._other = other

    def call(self, method: str, params: Any = None) -> Any:
        self._party.desk.check()
        lost = self.lost
        if lost is not None:
            raise lost
        return self._other.answering.handle(method, params)

    def start(self, method: str, params: Any = None, *, size: int = 0) -> _Answer:
        return _Answer(self.call(method, params))

    def drain(self) -> None:
        """Every call was answered at once."""

    @property
    def lost(self) -> CasoError | None:
        if self._party.told is not None:
            return self._party.told
        return LinkLost(peer=far_of(self._party.task).name) if self._other.gone else None


class MemoryHub:
    """Where workers of one process meet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, _Party] = {}

    @contextmanager
    def meet(self, task: Task, desk: Desk, answering: Answering) -> Iterator[BulkChannel]:
        """See ``bulk.Meet``."""
        party = _Party(task, desk, answering)
        token = bulk_token(task.order.secret)
        with self._lock:
            other = self._waiting.get(token)
            if other is not None and other.task.order.end != task.order.end and not other.gone:
                del self._waiting[token]
                party.other, other.other = other, party
            else:
                self._waiting[token] = party
        try:
            if other is not None and party.other is other:
                other.desk.waiting.notify()
            elif not desk.wait_for(lambda: party.other is not None, task.join_s):
                raise NoDataPath(source=task.source_name, server=far_of(task).name)
            assert party.other is not None
            self._admit(party, party.other)
            try:
                yield _Channel(party, party.other)
            except CasoError as error:
                party.other.told = error
                raise
        finally:
            with self._lock:
                party.gone = True
                if self._waiting.get(token) is party:
                    del self._waiting[token]
            if party.other is not None:
                party.other.desk.waiting.notify()

    @staticmethod
    def _admit(party: _Party, other: _Party) -> None:
        far = far_of(party.task)
        if other.task.server != far.node:
            raise WrongPeer(address="the other end", found=other.task.server[:13], expected=far.name)
        admission = Admission(party.task, lambda: party.desk.term)
        refusals: list[TicketInvalid] = []

        def admitted() -> bool:
            shown = join_of(other.task, other.desk)
            try:
                admission.check(shown.attempt, shown.ticket, shown.secret, party.desk.clock.now_ns())
            except TicketInvalid as error:
                refusals.append(error)
                return False
            return True

        if not party.desk.wait_for(admitted, TERMS_DIFFER_S):
            raise refusals[-1]
        agree(party.task, party.desk, join_of(other.task, other.desk))
