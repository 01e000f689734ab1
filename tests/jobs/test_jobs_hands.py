"""Hands: the processes that make small files for a worker that restores."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from job_site import listen, new_id, run
from waiting import wait_for

from caso_mesh.jobs import far_restore
from caso_mesh.jobs import hands as module
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.far_target import run_target_end
from caso_mesh.jobs.hands import Base, Hands, Place
from caso_mesh.jobs.manifests import pack_parts
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.model.errors import PeerFault, WorkerDied
from caso_mesh.model.states import AttemptState, Overwrite
from caso_mesh.sources.compare import differences
from caso_mesh.sources.leftovers import UNFINISHED
from caso_mesh.vault.chunking import chunk_id
from caso_mesh.wire.codec import to_wire

pytestmark = [
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor has use for no hands"),
    # a worker has one thread where it forks its hands; numpy has given pytest more of them
    pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning"),
]


def small_tree(folder: Path, *, files: int = 3000) -> Path:
    for number in range(files):
        below = folder / f"{number // 50:03}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"f{number:05}").write_bytes(os.urandom(3) * (1 + number % 3000))
    return folder


def hands_of(pid: int) -> list[int]:
    """Processes below a worker."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b") ")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] != b"Z"
    except OSError:
        return False


def halves(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o7777 == UNFINISHED]


class Heard:
    def __init__(self) -> None:
        self.made: list[bytes] = []
        self.undone: dict[bytes, bytes] = {}
        self.exceptions = []

    def begin(self, hands: Hands) -> None:
        hands.begin(
            on_made=lambda entries: self.made.extend(entry.path for entry in entries),
            on_undone=lambda entry, content: self.undone.update({entry.path: bytes(content)}),
            on_exception=self.exceptions.append,
        )


def file_entry(path: bytes, content: bytes, **rest) -> Entry:
    return Entry(path, EntryType.FILE, 0o640, uid=os.getuid(), gid=os.getgid(), size=len(content), **rest)


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base" / "below").mkdir(parents=True)
    fd = os.open(tmp_path / "base", os.O_PATH | os.O_DIRECTORY)
    yield tmp_path / "base", Base(fd, True)
    os.close(fd)


def place(base: Base, name: bytes) -> Place:
    return base, b"below", name


def test_what_a_hand_cannot_make_comes_back_with_its_content(base):
    folder, below = base
    (folder / "below" / "taken").write_text("mine")
    heard = Heard()
    with Hands("a", 2) as hands:
        heard.begin(hands)
        batch = hands.batch(below)
        for name, content in ((b"new", b"one"), (b"taken", b"two"), (b"n\x00ul", b"three")):
            assert batch.take(file_entry(b"x/" + name, content, modified=(7, 8)), place(below, name), content)
        hands.send(batch)
        hands.settle()
    assert heard.made == [b"x/new"]
    assert heard.undone == {b"x/taken": b"two", b"x/n\x00ul": b"three"}
    assert (folder / "below" / "taken").read_text() == "mine"
    new = (folder / "below" / "new").stat()
    assert (new.st_mode & 0o7777, new.st_mtime_ns) == (0o640, 7_000_000_008)
    assert not heard.exceptions
    assert sorted(os.listdir(folder / "below")) == ["new", "taken"]


def test_what_a_hand_could_not_keep_of_a_file_is_told(base):
    folder, below = base
    heard = Heard()
    with Hands("a", 1) as hands:
        heard.begin(hands)
        batch = hands.batch(below)
        assert batch.take(file_entry(b"x", b"data", xattrs=((b"no-namespace", b"v"),)), place(below, b"x"), b"data")
        hands.send(batch)
        hands.settle()
    assert heard.made == [b"x"]
    assert [(each.path, each.reason) for each in heard.exceptions] == [(b"x", "xattr-not-restored")]
    assert (folder / "below" / "x").read_bytes() == b"data"


