"""The alerts that this server told of, as it keeps them beside its journal: what is open is seen and answered here, too, and what
stands is found again after a restart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec import Struct, structs

from caso_mesh.model import facts
from caso_mesh.model.alerts import BY_NAME, may_be_off
from caso_mesh.model.ids import is_local, is_of_place
from caso_mesh.model.nodes import AlertNews
from caso_mesh.model.states import AlertKind

#: So many are kept: of more the oldest go, those that are closed before those that are open, and what stands last.
MOST = 100


class OwnAlert(Struct, frozen=True, omit_defaults=True):
    """``told``: the administrator hears of it. ``settled``: the answer is the one that counts there."""

    id: str
    raised_ns: int
    alert: AlertKind
    category: str
    object: str
    text: str
    told: bool = True
    answered_ns: int | None = None
    who: str = ""
    response: str = ""
    settled: bool = False
    over_ns: int | None = None

    @property
    def open(self) -> bool:
        """Neither answered nor over."""
        return self.answered_ns is None and self.over_ns is None

    @property
    def stands(self) -> bool:
        """It is about a condition that is not over, answered or not."""
        known = BY_NAME.get(self.category)
        return self.over_ns is None and known is not None and known.standing


class OwnAlerts:
    """``node``: the id of this server; ids of its alerts name it, so that no other server can answer them."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._all: dict[str, OwnAlert] = {}

    def load(self, notes: Mapping[str, bytes]) -> None:
        """What lies beside the journal."""
        found = (msgspec.msgpack.decode(data, type=OwnAlert) for data in notes.values())
        self._all = {each.id: each for each in sorted(found, key=lambda each: each.raised_ns)}

    def all(self) -> list[OwnAlert]:
        """Newest first."""
        return list(reversed(self._all.values()))

    def standing(self, category: str, object: str, kind: AlertKind) -> str | None:
        """The id of the alert of a condition that is not over."""
        for each in self.all():
            if (each.category, each.object, each.alert) == (category, object, kind) and each.over_ns is None:
                return each.id
        return None

    def kept_back(self, category: str, object: str) -> str | None:
        """The id of the alert of a condition that is not over, and that the administrator does not hear of."""
        for each in self.all():
            if (each.category, each.object) == (category, object) and each.stands and not each.told:
                return each.id
        return None

    def unsettled(self) -> tuple[str, ...]:
        """Those of which the administrator may know more than this server."""
        return tuple(each.id for each in self._all.values() if each.told and (each.stands or not _settled(each)))

    def after(self, fact: facts.Fact, now_ns: int, off: Collection[str]) -> OwnAlert | None:
        """What a fact of this server makes of an alert of its own; ``off``: categories that it keeps to itself."""
        match fact:
            case facts.AlertRaised() if is_local(fact.id) and is_of_place(fact.id, self._node):
                if fact.id in self._all:
                    return self._all[fact.id]  # told again, or kept back again
                told = fact.category not in off or not may_be_off(fact.category, fact.alert)
                return OwnAlert(fact.id, now_ns, fact.alert, fact.category, fact.object, fact.text, told)
            case facts.AlertCleared(id=id_, of="") if id_ in self._all:
                return structs.replace(self._all[id_], over_ns=now_ns)
            case facts.AlertAnswered(id=id_) if id_ in self._all:
                known = self._all[id_]
                return structs.replace(known, answered_ns=now_ns, who=fact.who, response=fact.response)
        return None

    def heard(self, news: Iterable[AlertNews]) -> list[OwnAlert]:
        """What the administrator's word makes of those it is about: its answer is the one that counts."""
        found = []
        for each in news:
            known = self._all.get(each.id)
            if known is None:
                continue
            after = known
            if each.answered_ns is not None:
                after = structs.replace(
                    after, answered_ns=each.answered_ns, who=each.who, response=each.response, settled=True
                )
            if each.over_ns is not None and known.over_ns is None:
                after = structs.replace(after, over_ns=each.over_ns)
            if after != known:
                found.append(after)
        return found

    def notes(self, changed: Collection[OwnAlert]) -> dict[str, bytes | None]:
        """As they are to lie beside the journal; ``None`` for what is not kept any more."""
        after = self._all | {each.id: each for each in changed}
        gone = sorted(after.values(), key=lambda each: (each.stands, each.open, each.raised_ns))[: len(after) - MOST]
        notes: dict[str, bytes | None] = {each.id: msgspec.msgpack.encode(each) for each in changed}
        return notes | {each.id: None for each in gone if len(after) > MOST}

    def put(self, notes: Mapping[str, bytes | None]) -> None:
        """They lie there now."""
        for id_, data in notes.items():
            if data is None:
                self._all.pop(id_, None)
            else:
                self._all[id_] = msgspec.msgpack.decode(data, type=OwnAlert)


def _settled(each: OwnAlert) -> bool:
    return each.settled or (each.over_ns is not None and each.answered_ns is None)
