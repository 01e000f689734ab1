"""Which pairs of server and device a target leaves, best first, and why there is none.

The pairs of a target are worked out once for all parts that share it, and kept in heaps that are put right when a
server's load has changed since: a plan for 10,000 parts and 1,000 servers looks at few of the ten million pairs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

from caso_mesh.model.jobs import Target, TargetKind, Waiting
from caso_mesh.model.states import DeviceState, ServerState, WaitReason
from caso_mesh.planning.problem import DeviceRow, Problem, ServerRow


class Slots:
    """Who is how busy, while a plan is made. Slots are only taken, never given back."""

    def __init__(self, problem: Problem) -> None:
        self.servers = {row.id: row for row in problem.servers}
        self.devices = {row.id: row for row in problem.devices}
        self.running = {row.id: row.running for row in problem.servers}
        self.reading = {row.id: row.reading for row in problem.servers}
        self.writing = {row.id: row.running for row in problem.devices}
        self.devices_of: dict[str, list[DeviceRow]] = {}
        for device in problem.devices:
            for server in device.servers:
                self.devices_of.setdefault(server, []).append(device)

    def load(self, server: ServerRow) -> float:
        return self.running[server.id] / max(1, server.concurrency)

    def server_free(self, server: ServerRow) -> bool:
        return self.running[server.id] < server.concurrency

    def device_free(self, device: DeviceRow) -> bool:
        return self.writing[device.id] < device.concurrency

    def source_free(self, server: ServerRow) -> bool:
        return self.reading[server.id] < server.source_concurrency


Pair = tuple[ServerRow, DeviceRow]


class Ranking:
    """Pairs, the best free one first: least loaded server, most free bytes, names."""

    def __init__(self, slots: Slots, pairs: Iterable[Pair]) -> None:
        self._slots = slots
        self._heap = [(self._rank(pair), pair) for pair in pairs]
        heapq.heapify(self._heap)

    def best(self, refused: Callable[[str], bool]) -> Pair | None:
        """The best pair with free slots whose server is not ``refused``; it stays in the ranking."""
        aside: list[tuple[tuple[float, int, str, str], Pair]] = []
        found: Pair | None = None
        while self._heap:
            rank, pair = self._heap[0]
            server, device = pair
            if not self._slots.server_free(server) or not self._slots.device_free(device):
                heapq.heappop(self._heap)  # for good: nothing is given back while a plan is made
            elif rank[0] != self._slots.load(server):
                heapq.heapreplace(self._heap, (self._rank(pair), pair))
            elif refused(server.id):
                aside.append(heapq.heappop(self._heap))
            else:
                found = pair
                break
        for entry in aside:
            heapq.heappush(self._heap, entry)
        return found

    def _rank(self, pair: Pair) -> tuple[float, int, str, str]:
        server, device = pair
        return (self._slots.load(server), -(device.free_bytes or 0), server.name, device.name)


class Candidates:
    """What a target leaves. ``blocked`` is why nothing can run there at all, whoever is idle; ``servers_down`` says
    that it is for want of servers."""

    def __init__(
        self, slots: Slots, servers: Sequence[ServerRow], devices: Sequence[DeviceRow], *, reads: bool = False
    ) -> None:
        self._slots = slots
        self.servers_down = False
        self.pairs: list[Pair] = []
        self._by_device: dict[str, Ranking] = {}
        self._full: Waiting | None = None
        self.blocked = self._narrow(servers, devices, reads=reads)
        self._pairs_of: dict[str, list[Pair]] = {}
        self._pairs_on: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            self._pairs_of.setdefault(pair[0].id, []).append(pair)
            self._pairs_on.setdefault(pair[1].id, []).append(pair)
        self._all = Ranking(slots, self.pairs)

    def choose(self, source: str, held_by: Iterable[str], refused: Callable[[str], bool]) -> Pair | None:
        """The source's own server first, then a device that holds sets of the source, then the best of all."""
        held = frozenset(held_by)
        own = [pair for pair in self._pairs_of.get(source, ()) if self._usable(pair) and not refused(pair[0].id)]
        if own:
            return min(own, key=lambda pair: (pair[1].id not in held, -(pair[1].free_bytes or 0), pair[1].name))
        on_held = [pair for device in sorted(held) if (pair := self._on(device).best(refused)) is not None]
        if on_held:
            return min(on_held, key=self._all._rank)
        return self._all.best(refused)

    def why_full(self, refused: Callable[[str], bool] | None = None) -> Waiting:
        """Why no pair is free: all devices are busy, or all servers that reach an idle one."""
        if refused is None:
            if self._full is None:
                self._full = self._why_full(self.pairs)
            return self._full
        return self._why_full([pair for pair in self.pairs if not refused(pair[0].id)])

    def _why_full(self, pairs: Sequence[Pair]) -> Waiting:
        if any(self._slots.device_free(device) for _, device in pairs):
            return waiting(WaitReason.NO_IDLE_SERVER, servers=_names(server for server, _ in pairs))
        return waiting(WaitReason.NO_IDLE_DEVICE, devices=_names(device for _, device in pairs))

    def _usable(self, pair: Pair) -> bool:
        return self._slots.server_free(pair[0]) and self._slots.device_free(pair[1])

    def _on(self, device: str) -> Ranking:
        ranking = self._by_device.get(device)
        if ranking is None:
            ranking = self._by_device[device] = Ranking(self._slots, self._pairs_on.get(device, ()))
        return ranking

    def _narrow(self, servers: Sequence[ServerRow], devices: Sequence[DeviceRow], *, reads: bool) -> Waiting | None:
        """Sets ``pairs``, or says the first thing that would have to change."""
        wanted = {device.id for device in devices}
        once = {server.id: server for server in servers}.values()
        reach = [server for server in once if any(row.id in wanted for row in self._devices_of(server))]
        if not reach:
            return waiting(WaitReason.DEVICE_NOT_REACHABLE, devices=_names(devices))
        up = [server for server in reach if server.state is ServerState.ENABLED and server.connected]
        if not up:
            self.servers_down = True
            return _why_down(reach, reads=reads)
        pairs = [(server, device) for server in up for device in self._devices_of(server) if device.id in wanted]
        good = {DeviceState.ONLINE, DeviceState.READ_ONLY} if reads else {DeviceState.ONLINE}
        online = [pair for pair in pairs if pair[1].state in good]
        if not online:
            return _why_offline([device for _, device in pairs])
        roomy = online if reads else [pair for pair in online if not _low(pair[1])]
        if not roomy:
            return waiting(WaitReason.DEVICE_LOW_ON_SPACE, devices=_names(device for _, device in online))
        self.pairs = roomy
        return None

    def _devices_of(self, server: ServerRow) -> Sequence[DeviceRow]:
        return self._slots.devices_of.get(server.id, ())


