"""What a far end may not do: at the device a source that lies, at the target a device that lies, on the way strangers."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from job_site import ID_KEY, doors, listen, new_id, run, run_pair
from job_trees import make_tree
from msgspec import msgpack, structs

from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.tls import client_context
from caso_mesh.jobs import far_restore
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.bulk import Admission, Join, NothingToAsk, bulk_token, ticket_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.far_predicting import Found
from caso_mesh.jobs.far_sink import Begin, Fetch, Finish, Have, Piece, Put, Report
from caso_mesh.jobs.manifests import pack_members, pack_parts, parts_of
from caso_mesh.jobs.predicting import Surveyed
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model import jobs
from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.model.errors import CasoError, TicketInvalid
from caso_mesh.model.jobs import Counts
from caso_mesh.model.states import AttemptState
from caso_mesh.vault.chunking import chunk_id
from caso_mesh.vault.tree import TreeWriter
from caso_mesh.wire.bulk import dial_bulk
from caso_mesh.wire.codec import to_wire
from caso_mesh.wire.network import ClientTls


def name(data):
    return chunk_id(ID_KEY, data)


class Liar:
    """An end of an attempt that a test drives by hand, in a thread."""

    def __init__(self, hub, task):
        self._hub = hub
        self._task = task

    async def act(self, script):
        """Runs ``script(call)``; the error that it ran into."""

        def work():
            desk = Desk(self._task.order.attempt, lambda message: None, SystemClock())
            try:
                with self._hub.meet(self._task, desk, NothingToAsk()) as channel:
                    script(lambda method, record: channel.call(method, to_wire(record)))
            except CasoError as error:
                return error
            return None

        return await asyncio.to_thread(work)


async def lie(site, hub, threads, spec, script):
    """A hostile source plays ``script``; what it was told, and what the device's end said."""
    device, source = site.pair(spec)
    worker = await threads.start(device)
    told, heard = await asyncio.gather(Liar(hub, source).act(script), listen(worker))
    return told, heard


def tree_of(call, *entries):
    """Sends a tree and returns its root."""

    def store(data):
        call("piece", Piece(0, len(data), data))
        return name(data)

    writer = TreeWriter(store)
    for entry in entries:
        writer.add(entry)
    return writer.finish()


def finish(call, root):
    call("finish", Finish(root, Report(Counts())))


def put(call, data, **changes):
    call("put", structs.replace(Put(0, len(data), data, pack_members([(name(data), 0, len(data))])), **changes))


@pytest.fixture
def spec(site, tmp_path):
    return site.backup_spec(tmp_path / "data", source=site.beta)


def file_at(tmp_path, size, *chunks, **rest):
    return Entry(os.fsencode(tmp_path / "data")[1:] + b"/file", EntryType.FILE, 0o644, size=size, chunks=chunks, **rest)


async def test_an_honest_script_is_taken(site, hub, threads, spec, tmp_path):
    """The scripts below fail for what they lie about, and for nothing else."""

    def script(call):
        call("begin", Begin(time.time_ns()))
        put(call, b"content")
        finish(call, tree_of(call, file_at(tmp_path, 7, (name(b"content"), 7))))

    told, heard = await lie(site, hub, threads, spec, script)
    assert told is None
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert (heard.set.files, heard.set.bytes, heard.set.entries) == (1, 7, 1)


