"""A test run whose files are on another server: its source walks and tells counts, the device's end concludes.

The source may read the pieces of the tree of its own last set, as in a backup, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from caso_mesh.jobs import far_sink as wire
from caso_mesh.jobs.backup import SETTLE_NS, Known, wanted_of
from caso_mesh.jobs.bulk import Meet, NothingToAsk, as_error, far_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.far_store import named_in
from caso_mesh.jobs.messages import Began
from caso_mesh.jobs.predicting import Measure, Surveyed, conclude, measure, survey
from caso_mesh.jobs.storing import BackendFor, open_vault
from caso_mesh.jobs.task import Task
from caso_mesh.model.errors import CasoError, PeerFault, PeerMalformed, UnknownCall
from caso_mesh.model.jobs import Predicted
from caso_mesh.vault.chunking import chunk_id
from caso_mesh.vault.tree import TreeReader
from caso_mesh.vault.vault import Vault
from caso_mesh.wire.codec import from_wire, to_wire


class Found(Struct, frozen=True):
    """The walk has come to its end."""

    report: wire.Report
    surveyed: Surveyed


def run_source_end(task: Task, desk: Desk, meet: Meet) -> None:
    """Walks here. Raises what either end fails with."""
    with meet(task, desk, NothingToAsk()) as channel:
        far = far_of(task).name
        base = from_wire(channel.call("begin", to_wire(wire.Begin(desk.clock.now_ns()))), wire.Base, peer=far)
        desk.say(Began(base.type))
        desk.total_bytes, desk.total_files = base.total_bytes, base.total_files
        told = wire.Told()
        desk.on_exceptions = told.take

        def fetch(piece: bytes) -> bytes:
            data = channel.call("fetch", to_wire(wire.Fetch(piece)))
            if not isinstance(data, bytes) or chunk_id(task.id_key, data) != piece:
                raise PeerMalformed(peer=far, detail="it sent another piece of the tree than was asked for")
            return data

        def report() -> wire.Report:
            desk.flush()
            return wire.Report(desk.tally.counts(), desk.path, told.give())

        known = None if base.root is None else Known(TreeReader(base.root, fetch), base.start_ns - SETTLE_NS)
        surveyed = survey(desk, wanted_of(task), known, lambda: channel.start("report", to_wire(report())))
        channel.drain()
        channel.call("found", to_wire(Found(report(), surveyed)))


def run_device_end(
    task: Task, desk: Desk, meet: Meet, backend_for: BackendFor, on_predicted: Callable[[Predicted], None]
) -> None:
    """Looks at the device here, before the source begins and after it has walked."""
    far = _DeviceEnd(task, desk)
    with meet(task, desk, far) as channel:
        try:
            with open_vault(task, desk, backend_for, writes=False) as vault:
                measured = measure(task, desk, vault)
                desk.say(Began(measured.type))
                far.serve(vault, measured)
                desk.wait_for(lambda: far.found is not None or far.failure is not None or channel.lost is not None)
                if far.failure is not None:
                    raise far.failure
                if far.found is None:
                    assert channel.lost is not None
                    raise channel.lost
                conclude(task, desk, vault, measured, far.found.surveyed, on_predicted)
                far.end()
        except BaseException as error:
            far.fail(error)
            raise


class _DeviceEnd:
    """What the source may ask. See ``bulk.Answering``."""

    ordered = True
    quick: frozenset[str] = frozenset()

    def __init__(self, task: Task, desk: Desk) -> None:
        self._desk = desk
        self._name = far_of(task).name
        self._vault: Vault | None = None
        self._measured: Measure | None = None
        self._pieces: set[bytes] = set()
        self._ended = False
        self.found: Found | None = None
        self.failure: CasoError | None = None

    def serve(self, vault: Vault, measured: Measure) -> None:
        """From now on the source is answered."""
        if measured.last is not None:
            self._pieces.add(measured.last.root)
            self._desk.total_bytes, self._desk.total_files = measured.last.bytes, measured.last.files
        self._measured, self._vault = measured, vault
        self._desk.waiting.notify()

    def end(self) -> None:
        """The source is told that all is well."""
        self._ended = True
        self._desk.waiting.notify()

    def fail(self, error: BaseException) -> None:
        """The source is told with whatever it asks next."""
        if self.failure is None:
            self.failure = as_error(error)
        self._desk.waiting.notify()

    def handle(self, method: str, params: Any) -> Any:
        self._wait(lambda: self._vault is not None)
        try:
            match method:
                case "begin":
                    return self._on_begin()
                case "fetch":
                    return self._on_fetch(from_wire(params, wire.Fetch, peer=self._name))
                case "report":
                    return wire.take_report(self._desk, from_wire(params, wire.Report, peer=self._name), self._name)
                case "found":
                    return self._on_found(from_wire(params, Found, peer=self._name))
                case _:
                    raise UnknownCall(peer=self._name, call=method)
        except CasoError as error:
            self.fail(error)
            raise

    def _wait(self, predicate: Callable[[], bool]) -> None:
        self._desk.wait_for(lambda: predicate() or self.failure is not None)
        if self.failure is not None:
            raise self.failure

    def _on_begin(self) -> Any:
        assert self._measured is not None
        assert self._vault is not None
        last = self._measured.last
        answer = wire.Base(
            type=self._measured.type,
            chunker=self._vault.header.chunker,
            root=None if last is None else last.root,
            start_ns=0 if last is None else last.started_at_ns,
            total_bytes=None if last is None else last.bytes,
            total_files=None if last is None else last.files,
        )
        return to_wire(answer)

    def _on_fetch(self, fetch: wire.Fetch) -> bytes:
        if fetch.id not in self._pieces:
            raise PeerFault(peer=self._name, detail="it asked for a piece of a tree that is not its own")
        assert self._vault is not None
        data = self._vault.read(fetch.id)
        self._pieces.update(named_in(data))
        return data

    def _on_found(self, found: Found) -> None:
        wire.take_report(self._desk, found.report, self._name)
        if found.surveyed.bytes_new < 0 or not 0 <= found.surveyed.seconds < float("inf"):
            raise PeerFault(peer=self._name, detail="it counts below zero")
        self.found = found
        self._desk.waiting.notify()
        self._wait(lambda: self._ended)
