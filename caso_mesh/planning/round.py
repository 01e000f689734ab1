"""One round of placement: who is how busy while a plan is made, and which free pair is the best for a part (``reasons``
tells why one still waits). Slots are only taken, never given back."""

from __future__ import annotations

import heapq
import math
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum

from caso_mesh.model.jobs import Waiting
from caso_mesh.model.states import IN_PLACE, JobKind, ServerState, WaitReason
from caso_mesh.model.units import format_instant
from caso_mesh.planning.candidates import Candidates, Key, Pair, Reach, key_of, key_of_second, key_of_set, waiting
from caso_mesh.planning.demand import Demand, Levels
from caso_mesh.planning.problem import Problem, ReadyPart
from caso_mesh.planning.together import Together
from caso_mesh.planning.window import opens_ns

#: A part that waits for so long goes before younger ones of its priority however long they are, and takes what there is:
#: longest first alone would let short ones starve in a busy mesh.
OVERDUE_NS = 3600 * 1_000_000_000
#: Speeds that differ by less count as the same.
_SAME_SPEED = 1.25

#: What needs nobody's files.
_NO_SOURCE = IN_PLACE | {JobKind.DUPLICATE}
#: States in which a server reads and writes no files for others.
_NOT_THERE = frozenset({ServerState.DISABLED, ServerState.STALLED, ServerState.NO_COMMUNICATION})
#: What stores a set.
_STORES = frozenset({JobKind.BACKUP, JobKind.DUPLICATE})

_Rank = tuple[int, int, bool, bool, float, int, str, str]


class Turn(Enum):
    """Why a part got nothing when it was its turn. What yields is asked again when its priority is through."""

    WAITS = "waits"
    YIELDS = "yields"


def overdue(part: ReadyPart, now_ns: int) -> bool:
    return now_ns - part.due_at_ns > OVERDUE_NS


