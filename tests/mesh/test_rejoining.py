"""A job of two servers whose connection is cut in the middle: within the limit it goes on where it was, with the same two
workers; past it, it fails and says why."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

import pytest
from mesh.forwarder import Forwarder
from mesh.process import ProcessMesh
from mesh.trees import assert_equal
from waiting import wait_for

MEGABYTE = 1_000_000
#: How long the way is cut: long enough that both ends dial in vain more than once.
CUT_S = 3.0


class Cuttable:
    """Two servers, ``alpha`` with a device and ``beta`` with files, that reach each other by ways that can be cut."""

    def __init__(self, mesh: ProcessMesh, stack: ExitStack) -> None:
        self.mesh = mesh
        self.ways = {
            name: stack.enter_context(Forwarder(lambda name=name: mesh.endpoint(name))) for name in ("alpha", "beta")
        }
        mesh.init("alpha", advertise=self.ways["alpha"].address)
        mesh.run("alpha")
        mesh.join("beta")
        mesh._configure("beta", "advertise", f'["{self.ways["beta"].address}"]')
        mesh.run("beta")
        mesh.wait_connected("alpha", "beta")
        wait_for(lambda: self._addresses() == {name: way.address for name, way in self.ways.items()}, 30.0)
        disk = mesh.folder / "disk"
        disk.mkdir()
        mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
        self.tree = mesh.folder / "tree"
        self.tree.mkdir()
        for number in range(3):
            (self.tree / f"{number}").write_bytes(os.urandom(6 * MEGABYTE))

    def _addresses(self) -> dict[str, str]:
        return {row["name"]: row["address"] for row in self.mesh.ok("alpha", "server", "list")["servers"]}

    def slow(self) -> None:
        """So that there is a middle."""
        self.mesh.ok("alpha", "settings", "set", "bandwidth-limit", "1.5MB")

    def fast(self) -> None:
        self.mesh.ok("alpha", "settings", "unset", "bandwidth-limit")

    def workers(self) -> dict[str, list[int]]:
        return {name: self.mesh.workers(name) for name in self.mesh.names}

    def wait_middle(self) -> dict[str, list[int]]:
        """Until some of the content has passed; the workers that are at it."""
        before = self.passed
        wait_for(lambda: self.passed - before > 3 * MEGABYTE, 60.0, what="some of the content has passed")
        found = self.workers()
        assert all(len(pids) == 1 for pids in found.values()), found
        return found

    @property
    def passed(self) -> int:
        return sum(way.passed for way in self.ways.values())

    def cut(self) -> None:
        for way in self.ways.values():
            way.cut()

    def mend(self) -> None:
        for way in self.ways.values():
            way.mend()

    def backup(self) -> list[str]:
        return ["backup", f"beta:{self.tree}", "--to", "device:disk", "--wait"]


@pytest.fixture
def cuttable(process_mesh):
    with ExitStack() as stack:
        mesh = process_mesh(0)
        yield Cuttable(mesh, stack)
        # before the ways go: what stops says goodbye over them
        mesh.stop()


def test_a_cut_in_the_middle_of_a_backup_and_of_a_restore_fails_nothing(cuttable):
    mesh = cuttable.mesh

    def cut_in_the_middle(*words: str) -> dict:
        cuttable.slow()
        begun = mesh.begin("alpha", *words)
        workers = cuttable.wait_middle()
        cuttable.cut()
        time.sleep(CUT_S)
        assert cuttable.workers() == workers
        cuttable.mend()
        wait_for(lambda before=cuttable.passed: cuttable.passed > before + MEGABYTE, what="it goes on")
        assert cuttable.workers() == workers
        cuttable.fast()
        answer = begun.end()
        assert answer.status == 0, str(answer)
        assert answer.document["attempt"].endswith("#1")
        return answer.document

    document = cut_in_the_middle(*cuttable.backup())
    back = mesh.folder / "back"
    cut_in_the_middle("restore", document["set"], "--to", f"beta:{back}", "--strip", "--wait")
    assert_equal(cuttable.tree, back)
    # nothing was sent twice but what was on its way
    assert cuttable.passed < 2 * 18 * MEGABYTE * 1.5


def test_a_copy_goes_on_after_a_cut_and_only_what_is_new_crosses_the_wire_again(cuttable):
    mesh = cuttable.mesh
    far = mesh.folder / "far"
    far.mkdir()
    mesh.ok("alpha", "device", "add", "far", "--server", "beta", "--path", str(far))
    own = ["backup", f"alpha:{cuttable.tree}", "--to", "device:disk", "--wait"]
    first = mesh.ok("alpha", *own)["set"]
    cuttable.slow()
    begun = mesh.begin("alpha", "duplicate", first, "--to", "device:far", "--wait")
    workers = cuttable.wait_middle()
    cuttable.cut()
    time.sleep(CUT_S)
    cuttable.mend()
    wait_for(lambda before=cuttable.passed: cuttable.passed > before + MEGABYTE, what="it goes on")
    assert cuttable.workers() == workers
    cuttable.fast()
    answer = begun.end()
    assert answer.status == 0, str(answer)
    assert answer.document["attempt"].endswith("#1")

    (cuttable.tree / "new").write_bytes(os.urandom(2 * MEGABYTE))
    later = mesh.ok("alpha", *own)["set"]
    before = cuttable.passed
    copy = mesh.ok("alpha", "duplicate", later, "--to", "device:far", "--wait")["set"]
    assert 2 * MEGABYTE <= cuttable.passed - before < 2.5 * MEGABYTE
    back = mesh.folder / "back"
    mesh.ok("alpha", "restore", copy, "--to", f"beta:{back}", "--strip", "--wait")
    assert_equal(cuttable.tree, back)


def test_a_cut_past_the_limit_ends_the_attempt_at_both_ends_and_the_run_goes_on_when_its_source_is_back(cuttable):
    mesh = cuttable.mesh
    mesh.ok("alpha", "settings", "set", "rejoin-s", "2s")
    cuttable.slow()
    begun = mesh.begin("alpha", *cuttable.backup())
    cuttable.wait_middle()
    cuttable.cut()
    # an end that has not heard of the new limit gives up after the usual one
    wait_for(lambda: not any(cuttable.workers().values()), 120.0, what="both workers have given up")
    assert mesh.sets() == []
    cuttable.fast()
    cuttable.mend()
    answer = begun.end()
    assert answer.status == 0, str(answer)
    [run] = mesh.ok("alpha", "job", "show", answer.document["job"])["runs"]
    assert [(each["state"], each["error"] and each["error"]["code"]) for each in run["attempts"]] == [
        ("interrupted", "link-lost"),
        ("succeeded", None),
    ]
    assert [each["id"] for each in mesh.sets()] == [answer.document["set"]]
