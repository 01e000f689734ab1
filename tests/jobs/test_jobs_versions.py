"""Two ends of an attempt whose programs are of different times: they work together, or say who is to be upgraded."""

from __future__ import annotations

import asyncio

import pytest
from bulk_ends import Answers
from job_site import listen
from msgspec import Struct, structs
from test_jobs_hostile import Liar, finish, name, tree_of
from waiting import wait_for

from caso_mesh.jobs import bulk, bulk_memory, bulk_wire
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.far_sink import Begin, Put
from caso_mesh.jobs.manifests import pack_members
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.dialects import NEWEST, OLDEST, OWN, Dialects, heard, in_common
from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.model.errors import CasoError, VersionsDiffer
from caso_mesh.model.states import AttemptState
from caso_mesh.wire.codec import from_wire, to_wire


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (Dialects(2, 2), Dialects(2, 2), 2),
        (Dialects(5, 3), Dialects(4, 2), 4),
        (Dialects(5, 3), Dialects(3, 1), 3),
        (Dialects(5, 3), Dialects(2, 1), None),
        (Dialects(2, 1), Dialects(5, 3), None),
    ],
)
def test_two_programs_use_the_newest_version_that_both_speak(one, other, common):
    assert in_common(one, other) == common == in_common(other, one)


def test_who_does_not_tell_is_known_by_its_time():
    assert heard(7, 4) == Dialects(7, 4)
    assert heard(7, 9) == Dialects(7, 7)
    assert in_common(OWN, heard(0, 0)) is not None
    assert in_common(OWN, heard(0, 0, feature_level=3)) is not None
    assert in_common(OWN, heard(0, 0, feature_level=1)) is None
    assert [str(heard(2, 2)), str(heard(7, 4))] == ["2", "4 to 7"]
    assert str(heard(0, 0)) == "1 to 2, which it does not tell"


@pytest.fixture
def shows(monkeypatch):
    """``shows(node, newest, oldest, version)``: what the worker of a node says of itself from now on."""

    def show(node, newest, oldest, version=""):
        def join_of(task, desk):
            mine = bulk.join_of(task, desk)
            told = structs.replace(mine, newest=newest, oldest=oldest, version=version)
            return told if task.server == node.id else mine

        for module in (bulk_wire, bulk_memory):
            monkeypatch.setattr(module, "join_of", join_of)

    return show


class Leaves(Answers):
    """Goes with the other end, and for its reason."""

    def stay(self, channel, over):
        wait_for(lambda: channel.lost is not None, 30.0, what="the other end is gone")
        raise channel.lost


@pytest.mark.parametrize("later", ["alpha", "beta"])
async def test_an_end_that_speaks_later_versions_only_is_left_at_once_and_both_say_why(meeting, site, shows, later):
    """Also the end that cannot know: it reads in the goodbye what the other one found."""
    shows(getattr(site, later), NEWEST + 7, NEWEST + 1, "9.0")

    def script(channel, desk):
        channel.call("hello")
        raise AssertionError("they met")

    answering = Leaves(lambda params: None)
    with pytest.raises(VersionsDiffer) as calling:
        await meeting(script, answering, join_s=600.0, rejoin_s=600.0)
    other = "beta" if later == "alpha" else "alpha"
    for told in (calling.value, answering.refused):
        assert told is not None
        fields = told.fields
        assert (fields["server"], fields["peer"], fields["older"]) == (other, later, other)
        assert (fields["spoken"], fields["peer_spoken"]) == (str(OWN), f"{NEWEST + 1} to {NEWEST + 7}")
        assert "caso-mesh 9.0" in told.message


async def test_an_end_of_the_time_when_nobody_told_is_worked_with(meeting, site, shows):
    shows(site.beta, 0, 0)
    assert await meeting(lambda channel, desk: channel.call("hello"), Answers(lambda params: "you")) == "you"


