"""A night of backups as a deterministic discrete-event simulation: nothing moves but the clock, who gets what is decided
by a rule at every event. The rule of the product is the real ``place``; the others are what simpler products do."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from caso_mesh.model.jobs import Target, TargetKind
from caso_mesh.model.states import BackupType, DeviceState, JobKind, Priority, ServerState
from caso_mesh.planning.history import History, Sample
from caso_mesh.planning.placement import Assignment, Busy, DeviceRow, PoolRow, Problem, ReadyPart, ServerRow, place

SECOND = 1_000_000_000
EVENING = 1_750_000_000 * SECOND
#: What history is made of: so many nights, in which everything took up to so much more or less.
NIGHTS_BEFORE, NOISE = 7, 0.2


@dataclass(frozen=True)
class Work:
    """One run of a night: how long it really takes on a server of speed 1."""

    run: str
    source: str
    target: Target
    seconds: float


@dataclass(frozen=True)
class Night:
    """``speeds``: how fast a server is, where it is not 1. Everything is due at once."""

    name: str
    servers: tuple[ServerRow, ...]
    devices: tuple[DeviceRow, ...]
    pools: tuple[PoolRow, ...]
    work: tuple[Work, ...]
    speeds: dict[str, float] = field(default_factory=dict)

    def speed(self, server: str) -> float:
        return self.speeds.get(server, 1.0)


#: Hands out what is ready: the problem as it stands, and the instant.
Rule = Callable[[Problem, int], Sequence[Assignment]]


def ours(problem: Problem, now_ns: int) -> Sequence[Assignment]:
    return place(problem, now_ns).assignments


class _Simple:
    """What rules without foresight share: in the order in which runs were due, each to an idle permitted device."""

    def __call__(self, problem: Problem, now_ns: int) -> list[Assignment]:
        running = {row.id: row.running for row in problem.servers}
        reading = {row.id: row.reading for row in problem.servers}
        writing = {row.id: row.running for row in problem.devices}
        servers = {row.id: row for row in problem.servers}
        devices = {row.id: row for row in problem.devices}
        made: list[Assignment] = []
        for part in sorted(problem.parts, key=lambda part: (part.due_at_ns, part.run)):
            source = servers[part.source]
            if reading[source.id] >= source.source_concurrency or part.target is None:
                continue
            free = [
                (server, device)
                for server, device in permitted(problem, part.target)
                if running[server] < servers[server].concurrency and writing[device] < devices[device].concurrency
            ]
            if not free:
                continue
            server, device = self.choose(free)
            running[server] += 1
            writing[device] += 1
            reading[source.id] += 1
            made.append(Assignment(part.run, part.source, server, device))
        return made

    def choose(self, free: list[tuple[str, str]]) -> tuple[str, str]:
        raise NotImplementedError


class FirstAvailable(_Simple):
    """The first idle device, as the classic suite does."""

    def choose(self, free: list[tuple[str, str]]) -> tuple[str, str]:
        return min(free, key=lambda pair: (pair[1], pair[0]))


class RoundRobin(_Simple):
    """The next idle device behind the one that was taken last."""

    def __init__(self) -> None:
        self._last = ("", "")

    def choose(self, free: list[tuple[str, str]]) -> tuple[str, str]:
        turned = [(device, server) for server, device in free]
        self._last = min([pair for pair in turned if pair > self._last] or turned)
        return self._last[1], self._last[0]


class AnyAtRandom(_Simple):
    """Any idle device."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def choose(self, free: list[tuple[str, str]]) -> tuple[str, str]:
        return self._random.choice(sorted(free))


def permitted(problem: Problem, target: Target) -> list[tuple[str, str]]:
    """The pairs (server, device) that a target allows."""
    pools = {pool.name: pool.servers for pool in problem.pools}
    pairs = [(server, device) for device in problem.devices for server in device.servers]
    match target.kind:
        case TargetKind.ANY:
            return [(server, device.id) for server, device in pairs]
        case TargetKind.DEVICE:
            return [(server, device.id) for server, device in pairs if device.name == target.name]
        case TargetKind.SERVER:
            return [(server, device.id) for server, device in pairs if server == target.name]
        case TargetKind.POOL:
            return [(server, device.id) for server, device in pairs if server in pools[target.name or ""]]
    raise AssertionError(target)


