"""A backup whose files are on another server than its device: the source's end."""

from __future__ import annotations

from caso_mesh.jobs.backup import SETTLE_NS, Known, run_backup, wanted_of
from caso_mesh.jobs.bulk import Meet, NothingToAsk, far_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.far_sink import Base, Begin, FarSink, Finish, Finished, Report, Told
from caso_mesh.jobs.freezing import snapshots
from caso_mesh.jobs.host_commands import around
from caso_mesh.jobs.messages import Began
from caso_mesh.jobs.second import second_device, tell_both
from caso_mesh.jobs.sink import Sink
from caso_mesh.jobs.task import Task
from caso_mesh.vault.tree import TreeReader
from caso_mesh.wire.codec import from_wire, to_wire


def run_source_end(task: Task, desk: Desk, meet: Meet, threads: int) -> None:
    """Reads here, stores there. Raises what either end fails with."""
    wanted = wanted_of(task)
    with meet(task, desk, NothingToAsk()) as channel, second_device(task, desk, meet) as second:
        far = far_of(task).name
        among = None if second is None else b"".join(second.roots())
        answer = channel.call("begin", to_wire(Begin(desk.clock.now_ns(), among)))
        base = from_wire(answer, Base, peer=far)
        desk.say(Began(base.type))
        desk.total_bytes, desk.total_files = base.total_bytes, base.total_files
        told = Told()
        desk.on_exceptions = tell_both(told.take, second, desk)
        sink: Sink
        sink = near = FarSink(channel, task.id_key, far, asks=base.knows)
        if second is not None:
            second.begin(base.root)
            sink = second.beside(near)
        known: Known | None = None
        if base.root is not None:
            known = Known(TreeReader(base.root, near.fetch), base.start_ns - SETTLE_NS)

        def report() -> Report:
            desk.flush()
            return Report(desk.tally.counts(), desk.path, told.give())

        def tell() -> None:
            channel.start("report", to_wire(report()))
            if second is not None:
                second.tell()

        with around(task, desk, tell), snapshots(task, desk, wanted) as places:
            tree = run_backup(
                desk,
                wanted,
                sink,
                id_key=task.id_key,
                chunker=base.chunker,
                threads=threads,
                known=known,
                on_pause=tell,
                places=places,
            )
        channel.drain()
        made = from_wire(channel.call("finish", to_wire(Finish(tree.root, report()))), Finished, peer=far)
        if second is not None:
            second.finish(tree.root, made.set)
