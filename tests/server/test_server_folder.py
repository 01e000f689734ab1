"""The state folder: its rights, its lock, its version, its segments, its last room."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from server_world import FakeRunner, World, backs_up, daemon

from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import InvalidValue, NotFound, StateDamaged, StateForeign, StateLocked, StateTooNew
from caso_mesh.model.jobs import Counts
from caso_mesh.model.nodes import DeviceReport
from caso_mesh.model.states import AttemptState
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.rebuilding import Rebuilding
from caso_mesh.server.room import Room
from caso_mesh.server.segments import KEPT_AFTER_READ_S, KEPT_UNREAD_S, Segments

S = 10**9


def test_folders_are_0700_and_files_0600_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = StateFolder(tmp_path / "state")
        folder.create()
        folder.write_endpoint("127.0.0.1:1")
        with folder.locked():
            pass
    finally:
        os.umask(old)
    for path in [folder.path, *folder.path.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert folder.read_endpoint() == "127.0.0.1:1"


def test_a_second_daemon_is_refused_and_the_lock_ends_with_the_first(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    with folder.locked(), pytest.raises(StateLocked), StateFolder(tmp_path).locked():
        pass
    with StateFolder(tmp_path).locked():
        pass


def test_a_folder_with_other_things_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    """``--state /home/me`` would have closed that folder for all others, and filled it."""
    tmp_path.chmod(0o755)
    (tmp_path / "letters").touch()
    with pytest.raises(StateForeign):
        StateFolder(tmp_path).create()
    assert [each.name for each in tmp_path.iterdir()] == ["letters"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_folder_of_a_newer_version_is_neither_opened_nor_overwritten(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    folder.version.write_text("99\n")
    with pytest.raises(StateTooNew):
        folder.check_version()
    with pytest.raises(StateTooNew):
        folder.create()
    assert folder.version.read_text() == "99\n"
    folder.version.write_text("many\n")
    with pytest.raises(StateDamaged):
        folder.check_version()


def test_segments_are_read_in_pieces_and_nothing_beside_them(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()
    (tmp_path / "secret.segment").write_bytes(b"x")
    segments = Segments(tmp_path / "segments")
    segments.path("abc").write_bytes(b"0123456789")
    assert segments.piece(n.CatalogRead("abc", 4, 3), 0) == n.CatalogPiece(b"456", 10)
    assert segments.piece(n.CatalogRead("abc", 99, 3), 0) == n.CatalogPiece(b"", 10)
    for name in ("../secret", "..", "", "a/b", "a\0b", "none"):
        with pytest.raises(NotFound):
            segments.piece(n.CatalogRead(name, 0), 0)
    for offset, length in ((-1, 5), (0, 0), (0, -1)):
        with pytest.raises(InvalidValue):
            segments.piece(n.CatalogRead("abc", offset, length), 0)


def test_segments_go_when_the_administrator_has_them_or_after_a_long_time(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    for name in ("read", "partly", "kept"):
        segments.path(name).write_bytes(b"0123456789")
        os.utime(segments.path(name), (1000, 1000))
    segments.piece(n.CatalogRead("read", 0, 100), 1000 * S)
    segments.piece(n.CatalogRead("kept", 0, 100), 1000 * S)
    segments.piece(n.CatalogRead("partly", 0, 5), 1000 * S)
    assert segments.sweep(1001 * S, set()) == 0
    assert segments.sweep(int((1001 + KEPT_AFTER_READ_S) * S), {"kept"}) == 1
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["kept", "partly"]
    assert segments.sweep(int((1001 + KEPT_UNREAD_S) * S), {"kept"}) == 1
    assert segments.sweep(int((1001 + KEPT_UNREAD_S) * S), set()) == 1


async def test_a_detail_that_is_made_for_one_voter_leaves_the_others_what_they_were_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detail that was made anew took the place of the one that was written with the set. A voter that fetched that one
    later, or in the middle of fetching it, found another size and took the catalog of the set for damaged, for ever."""
    segments = Segments(tmp_path)
    segments.path("abc").write_bytes(b"as it was written")

    class Vaults:
        async def access(self, device: str) -> SimpleNamespace:
            return SimpleNamespace(name=device)

        def opened(self, access: SimpleNamespace) -> contextlib.nullcontext[SimpleNamespace]:
            sets = [SimpleNamespace(id=id_) for id_ in ("abc", "first", "second")]
            return contextlib.nullcontext(SimpleNamespace(load_set=lambda id_: sets[0], sets=lambda: sets))

    def write(path: str, vault: Any, backup: Any, earlier: list[Any]) -> tuple[bytes, int]:
        data = f"against {[each.id for each in earlier]}".encode()
        Path(path).write_bytes(data)
        return hashlib.sha256(data).digest(), len(data)

    monkeypatch.setattr("caso_mesh.server.rebuilding.write_detail", write)
    rebuilding = Rebuilding(vaults=Vaults(), segments=segments)  # type: ignore[arg-type]
    made = {base: await rebuilding.make(n.CatalogMake("d", "abc", base)) for base in ("first", "second", None)}

    def read(digest: bytes) -> bytes:
        return segments.piece(n.CatalogRead("abc", 0, digest=digest), 0).data

    assert read(hashlib.sha256(b"as it was written").digest()) == b"as it was written"
    assert read(made["first"].digest) == b"against ['first']"
    assert read(made["second"].digest) == b"against ['second']"
    assert await rebuilding.make(n.CatalogMake("d", "abc", "first")) == made["first"]
    # a voter of an older version does not say which one it was told of: that was the last one
    assert read(b"") == b"against []"
    # each goes when it has been read
    assert segments.sweep(int((KEPT_AFTER_READ_S + 1) * S), {"abc"}) == 0
    assert segments.sweep(int((KEPT_AFTER_READ_S + 1) * S), set()) == 4