LIES = {
    "a chunk it never sent": lambda call, at: finish(call, tree_of(call, file_at(at, 7, (name(b"content"), 7)))),
    "a length that is not the chunk's": lambda call, at: (
        put(call, b"content"),
        finish(call, tree_of(call, file_at(at, 9, (name(b"content"), 9)))),
    ),
    "a size that its pieces do not have": lambda call, at: (
        put(call, b"content"),
        finish(call, tree_of(call, file_at(at, 900, (name(b"content"), 7)))),
    ),
    "another id than the content's": lambda call, at: put(
        call, b"content", members=pack_members([(name(b"other"), 0, 7)])
    ),
    "a member beyond the end": lambda call, at: put(
        call, b"content", members=pack_members([(name(b"content"), 0, 700)])
    ),
    "members that are cut off": lambda call, at: put(call, b"content", members=b"cut off"),
    "members that overlap": lambda call, at: put(
        call, b"content", members=pack_members([(name(b"content"), 0, 7), (name(b"ontent"), 1, 6)])
    ),
    "a bomb": lambda call, at: call(
        "put", Put(1, 5, b"\x28\xb5\x2f\xfd" + bytes(100), pack_members([(name(b"x"), 0, 1)]))
    ),
    "a raw length beyond all bounds": lambda call, at: call(
        "put", Put(1, 1 << 31, b"", pack_members([(name(b"x"), 0, 1)]))
    ),
    "a tree that it never sent": lambda call, at: finish(call, name(b"no such tree")),
    "a tree that is none": lambda call, at: (call("piece", Piece(0, 5, b"L\x01bad")), finish(call, name(b"L\x01bad"))),
    "an empty tree": lambda call, at: finish(call, tree_of(call)),
    "a path outside of what was asked for": lambda call, at: finish(
        call, tree_of(call, Entry(b"etc/passwd", EntryType.FILE, 0o644))
    ),
    "a tree that is not its own": lambda call, at: call("fetch", Fetch(name(b"foreign tree"))),
    "ids that are none": lambda call, at: call("have", Have(b"short")),
    "impossible times": lambda call, at: finish(call, tree_of(call, file_at(at, 0, modified=(0, 5_000_000_000)))),
    "content of a folder": lambda call, at: (
        put(call, b"content"),
        finish(call, tree_of(call, structs.replace(file_at(at, 0, (name(b"content"), 7)), type=EntryType.DIRECTORY))),
    ),
    "counts below zero": lambda call, at: call("report", Report(Counts(files=-1))),
    "an unknown call": lambda call, at: call("steal", Have(b"")),
}


@pytest.mark.parametrize("what", LIES)
async def test_a_source_that_lies_is_refused(site, hub, threads, spec, tmp_path, what):
    def script(call):
        call("begin", Begin(time.time_ns()))
        LIES[what](call, tmp_path)

    told, heard = await lie(site, hub, threads, spec, script)
    assert told is not None
    assert told.category == "protocol", told
    assert heard.ended.state is AttemptState.FAILED
    assert heard.ended.failure.code == told.code, heard.lines
    assert site.sets() == []


TRIAL_LIES = {
    "a tree that is not its own": lambda call, alphas: call("fetch", Fetch(alphas)),
    "files to be stored": lambda call, alphas: put(call, b"content"),
    "counts below zero": lambda call, alphas: call("found", Found(Report(Counts(entries=-1)), Surveyed(0, 1.0))),
    "less than nothing that is new": lambda call, alphas: call("found", Found(Report(Counts()), Surveyed(-1, 1.0))),
    "a time that is none": lambda call, alphas: call("found", Found(Report(Counts()), Surveyed(1, float("nan")))),
}


@pytest.mark.parametrize("what", TRIAL_LIES)
async def test_a_source_that_lies_in_a_test_run_is_refused(site, hub, threads, spec, tmp_path, what):
    alphas = await run(threads, site.task(site.backup_spec(make_tree(tmp_path / "alphas"))))

    def script(call):
        call("begin", Begin(time.time_ns()))
        TRIAL_LIES[what](call, alphas.set.root)

    told, heard = await lie(site, hub, threads, jobs.TestRunSpec(spec), script)
    assert told is not None
    assert told.category == "protocol", told
    assert heard.ended.failure.code == told.code, heard.lines
    assert heard.ended.predicted is None
    assert site.sets() == [alphas.set]


async def test_a_source_learns_nothing_of_what_others_have(site, hub, threads, spec, tmp_path):
    (tmp_path / "alphas").mkdir()
    (tmp_path / "alphas" / "secret").write_bytes(b"a document that both may have")
    alphas = await run(threads, site.task(site.backup_spec(tmp_path / "alphas")))
    answers = []

    def script(call):
        call("begin", Begin(time.time_ns()))
        secret = name(b"a document that both may have")
        answers.append(call("have", Have(secret)))
        put(call, b"a document that both may have")
        answers.append(call("have", Have(secret)))
        call("fetch", Fetch(alphas.set.root))

    told, heard = await lie(site, hub, threads, spec, script)
    assert answers == [b"\x00", b"\x01"]
    assert told.code == "peer-fault"
    assert heard.ended.state is AttemptState.FAILED


