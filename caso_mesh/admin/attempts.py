"""What is told of attempts, in the administrator's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from caso_mesh.model.cataloguing import CatalogView
from caso_mesh.model.device_jobs import Catalogued, Inventoried
from caso_mesh.model.inventories import InventoryView
from caso_mesh.model.jobs import Attempt, Counts, Failure, Predicted
from caso_mesh.model.states import AttemptState, BackupType

#: Asked for at once.
_PIECE = 500


class AttemptRow(Struct, frozen=True, gc=False):
    """What the journal of one server (``reporter``) says of an attempt."""

    id: str
    reporter: str
    run: str
    state: AttemptState
    type: BackupType | None
    started_at_ns: int | None
    ended_at_ns: int | None
    seconds: float | None
    counts: Counts
    set: str | None
    failure: Failure | None
    predicted: Predicted | None = None
    found: Inventoried | None = None
    catalogued: Catalogued | None = None

    def inventory(self, device: str) -> InventoryView | None:
        """What an inventory found in the device of that name."""
        return None if self.found is None else InventoryView(device=device, **structs.asdict(self.found))

    def catalog(self, device: str) -> CatalogView | None:
        """What making the catalog of the device of that name anew came to."""
        return None if self.catalogued is None else CatalogView(device=device, **structs.asdict(self.catalogued))


class AttemptRows:
    """What all reporters say of some attempts."""

    def __init__(self, rows: Iterable[AttemptRow] = ()) -> None:
        self._rows = {(row.id, row.reporter): row for row in rows}

    def of(self, attempt: Attempt) -> AttemptRow | None:
        """What counts of an attempt: the word of its media server; of its other end only that it ended, if the media
        server has not said so. Nobody else is heard."""
        media = self._rows.get((attempt.id, attempt.server))
        other = self._rows.get((attempt.id, attempt.source))
        if media is not None and (media.ended_at_ns is not None or other is None or other.ended_at_ns is None):
            return media
        return other if other is not None and other.ended_at_ns is not None else media


_ATTEMPT = (
    "id, reporter, run, state, type, started_at_ns, ended_at_ns, seconds, counts, set_id, failure, predicted, found,"
    " catalogued"
)


def of_runs(c: sqlite3.Connection, runs: Sequence[str]) -> AttemptRows:
    """All attempts of some runs."""
    found: list[AttemptRow] = []
    for start in range(0, len(runs), _PIECE):
        piece = tuple(runs[start : start + _PIECE])
        marks = ", ".join("?" * len(piece))
        found += map(_row, c.execute(f"SELECT {_ATTEMPT} FROM attempt WHERE run IN ({marks})", piece))
    return AttemptRows(found)


def lengths(c: sqlite3.Connection, ids: Sequence[str]) -> dict[tuple[str, str], float]:
    """Seconds that ended attempts took, as (attempt, who told it)."""
    found: dict[tuple[str, str], float] = {}
    for start in range(0, len(ids), _PIECE):
        piece = tuple(ids[start : start + _PIECE])
        marks = ", ".join("?" * len(piece))
        rows = c.execute(
            "SELECT id, reporter, ended_at_ns - started_at_ns FROM attempt"
            f" WHERE ended_at_ns IS NOT NULL AND started_at_ns IS NOT NULL AND id IN ({marks})",
            piece,
        )
        found.update({(id, reporter): length / 1e9 for id, reporter, length in rows})
    return found


def _row(row: Any) -> AttemptRow:
    id_, reporter, run, state, type_, started, ended, seconds, counts, set_id, failure, predicted, found, catalog = row
    return AttemptRow(
        id=id_,
        reporter=reporter,
        run=run,
        state=AttemptState(state),
        type=BackupType(type_) if type_ else None,
        started_at_ns=started,
        ended_at_ns=ended,
        seconds=seconds,
        counts=msgspec.msgpack.decode(counts, type=Counts) if counts else Counts(),
        set=set_id,
        failure=msgspec.msgpack.decode(failure, type=Failure) if failure else None,
        predicted=msgspec.msgpack.decode(predicted, type=Predicted) if predicted else None,
        found=msgspec.msgpack.decode(found, type=Inventoried) if found else None,
        catalogued=msgspec.msgpack.decode(catalog, type=Catalogued) if catalog else None,
    )
