"""Making the records of a device's sets and their catalog anew, from what lies in it.

The records come out of the sets, which this worker reads. The catalogs come out of the trees: those who are to have them have
them made, as ever, each where its mode has it. This worker has the device meanwhile, and goes on until all are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from caso_mesh.jobs.comparing import MOST_LINES, compare, sets_in, tell_news
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import Began, Consults
from caso_mesh.jobs.storing import BackendFor, open_vault
from caso_mesh.jobs.task import Task
from caso_mesh.model.device_jobs import Catalogued
from caso_mesh.model.device_work import PAGE, CatalogsAsked, CatalogsStand
from caso_mesh.model.entries import SourceException
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_duration

#: How often it is asked how far they are: as long as something happens, and at most.
_OFTEN_S, _SELDOM_S = 0.5, 5.0
#: The catalog of one set may take so long. What is not there then is made all the same, and nobody waits for it.
PATIENCE_S = 1800.0
#: What is said to be damaged is asked about once more after this long: that it is made anew may not be told yet.
_SURE_AFTER_S = 5.0


class _Left(Struct, frozen=True):
    """Why the catalog of a set is not there: a reason and a sentence."""

    reason: str
    detail: str


def run_catalog(task: Task, desk: Desk, backend_for: BackendFor, on_made: Callable[[Catalogued], None]) -> None:
    """Catalogs that are not there in the end, and objects that cannot be read, are exceptions. Raises ``DeviceVanished`` if
    another vault lies there, ``NoKey``, what the device raises, and ``Unavailable`` without an administrator."""
    desk.say(Began())
    with open_vault(task, desk, backend_for, writes=False) as vault:
        sets = sets_in(task, vault, desk)
        gone = {each.id for each in sets if vault.holds.is_gone(each.id)}
        said = compare(task, desk, vault, sets, gone)
        added = tell_news(desk, said)
        lost = [each for answer in said for each in answer.missing]
        if lost:
            desk.log(
                "warning",
                f"{len(lost)} sets that should be here were not seen, as {lost[0]}: caso-mesh device inventory looks for them",
            )
        for line in vault.problems():
            name, _, detail = line.partition(": ")
            desk.exception(SourceException(name.encode("utf-8", "surrogateescape"), "unreadable", detail))
        there = {each.id: each for each in sets if each.id not in gone}
    lacking = [there[each] for answer in said for each in answer.lacking if each in there]
    desk.log("info", f"{len(there)} sets, {added} that nobody knew; of {len(lacking)} the catalog is made")
    desk.tally.entries = 0
    began_s = desk.seconds
    left = _Awaiting(task, desk, lacking).all() if lacking else {}
    for set_id, why in left.items():
        desk.exception(SourceException(f"sets/{set_id}".encode(), why.reason, why.detail))
    on_made(
        Catalogued(
            sets=len(there),
            deleted=sum(len(answer.deleted) for answer in said),
            added=added,
            lacked=len(lacking),
            made=len(lacking) - len(left),
            files=desk.tally.files,
            seconds=desk.seconds - began_s,
        )
    )


class _Awaiting:
    """Catalogs on their way. The files of those that are there count as done."""

    def __init__(self, task: Task, desk: Desk, lacking: Sequence[BackupSet]) -> None:
        self._task = task
        self._desk = desk
        self._open = {each.id: each for each in lacking}
        self._left: dict[str, _Left] = {}
        #: Since when a catalog is said to be damaged.
        self._doubted_s: dict[str, float] = {}
        self._total = len(lacking)
        self._began_s = self._changed_s = desk.seconds
        self._foretold = False
        desk.total_files = sum(each.files for each in lacking)

    def all(self) -> Mapping[str, _Left]:
        """Of the sets whose catalogs are not there in the end, why. Raises ``Canceled``, and what ``Desk.consult`` raises."""
        pause_s = _OFTEN_S
        while self._open:
            page = tuple(self._open)[:PAGE]
            stand = self._desk.consult(Consults(catalogs=CatalogsAsked(self._task.order.attempt, page))).catalogs
            assert stand is not None
            if self._take(page, stand):
                self._changed_s, pause_s = self._desk.seconds, _OFTEN_S
                self._foretell()
            else:
                pause_s = min(pause_s * 1.5, _SELDOM_S)
            if self._desk.seconds - self._changed_s > PATIENCE_S:
                self._give_up(tuple(self._open), _Left("catalog-not-made", "it is being made, and was not waited for"))
            elif stand.pending or stand.damaged:
                self._desk.wait_for(lambda: False, pause_s)
        return self._left

    def _take(self, page: Sequence[str], stand: CatalogsStand) -> bool:
        """Whether something has changed."""
        before, now_s = len(self._open), self._desk.seconds
        for set_id in set(page) - {*stand.pending, *stand.damaged, *stand.away}:
            self._desk.tally.files += self._open.pop(set_id).files
        for set_id, server in stand.away.items():
            detail = f"{server} keeps it, which is not connected: it is made when that is back"
            self._give_up((set_id,), _Left("catalog-away", detail))
        for set_id in stand.pending:
            self._doubted_s.pop(set_id, None)
        for set_id in stand.damaged:
            if now_s - self._doubted_s.setdefault(set_id, now_s) >= _SURE_AFTER_S:
                self._give_up(
                    (set_id,), _Left("catalog-damaged", "it cannot be made out of the tree, as an alert says")
                )
            elif set_id in self._open:
                # it is asked about last, so that it stands in the way of nothing
                self._open[set_id] = self._open.pop(set_id)
        return len(self._open) < before

    def _give_up(self, set_ids: Sequence[str], why: _Left) -> None:
        for set_id in set_ids:
            if self._open.pop(set_id, None) is not None:
                self._left[set_id] = why
                if len(self._left) <= MOST_LINES:
                    self._desk.log("warning", f"the catalog of the set {set_id} is not there: {why.detail}")

    def _foretell(self) -> None:
        """Says once how long it will take, when the first ones are there."""
        done, passed_s = self._desk.tally.files, self._desk.seconds - self._began_s
        left = sum(each.files for each in self._open.values())
        if self._foretold or not done or not left or passed_s <= 0:
            return
        self._foretold = True
        self._desk.log(
            "info",
            f"{self._total - len(self._open)} of {self._total} catalogs with {done} files took {format_duration(passed_s)};"
            f" {left} files are left: about {format_duration(left * passed_s / done)}",
        )