def test_what_an_end_shows_is_read_by_those_before_and_after():
    """An earlier end knows three fields of it and ignores the others; a later one may have more."""
    mine = to_wire(bulk.Join("a", b"t", b"s", NEWEST, OLDEST, "1.0"))
    assert mine == {
        "attempt": "a",
        "ticket": b"t",
        "secret": b"s",
        "newest": NEWEST,
        "oldest": OLDEST,
        "version": "1.0",
    }
    before = {key: mine[key] for key in ("attempt", "ticket", "secret")}
    assert from_wire(before, bulk.Join) == bulk.Join("a", b"t", b"s")
    assert from_wire(mine | {"speaks": ["riddles"]}, bulk.Join) == bulk.Join("a", b"t", b"s", NEWEST, OLDEST, "1.0")


def chunk_as_before(data):
    """A record as an end sent it that spoke version 1: what lies in it is a list of lists."""
    return {"flags": 0, "raw": len(data), "payload": data, "members": [[name(data), 0, len(data)]]}


async def refused_as_older(worker, liar, script):
    """What the worker of alpha said of an attempt whose other end plays ``script``."""
    told, heard_ = await asyncio.gather(liar.act(script), listen(worker))
    assert heard_.ended.state is AttemptState.FAILED
    assert heard_.ended.failure.code == VersionsDiffer.code, heard_.ended
    assert heard_.ended.failure.fields["older"] == "beta"
    return told


async def test_a_source_that_speaks_version_1_is_older_not_hostile_and_leaves_no_set(
    site, hub, threads, tmp_path, shows
):
    shows(site.beta, 0, 0)
    device, source = site.pair(site.backup_spec(tmp_path / "data", source=site.beta))

    def script(call):
        call("begin", Begin(0))
        call("put", chunk_as_before(b"content"))

    await refused_as_older(await threads.start(device), Liar(hub, source), script)
    assert site.sets() == []


class OldBegin(Struct, frozen=True):
    entries: tuple[tuple[bytes, bytes], ...]


class Before:
    """A target that speaks version 1: entries come with their roots, and it cannot read them otherwise."""

    ordered, quick = False, frozenset[str]()

    def handle(self, method, params):
        from_wire(params, OldBegin, peer="alpha")
        raise AssertionError("it understood")


async def test_a_target_that_cannot_read_what_it_is_sent_is_older_not_hostile(site, hub, threads, tmp_path, shows):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"content")
    made = await listen(await threads.start(site.task(site.backup_spec(tmp_path / "data"))))
    shows(site.beta, 0, 0)
    device, target = site.pair(site.restore_spec(made.set.id, tmp_path / "out", server=site.beta))

    def act():
        try:
            with hub.meet(target, Desk("a", lambda message: None, SystemClock()), Before()) as channel:
                while channel.lost is None:
                    pass
        except CasoError:
            return

    worker = await threads.start(device)
    _, said = await asyncio.gather(asyncio.to_thread(act), listen(worker))
    assert said.ended.failure.code == VersionsDiffer.code, said.ended
    assert said.ended.failure.fields["older"] == "beta"


async def test_whoever_tells_a_version_and_breaks_it_is_at_fault(site, hub, threads, tmp_path):
    device, source = site.pair(site.backup_spec(tmp_path / "data", source=site.beta))

    def script(call):
        call("begin", Begin(0))
        call("put", chunk_as_before(b"content"))

    _, said = await asyncio.gather(Liar(hub, source).act(script), listen(await threads.start(device)))
    assert said.ended.failure.code == "peer-malformed"


async def test_a_later_source_may_say_more_than_is_known_here(site, hub, threads, tmp_path):
    """What a version adds without a number of its own is ignored, and the set is whole."""
    device, source = site.pair(site.backup_spec(tmp_path / "data", source=site.beta))
    path = f"{tmp_path}/data/file".encode()[1:]

    def script(call):
        call("begin", {**to_wire(Begin(0)), "mood": "good"})
        put = to_wire(Put(0, 7, b"content", pack_members([(name(b"content"), 0, 7)])))
        call("put", {**put, "colour": b"blue"})
        entry = Entry(path, EntryType.FILE, 0o644, size=7, chunks=((name(b"content"), 7),))
        finish(call, tree_of(call, entry))

    told, said = await asyncio.gather(Liar(hub, source).act(script), listen(await threads.start(device)))
    assert told is None
    assert said.ended.state is AttemptState.SUCCEEDED, said.lines