def holders(holdings: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """The devices that hold sets of each source."""
    found: dict[str, set[str]] = {}
    for source, device in holdings:
        found.setdefault(source, set()).add(device)
    return found


class Round:
    """``demand`` is that of all parts of ``problem``, ``held_by`` are its holdings."""

    def __init__(
        self,
        problem: Problem,
        now_ns: int,
        reach: Reach,
        demand: Demand,
        held_by: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.reach = reach
        self._problem = problem
        self._now_ns = now_ns
        self._demand = demand
        self._levels: Levels | None = None
        self.servers = {row.id: row for row in problem.servers}
        self.devices = {row.id: row for row in problem.devices}
        self._running = {row.id: row.running for row in problem.servers}
        self._reading = {row.id: row.reading for row in problem.servers}
        self._writing = {row.id: row.running for row in problem.devices}
        self._reserved = {row.id: row.reserved_bytes for row in problem.devices}
        self.left = {(server, row.id): left for row in problem.devices for server, left in row.left_bytes}
        self._on_pair: dict[Pair, int] = {}
        self._busy: dict[tuple[str, str], str] = {}
        for busy in problem.busy:
            self._on_pair[busy.server, busy.device] = self._on_pair.get((busy.server, busy.device), 0) + 1
            self._busy[busy.job, busy.source] = busy.run
        self._held_by = holders(problem.holdings) if held_by is None else held_by
        self.together = Together(problem)
        self._readers: dict[tuple[str, str], str] = {}
        self._seconds: dict[tuple[str, str], Pair] = {}
        self._rankings: dict[Key, Ranking] = {}
        self._ends_ms: dict[Key, int] = {}
        self._latest: dict[Key, int | None] = {}
        self._ends: dict[tuple[str, object], int] | None = None

    # --- handing out ---

    def idle(self, key: Key) -> bool:
        """Whether there is a free pair for parts with this key."""
        candidates = self.reach.of(key)
        return candidates.blocked is None and not self._ranking(key, candidates).empty()

    def consider(self, part: ReadyPart, *, last: bool) -> Pair | Turn:
        """The pair that a part gets, with its slots taken. ``last``: nobody is left to yield to."""
        if not self.source_free(part) or self.not_now(part) is not None or self.no_source(part) is not None:
            return Turn.WAITS
        key = key_of(part)
        candidates = self.reach.of(key)
        if candidates.blocked is not None or self.source_too_old(part):
            return Turn.WAITS
        cut = self.cut_off(part) | self.too_old(part)
        pair = self._choose(part, key, candidates, cut.union(part.recovered_on), last=last)
        if pair is Turn.WAITS and part.recovered_on:
            # A server that was lost with this part and is back may have it, if nobody else can.
            pair = self._choose(part, key, candidates, cut, last=last)
        if not isinstance(pair, Turn):
            self._take(part, pair)
        return pair

    def _choose(
        self, part: ReadyPart, key: Key, candidates: Candidates, refused: frozenset[str], *, last: bool
    ) -> Pair | Turn:
        """The source's own server first, then a device that holds sets of the source, then the best of all."""
        held: frozenset[str] = candidates.devices.intersection(self._held_by.get(part.source, ()))
        if part.kind is JobKind.DUPLICATE:
            held -= {part.device}
        ranking = self._ranking(key, candidates)
        yields = False

        def fits(pair: Pair) -> bool:
            good = pair[0] not in refused and self.has_room(part, pair) and self._can_be_read(part, pair)
            return good and (part.second is None or self.second_for(part, pair) is not None)

        for pair in self._in_order_of_place(part, candidates, ranking, held, fits):
            if not self._worth(part, key, candidates, pair, held):
                continue
            if not last and ranking.yields(pair):
                yields = True
                continue
            return pair
        return Turn.YIELDS if yields else Turn.WAITS

    def _in_order_of_place(
        self,
        part: ReadyPart,
        candidates: Candidates,
        ranking: Ranking,
        held: frozenset[str],
        fits: Callable[[Pair], bool],
    ) -> Iterable[Pair]:
        level: int | None = None
        if candidates.priorities:
            # among the devices of the best priority that is free
            best = ranking.best(fits)
            if best is None:
                return
            level = candidates.priorities.get(best[1], 0)
            held = frozenset(device for device in held if candidates.priorities.get(device, 0) == level)
        near = self.reading_servers(part) if part.kind is JobKind.DUPLICATE else [part.source]
        own = [(server, device) for server in near for device in candidates.devices_of.get(server, ())]
        own = [pair for pair in own if self.free(pair) and fits(pair)]
        own = [pair for pair in own if level is None or candidates.priorities.get(pair[1], 0) == level]
        if own:
            yield min(own, key=lambda pair: (pair[1] not in held, *ranking.rank(pair)))
        if held:
            there = [(server, device) for device in held for server in self.devices[device].servers]
            there = [pair for pair in there if pair[0] in candidates.servers and self.free(pair) and fits(pair)]
            if there:
                yield min(there, key=ranking.rank)
        best = ranking.best(fits)
        if best is not None:
            yield best

    def _worth(self, part: ReadyPart, key: Key, candidates: Candidates, pair: Pair, held: frozenset[str]) -> bool:
        """Whether a part ends sooner there than where it would have to wait for a slot, or delays nobody."""
        if part.predicted_s is None or overdue(part, self._now_ns):
            return True
        speed, best = self.reach.speed(pair), candidates.best_speed
        if held and pair[1] not in held and part.elsewhere_s is not None and part.elsewhere_s > part.predicted_s:
            soon = self._soonest_ms(lambda server, device: device in held and server in candidates.servers)
            return soon is None or 1000 * part.elsewhere_s / speed <= soon + 1000 * part.predicted_s / best
        if speed * _SAME_SPEED > best:
            return True
        there_ms = 1000 * part.predicted_s / speed
        if there_ms <= self._end_ms(key, candidates):
            return True
        fast = self._soonest_ms(
            lambda server, device: (
                device in candidates.devices_of.get(server, ())
                and self.reach.speed((server, device)) * _SAME_SPEED > best
            )
        )
        return fast is None or there_ms <= fast + 1000 * part.predicted_s / best

    def _soonest_ms(self, among: Callable[[str, str], bool]) -> int | None:
        """In how many milliseconds the first attempt on some pairs is predicted to end."""
        ends = [
            max(0, busy.ends_at_ns - self._now_ns) // 1_000_000
            for busy in self._problem.busy
            if busy.ends_at_ns is not None and among(busy.server, busy.device)
        ]
        return min(ends, default=None)

    def _take(self, part: ReadyPart, pair: Pair) -> None:
        server = pair[0]
        second = self.second_for(part, pair) if part.second is not None else None
        self._take_pair(part, pair)
        if second is not None:
            self._seconds[part.run, part.source] = second
            self._take_pair(part, second, slot=second[0] != server)
        reader = part.source
        if part.kind is JobKind.DUPLICATE:
            reader = self._readers[part.run, part.source] = self._reader(part, server) or server
        if part.kind not in IN_PLACE and reader in self._reading:
            self._reading[reader] += 1
        self._busy[part.job, part.source] = part.run

    def _take_pair(self, part: ReadyPart, pair: Pair, *, slot: bool = True) -> None:
        server, device = pair
        self._running[server] += slot
        self._writing[device] += 1
        self._on_pair[pair] = self._on_pair.get(pair, 0) + 1
        if part.kind in _STORES:
            size = self.size(part, device)
            self._reserved[device] += size
            if pair in self.left:
                self.left[pair] -= size

    # --- the second device ---

    def second(self, part: ReadyPart) -> Pair | tuple[str, str]:
        """Of a part that got a pair: the server and the device that take the same beside it; empty unless it has one."""
        return self._seconds.get((part.run, part.source), ("", ""))

    def second_for(self, part: ReadyPart, first: Pair) -> Pair | None:
        """The best pair for the second device beside the first one; on the server of that one it takes no further slot.
        Devices with sets of the source come first, then the source's own server, then the least load."""
        key = key_of_second(part)
        candidates = self.reach.of(key)
        if candidates.blocked is not None:
            return None
        held = self._held_by.get(part.source, set())
        refused = self.cut_off(part) | self.too_old(part)
        fit = [
            pair
            for pair in candidates.pairs
            if pair[1] != first[1]
            and pair[0] not in refused
            and self.device_free(pair[1])
            and (pair[0] == first[0] or self.server_free(pair[0]))
            and self.has_room(part, pair)
        ]

        def rank(pair: Pair) -> tuple[object, ...]:
            server, device = pair
            names = (self.servers[server].name, self.devices[device].name)
            near = (server != part.source, server != first[0], self.load(server), -self.free_bytes(device))
            return (candidates.priorities.get(device, 0), device not in held, *near, *names)

        return min(fit, key=rank, default=None)

    # --- who reads the set that is copied ---

    def reads(self, part: ReadyPart) -> tuple[str, str]:
        """Of a part that got a pair: the server that reads the set, and its device; empty unless a set is copied."""
        reader = self._readers.get((part.run, part.source), "")
        return (reader, part.device or "") if reader else ("", "")

    def reading_servers(self, part: ReadyPart) -> list[str]:
        """Those that reach the device of the set and may read one more."""
        servers = self.reach.of(key_of_set(part)).servers
        return sorted(id for id in servers if self._reading[id] < self.servers[id].source_concurrency)

    def _reader(self, part: ReadyPart, writer: str) -> str | None:
        """The writer itself if it can, or else the one that reads least now, of those that reach the writer."""
        readers = [id for id in self.reading_servers(part) if not self.together.apart(id, writer)]
        return min(readers, key=lambda reader: (reader != writer, self._reading[reader], reader), default=None)

    def _can_be_read(self, part: ReadyPart, pair: Pair) -> bool:
        """A copy goes to another device than that of its set, and somebody reads the set for it."""
        copies = part.kind is JobKind.DUPLICATE
        return not copies or (pair[1] != part.device and self._reader(part, pair[0]) is not None)

    # --- who is free ---

    def load(self, server: str) -> float:
        return self._running[server] / max(1, self.servers[server].concurrency)

    def free(self, pair: Pair) -> bool:
        return self.server_free(pair[0]) and self.device_free(pair[1])

    def yields(self, pair: Pair, key: Key, candidates: Candidates) -> bool:
        """Whether others of the same priority come first there: those that can run nowhere else and would be last to end,
        and on a shared device the servers that have less than their part of its slots."""
        sharing = self.reach.sharing[pair[1]]
        if sharing > 1 and self._on_pair.get(pair, 0) >= max(1, self.devices[pair[1]].concurrency // sharing):
            return True
        if not self._level().wanted_by_others(pair, key):
            return False
        latest_ms = self._latest_ms(key, candidates)
        return latest_ms is not None and self._level().of_others_ms(pair, key) > latest_ms

    def strands(self, pair: Pair) -> bool:
        """Whether a device that only this server reaches would be left idle for want of slots of the server."""
        server, device = pair
        alone = sum(
            self.devices[id].concurrency - self._writing[id] for id in self.reach.alone.get(server, ()) if id != device
        )
        return alone > self.servers[server].concurrency - self._running[server] - 1

    def free_bytes(self, device: str) -> int:
        return self.devices[device].free_bytes or 0

    def server_free(self, server: str) -> bool:
        return self._running[server] < self.servers[server].concurrency

    def device_free(self, device: str) -> bool:
        return self._writing[device] < self.devices[device].concurrency

    def source_free(self, part: ReadyPart) -> bool:
        if part.kind is JobKind.DUPLICATE:
            return bool(self.reading_servers(part))
        source = self.servers.get(part.source)
        return source is None or self._reading[source.id] < source.source_concurrency or part.kind in IN_PLACE

    def has_room(self, part: ReadyPart, pair: Pair) -> bool:
        if part.kind not in _STORES:
            return True
        device, size = self.devices[pair[1]], self.size(part, pair[1])
        left = self.left.get(pair)
        if left is not None and left < max(1, size):
            return False
        reserved = self._reserved[device.id]
        if not size or not reserved or device.free_bytes is None:
            return True  # what a job alone will store is a guess: it is for the device to say that it is full
        return device.free_bytes - reserved - size >= device.low_space_bytes

    def size(self, part: ReadyPart, device: str) -> int:
        """What a part is predicted to store on a device."""
        there = device in self._held_by.get(part.source, ())
        return part.predicted_bytes if there else part.elsewhere_bytes

    def cut_off(self, part: ReadyPart) -> frozenset[str]:
        return self.together.barred(part.kind, part.source) if part.kind not in _NO_SOURCE else frozenset()

    def too_old(self, part: ReadyPart) -> frozenset[str]:
        """The servers whose program cannot do it, or not with that of the source."""
        foreign = self.together.foreign(part.source) if part.kind not in _NO_SOURCE else frozenset()
        if part.level == 1:
            return foreign
        return foreign | {row.id for row in self._problem.servers if row.level < part.level}

    def source_too_old(self, part: ReadyPart) -> bool:
        source = self.servers.get(part.source)
        return part.kind not in _NO_SOURCE and source is not None and source.level < part.level

    def _ranking(self, key: Key, candidates: Candidates) -> Ranking:
        found = self._rankings.get(key)
        if found is None:
            found = self._rankings[key] = Ranking(self, key, candidates)
        return found

    def _level(self) -> Levels:
        if self._levels is None:
            self._levels = Levels(self._problem, self.reach, self._demand, self._now_ns)
        return self._levels

    def _latest_ms(self, key: Key, candidates: Candidates) -> int | None:
        """Pairs that are busy with others' work for longer are left to those, ``None`` if all are."""
        if key not in self._latest:
            latest_ms = self._end_ms(key, candidates) * 3 // 4  # predictions err: so much is near enough to the end
            nowhere_else = self._level().least_of_others_ms(candidates, key) > latest_ms
            self._latest[key] = None if nowhere_else else latest_ms
        return self._latest[key]

    def _end_ms(self, key: Key, candidates: Candidates) -> int:
        found = self._ends_ms.get(key)
        if found is None:
            found = self._ends_ms[key] = self._level().end_ms(candidates)
        return found

    # --- what keeps a part from being considered ---

    def first_of(self, what: str, which: Iterable[object]) -> dict[str, str]:
        """When the first attempt that has one of these is predicted to end, as a field of a reason; empty if nobody
        knows. ``what`` is run, source, server, device or pair."""
        if self._ends is None:
            self._ends = {}
            for busy in self._problem.busy:
                if busy.ends_at_ns is None:
                    continue
                has = {"run": busy.run, "source": busy.source, "server": busy.server, "device": busy.device}
                for name in (*has.items(), ("pair", (busy.server, busy.device))):
                    self._ends[name] = min(busy.ends_at_ns, self._ends.get(name, busy.ends_at_ns))
        ends = [self._ends[what, each] for each in which if (what, each) in self._ends]
        return {"expected": format_instant(max(self._now_ns, min(ends))) or ""} if ends else {}

    def not_now(self, part: ReadyPart) -> Waiting | None:
        if self._problem.in_grace:
            return waiting(WaitReason.ADMIN_IN_GRACE)
        if part.stranded:
            return waiting(WaitReason.NO_SERVER_LEFT)
        if part.on_hold:
            return waiting(WaitReason.ON_HOLD, job=part.job_name)
        if part.due_at_ns > self._now_ns:
            return waiting(WaitReason.NOT_YET_DUE, due=format_instant(part.due_at_ns))
        if part.not_before_ns > self._now_ns:
            return waiting(WaitReason.RETRY_LATER, at=format_instant(part.not_before_ns))
        back = [server for server in part.recovered_on if server in self._problem.telling]
        if back:
            return waiting(WaitReason.NEWS_ON_ITS_WAY, server=self.name(back[0]))
        if part.first is not None:
            return waiting(WaitReason.WAITING_FOR_FIRST, first=part.first)
        if part.behind is not None:
            return waiting(WaitReason.BLOCKED_BY_RUN, run=part.behind)
        opens = opens_ns(part.window, self._now_ns)
        if opens is not None:
            return waiting(WaitReason.OUTSIDE_WINDOW, opens=format_instant(opens))
        blocking = self._busy.get((part.job, part.source))
        if blocking is not None:
            return waiting(WaitReason.BLOCKED_BY_RUN, run=blocking, **self.first_of("run", [blocking]))
        return None

    def no_source(self, part: ReadyPart) -> Waiting | None:
        """The server whose files are read or written must be linked and heard; paused is no matter, disabled is. (A link to
        a machine that fell asleep is there for a while yet.)"""
        if part.kind is JobKind.DUPLICATE:
            return self.reach.of(key_of_set(part)).blocked
        if part.kind in IN_PLACE:
            return None
        source = self.servers.get(part.source)
        if source is None or not source.connected or source.state in _NOT_THERE:
            if source is not None and source.connected and source.state is ServerState.DISABLED:
                return waiting(WaitReason.SERVER_PAUSED, servers=[source.name])
            since = None if source is None else format_instant(source.silent_since_ns)
            return waiting(WaitReason.SOURCE_UNREACHABLE, source=self.name(part.source), since=since or "it joined")
        if part.unended:
            return waiting(WaitReason.END_UNCONFIRMED, server=source.name, attempt=part.unended)
        lacks = part.no_logon
        return None if lacks is None else waiting(WaitReason.NO_LOGON, source=source.name, logon=lacks)

    def name(self, server: str) -> str:
        return self.servers[server].name if server in self.servers else server

    def devices_named(self, pairs: Iterable[Pair]) -> list[str]:
        return sorted({self.devices[device].name for _, device in pairs})


class Ranking:
    """The free pairs of one key, the best one first: priority of the device in its pool, fastest, asked for by nobody else, leaving no other device idle,
    least loaded server, most free bytes, names."""

    def __init__(self, round: Round, key: Key, candidates: Candidates) -> None:
        self._round: Round = weakref.proxy(round)  # which keeps this one: no circle is left of each plan
        self._key, self._candidates = key, candidates
        self._first = 0
        self._heap: list[tuple[_Rank, Pair]] | None = None

    def empty(self) -> bool:
        """Whether no pair is free any more."""
        pairs = self._candidates.pairs
        while self._first < len(pairs) and not self._round.free(pairs[self._first]):
            self._first += 1  # for good: nothing is given back while a plan is made
        return self._first == len(pairs)

    def best(self, fits: Callable[[Pair], bool]) -> Pair | None:
        """The best free pair that ``fits``; it stays in the ranking."""
        if self._heap is None:
            self._heap = [(self.rank(pair), pair) for pair in self._candidates.pairs if self._round.free(pair)]
            heapq.heapify(self._heap)
        heap, aside = self._heap, []
        found: Pair | None = None
        while heap:
            rank, pair = heap[0]
            if not self._round.free(pair):
                heapq.heappop(heap)
            elif rank != (now := self.rank(pair)):
                heapq.heapreplace(heap, (now, pair))
            elif not fits(pair):
                aside.append(heapq.heappop(heap))
            else:
                found = pair
                break
        for entry in aside:
            heapq.heappush(heap, entry)
        return found

    def yields(self, pair: Pair) -> bool:
        return self._round.yields(pair, self._key, self._candidates)

    def rank(self, pair: Pair) -> _Rank:
        round, (server, device) = self._round, pair
        slower = self._candidates.best_speed / round.reach.speed(pair)
        return (
            self._candidates.priorities.get(device, 0),
            int(math.log(slower, _SAME_SPEED)) if slower > 1.0 else 0,
            self.yields(pair),
            round.strands(pair),
            round.load(server),
            -round.free_bytes(device),
            round.servers[server].name,
            round.devices[device].name,
        )
