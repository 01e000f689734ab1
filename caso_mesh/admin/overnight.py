"""The morning summary as a message: the report of the night, with what stands now."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from caso_mesh.admin.reporting import Reporting
from caso_mesh.model.notices import Message
from caso_mesh.model.reports import Report, ReportShow
from caso_mesh.reports import page, text

#: Rows of a table, and bytes: a mail that is read on the way.
_MOST_ROWS, _MOST_BYTES = 100, 500_000


async def overnight(reporting: Reporting, since_ns: int) -> Message:
    """Of what was since an instant. Without key and recipients."""
    request = ReportShow("overnight-summary", since_ns=since_ns, limit=_MOST_ROWS)
    return await asyncio.to_thread(_message, await reporting.report(request, most_bytes=_MOST_BYTES))


def _message(report: Report) -> Message:
    shown = page.render(report).encode("utf-8", "backslashreplace").decode()
    data: dict[str, Any] = {
        "verdict": report.verdict,
        "good": report.good,
        "needs": [each.text for each in report.needs],
        "figures": {each.name: each.value for each in report.figures},
    }
    subject = f"morning summary: {text.clean(report.verdict)}"
    return Message("", subject, text.render(report), shown, data=msgspec.to_builtins(data))
