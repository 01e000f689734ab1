"""Which pairs of server and device a target leaves, and why there is none. Nothing here depends on who is how busy: it
holds until a server, a device or a pool changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from operator import is_not
from typing import TypeVar

from caso_mesh.model.jobs import Target, TargetKind, Waiting
from caso_mesh.model.states import OF_DEVICE, DeviceState, JobKind, ServerState, WaitReason
from caso_mesh.planning.problem import DeviceRow, Problem, ReadyPart, ServerRow

_Row = TypeVar("_Row", ServerRow, DeviceRow)
#: Server and device, as ids.
Pair = tuple[str, str]
#: What parts that share their candidates have in common: kind and name of their target, and what restricts it.
Key = tuple[str, str, str]

_ANY = Target(TargetKind.ANY)
#: Who reads a set where it lies, who makes another one there, and who looks at a device, or erases it.
_SET, _SET_MADE, _LOOK, _ERASE = "set", "set-made", "look", "erase"
_BY_TARGET = frozenset({JobKind.BACKUP, JobKind.DUPLICATE, JobKind.TEST_RUN})


def key_of(part: ReadyPart) -> Key:
    """Parts with the same one have the same candidates."""
    if part.kind is JobKind.SYNTHETIC:
        return (_SET_MADE, part.device or "", "")
    if part.kind in OF_DEVICE:
        return (_ERASE if part.kind is JobKind.ERASE else _LOOK, part.device or "", "")
    if part.kind not in _BY_TARGET:
        return key_of_set(part)
    target = part.target or _ANY
    return (target.kind.value, target.name or "", "" if part.within is None else str(part.within))


def key_of_second(part: ReadyPart) -> Key:
    """The key of those who can write to the second device of a part."""
    target = part.second or _ANY
    return (target.kind.value, target.name or "", "" if part.within is None else str(part.within))


def key_of_set(part: ReadyPart) -> Key:
    """The key of those who can read the set that a part is about."""
    return (_SET, part.device or "", "")


class Candidates:
    """What a target leaves. ``blocked`` is why nothing can run there at all, whoever is idle; ``servers_down`` says
    that it is for want of servers. ``best_speed`` is that of the fastest pair; ``device_slots`` counts jobs at once,
    ``server_slots`` too, those of a fast server for more, in thousandths. ``priorities`` are those of devices in a device
    pool: the smaller number is taken first."""

    def __init__(
        self,
        blocked: Waiting | None,
        pairs: Sequence[Pair] = (),
        reach: Reach | None = None,
        *,
        servers_down: bool = False,
        priorities: Mapping[str, int] | None = None,
    ) -> None:
        self.priorities = priorities or {}
        self.blocked = blocked
        self.servers_down = servers_down
        self.pairs = tuple(pairs)
        self.servers = frozenset(server for server, _ in pairs)
        self.devices = frozenset(device for _, device in pairs)
        self.devices_of: dict[str, list[str]] = {}
        for server, device in pairs:
            self.devices_of.setdefault(server, []).append(device)
        self.best_speed, self.device_slots, self.server_slots = 1.0, 0, 0
        if reach is not None:
            self.best_speed = max(reach.speed(pair) for pair in pairs)
            self.device_slots = sum(reach.devices[device].concurrency for device in self.devices)
            self.server_slots = sum(reach.power(server) for server in self.servers)


class Reach:
    """Servers, devices and pools, who reaches what, and the candidates of each target that was asked for."""

    def __init__(self, problem: Problem) -> None:
        self.servers = {row.id: row for row in problem.servers}
        self.devices = {row.id: row for row in problem.devices}
        self.pools: dict[str, tuple[str, ...]] = {pool.name: pool.servers for pool in problem.pools}
        self.device_pools = {pool.name: dict(pool.devices) for pool in problem.device_pools}
        self.devices_of: dict[str, list[DeviceRow]] = {}
        for device in problem.devices:
            for server in device.servers:
                self.devices_of.setdefault(server, []).append(device)
        #: How many servers could write to a device now.
        self.sharing = {
            device.id: sum(id in self.servers and _up(self.servers[id]) for id in device.servers)
            for device in problem.devices
        }
        #: Devices that take work and that only this server reaches.
        self.alone: dict[str, list[str]] = {}
        for device in problem.devices:
            if device.imported:
                continue
            if self.sharing[device.id] == 1 and device.state is DeviceState.ONLINE and not device.low():
                (server,) = (id for id in device.servers if id in self.servers and _up(self.servers[id]))
                self.alone.setdefault(server, []).append(device.id)
        self._speeds = {(server, device): speed for server, device, speed in problem.speeds}
        self._fastest: dict[str, float] = {}
        for server, _, speed in problem.speeds:
            self._fastest[server] = max(speed, self._fastest.get(server, 0.0))
        self._problem = problem
        self._candidates: dict[Key, Candidates] = {}

    def holds(self, problem: Problem) -> bool:
        """Whether all this is true of another problem as well: at most loads and free bytes differ. Most rows are the same
        objects as the last time."""
        last = self._problem
        same = (
            _alike(last.servers, problem.servers, _server)
            and _alike(last.devices, problem.devices, _device)
            and (last.pools, last.device_pools, last.speeds) == (problem.pools, problem.device_pools, problem.speeds)
        )
        if same:
            self._problem = problem
        return same

    def of(self, key: Key) -> Candidates:
        found = self._candidates.get(key)
        if found is None:
            kind, name, within = key
            if kind in {_LOOK, _ERASE}:
                found = for_device(self, name, erases=kind == _ERASE)
            elif kind in {_SET, _SET_MADE}:
                found = for_set(self, name, writes=kind == _SET_MADE)
            else:
                found = for_target(self, _target(kind, name), within)
            self._candidates[key] = found
        return found

    def speed(self, pair: Pair) -> float:
        return self._speeds.get(pair, 1.0)

    def power(self, server: str) -> int:
        """Jobs at once, those of a fast server for more, in thousandths."""
        return max(1, round(1000 * self.servers[server].concurrency * self._fastest.get(server, 1.0)))

    def narrow(
        self,
        servers: Sequence[ServerRow],
        devices: Sequence[DeviceRow],
        *,
        reads: bool = False,
        writes: bool = True,
        looks: bool = False,
        erases: bool = False,
        priorities: Mapping[str, int] | None = None,
    ) -> Candidates:
        """What of some servers and devices can be used, or the first thing that would have to change. ``reads``: a set
        that is there. ``looks``: also at a device that cannot be used, to find out why. ``erases``: what nobody else may use
        from then on."""
        wanted = {device.id for device in devices}
        once = {server.id: server for server in servers}.values()
        reach = [server for server in once if any(row.id in wanted for row in self._devices_of(server))]
        if not reach:
            return Candidates(waiting(WaitReason.DEVICE_NOT_REACHABLE, devices=_names(devices)))
        free = [server for server in reach if not server.local]
        if not free:
            return Candidates(waiting(WaitReason.DATA_ON_SERVER, servers=_names(reach)))
        up = [server for server in free if _up(server)]
        if not up:
            return Candidates(_why_down(free, reads=reads), servers_down=True)
        active = [server for server in up if not server.held]
        if not active:
            return Candidates(waiting(WaitReason.QUEUE_ON_HOLD, servers=_names(up)))
        pairs = [(server, device) for server in active for device in self._devices_of(server) if device.id in wanted]
        if not erases:
            free_of = [pair for pair in pairs if not (pair[1].taken or pair[1].emptied)]
            if not free_of:
                return Candidates(_why_taken([device for _, device in pairs]))
            pairs = free_of
        if writes or erases:
            own = [pair for pair in pairs if not pair[1].imported]
            if not own:
                return Candidates(waiting(WaitReason.DEVICE_IMPORTED, devices=_names(device for _, device in pairs)))
            pairs = own
        good = {DeviceState.ONLINE} if writes or erases else {DeviceState.ONLINE, DeviceState.READ_ONLY}
        online = [pair for pair in pairs if pair[1].state in good or (looks and pair[1].lost)]
        if not online:
            return Candidates(_why_offline([device for _, device in pairs], media=reads and not (looks or erases)))
        roomy = [pair for pair in online if not pair[1].low()] if writes else online
        if not roomy:
            return Candidates(waiting(WaitReason.DEVICE_LOW_ON_SPACE, devices=_names(device for _, device in online)))
        return Candidates(None, [(server.id, device.id) for server, device in roomy], self, priorities=priorities)

    def reaching(self, devices: Iterable[DeviceRow]) -> list[ServerRow]:
        """The servers that have a path to one of some devices."""
        return [self.servers[id] for row in devices for id in row.servers if id in self.servers]

    def reached_by(self, servers: Iterable[ServerRow]) -> list[DeviceRow]:
        """The devices that some servers have a path to."""
        return list({device.id: device for server in servers for device in self._devices_of(server)}.values())

    def _devices_of(self, server: ServerRow) -> Sequence[DeviceRow]:
        return self.devices_of.get(server.id, ())


def for_target(reach: Reach, target: Target, within: str = "") -> Candidates:
    """The candidates of a backup's target, or why it has none at all. ``within``: ``server:S`` or ``pool:P`` that alone
    may write it."""
    servers: Sequence[ServerRow]
    devices: Sequence[DeviceRow]
    priorities: Mapping[str, int] = {}
    match target.kind:
        case TargetKind.DEVICE:
            devices = [row for row in reach.devices.values() if row.name == target.name]
            servers = reach.reaching(devices)
        case TargetKind.DEVICES:
            priorities = reach.device_pools.get(target.name or "", {})
            devices = [reach.devices[id] for id in priorities if id in reach.devices]
            servers = reach.reaching(devices)
        case TargetKind.SERVER:
            servers = [row for row in reach.servers.values() if row.name == target.name]
            devices = reach.reached_by(servers)
        case TargetKind.POOL:
            servers = [reach.servers[id] for id in reach.pools.get(target.name or "", ()) if id in reach.servers]
            if not servers:
                return Candidates(waiting(WaitReason.NO_SERVER_IN_POOL, pool=target.name or ""))
            devices = reach.reached_by(servers)
        case TargetKind.ANY:
            servers, devices = list(reach.servers.values()), list(reach.devices.values())
    if within:
        kind, _, name = within.partition(":")
        members = reach.pools.get(name, ()) if kind == TargetKind.POOL else ()
        servers = [row for row in servers if row.id in members or (kind == TargetKind.SERVER and row.name == name)]
        reached = {row.id for row in reach.reached_by(servers)}
        devices = [row for row in devices if row.id in reached]
    if not devices:
        named = f"{target} within {within}" if within else str(target)
        return Candidates(waiting(WaitReason.NO_DEVICE_IN_TARGET, target=named))
    return reach.narrow(servers, devices, priorities=priorities)


def _target(kind: str, name: str) -> Target:
    return Target(TargetKind(kind), name or None)


def for_set(reach: Reach, device: str, *, writes: bool = False) -> Candidates:
    """The candidates for reading a set on ``device``, or for making another one of it there (``writes``), or why there are
    none at all."""
    row = reach.devices.get(device)
    if row is None:
        return Candidates(waiting(WaitReason.NO_DEVICE_IN_TARGET, target="the device of the set"))
    servers = [reach.servers[id] for id in row.servers if id in reach.servers]
    return reach.narrow(servers, [row], reads=True, writes=writes)


def for_device(reach: Reach, device: str, *, erases: bool) -> Candidates:
    """The candidates for looking at a device as a whole, or for erasing it, or why there are none at all. Neither needs room,
    and both are done also where nothing else can be done with it."""
    row = reach.devices.get(device)
    if row is None:
        return Candidates(waiting(WaitReason.NO_DEVICE_IN_TARGET, target="a device that left the mesh"))
    servers = [reach.servers[id] for id in row.servers if id in reach.servers]
    return reach.narrow(servers, [row], reads=True, writes=False, looks=True, erases=erases)


def waiting(reason: WaitReason, **fields: object) -> Waiting:
    return Waiting(reason, fields)


def _up(server: ServerRow) -> bool:
    return server.state is ServerState.ENABLED and server.connected and not server.local


def _why_down(reach: Sequence[ServerRow], *, reads: bool) -> Waiting:
    """The server that needs the least is named: one that is only not connected, then a silent one, then one that
    somebody paused or disabled."""
    by_hand = [row for row in reach if row.state in {ServerState.PAUSED, ServerState.DISABLED}]
    others = [row for row in reach if row not in by_hand]
    if not others:
        return waiting(WaitReason.SERVER_PAUSED, servers=_names(by_hand))
    if reads:
        return waiting(WaitReason.WAITING_FOR_SERVER, server=_names(others))
    if all(row.state in {ServerState.STALLED, ServerState.NO_COMMUNICATION} for row in others):
        return waiting(WaitReason.SERVER_STALLED, servers=_names(others))
    return waiting(WaitReason.NO_SERVER_REACHABLE, servers=_names(others))


def _why_taken(devices: Sequence[DeviceRow]) -> Waiting:
    taken = sorted(device.taken for device in devices if device.taken)
    if taken:
        return waiting(WaitReason.BLOCKED_BY_RUN, run=taken[0])
    return waiting(WaitReason.ERASE_UNFINISHED, devices=_names(devices))


def _why_offline(devices: Sequence[DeviceRow], *, media: bool) -> Waiting:
    """``media``: a set is to be read there, and no other device will do. All are named: of those that are offline the reason tells, and beside the name of another one stands what it is."""
    offline = [device for device in devices if device.state is DeviceState.OFFLINE]
    others = [device for device in devices if device.state is not DeviceState.OFFLINE]
    if offline and not others and all(device.no_key for device in offline):
        return waiting(WaitReason.NO_KEY_FOR_DEVICE, devices=_names(offline))
    if offline:
        by_hand = sorted({f"{device.name} ({device.state})" for device in others})
        reason = WaitReason.WAITING_FOR_MEDIA if media else WaitReason.DEVICE_OFFLINE
        return waiting(reason, devices=[*_names(offline), *by_hand])
    named = {f"{row.name} (read-only)" if row.state is DeviceState.READ_ONLY else row.name for row in devices}
    return waiting(WaitReason.DEVICE_PAUSED, devices=sorted(named))


def _names(rows: Iterable[ServerRow] | Iterable[DeviceRow]) -> list[str]:
    return sorted({row.name for row in rows})


def _alike(some: Sequence[_Row], others: Sequence[_Row], of: Callable[[_Row], object]) -> bool:
    if len(some) != len(others):
        return False
    differ = compress(zip(some, others, strict=True), map(is_not, some, others))
    return all(of(one) == of(other) for one, other in differ)


def _server(row: ServerRow) -> object:
    return row.id, row.name, row.state, row.connected, row.held, row.concurrency, row.local


def _device(row: DeviceRow) -> object:
    return (
        row.id,
        row.name,
        row.state,
        row.servers,
        row.concurrency,
        row.low(),
        row.no_key,
        row.lost,
        row.imported,
        row.taken,
        row.emptied,
    )
