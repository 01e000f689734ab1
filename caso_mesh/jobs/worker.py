"""A worker: one process, one task. It lives no longer than its daemon.

Two threads beside the work: one hears the daemon (and ends the process the moment it is gone), one reports.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
import threading
import time
import traceback

from caso_mesh.jobs import framing
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.bulk_wire import WireMeeting
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.hands import hands_for
from caso_mesh.jobs.perform import Tools, needs_hands, perform
from caso_mesh.jobs.priority import give_way
from caso_mesh.model.errors import CasoError

#: Exit statuses: done; the daemon is gone; it never got a task.
DONE, ORPHANED, NO_TASK = 0, 3, 4
_DESCRIPTORS = 65536
#: Entries under way are many and never in circles: looking for circles as often as Python does by itself costs a third
#: of the time in which a tree is read and compared.
COLLECT = (50_000, 20, 50)


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


class Reporter:
    """Tells progress: each ``interval_s``, or more often while somebody watches."""

    def __init__(self, desk: Desk, interval_s: float) -> None:
        self._desk = desk
        self._interval_s = interval_s
        self._watched_s = interval_s
        self._watched_until_s = 0.0
        self._changed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def watch(self, message: say.Watch) -> None:
        """Somebody watches for a while; it may be repeated."""
        self._watched_s = max(0.05, message.interval_s)
        self._watched_until_s = time.monotonic() + message.for_s
        self._changed.set()

    def stop(self) -> None:
        self._ended = True
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ended:
            now = time.monotonic()
            interval = self._watched_s if now < self._watched_until_s else self._interval_s
            if now - last >= interval:
                last = now
                self._desk.say(say.Progressed(self._desk.progress()))
                continue
            self._changed.wait(min(1.0, interval - (now - last)))
            self._changed.clear()
            if not self._ended:
                # lines and exceptions do not wait for the next report
                self._desk.flush()


def main(messages: socket.socket, bulk: socket.socket) -> int:
    """Runs the task that comes first over ``messages``; the exit status of the process."""
    channel = framing.MessageSocket(messages)
    body = channel.receive()
    if body is None:
        return NO_TASK
    try:
        task = framing.decode_task(body)
    except CasoError as error:
        sys.stderr.write(f"worker: {error.message}\n")
        return NO_TASK
    _raise_limits()
    problems = give_way(task.nice, task.ionice)  # before there are threads: each inherits it
    gc.set_threshold(*COLLECT)
    # before there are threads, too
    hands = hands_for(task.order.attempt, closing=(messages, bulk)) if needs_hands(task) else None
    desk = Desk(task.order.attempt, lambda message: _send(channel, message), SystemClock())
    for problem in problems:
        desk.log("warning", problem)
    reporter = Reporter(desk, task.status_interval_s)
    threading.Thread(target=_listen, args=(channel, desk, reporter), name="daemon", daemon=True).start()
    reporter.start()
    perform(task, desk, Tools(meet=WireMeeting(bulk).meet, hands=hands), before_end=reporter.stop)
    return DONE


def _send(channel: framing.MessageSocket, message: say.FromWorker) -> None:
    try:
        channel.send(message)
    except OSError:
        os._exit(ORPHANED)


def _listen(channel: framing.MessageSocket, desk: Desk, reporter: Reporter) -> None:
    try:
        while (body := channel.receive()) is not None:
            message = framing.decode_to_worker(body)
            if isinstance(message, say.Watch):
                reporter.watch(message)
            else:
                desk.hear(message)
    except BaseException:
        traceback.print_exc()
    # Not a clean end on purpose: nothing may be published once nobody journals it.
    os._exit(ORPHANED)


def _raise_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