def simulate(night: Night, rule: Rule, history: History | None = None) -> float:
    """Seconds until the last run has ended, as the rule has it that knows this history, or none."""
    predicted = None if history is None else _predictions(night, history)
    waiting = {work.run: work for work in night.work}
    active: list[tuple[float, str, Assignment, int | None]] = []
    speeds = {} if history is None else history.speeds
    table = Problem(
        night.servers, night.devices, (), night.pools, speeds=tuple((*pair, speed) for pair, speed in speeds.items())
    )
    now_s = 0.0
    while waiting or active:
        problem = _as_it_stands(table, waiting.values(), [each[2:] for each in active], predicted)
        now_ns = EVENING + round(now_s * SECOND)
        for one in rule(problem, now_ns):
            work = waiting.pop(one.run)
            assert (one.server, one.device) in permitted(problem, work.target)
            told = None
            if predicted is not None:
                seconds = predicted[one.run] / speeds.get((one.server, one.device), 1.0)
                told = now_ns + round(seconds * SECOND)
            heapq.heappush(active, (now_s + work.seconds / night.speed(one.server), one.run, one, told))
        assert active, f"nothing runs and {len(waiting)} wait"
        now_s = active[0][0]
        while active and active[0][0] <= now_s:
            heapq.heappop(active)
    return now_s


def _predictions(night: Night, history: History) -> dict[str, float]:
    found = {work.run: history.predict(work.run, work.source, BackupType.FULL).seconds for work in night.work}
    return {run: seconds for run, seconds in found.items() if seconds is not None}


