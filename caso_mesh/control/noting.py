"""What a command changes of the control state, from what to what, for the audit log: names instead of ids, and no secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model.audit import Change
from caso_mesh.model.facts import SECRET, without_paths

#: What is kept by hand. Runs and attempts have histories of their own; tokens, keys and certificates are said by their calls.
_KINDS: Mapping[str, str] = {
    "servers": "server",
    "operators": "operator",
    "pools": "pool",
    "devices": "device",
    "media_sets": "media set",
    "mesh_settings": "setting",
    "pool_settings": "settings of the pool",
    "jobs": "job",
    "answers": "answer to alert",
    "device_pools": "device pool",
    "calendars": "calendar",
    "lists": "selection list",
    "policies": "policy",
    "associations": "association",
    "error_rules": "error rule",
    "logons": "logon",
    "mail_server": "mail server",
    "recipients": "recipient",
    "recipient_groups": "recipient group",
    "notice_rules": "notice rule",
}
#: Changes of one command that are written down, characters of a text, items of a list.
MOST = 50
_LONGEST, _MOST_ITEMS = 200, 20
#: What servers and the office find, and no person changes.
_FOUND = frozenset({"liveness", "silent_since_ns", "ever_linked", "serial", "last_due_at_ns", "completed_at_ns"})


def changes_of(state: ControlState, puts: Iterable[Put]) -> list[Change]:
    """What ``puts`` make of ``state``, which they have not changed yet; the last entry says how many more there are."""
    found, names = list[Change](), _names(state)
    beyond = 0
    for put in puts:
        for change in _of_row(state, put, names):
            if len(found) < MOST:
                found.append(change)
            else:
                beyond += 1
    if beyond:
        found.append(Change(f"and {beyond} more", ""))
    return found


def _of_row(state: ControlState, put: Put, names: Mapping[str, str]) -> Iterator[Change]:
    kind = _KINDS.get(put.table)
    if kind is None:
        return
    table = getattr(state, put.table)
    before = table.get(put.key) if isinstance(table, dict) else table
    old, new = _plain(before, names), _plain(put.record, names)
    if put.table == "mesh_settings":
        yield Change(f"{kind} {put.key}", "", old, new)
        return
    record: Any = put.record if put.record is not None else before
    name = getattr(record, "name", None) or names.get(str(put.key), str(put.key))
    what = f"{kind} {name}".strip()
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield Change(what, "", old, new)
        return
    for field in dict.fromkeys((*old, *new)):
        if old.get(field) != new.get(field) and field not in _FOUND:
            yield Change(what, field, old.get(field), new.get(field))


def _names(state: ControlState) -> dict[str, str]:
    tables: tuple[Mapping[str, Any], ...] = (state.servers, state.devices, state.lists, state.policies)
    return {id_: row.name for table in tables for id_, row in table.items()}


def _plain(value: Any, names: Mapping[str, str]) -> Any:
    """As JSON may hold it."""
    if isinstance(value, Struct):
        fields = msgspec.structs.asdict(value)
        tag = value.__struct_config__.tag
        head = {value.__struct_config__.tag_field: tag} if isinstance(tag, str) else {}
        return _plain({**head, **fields}, names)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, names) for key, item in value.items() if str(key) not in SECRET}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_plain(item, names) for item in list(value)[:_MOST_ITEMS]]
        return [*items, f"and {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else items
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return f"{len(value)} bytes"
        return text[:_LONGEST] if text.isprintable() else f"{len(value)} bytes"
    if isinstance(value, str):
        text = without_paths(str(value))
        return names.get(text) or (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")
    return value
