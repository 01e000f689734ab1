"""Waiting for the end of a run: progress as it comes, the result at the end, whatever happens to the connection."""

from __future__ import annotations

import gc
import sys
import time
from typing import Protocol

from msgspec import Struct

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.options import NOT_LOCAL, Common, Local, Waiting, check_waiting
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model.cataloguing import CatalogView
from caso_mesh.model.errors import FAILED, WITH_EXCEPTIONS, DaemonNotRunning, Unavailable
from caso_mesh.model.inventories import InventoryView

#: The daemon answers when something has changed, and after this long for the sake of the bars.
_WAIT_S = 0.5
#: Where nobody looks at the way, it answers at the end, and after this long to show that it is there.
_SILENT_WAIT_S = 10.0
#: So many exceptions are listed for people.
_SHOWN = 100
#: And of places that a restore puts files to.
_DESTINATIONS = 20


class Watcher(Protocol):
    """Who is told how far a run is."""

    def update(self, progress: o.RunProgress) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Tells only what a run waits for, when it has waited for a while: who reads a log shall not have to ask."""

    def __init__(self) -> None:
        self._told: dict[str | None, str] = {}

    def update(self, progress: o.RunProgress) -> None:
        for part in progress.parts:
            if part.reason_text is None or progress.result is not None or self._told.get(part.source) == part.reason:
                continue
            self._told[part.source] = part.reason or ""
            output.note(f"{part.run or part.name} waits: {part.reason_text}; it {part.reason_ends or 'waits'}")

    def close(self) -> None:
        return


class JsonLines:
    """One record on stdout for each change."""

    def __init__(self) -> None:
        self._last: o.RunProgress | None = None

    def update(self, progress: o.RunProgress) -> None:
        if progress != self._last:
            output.document(progress)
        self._last = progress

    def close(self) -> None:
        return


def choose_watcher(*, json_lines: bool) -> Watcher:
    """Records, bars on a terminal, or nothing."""
    if json_lines:
        return JsonLines()
    if output.is_terminal(sys.stderr):
        from caso_mesh.cli.bars import Bars

        return Bars(sys.stderr)
    return Silent()


def follow(client: Client, run: str, watcher: Watcher, local: Local = NOT_LOCAL) -> o.RunResult:
    """The result of a run, once its facts, set and catalog have arrived.

    Lost connections and restarts of the daemon are survived; being without an answer for longer than the client's
    timeout is not. Raises what ``run.follow`` raises.
    """
    gc.freeze()  # what was imported lives to the end: it is not looked at again
    gc.enable()  # this may take days
    progress: o.RunProgress | None = None
    silent = isinstance(watcher, Silent)
    wait_s = min(_SILENT_WAIT_S, client.timeout_s / 2) if silent else _WAIT_S
    try:
        while True:
            asked_s, before = time.monotonic(), progress
            progress = client.call(local.call("run.follow"), q.RunFollow(run, wait_s, silent), o.RunProgress)
            watcher.update(progress)
            if progress.result is not None:
                return progress.result
            if progress == before:
                # an older daemon answers at once
                time.sleep(max(0.0, min(wait_s, _WAIT_S) - (time.monotonic() - asked_s)))
    except (KeyboardInterrupt, Unavailable, DaemonNotRunning):
        watcher.close()
        output.note(f"The job goes on. Watch it with: caso-mesh job watch {run}{local.words}")
        raise
    finally:
        watcher.close()


def submit(common: Common, waiting: Waiting, call: str, request: Struct, local: Local = NOT_LOCAL) -> int:
    """Submits work, waits for its end if that was asked for, prints what there is to know. The exit status."""
    check_waiting(common, waiting)
    with connect(common) as client:
        submitted = client.call(local.call(call), request, o.Submitted)
        if not waiting.wait or submitted.run is None:
            if waiting.json_lines:
                output.document(submitted)
            else:
                output.show(submitted, common.json, lambda view: show_submitted(view, local))
            return 0
        for text in submitted.warnings:
            output.warning(text)
        return watch(client, submitted.run, as_json=common.json, json_lines=waiting.json_lines, local=local)


def watch(client: Client, run: str, *, as_json: bool, json_lines: bool, local: Local = NOT_LOCAL) -> int:
    """Waits for the end of a run and prints its result. The exit status."""
    result = follow(client, run, choose_watcher(json_lines=json_lines), local)
    if as_json:
        output.document(result)
    elif not json_lines:
        show_result(result)
    alone = any(each.set is None for each in result.second)
    status = WITH_EXCEPTIONS if alone else 0
    return {"succeeded": status, "succeeded-with-exceptions": WITH_EXCEPTIONS}.get(result.state, FAILED)


def show_submitted(view: o.Submitted, local: Local = NOT_LOCAL) -> None:
    """What was submitted, and what to do next."""
    if view.run is None:
        output.line(f"job {view.name} ({view.job}) is scheduled; it runs next at {view.next_due or '-'}")
        return
    output.line(f"submitted {view.run}")
    output.note(f"Watch it with: caso-mesh job watch {view.run}{local.words}")


def _second(each: o.SecondOutcome) -> str:
    where = f"on {each.device} at {each.server}" if each.device else ""
    why = f": {each.error.get('message', '')}" if each.error is not None else ""
    return f"{each.set or '-'} {where} ({each.state}){why}"


def goes_to(destinations: tuple[o.Destination, ...]) -> list[tuple[str, str]]:
    """Where a restore puts what it brings back, a line for each of the first few."""
    found = [("goes to", _destination(each)) for each in destinations[:_DESTINATIONS]]
    more = len(destinations) - len(found)
    return [*found, ("goes to", f"{more} more: --json lists them")] if more > 0 else found


def _destination(each: o.Destination) -> str:
    came = "" if each.source_path is None else f" from {each.source}:{each.source_path}"
    return f"{each.server}:{each.path}{came}"


def _figures(result: o.RunResult) -> tuple[tuple[str, object], ...]:
    if result.inventories or result.catalogs:
        return ()
    return (
        ("files", result.files),
        ("size", output.size(result.bytes)),
        ("read", output.size(result.bytes_read)),
    )


def _predicted(found: o.PredictedView | None) -> tuple[tuple[str, object], ...]:
    if found is None:
        return ()
    return (
        ("predicted", f"{found.files} files of {output.size(found.bytes)}"),
        ("of it new", output.size(found.bytes_new)),
        (
            "will take",
            "unknown: nothing was backed up there yet" if found.seconds is None else output.duration(found.seconds),
        ),
    )


def _inventory(found: InventoryView) -> None:
    output.details(
        ("device", found.device),
        ("sets", found.sets),
        ("missing sets", found.missing or None),
        ("sets nobody knew", found.added or None),
        ("deleted sets", found.deleted or None),
        ("unreadable", found.unreadable or None),
        ("media", len(found.media)),
        ("writers", found.writers),
        ("open sessions", found.sessions or None),
        ("of nobody", found.abandoned or None),
        ("packs", f"{found.packs} of {output.size(found.pack_bytes)}"),
        ("free", f"{output.size(found.free_bytes)} of {output.size(found.total_bytes)}"),
    )


def _catalog(made: CatalogView) -> None:
    output.details(
        ("device", made.device),
        ("sets", made.sets),
        ("sets nobody knew", made.added or None),
        ("deleted there", made.deleted or None),
        ("had no catalog", made.lacked),
        ("have one now", _made(made) if made.lacked else None),
    )


def _made(made: CatalogView) -> str:
    rate = f", {made.files / made.seconds:.0f} files/s" if made.files and made.seconds > 0 else ""
    return f"{made.made}, with {made.files} files in {output.duration(made.seconds)}{rate}"


def show_result(result: o.RunResult) -> None:
    """A result for people."""
    for text in result.warnings:
        output.warning(text)
    several = len(result.sets) > 1
    output.details(
        ("run", result.run),
        ("state", result.state),
        ("type", result.type),
        ("server", result.server),
        ("device", result.device),
        ("set", result.set),
        *((f"set of {each.source}", f"{each.set or '-'} ({each.state})") for each in result.sets if several),
        *goes_to(result.destinations),
        *((f"second set of {each.source}", _second(each)) for each in result.second),
        *_figures(result),
        # only backups store something
        ("stored", output.size(result.bytes_stored) if result.type else None),
        ("time", output.duration(result.seconds)),
        ("exceptions", len(result.exceptions) or None),
        *_predicted(result.predicted),
    )
    for found in result.inventories:
        _inventory(found)
    for made in result.catalogs:
        _catalog(made)
    for each in result.exceptions[:_SHOWN]:
        output.warning(f"{each.path}: {each.reason}")
    if len(result.exceptions) > _SHOWN:
        output.warning(f"{len(result.exceptions) - _SHOWN} more; caso-mesh job watch {result.run} --json lists all")
    if result.error is not None:
        text = f"{result.error.get('message', '')} {result.error.get('hint', '')}".strip()
        output.note(f"{result.state}: {text}")