def for_target(slots: Slots, pools: dict[str, tuple[str, ...]], target: Target) -> Candidates | Waiting:
    """The candidates of a backup's target, or why it has none at all."""
    servers: Sequence[ServerRow]
    devices: Sequence[DeviceRow]
    match target.kind:
        case TargetKind.DEVICE:
            devices = [row for row in slots.devices.values() if row.name == target.name]
            servers = [slots.servers[id] for row in devices for id in row.servers if id in slots.servers]
        case TargetKind.SERVER:
            servers = [row for row in slots.servers.values() if row.name == target.name]
            devices = _reached(slots, servers)
        case TargetKind.POOL:
            servers = [slots.servers[id] for id in pools.get(target.name or "", ()) if id in slots.servers]
            if not servers:
                return waiting(WaitReason.NO_SERVER_IN_POOL, pool=target.name or "")
            devices = _reached(slots, servers)
        case TargetKind.ANY:
            servers, devices = list(slots.servers.values()), list(slots.devices.values())
    if not devices:
        return waiting(WaitReason.NO_DEVICE_IN_TARGET, target=str(target))
    return Candidates(slots, servers, devices)


def for_set(slots: Slots, device: str | None) -> Candidates | Waiting:
    """The candidates for reading a set on ``device``, or why there are none at all."""
    row = slots.devices.get(device or "")
    if row is None:
        return waiting(WaitReason.NO_DEVICE_IN_TARGET, target="the device of the set")
    servers = [slots.servers[id] for id in row.servers if id in slots.servers]
    return Candidates(slots, servers, [row], reads=True)


def waiting(reason: WaitReason, **fields: object) -> Waiting:
    return Waiting(reason, fields)


def _reached(slots: Slots, servers: Sequence[ServerRow]) -> list[DeviceRow]:
    found = {device.id: device for server in servers for device in slots.devices_of.get(server.id, ())}
    return list(found.values())


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


def _why_offline(devices: Sequence[DeviceRow]) -> Waiting:
    offline = [device for device in devices if device.state is DeviceState.OFFLINE]
    if offline:
        return waiting(WaitReason.DEVICE_OFFLINE, devices=_names(offline))
    named = {f"{row.name} (read-only)" if row.state is DeviceState.READ_ONLY else row.name for row in devices}
    return waiting(WaitReason.DEVICE_PAUSED, devices=sorted(named))


def _low(device: DeviceRow) -> bool:
    return device.free_bytes is not None and device.free_bytes < device.low_space_bytes


def _names(rows: Iterable[ServerRow] | Iterable[DeviceRow]) -> list[str]:
    return sorted({row.name for row in rows})
