"""A report as one JSON document: the record itself, in which each row of a table is an object by the names of its columns.

That is a contract of version ``format`` (``model.reports.FORMAT``): within a version keys are only added.
"""

from __future__ import annotations

from typing import Any

import msgspec

from caso_mesh.model.reports import Report


def document(report: Report) -> dict[str, Any]:
    """What ``--format json`` prints."""
    found: dict[str, Any] = msgspec.to_builtins(report)
    for table in found["tables"]:
        names = [column["name"] for column in table["columns"]]
        table["rows"] = [dict(zip(names, row, strict=True)) for row in table["rows"]]
    return found


def render(report: Report) -> str:
    """On one line, with a line break at its end."""
    try:
        return msgspec.json.encode(document(report)).decode() + "\n"
    except UnicodeEncodeError:  # a name that is no text: told as it can be
        return msgspec.json.encode(_text(document(report))).decode() + "\n"


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _text(item) for key, item in value.items()}
    return [_text(item) for item in value] if isinstance(value, (list, tuple)) else value
