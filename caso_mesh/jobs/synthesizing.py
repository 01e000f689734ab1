"""A synthetic full: a full set with the tree of the newest one of a source, which is not read for it.

Every set is a whole tree over chunks that sets share, so there is nothing to copy: what the new set promises is looked
up, read back if that was asked for, and published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import Began, Verifying
from caso_mesh.jobs.publishing import name_damage, publish_synthetic, verify
from caso_mesh.jobs.storing import BackendFor, Writing, load_set, open_vault, writing
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import EntryType, SourceException
from caso_mesh.model.errors import Conflict, DataDamaged, DeviceError, DeviceVanished, Misuse, ObjectMissing
from caso_mesh.model.jobs import SyntheticSpec
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.model.storage import BackupSet

#: Chunks that are looked up at once.
_BATCH = 4096

OnPublished = Callable[[BackupSet], None]


def run_synthetic(task: Task, desk: Desk, backend_for: BackendFor, *, on_published: OnPublished) -> None:
    """Publishes the full set. Raises ``NotFound`` if the set that it is made of is gone, ``Conflict`` for one that is no
    base, ``DataDamaged`` with the files that are hit if a part of it is not there (``verify``: not sound)."""
    spec = task.order.spec
    if not isinstance(spec, SyntheticSpec):
        raise Misuse("only a synthetic full is made without its source")
    with open_vault(task, desk, backend_for) as vault:
        first = load_set(vault, spec.set_of(task.order.source), task.order.kept_as)
        if first.type is BackupType.COPY:
            raise Conflict(detail=f"The set {first.id} is a copy, on which nothing builds: name a full or incremental")
        desk.say(Began(BackupType.FULL))
        desk.log("info", f"makes a full set of the set {first.id} ({first.type.value}); the source is not read")
        if first.exceptions:
            desk.log("warning", f"the set {first.id} was made with {first.exceptions} exceptions, which hold here too")
        desk.total_bytes, desk.total_files = first.bytes, first.files
        with writing(vault, task, desk, [first.id]) as work:
            # the session is there now: what is looked up from here on stays
            load_set(vault, first.id, task.order.kept_as)
            if spec.verify:
                desk.state = AttemptState.VERIFYING
                desk.say(Verifying())
                verify(desk, vault, first)
                desk.tally.read(-desk.tally.bytes_read)  # what is counted there is read of a source
                desk.log("info", "verified: every byte that the set promises was read back")
            else:
                _look_up(desk, work, first)
            published = publish_synthetic(task, desk, work, first)
            on_published(published.set)
        desk.say(published)


def _look_up(desk: Desk, work: Writing, first: BackupSet) -> None:
    """That every piece of the tree is readable, and every chunk that it names is there. Raises ``DataDamaged``."""
    tally = desk.tally
    hit: list[tuple[bytes, DataDamaged]] = []
    try:
        for batch in _batches(work, first, hit):
            desk.check()
            ids = list(dict.fromkeys(chunk for _, chunks, _, _ in batch for chunk in chunks))
            there = dict(zip(ids, work.session.have(ids), strict=True))
            for path, chunks, is_file, size in batch:
                tally.entries += 1
                tally.files += is_file
                tally.bytes += size
                if not all(there[chunk] for chunk in chunks):
                    hit.append((path, DataDamaged(object="/" + path.decode("utf-8", "backslashreplace"), detail=_LOST)))
            if batch:
                desk.path = batch[-1][0]
    except DeviceVanished:
        raise
    except (DataDamaged, DeviceError, ObjectMissing) as error:
        hit.append((b"", DataDamaged(object=f"the set {first.id}", detail=error.message)))
    if not hit:
        return
    for path, wrong in hit:
        desk.exception(SourceException(path, "damaged", wrong.message))
    desk.log("error", "no full set can be made of it: a full backup stores what is lost anew")
    raise name_damage(first, hit)


_LOST = "a part of its content is lost"
_Row = tuple[bytes, tuple[bytes, ...], bool, int]


def _batches(work: Writing, first: BackupSet, hit: list[tuple[bytes, DataDamaged]]) -> Iterator[list[_Row]]:
    """Path, chunks, whether it is a file, and bytes of the entries of a tree."""

    def lost(path: bytes, error: Exception) -> None:
        hit.append((path, DataDamaged(object=f"the set {first.id}", detail=str(error))))

    batch: list[_Row] = []
    named = 0
    for entry in work.vault.tree(first.root).entries(on_damage=lost):
        is_file = entry.type is EntryType.FILE
        size = entry.size if is_file and entry.hardlink is None else 0
        batch.append((entry.path, tuple(chunk for chunk, _ in entry.chunks), is_file, size))
        named += len(entry.chunks)
        if named >= _BATCH or len(batch) >= _BATCH:
            yield batch
            batch, named = [], 0
    yield batch
