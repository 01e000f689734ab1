"""Why a part still waits when a round of placement is over."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from caso_mesh.model.jobs import Waiting
from caso_mesh.model.states import JobKind, WaitReason
from caso_mesh.model.units import format_instant
from caso_mesh.planning.candidates import Candidates, Key, Pair, key_of, key_of_second, key_of_set, waiting
from caso_mesh.planning.problem import ReadyPart
from caso_mesh.planning.round import Round


class Reasons:
    """Of one round."""

    def __init__(self, round: Round) -> None:
        self._round = round
        self._full: dict[Key, tuple[Waiting | None, list[Pair]]] = {}

    def why(self, part: ReadyPart) -> Waiting:
        """The first reason that would have to change for a part that got nothing, when the round is over."""
        found = self._why(part)
        if found.reason is WaitReason.WAITING_FOR_MEDIA:
            return waiting(found.reason, media=part.medium or "the medium of its set", **found.fields)
        return found

    def _why(self, part: ReadyPart) -> Waiting:
        reason = self._round.not_now(part) or self._round.no_source(part)
        if reason is not None:
            return reason
        key = key_of(part)
        candidates = self._round.reach.of(key)
        if candidates.blocked is not None:
            if candidates.servers_down and part.recovered_on:
                return waiting(WaitReason.NO_SERVER_LEFT)
            return candidates.blocked
        if part.kind is JobKind.DUPLICATE:
            reason = self._why_not_copied(part, candidates)
            if reason is not None:
                return reason
        old = self._round.too_old(part)
        if old and (self._round.source_too_old(part) or candidates.servers <= old):
            which = {part.source} if self._round.source_too_old(part) else self._older(part, candidates.servers)
            return waiting(WaitReason.SERVER_TOO_OLD, servers=sorted(map(self._round.name, which)))
        cut = self._round.cut_off(part) | old
        if cut and candidates.servers <= cut:
            if (shut := self._shut(part, candidates.servers)) is not None:
                return shut
            names = sorted(self._round.name(server) for server in candidates.servers)
            return waiting(WaitReason.NO_DATA_PATH, source=self._round.name(part.source), server=names)
        if cut:
            full, free = self._how_full([pair for pair in candidates.pairs if pair[0] not in cut])
        else:
            if key not in self._full:
                self._full[key] = self._how_full(candidates.pairs)
            full, free = self._full[key]
        if full is not None:
            return full
        if part.second is not None and (reason := self._why_no_second(part, free)) is not None:
            return reason
        if not any(self._round.has_room(part, pair) for pair in free):
            return waiting(WaitReason.DEVICE_LOW_ON_SPACE, devices=self._without_room(part, free))
        if not self._round.source_free(part):
            source = self._round.servers[part.source]
            first = self._round.first_of("source", [source.id])
            return waiting(WaitReason.LIMIT_AT_SOURCE, source=source.name, limit=source.source_concurrency, **first)
        first = self._round.first_of("pair", candidates.pairs)
        return waiting(WaitReason.BETTER_PLACE_SOON, devices=self._round.devices_named(free), **first)

    def _shut(self, part: ReadyPart, servers: Collection[str]) -> Waiting | None:
        """That nothing is sent now, if that alone is what keeps a part from ``servers``."""
        together = self._round.together
        others = frozenset(servers) - (together.cut_off(part.source) | self._round.too_old(part))
        return self._closed(together.senders(part.kind, part.source, others)) if others else None

    def _closed(self, senders: Iterable[str]) -> Waiting | None:
        shut = self._round.together.shut_until(senders)
        if shut is None:
            return None
        names = sorted(map(self._round.name, shut[0]))
        return waiting(WaitReason.BANDWIDTH_WINDOW, servers=names, opens=format_instant(shut[1]))

    def _older(self, part: ReadyPart, servers: Collection[str]) -> Collection[str]:
        """Whose program is too old, where none of ``servers`` does a part: theirs, or that of its source for them."""
        if any(self._round.servers[id].level < part.level for id in servers):
            return servers
        return self._round.together.oldest({part.source, *servers})

    def _why_not_copied(self, part: ReadyPart, candidates: Candidates) -> Waiting | None:
        """What keeps a copy waiting that would keep nothing else: no other device, or nobody that can read the set."""
        if candidates.devices <= {part.device}:
            names = ", ".join(sorted(self._round.devices[id].name for id in candidates.devices))
            return waiting(WaitReason.NO_DEVICE_IN_TARGET, target=f"other than {names}, where the set is")
        readers = self._round.reach.of(key_of_set(part)).servers
        if not self._round.reading_servers(part):
            names = ", ".join(sorted(map(self._round.name, readers)))
            limit = max(self._round.servers[id].source_concurrency for id in readers)
            return waiting(WaitReason.LIMIT_AT_SOURCE, source=names, limit=limit)
        # on the device of the set itself it would be no copy
        writers = {server for server, device in candidates.pairs if device != part.device}
        if all(self._round.together.apart(reader, writer) for reader in readers for writer in writers):
            if (shut := self._closed(readers)) is not None:
                return shut
            if not all(w in self._round.together.cut_off(reader) for reader in readers for w in writers):
                older = self._round.together.oldest({*readers, *writers})
                return waiting(WaitReason.SERVER_TOO_OLD, servers=sorted(map(self._round.name, older)))
            names = ", ".join(sorted(map(self._round.name, readers)))
            return waiting(WaitReason.NO_DATA_PATH, source=names, server=sorted(map(self._round.name, writers)))
        return None

    def _why_no_second(self, part: ReadyPart, free: Sequence[Pair]) -> Waiting | None:
        """What keeps a part waiting for its second device; ``free`` are the pairs for the first one."""
        candidates = self._round.reach.of(key_of_second(part))
        if candidates.blocked is not None:
            return candidates.blocked
        if any(self._round.second_for(part, pair) is not None for pair in free):
            return None
        firsts = {device for _, device in free}
        pairs = [pair for pair in candidates.pairs if firsts - {pair[1]}]
        if not pairs:
            names = ", ".join(sorted(self._round.devices[id].name for id in firsts))
            return waiting(WaitReason.NO_DEVICE_IN_TARGET, target=f"{part.second} other than {names}")
        refused = self._round.cut_off(part) | self._round.too_old(part)
        within = [pair for pair in pairs if pair[0] not in refused]
        if not within:
            if (shut := self._shut(part, frozenset(server for server, _ in pairs))) is not None:
                return shut
            servers = sorted({self._round.name(server) for server, _ in pairs})
            if {server for server, _ in pairs} & self._round.too_old(part):
                return waiting(WaitReason.SERVER_TOO_OLD, servers=servers)
            return waiting(WaitReason.NO_DATA_PATH, source=self._round.name(part.source), server=servers)
        full, second = self._how_full(within)
        return full or waiting(WaitReason.DEVICE_LOW_ON_SPACE, devices=self._without_room(part, second))

    def _how_full(self, pairs: Sequence[Pair]) -> tuple[Waiting | None, list[Pair]]:
        """The pairs that are free, or why there is none: all devices are busy, or all servers that reach an idle one."""
        idle = [pair for pair in pairs if self._round.device_free(pair[1])]
        if not idle:
            first = self._round.first_of("device", (device for _, device in pairs))
            return waiting(WaitReason.NO_IDLE_DEVICE, devices=self._round.devices_named(pairs), **first), []
        free = [pair for pair in idle if self._round.server_free(pair[0])]
        if free:
            return None, free
        servers = {server for server, _ in pairs}
        first = self._round.first_of("server", servers)
        return waiting(WaitReason.NO_IDLE_SERVER, servers=sorted(map(self._round.name, servers)), **first), []

    def _without_room(self, part: ReadyPart, pairs: Iterable[Pair]) -> list[str]:
        """The names of devices; where it is for want of a server's quota, with that."""
        lacking = {
            pair
            for pair in pairs
            if (left := self._round.left.get(pair)) is not None and left < max(1, self._round.size(part, pair[1]))
        }
        named = {f"{self._round.devices[pair[1]].name} (quota of {self._round.name(pair[0])})" for pair in lacking}
        return sorted(named.union(self._round.devices_named(pair for pair in pairs if pair not in lacking)))