def _as_it_stands(
    table: Problem,
    waiting: Iterable[Work],
    busy: Sequence[tuple[Assignment, int | None]],
    predicted: dict[str, float] | None,
) -> Problem:
    def count(of: Iterable[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for each in of:
            counts[each] = counts.get(each, 0) + 1
        return counts

    active = [one for one, _ in busy]
    running, reading = count(one.server for one in active), count(one.source for one in active)
    writing = count(one.device for one in active)
    replace = msgspec.structs.replace
    return replace(
        table,
        servers=tuple(
            replace(row, running=running.get(row.id, 0), reading=reading.get(row.id, 0)) for row in table.servers
        ),
        devices=tuple(replace(row, running=writing.get(row.id, 0)) for row in table.devices),
        parts=tuple(
            ReadyPart(
                work.run,
                work.run,
                work.run,
                work.source,
                JobKind.BACKUP,
                Priority.MEDIUM,
                EVENING,
                target=work.target,
                predicted_s=None if predicted is None else predicted[work.run],
            )
            for work in waiting
        ),
        busy=tuple(Busy(one.run, one.source, one.run, one.server, one.device, ends) for one, ends in busy),
    )


def history_of(night: Night, seed: int) -> History:
    """What is learnt of the nights before, in which each run took what it takes, off by up to ``NOISE``, wherever it was
    put by chance."""
    rng = random.Random(seed)
    problem = Problem(night.servers, night.devices, (), night.pools)
    allowed = {target: permitted(problem, target) for target in {work.target for work in night.work}}
    samples = []
    for _ in range(NIGHTS_BEFORE):
        for work in night.work:
            server, device = rng.choice(allowed[work.target])
            seconds = work.seconds / night.speed(server) * rng.uniform(1 - NOISE, 1 + NOISE)
            samples.append(Sample(work.run, work.source, BackupType.FULL, server, device, seconds, 0))
    return History(samples)


# --- how soon it can end at all ----------------------------------------------------------------------------------------


def lower_bound(night: Night) -> float:
    """No rule whatever ends sooner, in seconds: the longest run on its fastest permitted server; and for every union of
    targets all the work that has to be done there by the slots there are, each as fast as its server; and the same of the
    runs of each source by the slots of the source."""
    problem = Problem(night.servers, night.devices, (), night.pools)
    allowed = {target: frozenset(permitted(problem, target)) for target in {work.target for work in night.work}}
    fastest = {target: max(night.speed(server) for server, _ in pairs) for target, pairs in allowed.items()}
    bound = max(work.seconds / fastest[work.target] for work in night.work)
    for size in range(1, len(allowed) + 1):
        for targets in itertools.combinations(sorted(allowed, key=str), size):
            pairs = frozenset().union(*(allowed[target] for target in targets))
            inside = sum(work.seconds for work in night.work if allowed[work.target] <= pairs)
            bound = max(bound, inside / _capacity(night, pairs))
    for server in night.servers:
        mine = [work for work in night.work if work.source == server.id]
        if mine:
            top = max(fastest[work.target] for work in mine)
            bound = max(bound, sum(work.seconds for work in mine) / (server.source_concurrency * top))
    return bound


def _capacity(night: Night, pairs: frozenset[tuple[str, str]]) -> float:
    """Seconds of work a second: as many slots of servers as find slots of devices, the fastest first (the greedy choice
    is the best one: sets of servers' slots that can be matched are the independent sets of a matroid)."""
    reach: dict[str, list[str]] = {}
    for server, device in sorted(pairs):
        reach.setdefault(server, []).append(device)
    room = {device.id: device.concurrency for device in night.devices}
    holders: dict[str, list[str]] = {device: [] for device in room}

    def seat(server: str, tried: set[str]) -> bool:
        for device in reach[server]:
            if device in tried:
                continue
            tried.add(device)
            if len(holders[device]) < room[device]:
                holders[device].append(server)
                return True
            for position, other in enumerate(holders[device]):
                if seat(other, tried):
                    holders[device][position] = server
                    return True
        return False

    total = 0.0
    for server in sorted((row for row in night.servers if row.id in reach), key=lambda row: -night.speed(row.id)):
        for _ in range(server.concurrency):
            if seat(server.id, set()):
                total += night.speed(server.id)
    return total


# --- five nights -------------------------------------------------------------------------------------------------------

_ANY = Target(TargetKind.ANY)
_CLIENTS = 60
_RUNS = 160


def nights(seed: int) -> list[Night]:
    """Equal, heavy-tailed, mixed sites, shared devices, one slow server."""
    rng = random.Random(seed)
    media = [f"media-{number}" for number in range(8)]
    own = tuple(_device(f"disk-{number}", [name], 2) for number, name in enumerate(media))
    tail = [_long_tailed(rng) for _ in range(_RUNS)]
    return [
        Night("equal", _servers(media), own, (), _work(rng, [(_ANY, 600.0)] * (_RUNS - 5))),
        Night("heavy-tailed", _servers(media), own, (), _work(rng, [(_ANY, seconds) for seconds in tail])),
        _mixed_sites(rng, media, own),
        _shared_devices(rng, media),
        Night(
            "one slow server",
            _servers(media),
            own,
            (),
            _work(rng, [(_ANY, _long_tailed(rng)) for _ in range(_RUNS)]),
            {media[0]: 0.25},
        ),
    ]


def _mixed_sites(rng: random.Random, media: list[str], own: tuple[DeviceRow, ...]) -> Night:
    """Three sites of unequal size, each with work that must stay there, and some that may go anywhere."""
    pools = (
        PoolRow("north", tuple(media[:4])),
        PoolRow("south", tuple(media[4:6])),
        PoolRow("west", tuple(media[6:])),
    )
    targets = [Target(TargetKind.POOL, pool.name) for pool in pools]
    chances = (0.35, 0.15, 0.2, 0.3)
    work = [(rng.choices([*targets, _ANY], chances)[0], _long_tailed(rng)) for _ in range(_RUNS)]
    return Night("mixed sites", _servers(media), own, pools, _work(rng, work))


def _shared_devices(rng: random.Random, media: list[str]) -> Night:
    """Two shared devices of four slots that all reach, a disk on half of the servers, work for one or the other."""
    shared = tuple(_device(f"nas-{number}", media, 4) for number in range(2))
    disks = tuple(_device(f"own-{name}", [name], 2) for name in media[::2])
    targets = [Target(TargetKind.DEVICE, "nas-0"), _ANY]
    work = [(rng.choices(targets, (0.25, 0.75))[0], _long_tailed(rng)) for _ in range(_RUNS)]
    return Night("shared devices", _servers(media), (*shared, *disks), (), _work(rng, work))


def _long_tailed(rng: random.Random) -> float:
    """Pareto, as sizes of file systems are: most are short, few take most of the night."""
    return min(3600.0, 120.0 * rng.paretovariate(1.2))


def _servers(media: Iterable[str]) -> tuple[ServerRow, ...]:
    clients = [f"client-{number:02}" for number in range(_CLIENTS)]
    return tuple(
        ServerRow(name, name, ServerState.ENABLED, connected=True, concurrency=2, source_concurrency=2)
        for name in (*media, *clients)
    )


def _device(name: str, servers: Iterable[str], concurrency: int) -> DeviceRow:
    return DeviceRow(name, name, DeviceState.ONLINE, tuple(servers), concurrency=concurrency)


def _work(rng: random.Random, wanted: Sequence[tuple[Target, float]]) -> tuple[Work, ...]:
    """Runs of clients, in the order in which they were due."""
    return tuple(
        Work(f"run-{number:03}", f"client-{rng.randrange(_CLIENTS):02}", target, seconds)
        for number, (target, seconds) in enumerate(wanted)
    )
