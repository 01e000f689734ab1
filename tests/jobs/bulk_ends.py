"""Two ends of a bulk channel in threads of a test, each with what its daemon would hand it."""

from __future__ import annotations

import contextlib
import socket
import threading

from caso_mesh.jobs.bulk import NothingToAsk
from caso_mesh.jobs.bulk_wire import WireMeeting
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.errors import VersionsDiffer


class Handed:
    """What a door knows of a worker."""

    def __init__(self) -> None:
        self.bulk_channel, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.bulk_channel.setblocking(False)


class Answers:
    """Answers every call by ``answer(params)``."""

    quick = frozenset({"quick"})

    def __init__(self, answer, *, ordered=False) -> None:
        self.answer = answer
        #: Why it did not take part, if it is of another version than the other end.
        self.refused: VersionsDiffer | None = None
        self.ordered = ordered

    def handle(self, method, params):
        return self.answer(params)

    def stay(self, channel, over) -> None:
        """Until nobody calls any more."""
        over.wait()


@contextlib.contextmanager
def met(site, spec, answering, places, workers, desk, **changes):
    """The channel of the end that calls, which is alpha's and has ``desk``; ``answering`` is beta's."""
    device, source = site.pair(spec, addresses=((places["alpha"],), (places["beta"],)), **changes)
    mine, theirs = Handed(), Handed()
    workers.update(alpha=(mine, device.order.secret), beta=(theirs, source.order.secret))
    over = threading.Event()

    def answer() -> None:
        desk = Desk("a", lambda message: None, SystemClock())
        try:
            with WireMeeting(theirs.theirs).meet(source, desk, answering) as channel:
                answering.stay(channel, over)
        except VersionsDiffer as error:
            answering.refused = error

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with WireMeeting(mine.theirs).meet(device, desk, NothingToAsk()) as channel:
            yield channel
    finally:
        over.set()
        thread.join()
        for each in (mine, theirs):
            each.bulk_channel.close()