def test_a_batch_has_bounds_and_what_fits_in_no_batch_is_left_to_the_worker(base):
    _, below = base
    long = file_entry(b"x", b"", xattrs=((b"user.long", bytes(2 << 20)),))
    with Hands("a", 1) as hands:
        batch = hands.batch(below)
        assert not batch.take(long, place(below, b"x"), b"")
        assert not batch.take(file_entry(b"x", b""), place(below, b"x"), bytes(module.BATCH_BYTES + 1))
        taken = 0
        while batch.take(file_entry(b"x%d" % taken, b"1"), place(below, b"x%d" % taken), b"1"):
            taken += 1
        assert taken == module.BATCH_FILES
        heard = Heard()
        heard.begin(hands)
        hands.send(batch)
        hands.settle()
    assert len(heard.made) == taken


def test_a_hand_that_dies_is_noticed_where_somebody_waits(base):
    _, below = base
    others = set(hands_of(os.getpid()))
    with Hands("a", 1) as hands:
        heard = Heard()
        heard.begin(hands)
        (pid,) = others.symmetric_difference(hands_of(os.getpid()))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            while True:
                batch = hands.batch(below)
                batch.take(file_entry(b"x", b"1"), place(below, b"x"), b"1")
                hands.send(batch)
                hands.settle()


async def restored(site, runner, tmp_path, on, **rest):
    """A restore during which ``on`` ends it, given its worker and hands, when the first files are there."""
    tree = small_tree(tmp_path / "tree")
    backup = (await run(runner, site.task(site.backup_spec(tree)))).set
    for _ in range(3):  # it may be done before it was looked at
        (tmp_path / "out").mkdir()
        worker = await runner.start(site.task(site.restore_spec(backup.id, tmp_path / "out", strip=True), **rest))
        seen: list[int] = []

        async def first(message, worker=worker, seen=seen):
            if isinstance(message, say.Began):
                seen.extend(hands_of(worker.pid))
                with suppress(ProcessLookupError, IndexError):
                    await on(worker, seen)

        heard = await listen(worker, on=first)
        if seen and heard.ended.state is not AttemptState.SUCCEEDED:
            return tree, backup, heard, seen
        shutil.rmtree(tmp_path / "out")
    raise AssertionError("it had no hands")


async def test_a_restore_whose_hand_is_killed_is_interrupted_and_the_next_one_finds_nothing_half(
    site, runner, tmp_path
):
    async def kill(worker, hands):
        os.kill(hands[0], signal.SIGKILL)

    tree, backup, heard, hands = await restored(site, runner, tmp_path, kill)
    assert (heard.ended.state, heard.ended.failure.code) == (AttemptState.INTERRUPTED, "worker-died")
    wait_for(lambda: not any(map(is_alive, hands)), what="the hands have ended")
    again = site.restore_spec(backup.id, tmp_path / "out", strip=True, overwrite=Overwrite.ALWAYS)
    back = await run(runner, site.task(again))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "out"))) == []
    assert not halves(tmp_path / "out")


async def test_no_hand_outlives_its_worker(site, runner, tmp_path):
    async def kill(worker, hands):
        os.kill(worker.pid, signal.SIGKILL)

    _, _, heard, hands = await restored(site, runner, tmp_path, kill)
    assert heard.ended.state is AttemptState.INTERRUPTED
    wait_for(lambda: not any(map(is_alive, hands)), what="the hands have ended")


async def test_a_restore_that_is_canceled_leaves_whole_files_only(site, runner, tmp_path):
    async def cancel(worker, hands):
        os.kill(worker.pid, signal.SIGSTOP)  # it hears of it before it is done
        await worker.send(say.Cancel())
        os.kill(worker.pid, signal.SIGCONT)

    tree, _, heard, hands = await restored(site, runner, tmp_path, cancel)
    assert heard.ended.state is AttemptState.CANCELED
    wait_for(lambda: not any(map(is_alive, hands)), what="the hands have ended")
    assert not halves(tmp_path / "out")
    for path in (tmp_path / "out").rglob("f*"):
        assert path.read_bytes() == (tree / path.relative_to(tmp_path / "out")).read_bytes()


