"""Does what a task says, from its beginning to the one ``Ended``."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import nullcontext

from msgspec import Struct

from caso_mesh.catalog.segment import from_entry
from caso_mesh.jobs import (
    cataloguing,
    copying,
    drilling,
    erasing,
    far_backup,
    far_predicting,
    far_restore,
    far_store,
    far_target,
    inventory,
    predicting,
    synthesizing,
    telling,
)
from caso_mesh.jobs.backup import SETTLE_NS, Known, run_backup, wanted_of
from caso_mesh.jobs.bulk import Meet, explained
from caso_mesh.jobs.desk import Desk, Level
from caso_mesh.jobs.feeding import CommandTarget, run_feed
from caso_mesh.jobs.freezing import snapshots
from caso_mesh.jobs.hands import Hands
from caso_mesh.jobs.host_commands import around
from caso_mesh.jobs.messages import Began, Ended
from caso_mesh.jobs.publishing import check_published, first_detail, publish, verify
from caso_mesh.jobs.restore import places, run_restore
from caso_mesh.jobs.second import second_device, tell_both
from caso_mesh.jobs.sink import Sink, VaultSink
from caso_mesh.jobs.storing import BackendFor, Base, choose_base, folder_backend, load_set, open_vault, writing
from caso_mesh.jobs.target import FolderTarget
from caso_mesh.jobs.task import Task
from caso_mesh.model.device_jobs import CatalogSpec, Catalogued, EraseSpec, Inventoried, InventorySpec
from caso_mesh.model.errors import AttemptFailed, Canceled, CasoError, InternalError, StateFull, WorkerDied
from caso_mesh.model.jobs import (
    BackupSpec,
    DrillSpec,
    DuplicateSpec,
    Failure,
    Predicted,
    RestoreSpec,
    SyntheticSpec,
    TestRunSpec,
    VerifySpec,
)
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.chunking import chunk_id


def set_start_ns(backup: BackupSet) -> int:
    """When the reading of a set began, by the clock of its source."""
    return backup.started_at_ns


class Tools(Struct, frozen=True):
    """What differs between a worker process and a thread in a test."""

    meet: Meet
    backend_for: BackendFor = folder_backend
    start_of: Callable[[BackupSet], int] = set_start_ns
    on_published: Callable[[BackupSet], None] = lambda backup: None
    threads: int | None = None
    hands: Hands | None = None


def needs_hands(task: Task) -> bool:
    """Whether hands would have anything to do."""
    spec = task.order.spec
    return isinstance(spec, RestoreSpec) and task.order.end != "device" and spec.into_command is None


class Outcome:
    """What an attempt has come to so far."""

    def __init__(self) -> None:
        self.type: BackupType | None = None
        self.set: str | None = None
        self.predicted: Predicted | None = None
        self.found: Inventoried | None = None
        self.catalogued: Catalogued | None = None


def perform(task: Task, desk: Desk, tools: Tools, *, before_end: Callable[[], None] = lambda: None) -> None:
    """Runs the task and says ``Ended``, whatever happens; only what ends a process passes. ``before_end`` is called
    first: after it nothing else may be said."""
    outcome = Outcome()
    failure: CasoError | None = None
    desk.log("info", telling.begins(task))
    try:
        _run(task, desk, tools, outcome)
        exceptions = desk.tally.exceptions
        state = AttemptState.SUCCEEDED_WITH_EXCEPTIONS if exceptions else AttemptState.SUCCEEDED
    except Canceled:
        state = AttemptState.CANCELED
        desk.log("warning" if desk.why_over else "info", desk.why_over or "canceled")
    except (StateFull, WorkerDied) as error:
        # not the job's fault: it begins again, when this server has room
        state, failure = AttemptState.INTERRUPTED, error
    except CasoError as error:
        state, failure = AttemptState.FAILED, explained(task, desk, error)
    except MemoryError:
        state, failure = AttemptState.FAILED, AttemptFailed(attempt=task.order.attempt, detail="not enough memory")
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        detail = f"{where}{error.strerror or error}"
        state, failure = AttemptState.FAILED, AttemptFailed(attempt=task.order.attempt, detail=detail)
    except Exception as error:
        # a bug: the job log keeps where it is
        state, failure = AttemptState.FAILED, InternalError(detail=f"{type(error).__name__}: {error}")
        desk.log("error", traceback.format_exc())
    if failure is not None:
        desk.log("error", failure.message)
    level: Level = "info" if failure is None else "error"
    word = "given up" if state is AttemptState.CANCELED and desk.why_over else state.value
    desk.log(level, telling.ended(task, word, desk.tally.counts(), desk.seconds))
    before_end()
    desk.say(
        Ended(
            state=state,
            counts=desk.tally.counts(),
            seconds=desk.seconds,
            set=outcome.set,
            type=outcome.type,
            failure=None if failure is None else Failure(code=failure.code, fields=failure.fields),
            predicted=outcome.predicted,
            found=outcome.found,
            catalogued=outcome.catalogued,
        )
    )


def _run(task: Task, desk: Desk, tools: Tools, outcome: Outcome) -> None:
    threads = task.threads if tools.threads is None else tools.threads

    def based(base: Base) -> None:
        outcome.type = base.type

    def published(backup: BackupSet) -> None:
        outcome.set = backup.id
        tools.on_published(backup)

    def predicted(found: Predicted) -> None:
        outcome.predicted = found

    def inventoried(found: Inventoried) -> None:
        outcome.found = found

    def catalogued(made: Catalogued) -> None:
        outcome.catalogued = made

    match task.order.spec, task.order.end:
        case BackupSpec(), "both":
            _backup(task, desk, tools, threads, based, published)
        case BackupSpec(), "source":
            far_backup.run_source_end(task, desk, tools.meet, threads)
        case BackupSpec(), _:
            far_store.run_device_end(
                task,
                desk,
                tools.meet,
                tools.backend_for,
                start_of=tools.start_of,
                on_base=based,
                on_published=published,
            )
        case RestoreSpec(), "both":
            _restore(task, desk, tools)
        case RestoreSpec(), "source":
            far_target.run_target_end(task, desk, tools.meet, hands=tools.hands)
        case RestoreSpec(), _:
            far_restore.run_device_end(task, desk, tools.meet, tools.backend_for)
        case DrillSpec(), "source":
            with drilling.scratch(task, desk) as drill:
                far_target.run_target_end(task, desk, tools.meet, drill)
        case DrillSpec(), "device":
            far_restore.run_drill(task, desk, tools.meet, tools.backend_for)
        case DrillSpec() as spec, _:
            desk.say(Began())
            with open_vault(task, desk, tools.backend_for) as vault:
                drilling.run_here(task, desk, vault, load_set(vault, spec.set))
        case TestRunSpec(), "source":
            far_predicting.run_source_end(task, desk, tools.meet)
        case TestRunSpec(), "device":
            far_predicting.run_device_end(task, desk, tools.meet, tools.backend_for, predicted)
        case TestRunSpec(), _:
            predicting.run_here(task, desk, tools.backend_for, predicted)
        case DuplicateSpec(), "source":
            copying.run_reading_end(task, desk, tools.meet, tools.backend_for)
        case DuplicateSpec(), "device":
            copying.run_writing_end(task, desk, tools.meet, tools.backend_for, on_published=published)
        case DuplicateSpec(), _:
            copying.run_here(task, desk, tools.backend_for, on_published=published)
        case SyntheticSpec(), _:
            synthesizing.run_synthetic(task, desk, tools.backend_for, on_published=published)
        case EraseSpec(), _:
            erasing.run_erase(task, desk, tools.backend_for)
        case InventorySpec(), _:
            inventory.run_inventory(task, desk, tools.backend_for, inventoried)
        case CatalogSpec(), _:
            cataloguing.run_catalog(task, desk, tools.backend_for, catalogued)
        case VerifySpec() as spec, _:
            desk.say(Began())
            with open_vault(task, desk, tools.backend_for) as vault:
                # of a machine in whose place another one is, as the order says
                source = task.order.kept_as if spec.source == task.order.source else spec.source
                verify(desk, vault, load_set(vault, spec.set, source))


def _backup(
    task: Task,
    desk: Desk,
    tools: Tools,
    threads: int,
    on_base: Callable[[Base], None],
    on_published: Callable[[BackupSet], None],
) -> None:
    spec = task.order.spec
    assert isinstance(spec, BackupSpec)
    started_at_ns = desk.clock.now_ns()
    wanted = wanted_of(task)
    with second_device(task, desk, tools.meet) as second, open_vault(task, desk, tools.backend_for) as vault:
        base = choose_base(
            vault,
            desk,
            source=task.order.kept_as,
            filters=wanted.digest,
            type_=spec.type,
            avoid=task.order.avoid,
            among=None if second is None else second.roots(),
        )
        on_base(base)
        desk.say(Began(base.type))
        known: Known | None = None
        if base.parent is not None:
            known = Known(vault.tree(base.parent.root), tools.start_of(base.parent) - SETTLE_NS)
            desk.total_bytes, desk.total_files = base.parent.bytes, base.parent.files
        digest = wanted.digest
        if second is not None:
            second.begin(None if base.parent is None else base.parent.root)
            desk.on_exceptions = tell_both(None, second, desk)
        with (
            writing(vault, task, desk, [base.parent.id] if base.parent else []) as work,
            first_detail(task, vault, digest) if known is None else nullcontext() as detail,
        ):
            sink: Sink = VaultSink(work.session, lambda data: chunk_id(task.id_key, data))
            if second is not None:
                sink = second.beside(sink)

            def pause() -> None:
                work.pause()
                if second is not None:
                    desk.flush()
                    second.tell()

            with around(task, desk, pause), snapshots(task, desk, wanted) as places:
                tree = run_backup(
                    desk,
                    wanted,
                    sink,
                    id_key=task.id_key,
                    chunker=vault.header.chunker,
                    threads=threads,
                    known=known,
                    on_pause=pause,
                    places=places,
                    on_entry=None if detail is None else lambda entry: detail.add(from_entry(entry)),
                )
            published = publish(
                task, desk, work, base, root=tree.root, filters=digest, started_at_ns=started_at_ns, detail=detail
            )
            on_published(published.set)
        desk.say(published)
        if second is not None:
            second.finish(tree.root, published.set.id)
        if spec.verify:
            check_published(desk, vault, published.set)


def _restore(task: Task, desk: Desk, tools: Tools) -> None:
    spec = task.order.spec
    assert isinstance(spec, RestoreSpec)
    desk.say(Began())
    with open_vault(task, desk, tools.backend_for) as vault:
        backup = load_set(vault, spec.set)
        if spec.into_command is not None:
            with CommandTarget(task, desk, desk.check) as command:
                run_feed(desk, vault, backup, command, spec.chosen())
            return
        target = FolderTarget(task, desk)
        try:
            with tools.hands or nullcontext() as hands:
                run_restore(desk, vault, backup, target, places(backup, spec.chosen(), strip=spec.strip), hands)
        finally:
            target.close()
