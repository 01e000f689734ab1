"""What one backup costs its worker alone: no daemon, no command line, each phase in a process of its own.

``scripts/bench attempt`` tells where the engine stands before a whole measurement beside peers is worth its time.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pathlib
import pstats
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable

from bench import datasets

from caso_mesh.jobs import messages as say
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.perform import Tools, perform
from caso_mesh.jobs.worker import COLLECT, SystemClock
from caso_mesh.model.states import BackupType

#: Each backs up what the one before it left.
PHASES = ("first", "unchanged", "churn")


def main(words: list[str]) -> int:
    """Measures what the words say; the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/bench attempt", description=__doc__)
    parser.add_argument("--data", default="large,small,mixed", help="which trees (default: all)")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--phases", default=",".join(PHASES), help="the first is always made")
    parser.add_argument("--threads", type=int, default=2, help="that read; 0: the one that walks reads as well")
    parser.add_argument("--profile", metavar="FILE", help="profile the thread that walks; FILE gets the statistics")
    parser.add_argument("--folder", help="where the trees are kept from one run to the next (default: they are not)")
    chosen = parser.parse_args(words)
    folder = pathlib.Path(chosen.folder or tempfile.mkdtemp(prefix="caso-mesh-attempt-"))
    try:
        for kind in chosen.data.split(","):
            source = folder / f"{kind}-{chosen.scale}"
            made = datasets.count(source) if source.exists() else datasets.make(kind, source, scale=chosen.scale)
            print(f"{kind}: {made.files} files, {made.bytes / 1e6:.0f} MB")
            for number in range(chosen.rounds):
                _round(chosen, source, folder, number)
    finally:
        if not chosen.folder:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _round(chosen: argparse.Namespace, source: pathlib.Path, folder: pathlib.Path, number: int) -> None:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "jobs"))
    from job_site import Site

    place = pathlib.Path(tempfile.mkdtemp(prefix="site-", dir=folder))
    try:
        site = Site(place)
        for phase in PHASES:
            if phase != "first" and phase not in chosen.phases.split(","):
                continue
            if phase == "churn":
                datasets.churn(source, round=int(time.time()) + number)
            os.sync()
            kind = BackupType.FULL if phase == "first" else BackupType.INCREMENTAL
            task = site.task(site.backup_spec(source, type_=kind), threads=chosen.threads)
            pid = os.fork()
            if not pid:
                _child(lambda task=task, phase=phase: _measure(task, phase, chosen.profile))
            _, status = os.waitpid(pid, 0)
            if status:
                raise SystemExit(f"the phase {phase} failed")
    finally:
        shutil.rmtree(place)


def _child(work: Callable[[], None]) -> None:
    status = 1
    try:
        work()
        sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)


def _measure(task, phase: str, profile: str | None) -> None:
    gc.set_threshold(*COLLECT)
    ended: list[say.Ended] = []

    def send(message: say.FromWorker) -> None:
        if isinstance(message, say.MayPublish):
            threading.Thread(target=desk.hear, args=(say.Publish(),)).start()
        elif isinstance(message, say.Ended):
            ended.append(message)

    desk = Desk(task.order.attempt, send, SystemClock())
    profiler = cProfile.Profile() if profile else None
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    if profiler:
        profiler.enable()
    perform(task, desk, Tools(meet=None))
    if profiler:
        profiler.disable()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    if ended[0].failure is not None:
        raise SystemExit(ended[0].failure.code)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    counts = ended[0].counts
    print(
        f"  {phase:<10} {wall:6.2f} s  {user + system:6.2f} CPU s (user {user:.2f}, system {system:.2f})"
        f"  {after.ru_maxrss // 1024:5d} MB  {counts.bytes / 1e6 / wall:6.0f} MB/s  {counts.entries / wall:8.0f} entries/s"
        f"  stored {counts.bytes_stored / 1e6:.1f} MB"
    )
    if profiler and profile:
        profiler.dump_stats(f"{profile}.{phase}")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