# --- at the target's end of a restore to another server ---


@pytest.fixture
def target(site, tmp_path):
    """Has a script play the device's end towards a target's end with one hand; the exceptions it told."""

    def play(script, **options):
        (tmp_path / "out").mkdir(exist_ok=True)
        _, task = site.pair(site.restore_spec(new_id(), tmp_path / "out", "/data", server=site.beta, **options))
        desk = Desk(task.order.attempt, lambda message: None, SystemClock())
        told: list[str] = []

        @contextmanager
        def meet(task, desk, answering):
            def call(method, params):
                answer = answering.handle(method, to_wire(params))
                told.extend(each["reason"] for each in answer.get("exceptions", ()))

            def content(data, *places, offset=0):
                part = (chunk_id(task.id_key, data), 0, len(data), tuple((path, offset) for path in places))
                call("record", far_restore.Record(0, len(data), data, *pack_parts([part])))

            script(call, content)
            yield SimpleNamespace(lost=None)

        run_target_end(task, desk, meet, hands=Hands(task.order.attempt, 1))
        return told

    return play


def begin(call, *entries):
    call("begin", far_restore.Begin(((b"", tuple(map(msgspec.msgpack.encode, entries))),)))


A, B = file_entry(b"data/a", b"four", modified=(7, 8)), file_entry(b"data/b", b"fourfour")


def test_small_files_that_come_from_elsewhere_are_made_by_hands_and_all_others_by_the_worker(target, tmp_path):
    (tmp_path / "out" / "data").mkdir(parents=True)
    (tmp_path / "out" / "data" / "there").write_text("older")
    there = file_entry(b"data/there", b"four")
    taken = file_entry(b"data/taken", b"four")

    def script(call, content):
        begin(call, A, B, taken, there)
        # between the two somebody takes the name
        (tmp_path / "out" / "data" / "taken").write_text("mine")
        content(b"four", A.path, taken.path, there.path)
        content(b"four", B.path, offset=4)
        content(b"four", B.path)
        call("write", far_restore.Write(finish=(A.path, B.path, taken.path, there.path)))
        call("close", far_restore.Written())

    assert target(script, overwrite=Overwrite.ALWAYS) == []
    data = tmp_path / "out" / "data"
    assert {path.name: path.read_bytes() for path in data.iterdir()} == {
        "a": b"four",
        "b": b"fourfour",
        "taken": b"four",
        "there": b"four",
    }
    assert (data / "a").stat().st_mtime_ns == 7_000_000_008


@pytest.mark.parametrize(
    "script",
    [
        lambda call, content: content(b"four", A.path),
        lambda call, content: content(b"x", A.path, offset=1),
        lambda call, content: call("write", far_restore.Write(abort=(A.path,))),
    ],
    ids=["all of it", "a piece of it", "that it gives it up"],
)
def test_whoever_sent_all_of_a_file_can_send_no_more_of_it(target, tmp_path, script):
    def all_and_more(call, content):
        begin(call, A)
        content(b"four", A.path)
        script(call, content)

    with pytest.raises(PeerFault):
        target(all_and_more)
    # nothing of it, or all of it
    assert [path.read_bytes() for path in (tmp_path / "out" / "data").iterdir()] in ([], [b"four"])


def test_a_target_whose_hand_is_killed_says_so(target, tmp_path):
    others = set(hands_of(os.getpid()))

    def script(call, content):
        begin(call, A, B)
        (pid,) = others.symmetric_difference(hands_of(os.getpid()))
        os.kill(pid, signal.SIGKILL)
        content(b"four", A.path)
        call("close", far_restore.Written())

    with pytest.raises(WorkerDied):
        target(script)
    assert not halves(tmp_path / "out")
