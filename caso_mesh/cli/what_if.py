"""``caso-mesh what-if``: what the coming night will be like."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import what_if as w
from caso_mesh.model.errors import UsageError
from caso_mesh.model.units import parse_instant_ns

_TIME_OF_DAY = re.compile(r"\d\d:\d\d\Z")
#: Ten thousand runs take a while to be worked out.
_PATIENCE = "5m"
#: About ten years.
_FAR_DAYS = 3650


def what_if(
    *,
    without: Annotated[
        tuple[str, ...], Parameter(name="--without", negative=(), help="A server that would be away; may be repeated.")
    ] = (),
    without_device: Annotated[
        tuple[str, ...],
        Parameter(name="--without-device", negative=(), help="A device that would be away; may be repeated."),
    ] = (),
    night: Annotated[bool, Parameter(name="--night", negative=(), help="Until the next morning: the default.")] = False,
    days: Annotated[int | None, Parameter(help="Until the morning of so many days, at most 31.")] = None,
    from_: Annotated[
        str | None, Parameter(name="--from", help="Tell of the time from then on (ISO 8601), and not from now on.")
    ] = None,
    until: Annotated[
        str | None,
        Parameter(help="When it has to be done: a time of day, which is the morning (08:00), or a time (ISO 8601)."),
    ] = None,
    runs: Annotated[bool, Parameter(name="--runs", negative=(), help="List every run.")] = False,
    limit: Annotated[int, Parameter(help="At most this many runs.", at_least=1)] = 1000,
    common: Common = DEFAULTS,
) -> None:
    """Work out the coming night, with everything there or without some servers or devices: when all ends, which lists
    miss, and when devices are full. Nothing is changed. A night of thousands of runs takes a while: without --timeout it
    is waited for five minutes."""
    if night and days is not None:
        raise UsageError(detail="Give --night or --days, not both")
    is_morning = until is not None and _TIME_OF_DAY.match(until) is not None
    if days is not None and until is not None and not is_morning:
        raise UsageError(detail="With --days, --until is a time of day")
    request = w.WhatIf(
        without=without,
        without_devices=without_device,
        from_ns=None if from_ is None else parse_instant_ns(from_),
        until_ns=None if until is None or is_morning else parse_instant_ns(until),
        morning=until if until is not None and is_morning else "08:00",
        days=1 if days is None else days,
        limit=limit,
    )
    if common.timeout == DEFAULTS.timeout:
        common = dataclasses.replace(common, timeout=_PATIENCE)
    view = ask(common, "what-if", request, w.WhatIfView)
    output.show(view, common.json, lambda shown: _show(shown, runs=runs))


def _show(view: w.WhatIfView, *, runs: bool) -> None:
    output.line(view.verdict)
    compared = bool(view.without or view.without_devices)
    bad = [row for row in view.lists if row.done < row.runs or row.away]
    if bad:
        output.line("")
        output.table(
            bad,
            ("list or job", lambda row: row.name),
            ("done", lambda row: f"{row.done} of {row.runs}"),
            ("missed", lambda row: row.missed or None),
            ("failed", lambda row: row.failed or None),
            ("late", lambda row: row.late or None),
            ("ends", lambda row: row.ends),
            ("away", lambda row: row.away),
            *((("usually", lambda row: "done" if row.usual else "not done"),) if compared else ()),
            ("because", lambda row: row.because),
        )
    if view.devices:
        output.line("")
        output.table(
            view.devices,
            ("device", lambda row: row.name),
            ("runs", lambda row: row.runs),
            ("busy", lambda row: f"{row.load:.0f} %"),
            ("stores", lambda row: output.size(row.bytes_stored)),
            ("free", lambda row: output.size(row.free_bytes)),
            ("then", lambda row: output.size(row.free_bytes_then)),
            ("a day", lambda row: output.size(row.bytes_a_day)),
            ("full", _full),
        )
    if view.servers:
        output.line("")
        output.table(
            view.servers,
            ("server", lambda row: row.name),
            ("there", lambda row: not row.away),
            ("runs", lambda row: row.runs),
            ("busy", lambda row: f"{row.load:.0f} %"),
        )
    if runs:
        output.line("")
        output.table(
            view.runs,
            ("due", lambda row: row.due),
            ("job", lambda row: row.job),
            ("source", lambda row: row.source),
            ("state", lambda row: row.state),
            ("begins", lambda row: row.begins),
            ("ends", lambda row: row.ends),
            *((("usually", lambda row: row.usual_ends or row.usual_state),) if compared else ()),
            ("server", lambda row: row.server),
            ("device", lambda row: row.device),
            ("waits", lambda row: row.reason_text),
        )
    if runs and view.more:
        output.note(f"There are {view.runs_total} runs: ask for more with --limit.")
    for text in view.notes:
        output.note(text)


def _full(row: w.WhatIfDevice) -> str | None:
    if row.away:
        return "away"
    if row.full is not None:
        return f"at {row.full}"
    if row.days_until_full is None:
        return None
    if row.days_until_full > _FAR_DAYS:
        return "in more than ten years"
    return f"in {row.days_until_full:.0f} days"
