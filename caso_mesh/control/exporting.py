"""The mesh as a file: what ``plan`` reads, written from the mesh as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from caso_mesh.control import documents, named, notice_docs, report_schedules
from caso_mesh.control.lines import Path
from caso_mesh.control.state import ControlState
from caso_mesh.model import documents as d
from caso_mesh.model.jobs import BackupSpec
from caso_mesh.model.storage import FACTORY_MEDIA_SETS
from caso_mesh.model.units import format_number


def written(state: ControlState, *, notices: bool = True) -> str:
    """A file that would make the mesh as it is. Without ``notices`` it says nothing of recipients, rules and the mail server:
    what a file does not name stays as it is."""
    out = [f"# The mesh {state.info().name}, as caso-mesh apply takes it.", ""]
    _table(out, ("settings",), dict(sorted(state.mesh_settings.items())))
    for pool in state.pool_list():
        settings = dict(sorted(state.pool_settings.get(pool.name, {}).items()))
        doc = d.PoolDoc(tuple(sorted(map(state.name_of, pool.servers))), settings)
        _table(out, ("pool", pool.name), plain(doc), force=True)
    for server in state.server_list():
        _table(out, ("server", server.name), plain(named.server_doc(server)))
    for device in state.device_list():
        _table(out, ("device", device.name), plain(named.device_doc(state, device)))
    for name, group in sorted(state.device_pools.items()):
        _table(out, ("device_pool", name), plain(named.device_pool_doc(state, group)), force=True)
    for media_set in state.media_set_list():
        if media_set not in FACTORY_MEDIA_SETS:
            _table(out, ("media_set", media_set.name), plain(named.media_set_doc(media_set)), force=True)
    for name, calendar in sorted(state.calendars.items()):
        _table(out, ("calendar", name), plain(named.calendar_doc(calendar)), force=True)
    for name, rule in sorted(state.error_rules.items()):
        _table(out, ("error_rule", name), plain(named.error_rule_doc(rule)))
    if notices:
        _recipients(out, state)
    for row in state.selection_lists():
        _table(out, ("selection", row.name), plain(documents.selection_doc(state, row)), force=True)
    for policy in state.policy_list():
        _table(out, ("policy", policy.name), plain(documents.policy_doc(policy)), force=True)
    pairs: dict[str, list[str]] = {}
    for each in state.association_list():
        pairs.setdefault(state.selection(each.list).name, []).append(state.policy(each.policy).name)
    _table(out, ("associations",), {name: sorted(names) for name, names in sorted(pairs.items())})
    for job in state.job_list():
        if job.origin is None and job.schedule is not None and isinstance(job.spec, BackupSpec):
            _table(out, ("job", job.name), plain(documents.job_doc(state, job)))
    for name, told in sorted(state.notice_rules.items()) if notices else ():
        _table(out, ("notify_rule", name), plain(notice_docs.rule_doc(state, told)), force=True)
    for name, sent in sorted(state.report_schedules.items()):
        _table(out, ("report_schedule", name), plain(report_schedules.report_schedule_doc(sent)))
    return "\n".join(out)


def _recipients(out: list[str], state: ControlState) -> None:
    if state.mail_server is not None:
        _table(out, ("smtp",), plain(notice_docs.mail_server_doc(state.mail_server)), force=True)
    for name, recipient in sorted(state.recipients.items()):
        _table(out, ("recipient", name), plain(notice_docs.recipient_doc(recipient)), force=True)
    for name, members in sorted(state.recipient_groups.items()):
        _table(out, ("recipient_group", name), plain(notice_docs.group_doc(members)), force=True)


def plain(value: Any) -> Any:
    """A document as a file has it: without what is as usual."""
    if isinstance(value, Struct):
        return {
            field.name: plain(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
            if field.required or getattr(value, field.name) != _usual(field)
        }
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _usual(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _table(out: list[str], path: Path, values: Mapping[str, Any], *, force: bool = False) -> None:
    """A table with its plain values first, then what is below it."""
    below = {key: value for key, value in values.items() if isinstance(value, dict) or _is_tables(value)}
    own = {key: value for key, value in values.items() if key not in below and value not in (None, ())}
    if own or (force and not below):
        out.append(f"[{_dotted(path)}]")
        out += [f"{_quoted(key)} = {_toml(value)}" for key, value in own.items()]
        out.append("")
    elif force:
        out += [f"[{_dotted(path)}]", ""]
    for key, value in below.items():
        if isinstance(value, dict):
            _table(out, (*path, key), value, force=key not in {"settings", "templates"})
            continue
        for item in value:
            out.append(f"[[{_dotted((*path, key))}]]")
            out += [f"{_quoted(name)} = {_toml(each)}" for name, each in item.items()]
            out.append("")


def _is_tables(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, dict) for item in value)


def _dotted(path: Path) -> str:
    return ".".join(map(_quoted, path))


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (int, float)):
        return format_number(value)
    # JSON's escapes are TOML's, but for the delete character
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
