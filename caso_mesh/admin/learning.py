"""What the administrator's tables teach: which devices hold sets of whom, what servers have stored, how long runs take, and
from that when what runs will end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from caso_mesh.admin.flaws import flaws_of
from caso_mesh.admin.live import Live
from caso_mesh.admin.tables import Tables
from caso_mesh.control.state import ControlState
from caso_mesh.model.clock import Clock
from caso_mesh.model.ids import run_of_attempt
from caso_mesh.model.jobs import RestoreSpec, Run, kind_of, makes_sets, set_read
from caso_mesh.model.states import ATTEMPT_GOOD
from caso_mesh.model.storage import BackupSet
from caso_mesh.planning import predicting
from caso_mesh.planning.choosing import Flaws, Use
from caso_mesh.planning.history import History, Prediction, Sample, SetSample
from caso_mesh.planning.predicting import StoredSet

_SECOND = 1_000_000_000
#: So many of the newest sets are history enough, and it is read again no more often than this.
_NEWEST, _EACH_S = 5000, 60.0
#: So many of the newest runs about sets are history enough.
_NEWEST_RUNS = 2000
#: Below this percentage of a running job its end is not reckoned from how far it has come.
_TELLING_PERCENT = 5.0


class Learning:
    """``holdings``: (source, device) that has sets of it. ``stored_bytes``: (server, device) -> what its sets take there.
    ``speeds``: (server, device, how fast), where it is known to differ from 1."""

    def __init__(self, tables: Tables, live: Live, clock: Clock) -> None:
        self._tables = tables
        self._live = live
        self._clock = clock
        self._came = 1
        self._places_of = self._history_of = 0  # how much had come when they were learnt
        self._read_s = float("-inf")
        self._history = History()
        self._sets: dict[str, StoredSet] = {}
        self._copies: dict[str, tuple[int, tuple[tuple[str, str], ...]]] = {}
        self._flaws = Flaws()
        self.holdings: tuple[tuple[str, str], ...] = ()
        self._held: frozenset[tuple[str, str]] = frozenset()
        self.stored_bytes: Mapping[tuple[str, str], int] = {}
        self.speeds: tuple[tuple[str, str, float], ...] = ()

    def facts_came(self) -> None:
        """There may be new sets."""
        self._came += 1

    async def learn(self, state: ControlState) -> None:
        """Takes in what is new. What a lost server did counts for the machine that took its place."""
        came = self._came
        if self._places_of != came:
            await self._learn_places(state)
            self._places_of = came
        if self._history_of != came and self._clock.monotonic_s() - self._read_s >= _EACH_S:
            await self._learn_history(state)
            self._history_of, self._read_s = came, self._clock.monotonic_s()

    async def _learn_places(self, state: ControlState) -> None:
        rows, now = await self._tables.stored(), Successors(state)
        self.holdings = tuple(sorted({(now.of(source), device) for source, _, device, _ in rows}))
        self._held = frozenset(self.holdings)
        stored: dict[tuple[str, str], int] = {}
        for _, server, device, size in rows:
            stored[server, device] = stored.get((server, device), 0) + size
        self.stored_bytes = stored

    async def _learn_history(self, state: ControlState) -> None:
        now, sets = Successors(state), await self._tables.sets(limit=_NEWEST)
        lengths = await self._tables.lengths([each.attempt for each in sets])
        backups = [
            Sample(
                each.job,
                now.of(each.source),
                each.type,
                each.server,
                each.device,
                # a backup that is verified goes on when its set is there
                max(
                    0.0,
                    (each.ended_at_ns - each.started_at_ns) / _SECOND,
                    lengths.get((each.attempt, each.server), 0.0),
                ),
                each.bytes_stored,
            )
            for each in sets
            if each.copy_of is None and each.made_of is None  # the times of those are others'
        ]
        known = {each.id: each for each in sets}
        self._history = History(backups, await self._learn_of_sets(state, now, known))
        speeds = sorted(self._history.speeds.items())
        self.speeds = tuple((*place, speed) for place, speed in speeds if speed != 1.0)

    async def _learn_of_sets(
        self, state: ControlState, now: Successors, known: Mapping[str, BackupSet]
    ) -> list[SetSample]:
        """Runs that read a set, newest first."""
        ended = [
            attempt
            for attempt in state.attempts.values()
            if attempt.state in ATTEMPT_GOOD
            and not attempt.beside
            and set_read(state.run(attempt.run).spec, attempt.source) is not None
        ]
        ended.sort(key=lambda attempt: (attempt.ended_at_ns or 0, attempt.id), reverse=True)
        del ended[_NEWEST_RUNS:]
        rows = await self._tables.attempts(sorted({attempt.run for attempt in ended}))
        found = []
        for attempt in ended:
            row, run = rows.of(attempt), state.runs.get(attempt.run)
            if run is None or row is None or row.started_at_ns is None or row.ended_at_ns is None:
                continue
            kind = kind_of(run.spec)
            read = known.get(set_read(run.spec, attempt.source) or "")
            found.append(
                SetSample(
                    kind,
                    run.job,
                    now.of(attempt.source),
                    attempt.from_device or attempt.device,
                    max(0, row.ended_at_ns - row.started_at_ns) / _SECOND,
                    predicting.bytes_of(run, stored_set(read)) if read is not None else 0,
                    row.counts.bytes_stored,
                    attempt.device if makes_sets(run.spec) else "",
                )
            )
        return found

    @property
    def history(self) -> History:
        """What was learnt last."""
        return self._history

    async def learn_sets(self, ids: Iterable[str]) -> None:
        """Which sets, and no others, open runs are about."""
        wanted = set(ids)
        self._sets = {id: each for id, each in self._sets.items() if id in wanted}
        for id in sorted(wanted - self._sets.keys()):
            found = await self._tables.set(id)
            if found is not None:
                self._sets[id] = stored_set(found)

    @property
    def sets(self) -> Mapping[str, StoredSet]:
        """The sets that open runs are about, by id."""
        return self._sets

    def device_of(self, set_id: str) -> str | None:
        """The device that holds a set which an open run is about."""
        known = self._sets.get(set_id)
        return None if known is None else known.device

    def medium_of(self, set_id: str) -> str:
        """The label of the medium of a set which an open run is about; empty if that is not known."""
        known = self._sets.get(set_id)
        return "" if known is None else known.medium

    async def learn_copies(self, ids: Iterable[str], state: ControlState) -> None:
        """Where copies of the sets lie that open restores, and no others, are about."""
        known, self._copies = self._copies, {}
        ids = [*ids]
        self._flaws = await flaws_of(state, self._tables, self._live) if ids else Flaws()
        for id in set(ids):
            at = known.get(id)
            if at is None or at[0] != self._came:
                came = self._came
                at = came, await self._find_copies(id)
            self._copies[id] = at

    async def _find_copies(self, id: str) -> tuple[tuple[str, str], ...]:
        backup = await self._tables.set(id)
        found: list[tuple[str, str]] = []
        if backup is not None:
            # a copy has the times of its set
            async for each in self._tables.sets_until(backup.source, backup.ended_at_ns):
                if each.ended_at_ns < backup.ended_at_ns:
                    break
                if each.id != id and (each.copy_of or each.id) == (backup.copy_of or id):
                    found.append((each.id, each.device))
        return tuple(sorted(found))

    def copies_of(self, set_id: str) -> tuple[tuple[str, str], ...]:
        """The copies of a set that an open restore is about, as (set, device), those last that were found damaged. What is not
        where it is believed to be is none."""
        found = [each for each in self._copies.get(set_id, (0, ()))[1] if each[0] not in self._flaws.missing]
        return tuple(sorted(found, key=lambda each: self._flaws.bars(each[0], Use.READ) is not None))

    @property
    def missing_sets(self) -> frozenset[str]:
        """What inventories did not find, while there are open restores."""
        return self._flaws.missing

    def copy_on(self, spec: RestoreSpec, device: str) -> str:
        """The copy on a device which a restore that is placed there reads; empty if it is the set itself."""
        if device in {spec.device, self.device_of(spec.set)}:
            return ""
        return next((copy for copy, on in self.copies_of(spec.set) if on == device), "")

    def predicted(self, run: Run, source: str) -> Prediction:
        """What a part will come to; the same object until more is learnt."""
        return predicting.predicted(self._history, run, source, self._sets.get)

    def running(self, state: ControlState) -> tuple[dict[str, int], dict[str, int]]:
        """Of active attempts when they are predicted to end, and how many bytes they are predicted to store yet; by id."""
        now_ns = self._clock.now_ns()
        ends_at_ns: dict[str, int] = {}
        to_come_bytes: dict[str, int] = {}
        for attempt in state.active_attempts():
            # what goes to a second device is as much as what goes to the first one
            run = state.runs.get(run_of_attempt(attempt.beside)) if attempt.beside else state.run(attempt.run)
            predicted = predicting.UNKNOWN if run is None else self.predicted(run, attempt.source)
            holds = (attempt.source, attempt.device) in self._held
            progress = self._live.progress.get(attempt.id)
            stored = 0 if progress is None else progress.counts.bytes_stored
            to_come_bytes[attempt.id] = max(0, predicted.stores(holds=holds) - stored)
            percent = None if progress is None else progress.percent
            if progress is not None and percent is not None and percent >= _TELLING_PERCENT:
                left_s = progress.elapsed_s * (100.0 - percent) / percent
                ends_at_ns[attempt.id] = max(now_ns, progress.at_ns + round(left_s * _SECOND))
            else:
                seconds = predicted.takes_s(holds=holds, speed=self._history.speed_of(attempt.server, attempt.device))
                if seconds is not None:
                    ends_at_ns[attempt.id] = attempt.delegated_at_ns + round(seconds * _SECOND)
        return ends_at_ns, to_come_bytes


def stored_set(backup: BackupSet) -> StoredSet:
    """A set as predictions see it."""
    return StoredSet(backup.id, backup.device, backup.bytes, backup.ended_at_ns, backup.medium)


class Successors:
    """Who is in the place of a server now."""

    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._found: dict[str, str] = {}

    def of(self, server: str) -> str:
        if server not in self._found:
            successor = self._state.successor_of(server)
            self._found[server] = server if successor is None else successor.id
        return self._found[server]
