"""Taking over by hand: what there must be to go on from."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from caso_mesh.consensus import open_replicated, read_log
from caso_mesh.founding import init_mesh
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model.errors import CasoError, NothingToGoOnFrom, StateMissing
from caso_mesh.server.folder import StateFolder
from caso_mesh.takeover import take_over


class Clock:
    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


async def member(state: Path) -> StateFolder:
    await init_mesh(mesh="home", server="beta", state=state, listen="127.0.0.1:7311")
    return StateFolder(state)


async def refused(state: Path) -> CasoError:
    with pytest.raises(CasoError) as caught:
        await take_over(state, clock=Clock())
    return caught.value


async def test_a_seat_whose_log_has_not_arrived_takes_nothing_over_and_says_what_to_do(tmp_path):
    """It said ``There is no mesh ""``: a voter that was just named has a log with nothing in it."""
    folder = await member(tmp_path / "beta")
    folder.consensus.unlink()
    node = IdentityStore(folder.identity).load_keys().id
    async with open_replicated(folder.consensus, node, lineage=3, joins=("another",)):
        pass
    for _ in range(2):
        error = await refused(folder.path)
        assert isinstance(error, NothingToGoOnFrom)
        assert "beta" in error.message
        assert "has not arrived yet" in error.message
        assert "caso-mesh recover" in error.hint
    # nothing was changed: it can still be sent everything
    held = await read_log(folder.consensus)
    assert (held.lineage, held.snapshot, held.entries) == (3, None, ())


async def test_a_server_that_is_no_voter_takes_nothing_over_and_is_not_called_missing(tmp_path):
    folder = await member(tmp_path / "beta")
    folder.consensus.unlink()
    error = await refused(folder.path)
    assert isinstance(error, NothingToGoOnFrom)
    assert "is no voter" in error.message
    assert not folder.consensus.exists()
    assert isinstance(await refused(tmp_path / "nowhere"), StateMissing)


async def test_a_voter_with_its_log_takes_over(tmp_path):
    folder = await member(tmp_path / "beta")
    done = await take_over(folder.path, clock=Clock())
    assert (done.server, done.lineage) == ("beta", 2)
