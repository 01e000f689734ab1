"""A server of an earlier program in a mesh in memory: on every link with it, whatever that program did not know is taken out of
what it is told and of what it says."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

from caso_mesh.jobs import bulk, bulk_memory
from caso_mesh.wire import codec
from caso_mesh.wire.memory import MemoryEndpoint, _Direction
from caso_mesh.wire.protocol import NOTIFICATION, REQUEST, RESPONSE

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
_WORD = re.compile(r"[A-Za-z]\w*")


class OlderPeer:
    """``name`` is the server, ``records`` the level whose ``records-N.json`` it speaks, ``level`` what it says of itself. Installed
    by ``install`` of a ``pytest.MonkeyPatch``; ``upgraded`` from the moment that is set."""

    def __init__(self, name: str, records: int, level: int) -> None:
        kept = json.loads((GOLDEN / f"records-{records}.json").read_text("utf-8"))
        self.name = name
        self.level = level
        self.upgraded = False
        #: Calls that it was asked and does not have.
        self.unknown: set[str] = set()
        #: Fields that were taken out, as record.field.
        self.dropped: set[str] = set()
        self._records: dict[str, Any] = kept["records"]
        self._calls: dict[str, list[str]] = kept["calls"]
        self._asked: dict[tuple[int, MemoryEndpoint], dict[int, str]] = {}

    def install(self, monkeypatch: Any) -> None:
        send, join_of = _Direction.send, bulk.join_of

        async def sent(direction: _Direction, message: bytes) -> None:
            ends = {direction.sender.name, direction.receiver.name}
            await send(
                direction, self.passed(direction, message) if self.name in ends and not self.upgraded else message
            )

        def shown(task: Any, desk: Any) -> bulk.Join:
            mine = join_of(task, desk)
            return bulk.Join(mine.attempt, mine.ticket, mine.secret) if self._is_end(task) else mine

        monkeypatch.setattr(_Direction, "send", sent)
        monkeypatch.setattr(bulk_memory, "join_of", shown)

    def _is_end(self, task: Any) -> bool:
        return bool(task.server_name == self.name and not self.upgraded)

    def passed(self, direction: _Direction, message: bytes) -> bytes:
        """What of a message passes between it and another one."""
        value = codec.unpack(message, max_bytes=len(message))
        asked = self._asked.setdefault((id(direction._wire), direction.sender), {})
        answered = self._asked.setdefault((id(direction._wire), direction.receiver), {})
        match value:
            case [kind, id_, method, params] if kind == REQUEST:
                # what a person signed is answered as what it asks for
                asked[id_] = str(params["call"]) if method == "call.signed" else method
                if method in self._calls:
                    value[3] = self._greeting(direction, self.pruned(params, self._calls[method][0]))
                elif direction.receiver.name == self.name:
                    self.unknown.add(method)
                    value[2] = f"unknown-{method}"
            case [kind, id_, error, result] if kind == RESPONSE:
                method = answered.pop(id_, "")
                if error is None and method in self._calls:
                    value[3] = self._greeting(direction, self.pruned(result, self._calls[method][1]))
            case [kind, method, params] if kind == NOTIFICATION and method in self._calls:
                value[2] = self.pruned(params, self._calls[method][0])
            case _:
                return message
        return codec.pack(value)

    def _greeting(self, direction: _Direction, params: Any) -> Any:
        if isinstance(params, dict) and "feature_level" in params and direction.sender.name == self.name:
            params["feature_level"] = self.level
        return params

    def pruned(self, value: Any, *names: str) -> Any:
        """A value that is one of the records of these names, or holds some, without what they did not have."""
        if isinstance(value, list):
            return [self.pruned(each, *names) for each in value]
        if not isinstance(value, dict):
            return value
        name = next((each for each in names if self._is(value, each)), None)
        if name is None:
            return {key: self.pruned(each, *names) for key, each in value.items()}
        record = self._records[name]
        known = record["fields"]
        tag = record.get("tag", "").partition("=")[0]
        self.dropped |= {f"{name}.{field}" for field in value.keys() - known.keys() - {tag}}
        return {
            field: self.pruned(each, *self._named(known.get(field, "")))
            for field, each in value.items()
            if field in known or field == tag
        }

    def _is(self, value: dict[str, Any], name: str) -> bool:
        record = self._records[name]
        tag_field, _, tag = record.get("tag", "").partition("=")
        if tag_field and value.get(tag_field) != tag:
            return False
        return all(field in value for field, kind in record["fields"].items() if kind.startswith("!"))

    def _named(self, kind: str) -> list[str]:
        return [word for word in dict.fromkeys(_WORD.findall(kind)) if word in self._records]
