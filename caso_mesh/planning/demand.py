"""How much work waits for which servers and devices, and how long each of them will be busy with it.

All in whole numbers, so that sums do not depend on the order in which they were made.
"""

from __future__ import annotations

from caso_mesh.planning.candidates import Candidates, Key, Pair, Reach, key_of
from caso_mesh.planning.problem import Busy, Problem, ReadyPart

#: What a part counts for while nothing at all is known of any.
_TYPICAL_MS = 600_000


class Demand:
    """The predicted work of the parts that wait, by what they have in common. What is on hold waits for nothing."""

    def __init__(self) -> None:
        self._known: dict[Key, list[int]] = {}  # ms, how many are known, how many are not
        self._ms, self._count = 0, 0

    def add(self, part: ReadyPart, times: int = 1) -> None:
        """``times`` -1 takes it away again."""
        if part.on_hold or part.stranded:
            return
        sums = self._known.setdefault(key_of(part), [0, 0, 0])
        if part.predicted_s is None:
            sums[2] += times
        else:
            ms = round(1000 * part.predicted_s)
            sums[0] += times * ms
            sums[1] += times
            self._ms += times * ms
            self._count += times
        if not sums[1] and not sums[2]:
            del self._known[key_of(part)]

    def typical_ms(self) -> int:
        """What a part counts for that nobody can predict."""
        return self._ms // self._count if self._count else _TYPICAL_MS

    def by_key(self) -> dict[Key, int]:
        """Milliseconds of work on servers of speed 1."""
        typical = self.typical_ms()
        return {key: known + unknown * typical for key, (known, _, unknown) in self._known.items()}


class Levels:
    """For how many milliseconds each server and device is busy if all that waits is spread evenly over what it may use,
    what runs included."""

    def __init__(self, problem: Problem, reach: Reach, demand: Demand, now_ns: int) -> None:
        self._reach = reach
        self._devices = dict.fromkeys(reach.devices, 0)
        self._servers = dict.fromkeys(reach.servers, 0)
        self._shares: dict[Key, tuple[int, int]] = {}
        self._waiting_for: dict[str, int] = {}
        for busy in problem.busy:
            left = left_ms(busy, now_ns, demand.typical_ms())
            if busy.device in self._devices and busy.server in self._servers:
                self._devices[busy.device] += left // max(1, reach.devices[busy.device].concurrency)
                self._servers[busy.server] += left // max(1, reach.servers[busy.server].concurrency)
        for key, ms in demand.by_key().items():
            candidates = reach.of(key)
            if not candidates.pairs:
                continue
            share = (ms // candidates.device_slots, 1000 * ms // candidates.server_slots)
            self._shares[key] = share
            for device in candidates.devices:
                self._devices[device] += share[0]
                self._waiting_for[device] = self._waiting_for.get(device, 0) + 1
            for server in candidates.servers:
                self._servers[server] += share[1]
                self._waiting_for[server] = self._waiting_for.get(server, 0) + 1

    def end_ms(self, candidates: Candidates) -> int:
        """When all that may use these pairs could be done at the earliest."""
        reach = self._reach
        on_devices = sum(self._devices[device] * reach.devices[device].concurrency for device in candidates.devices)
        on_servers = sum(self._servers[server] * reach.power(server) for server in candidates.servers)
        return max(on_devices // candidates.device_slots, on_servers // candidates.server_slots)

    def wanted_by_others(self, pair: Pair, key: Key) -> bool:
        """Whether something waits for the server or the device that does not have ``key``."""
        own = 1 if key in self._shares else 0
        return any(self._waiting_for.get(each, 0) > own for each in pair)

    def of_others_ms(self, pair: Pair, key: Key) -> int:
        """For how long a pair is busy without the work of ``key``."""
        server, device = pair
        of_devices, of_servers = self._shares.get(key, (0, 0))
        return max(self._servers[server] - of_servers, self._devices[device] - of_devices)

    def least_of_others_ms(self, candidates: Candidates, key: Key) -> int:
        """As ``of_others_ms``, of no pair less."""
        of_devices, of_servers = self._shares.get(key, (0, 0))
        on_servers = min(self._servers[server] for server in candidates.servers)
        return max(on_servers - of_servers, min(self._devices[device] for device in candidates.devices) - of_devices)


def left_ms(busy: Busy, now_ns: int, unknown_ms: int) -> int:
    """How long an attempt will run yet."""
    return unknown_ms if busy.ends_at_ns is None else max(0, busy.ends_at_ns - now_ns) // 1_000_000