async def nothing_waits() -> int:
    return 0


async def test_with_little_room_no_new_work_is_taken_and_an_alert_leaves_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    changes: list[bool] = []
    async with daemon(folder.path, World(tmp_path), FakeRunner(backs_up(World(tmp_path))), run=False) as d:
        room = Room(
            folder,
            d.facts,
            "alpha",
            lambda: changes.append(room.enough),
            waiting=nothing_waits,
            setting=lambda name: 1000.0,
        )
        await room.look()
        assert room.enough and folder.reserve.stat().st_size > 0
        monkeypatch.setattr("caso_mesh.server.room.LOW_BYTES", 1 << 62)
        await room.look()
        await room.look()
        assert not room.enough
        (alert,) = await d.of(facts.AlertRaised)
        assert alert.category == "state-full"
        monkeypatch.setattr("caso_mesh.server.room.LOW_BYTES", 1)
        await room.look()
        assert room.enough and changes == [False, True]
        assert [fact.id for fact in await d.of(facts.AlertCleared)] == [alert.id]


async def test_what_waits_for_an_administrator_is_thinned_out_first_and_then_nothing_new_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debug lines of the oldest jobs go first, then information, then the rest; ends, exceptions and alerts stay."""
    folder = StateFolder(tmp_path / "state")
    folder.create()
    told = [0]
    monkeypatch.setattr("caso_mesh.server.room._RESTS", 0)

    async def waiting() -> int:
        return told[0]

    async with daemon(folder.path, World(tmp_path), FakeRunner(backs_up(World(tmp_path))), run=False) as d:
        changes: list[bool] = []
        room = Room(
            folder, d.facts, "alpha", lambda: changes.append(room.enough), waiting=waiting, setting=lambda name: 1.0
        )

        async def levels(attempt: str) -> list[str]:
            return list(dict.fromkeys(line.level for line in (await d.facts.held(attempt))[0]))

        await d.facts.append(log_of("told", "info"))
        told[0] = 260_000
        await room.look()
        assert d.facts.crowded and room.enough
        for attempt in ("old", "new"):
            await d.facts.append(log_of(attempt, "debug"), log_of(attempt, "info"), log_of(attempt, "error"))
            await d.facts.append(
                facts.AttemptExceptions(attempt, (SourceException(b"x", "vanished", ""),)), over(attempt)
            )
        assert [fact.attempt for fact in await d.of(facts.JobLog)] == ["told"], "they wait beside the journal"
        assert [fact.attempt for fact in await d.of(facts.AttemptEnded)] == ["old", "new"]
        told[0] = 390_000
        await room.look()
        assert await levels("old") == await levels("new") == ["info", "error", "warning"]
        text = (await d.facts.held("old"))[0][-1].text
        assert text.startswith("40 lines (debug) of this log were left out")
        told[0] = 900_000
        await room.look()
        assert await levels("old") == await levels("new") == ["warning"]
        assert len((await d.facts.held("old"))[1]) == 1, "exceptions are never left out"
        assert room.enough
        told[0] = 1_000_000
        await room.look()
        await room.look()
        assert not room.enough
        (alert,) = await d.of(facts.AlertRaised)
        assert (alert.category, alert.object) == ("journal-full", "alpha")
        (report,) = room.told((DeviceReport("d", 1, 2, 0),))
        assert report.problem == "journal-full"
        # it is taken: all goes on, and what waited beside the journal follows
        told[0] = 0
        await room.look()
        assert room.enough and not d.facts.crowded and changes == [False, True]
        assert [fact.id for fact in await d.of(facts.AlertCleared)] == [alert.id]
        await d.facts.look(())
        assert [fact.attempt for fact in await d.of(facts.JobLog)][1:] == ["new"] * 3 + ["old"] * 3
        assert len(await d.of(facts.AttemptExceptions)) == 2


def log_of(attempt: str, level: Literal["debug", "info", "error"]) -> facts.JobLog:
    """40 lines, some 20 kB."""
    return facts.JobLog(attempt, (facts.LogLine(1, level, "x" * 500),) * 40)


def over(attempt: str) -> facts.AttemptEnded:
    return facts.AttemptEnded(attempt, AttemptState.SUCCEEDED, Counts(), 1.0)