async def test_what_is_there_already_is_dropped_when_it_is_sent(site, hub, threads, spec, tmp_path):
    data = os.urandom(200_000)  # one chunk
    (tmp_path / "alphas").write_bytes(data)
    await run(threads, site.task(site.backup_spec(tmp_path / "alphas")))

    def script(call):
        call("begin", Begin(time.time_ns()))
        put(call, data)
        finish(call, tree_of(call, file_at(tmp_path, len(data), (name(data), len(data)))))

    told, heard = await lie(site, hub, threads, spec, script)
    assert told is None
    assert heard.set.bytes_stored < 50_000


# --- a device that lies to a target ---


@pytest.fixture
async def restoring(site, hub, threads, tmp_path):
    """Begins a restore at beta, of one folder only; plays a hostile device."""

    async def play(script, *paths):
        spec = site.restore_spec(new_id(), tmp_path / "out", *paths, server=site.beta)
        device, target = site.pair(spec)
        worker = await threads.start(target)
        return await asyncio.gather(Liar(hub, device).act(script), listen(worker))

    return play


def begin(call, *entries, root=b""):
    return call("begin", far_restore.Begin(((root, tuple(map(msgpack.encode, entries))),)))


FILE = Entry(b"data/file", EntryType.FILE, 0o644, size=4)
FOLDER = Entry(b"data", EntryType.DIRECTORY, 0o755)


def record(call, data, *where, chunk=None, flags=0, raw=None, length=None, **changes):
    """Sends ``data`` to (path, offset)s; what the target calls wrong."""
    size = len(data) if length is None else length
    part = (chunk or name(data), 0, size, where or ((FILE.path, 0),))
    sent = far_restore.Record(flags, len(data) if raw is None else raw, data, *pack_parts([part]))
    return call("record", structs.replace(sent, **changes))["wrong"]


async def test_a_target_takes_what_its_order_names(restoring, tmp_path):
    def script(call):
        assert begin(call, FILE)["wanted"] == b"\x01"
        assert record(call, b"four") == ()
        call("write", far_restore.Write(finish=(FILE.path,)))
        call("close", far_restore.Written())

    told, heard = await restoring(script, "/data")
    assert told is None
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert (tmp_path / "out" / "data" / "file").read_bytes() == b"four"


@pytest.mark.parametrize(
    "script",
    [
        lambda call: begin(call, structs.replace(FILE, path=b"etc/cron.d/evil")),
        lambda call: begin(call, structs.replace(FILE, hardlink=b"etc/shadow")),
        lambda call: begin(call, FILE, root=b"elsewhere"),
        lambda call: record(call, b"unbegun"),
        lambda call: (begin(call, FILE), record(call, b"x", (FILE.path, 1 << 40))),
        lambda call: (begin(call, FILE), record(call, b"x", (FILE.path, (1 << 64) - 1))),
        lambda call: (begin(call, FILE), record(call, b"x", length=0)),
        lambda call: (begin(call, FILE), record(call, b"x", (b"data/other", 0))),
        lambda call: (begin(call, FILE), record(call, b"four", length=(1 << 32) - 1)),
        lambda call: (begin(call, FILE), record(call, b"four", parts=b"cut off")),
        lambda call: (begin(call, FILE), record(call, b"four", paths=())),
        lambda call: (begin(call, FILE), record(call, b"four", offsets=b"")),
        lambda call: (begin(call, FILE), record(call, b"four", parts=b"")),
        lambda call: (begin(call, FOLDER), record(call, b"", (FOLDER.path, 0))),
        lambda call: (begin(call, FOLDER), record(call, b"x", (FOLDER.path, 0))),
        lambda call: (begin(call, FILE), call("write", far_restore.Write(pieces=((FILE.path, 0, b"four"),)))),
        lambda call: call("read", far_restore.Written()),
        lambda call: call("begin", far_restore.Begin(((b"", (b"garbage",)),))),
    ],
)
async def test_a_device_that_lies_writes_nothing(restoring, tmp_path, script):
    told, heard = await restoring(script, "/data")
    assert told.category == "protocol"
    assert heard.ended.state is AttemptState.FAILED
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


async def test_what_is_not_the_content_of_its_id_is_asked_for_again_and_never_written(restoring, tmp_path):
    def script(call):
        begin(call, FILE)
        assert record(call, b"evil", chunk=name(b"four")) == (name(b"four"),)
        # a bomb, and a frame that is none
        assert record(call, b"\x28\xb5\x2f\xfd" + bytes(9), chunk=name(b"four"), flags=1, raw=4, length=4)
        assert record(call, b"four", chunk=name(b"four"), raw=1 << 40)
        assert record(call, b"four") == ()
        call("write", far_restore.Write(finish=(FILE.path,)))
        call("close", far_restore.Written())

    told, heard = await restoring(script, "/data")
    assert told is None
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert (tmp_path / "out" / "data" / "file").read_bytes() == b"four"


class Refusing:
    """A target that takes everything but calls records wrong, the first so many times."""

    ordered = True
    quick = frozenset()

    def __init__(self, times):
        self.times = times
        self.sent = []
        self.finished = ()

    def handle(self, method, params):
        match method:
            case "begin":
                return to_wire(far_restore.Begun(bytes([1] * len(params["entries"]))))
            case "record":
                parts = parts_of(params["parts"], params["paths"], params["offsets"], "the device")
                self.sent.append((params["flags"], bytes(params["payload"]), parts))
                wrong = tuple(part[0] for part in parts) if len(self.sent) <= self.times else ()
                return to_wire(far_restore.Taken(wrong))
            case "write":
                self.finished += params["finish"]
                return to_wire(far_restore.Written())
            case _:
                return to_wire(far_restore.Written())


async def pushed(site, hub, threads, tmp_path, target):
    """Has a set of one file of one chunk restored to ``target``; what the device's end said."""
    (tmp_path / "file").write_bytes(b"the same line\n" * 10_000)
    backup = await run(threads, site.task(site.backup_spec(tmp_path / "file")))
    device, source = site.pair(site.restore_spec(backup.set.id, tmp_path / "out", server=site.beta))

    def play():
        desk = Desk(source.order.attempt, lambda message: None, SystemClock())
        with hub.meet(source, desk, target) as channel:
            desk.wait_for(lambda: channel.lost is not None)

    worker = await threads.start(device)
    _, heard = await asyncio.gather(asyncio.to_thread(play), listen(worker))
    return heard


async def test_what_a_target_finds_wrong_comes_again_out_of_a_copy_that_was_checked(site, hub, threads, tmp_path):
    target = Refusing(1)
    heard = await pushed(site, hub, threads, tmp_path, target)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    (packed, small, parts), (plain, content, again) = target.sent
    assert (packed, plain) == (1, 0)
    assert len(small) < len(content) == 140_000
    assert name(content) == parts[0][0] == again[0][0]
    assert target.finished == (os.fsencode(tmp_path)[1:] + b"/file",)


async def test_a_target_that_refuses_what_is_sound_is_at_fault(site, hub, threads, tmp_path):
    heard = await pushed(site, hub, threads, tmp_path, Refusing(2))
    assert heard.ended.state is AttemptState.FAILED
    assert heard.ended.failure.code == "peer-malformed"


async def test_a_path_that_climbs_out_is_left_out(restoring, tmp_path):
    def script(call):
        assert begin(call, structs.replace(FILE, path=b"data/../../escaped"))["wanted"] == b"\x00"
        call("close", far_restore.Written())

    _, heard = await restoring(script)
    assert heard.ended.state is AttemptState.FAILED or not (tmp_path / "escaped").exists()
    assert not (tmp_path / "escaped").exists()


# --- who may take part ---


def test_a_ticket_admits_once_and_the_secret_admits_again(site, spec):
    device, source = site.pair(spec)
    order = source.order
    admission = Admission(device)
    now = time.time_ns()

    def refused(detail, admission, *shown):
        with pytest.raises(TicketInvalid) as caught:
            admission.check(*shown)
        assert detail in caught.value.message

    refused("secret", admission, order.attempt, order.ticket, bytes(32), now)
    refused("another attempt", admission, "job@99#1", order.ticket, order.secret, now)
    refused("malformed", admission, order.attempt, b"", order.secret, now)
    expired = now + 3_600_000_000_000
    refused("expired", admission, order.attempt, order.ticket, order.secret, expired)
    other = site.pair(site.backup_spec("/elsewhere", source=site.beta), secret=order.secret)[0]
    refused(
        "other paths",
        Admission(device),
        order.attempt,
        site.ticket(structs.replace(other.order, attempt=order.attempt)),
        order.secret,
        now,
    )
    borrowed = site.ticket(order, dialler=site.admin.id)
    refused("other servers", Admission(device), order.attempt, borrowed, order.secret, now)
    later = structs.replace(device, known_term=(2, 7))
    for lineage, term in ((2, 6), (1, 99)):
        older = site.ticket(order, lineage=lineage, term=term)
        refused("earlier term", Admission(later), order.attempt, older, order.secret, now)
    Admission(later).check(order.attempt, site.ticket(order, lineage=2, term=7), order.secret, now)
    admission.check(order.attempt, order.ticket, order.secret, now)
    admission.check(order.attempt, b"", order.secret, expired)
    refused("secret", admission, order.attempt, order.ticket, bytes(32), now)


def test_a_change_of_administrator_ends_what_the_ticket_of_before_admits_and_not_who_was_admitted(site, spec):
    device, source = site.pair(spec)
    order, now = source.order, time.time_ns()
    desk = Desk(order.attempt, lambda message: None, SystemClock())
    admitted, waiting = Admission(device, lambda: desk.term), Admission(device, lambda: desk.term)
    admitted.check(order.attempt, order.ticket, order.secret, now)
    successor = NodeKeys.create()
    ticket = site.ticket(order, issuer=successor, term=2)
    desk.hear(say.Term({source.order.attempt: ticket}, successor.public_key, (1, 2)))
    assert ticket_of(source, desk) == ticket
    with pytest.raises(TicketInvalid, match="administrator in office"):
        waiting.check(order.attempt, order.ticket, order.secret, now)
    again = site.ticket(order, issuer=successor, term=1)
    with pytest.raises(TicketInvalid, match="earlier term"):
        waiting.check(order.attempt, again, order.secret, now)
    waiting.check(order.attempt, ticket, order.secret, now)
    admitted.check(order.attempt, b"", order.secret, now)


async def test_strangers_are_refused_and_the_attempt_goes_on(site, runners, tmp_path):
    """Somebody with a certificate of the mesh but not that of the far end, and the far end without the secret, both
    reach the worker before the right one does."""
    tree = make_tree(tmp_path / "tree", small=5)
    workers = {}
    async with doors(site, workers) as addresses:
        device, source = site.pair(site.backup_spec(tree, source=site.beta), addresses=((addresses["alpha"],), ()))
        workers["alpha"] = (await runners[0].start(device), device.order.secret)

        async def visit(node, join):
            files = site.tls(node)
            link = await dial_bulk(
                addresses["alpha"],
                bulk_token(device.order.secret),
                tls=ClientTls(lambda: client_context(files.chain_path, files.key_path, files.anchors)),
                authorise=lambda certificate: None,
                handler=None,
            )
            try:
                await link.call("have", {"number": 1, "low": 1, "params": {"ids": b""}})
            except CasoError as error:
                first = error
            try:
                await link.call("join", to_wire(join))
            except CasoError as error:
                return first.code, error.code
            finally:
                await link.close()

        order = source.order
        with pytest.raises(CasoError) as caught:
            await visit(site.alpha, Join(order.attempt, order.ticket, order.secret))
        assert caught.value.code == "wrong-peer"
        assert await visit(site.beta, Join(order.attempt, order.ticket, bytes(32))) == ("refused", "ticket-invalid")
        assert await visit(site.beta, Join(order.attempt, b"forged", order.secret)) == ("refused", "ticket-invalid")
        workers["beta"] = (await runners[1].start(source), order.secret)
        heard, _ = await asyncio.gather(*(listen(workers[each][0]) for each in ("alpha", "beta")))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert sum("was refused" in line for line in heard.lines) == 2


async def test_ends_that_cannot_reach_each_other_say_no_data_path(site, runners, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    device, source = await run_pair(
        site,
        runners,
        site.backup_spec(tree, source=site.beta),
        addresses=lambda real: ((), ()),
        change=lambda *tasks: tuple(structs.replace(task, join_s=0.3) for task in tasks),
    )
    assert device.ended.failure.code == source.ended.failure.code == "no-data-path"
    assert device.ended.failure.fields == {"source": "beta", "server": "alpha"}


async def test_the_device_dials_where_only_the_source_can_be_reached(site, runners, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    device, source = await run_pair(
        site,
        runners,
        site.backup_spec(tree, source=site.beta),
        addresses=lambda real: ((), (real["beta"],)),
    )
    assert device.ended.state is source.ended.state is AttemptState.SUCCEEDED, device.lines + source.lines


async def test_the_failure_of_one_end_is_known_at_the_other(site, runners, tmp_path):
    device, source = await run_pair(site, runners, site.backup_spec(tmp_path / "nowhere", source=site.beta))
    assert source.ended.failure.code == "contains-no-data"
    assert device.ended.failure.code == "contains-no-data"
