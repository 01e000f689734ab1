"""What must hold when a simulated mesh has come to rest."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

from mesh.simulation import keys, meaning, settled
from mesh.simulation.faults import Storm
from mesh.simulation.operations import Operators
from mesh.simulation.people import People
from mesh.simulation.script import name_of
from mesh.simulation.stage import VOTERS
from mesh.simulation.watching import Violation, Watcher
from mesh.simulation.world import World

from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.control.catalogs import mode_of
from caso_mesh.control.state import ControlState
from caso_mesh.database import Database
from caso_mesh.journal import Record, replica
from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import run_id
from caso_mesh.model.jobs import CronSchedule, Run
from caso_mesh.model.states import ATTEMPT_ACTIVE, ATTEMPT_GOOD, AttemptState
from caso_mesh.planning import lifecycle
from caso_mesh.planning.schedule import next_due_ns
from caso_mesh.seat import Voter

#: A due time is noticed by an office that nothing hindered from so long before to so long after it.
_BEFORE_S, _AFTER_S = 5, 20
_SECOND = 1_000_000_000
#: So many sets are looked into by way of a call.
_LISTED = 6


def voters(world: World) -> dict[str, Voter]:
    """Those with a seat, by name."""
    found = {}
    for name, server in world.servers.items():
        if server.node is not None and server.node.seat.voter is not None:
            found[name] = server.node.seat.voter
    return found


def office_state(world: World) -> ControlState:
    for name, voter in voters(world).items():
        node = world.servers[name].node
        if node is not None and node.in_office:
            return voter.keeper.state
    raise Violation("it comes to rest", "nobody is in office at the end")


async def check_all(world: World, storm: Storm, people: People, watcher: Watcher, operators: Operators) -> None:
    """Raises ``Violation``."""
    if watcher.first is not None:
        raise watcher.first
    if world.problems:
        raise Violation("no daemon fails", "; ".join(world.problems))
    seated = voters(world)
    if len(seated) < len(VOTERS):
        raise Violation("it comes to rest", f"only {sorted(seated)} have a seat")
    state = office_state(world)
    images = {name: voter.keeper.state.snapshot() for name, voter in seated.items()}
    if len(set(images.values())) > 1:
        raise Violation("control state is equal", f"it differs among {sorted(images)}")
    _check_runs(state, people)
    _check_due(world, state, people, watcher)
    _check_starts(world, storm)
    await check_tables(world, seated)
    await _check_ends(state, seated)
    await settled.check_sets(world, storm, operators.vaults, state, seated)
    await _check_catalogs(world, state, seated, operators)
    await settled.check_operations(world, state, seated, operators)


def _check_runs(state: ControlState, people: People) -> None:
    for run in people.runs:
        if run not in state.runs:
            raise Violation("nothing acknowledged is lost", f"the run {run} is gone")
    for run in state.runs.values():
        if run.closed_at_ns is None:
            raise Violation("every run is closed", f"{run.id} is {run.state}: {run.parts}")
        attempts = state.attempts_of(run.id)
        lifecycle.validate_run(run, attempts)
        for part in run.parts:
            good = [each for each in attempts if each.source == part.source and each.state in ATTEMPT_GOOD]
            if len(good) > 1:
                raise Violation("one success counts", f"{run.id}: {[each.id for each in good]}")
        if any(attempt.state in ATTEMPT_ACTIVE for attempt in attempts):
            raise Violation("every attempt is closed", f"{run.id}: {[each.state for each in attempts]}")
    for id_, count in people.canceled.items():
        canceled: Run = state.runs[id_]
        if sum(part.attempts for part in canceled.parts) > count:
            raise Violation("nothing acknowledged is lost", f"{id_} went on after it was canceled")


def _check_due(world: World, state: ControlState, people: People, watcher: Watcher) -> None:
    """Every due time that an office saw pass in peace has its run, and every run of a schedule a due time."""
    for promise in people.recurring.values():
        job = state.jobs[promise.job]
        schedule = CronSchedule(promise.cron, "UTC")
        dues = []
        due = next_due_ns(schedule, job.created_at_ns)
        end_ns = max((quiet.wall_ns for quiet in watcher.quiet), default=0)
        while due is not None and due <= end_ns:
            dues.append(due)
            due = next_due_ns(schedule, due)
        for run in state.runs_of(job.id):
            if run.due_at_ns != run.created_at_ns and run.due_at_ns not in dues and run.due_at_ns <= end_ns:
                raise Violation("a run has a due time", f"{run.id} at {run.due_at_ns}")
        for due in dues:
            # a clock that was ahead may have opened a later one, or a release from hold has passed it: then it is over
            later = [at_s for (id_, upto_ns), at_s in watcher.passed.items() if id_ == job.id and upto_ns >= due]
            until_s = min(later, default=float("inf"))
            if run_id(job.id, due) in state.runs or not _in_peace(watcher, due, promise.held, until_s):
                continue
            raise Violation("no due time is forgotten", f"{job.name} at {due}, and there is no {run_id(job.id, due)}")


def _in_peace(watcher: Watcher, due_ns: int, held: list[list[float]], until_s: float) -> bool:
    """Whether one office, unhindered, had this due time in the middle of a stretch of its clock, before ``until_s``."""
    runs: dict[tuple[str, int], list[Any]] = {}
    for quiet in watcher.quiet:
        runs.setdefault((quiet.node, quiet.term), []).append(quiet)
    for seconds in runs.values():
        for place, quiet in enumerate(seconds):
            if quiet.wall_ns < due_ns:
                continue
            around = seconds[max(0, place - _BEFORE_S) : place + _AFTER_S]
            walls = [each.wall_ns for each in around]
            steady = all(0 < b - a < 3 * _SECOND for a, b in itertools.pairwise(walls))
            whole = len(around) == _BEFORE_S + _AFTER_S and around[-1].at_s - around[0].at_s < len(around) + 3
            free = all(end < around[0].at_s or begin > around[-1].at_s for begin, end in held)
            if steady and whole and free and walls[0] < due_ns and around[-1].at_s < until_s:
                return True
            if walls[0] < due_ns:
                break
    return False


def _check_starts(world: World, storm: Storm) -> None:
    for (attempt, server), count in world.hub.starts.items():
        if count > 1 and world.ids[server] not in storm.put_back:
            raise Violation("no attempt runs twice", f"{attempt} was begun {count} times at {world.ids[server]}")


# --- tables ----------------------------------------------------------------------------------------------------------


def _held(c: sqlite3.Connection) -> dict[tuple[str, str, int], tuple[bytes, str | None]]:
    return {
        (server, incarnation, seq): (digest, refused)
        for server, incarnation, seq, digest, refused in c.execute(
            "SELECT i.server, i.incarnation, r.seq, r.hash, r.refused"
            " FROM journal_incarnation i JOIN journal_record r ON r.incarnation = i.number"
        )
    }


async def journals(world: World) -> dict[str, list[Record]]:
    """What lies in every server's own journal, behind what was pruned."""
    found: dict[str, list[Record]] = {}
    for server in world.servers.values():
        assert server.node is not None
        journal = server.node.server.facts._journal
        records: list[Record] = []
        pruned = await journal.floors()
        for head in await journal.incarnations():
            after = pruned.get(head.incarnation, 0)
            while piece := await journal.records(head.incarnation, after):
                records += piece
                after = piece[-1].seq
        found[server.id] = records
    return found


async def check_tables(world: World, seated: dict[str, Voter]) -> None:
    """Every voter has come as far with each journal, means the same by it, and it is what the journals say."""
    heads = {name: await voter.tables._database.read(_heads) for name, voter in seated.items()}
    held = {name: await voter.tables._database.read(_held) for name, voter in seated.items()}
    meant = {name: await voter.tables._database.read(meaning.held) for name, voter in seated.items()}
    first = next(iter(seated))
    for name in seated:
        if sorted(heads[name]) != sorted(heads[first]):
            differ = set(heads[name]) ^ set(heads[first])
            raise Violation("tables are equal", f"journals at {name} and {first} differ: {sorted(differ)[:3]}")
        both = held[name].keys() & held[first].keys()  # the others were pruned, here or there
        differing = sorted(key for key in both if held[name][key] != held[first][key])
        if differing:
            raise Violation("tables are equal", f"records of {name} and {first} differ: {differing[:3]}")
        _same(meant[name], meant[first], f"{name} and {first}")
    chains = {(server, incarnation): _chain(world, digest) for server, incarnation, _, digest in heads[first]}
    for server, records in (await journals(world)).items():
        for record in records:
            chain = chains.get((server, record.incarnation), [])
            if len(chain) < record.seq or chain[record.seq - 1].hash != record.hash:
                where = f"{world.ids[server]}'s record {record.seq} ({record.kind})"
                raise Violation("tables hold all journals", f"{where} is not at the voters")
    async with _rebuilt(world, heads[first], chains) as again:
        _same(again, meant[first], f"the journals and {first}")
    told = (
        (server, record, world.refused.get((server, incarnation, record.seq)))
        for (server, incarnation), chain in chains.items()
        for record in chain
    )
    _same(meaning.worked_out(told), meant[first], f"what the journals mean and {first}")


def _heads(c: sqlite3.Connection) -> list[tuple[str, str, int, bytes]]:
    """In the order in which they came."""
    return c.execute("SELECT server, incarnation, seq, hash FROM journal_incarnation ORDER BY number").fetchall()


def _chain(world: World, digest: bytes) -> list[Record]:
    """What was appended to a journal until the record with that hash."""
    found: list[Record] = []
    while digest in world.written:
        record, digest = world.written[digest]
        found.append(record)
    return found[::-1]


def _same(one: meaning.Rows, other: meaning.Rows, who: str) -> None:
    differ = meaning.difference(one, other)
    if differ is not None:
        raise Violation("tables are equal", f"{who}: {differ}")


@contextlib.asynccontextmanager
async def _rebuilt(
    world: World, heads: list[tuple[str, str, int, bytes]], chains: dict[tuple[str, str], list[Record]]
) -> AsyncIterator[meaning.Rows]:
    """What fresh tables say that are given every journal, one after the other."""
    opening = Database.open(world.folder / "again.db", MIGRATIONS, durable=False, same_thread=True)
    async with opening as database:
        tables = Tables(database)
        for server in sorted({each[0] for each in heads}):
            refused = {key[1:]: reason for key, reason in world.refused.items() if key[0] == server}
            for of, incarnation, seq, _ in heads:
                if of == server:
                    chain = chains[server, incarnation]
                    if len(chain) != seq:
                        raise Violation("tables hold all journals", f"{world.ids[server]} never wrote its record {seq}")
                    await tables.accept(server, chain, refused)
        yield await database.read(meaning.held)


async def _check_ends(state: ControlState, seated: dict[str, Voter]) -> None:
    """A success that the tables took from who had the device was decided upon before: it counts, or there was another."""
    tables = next(iter(seated.values())).tables
    told = await tables._database.read(lambda c: c.execute("SELECT id, reporter, state FROM attempt").fetchall())
    for id_, reporter, reported in told:
        attempt = state.attempts.get(id_)
        if attempt is None or reporter != attempt.server or reported not in ATTEMPT_GOOD:
            continue
        if attempt.state not in {*ATTEMPT_GOOD, AttemptState.REDUNDANT}:
            raise Violation("what was reported counts", f"{id_} is {attempt.state}, and was reported as {reported}")


async def _check_catalogs(world: World, state: ControlState, seated: dict[str, Voter], operators: Operators) -> None:
    """Every voter has the catalogs that the modes say, each with the one file that its attempt made."""
    for name, voter in seated.items():
        rows = await voter.tables._rows("SELECT set_id FROM catalog_here WHERE state = 'damaged'")
        # it may have been asked for while the device had lost the set
        damaged = sorted({row[0] for row in rows} - operators.vaults.lost.keys())
        if damaged:
            raise Violation("every set has its catalog", f"{name} found {damaged[:3]} of no use")
        here = set(await voter.tables.details_here())
        known = set(await voter.tables.set_ids())
        wanted = {each for each in known if mode_of(state, world.hub.published[each].server).at_voters}
        lacking = sorted(wanted - here - operators.vaults.lost.keys())
        if lacking:
            raise Violation("every set has its catalog", f"{name} lacks that of {lacking[:3]}")
        if here - wanted:
            raise Violation("catalogs are where the modes say", f"{name} has that of {sorted(here - wanted)[:3]}")
        for set_id in sorted(here):
            backup = world.hub.published[set_id]
            found = {root: await voter.catalog.list_folder(set_id, root) for root in backup.roots}
            names = {entry.path for entries in found.values() for entry in entries}
            if names != {root + b"/" + name_of(world.hub.reader_of(backup)) for root in backup.roots}:
                raise Violation("catalogs are equal", f"{set_id} of {backup.attempt} at {name} lists {sorted(names)}")
    if "catalog-mode" in operators.chosen:
        await _check_listed(world, sorted(known))


async def _check_listed(world: World, sets: list[str]) -> None:
    """Wherever the catalog of a set is, whoever asks is shown what is in it."""
    for set_id in random.Random(f"{world.seed}/listed").sample(sets, min(_LISTED, len(sets))):
        backup = world.hub.published[set_id]
        try:
            shown = await world.ask("catalog.ls", b.CatalogList(set_id, b"/" + backup.roots[0]), b.EntryList)
        except CasoError as error:
            raise Violation("every set has its catalog", f"{set_id} of {backup.attempt}: {error}") from error
        names = [entry.path.rpartition("/")[2].encode() for entry in shown.entries]
        if names != [name_of(world.hub.reader_of(backup))]:
            raise Violation("catalogs are equal", f"{set_id} of {backup.attempt} lists {names}")


async def wait_for_rest(world: World, operators: Operators, patience_s: float) -> None:
    """Until nothing is open and the voters have all there is. Raises ``Violation``."""
    end_s = world.loop.time() + patience_s
    why = ""
    while world.loop.time() < end_s:
        await asyncio.sleep(2.0)
        why = await _unrest(world, operators)
        if not why:
            return
    raise Violation("it comes to rest", why)


async def _unrest(world: World, operators: Operators) -> str:
    """What keeps the mesh busy; empty at rest."""
    for name, server in world.servers.items():
        if server.node is None:
            return f"{name} is not up"
    seated = voters(world)
    offices = [name for name in seated if world.servers[name].node.in_office]  # type: ignore[union-attr]
    if len(offices) != 1 or len(seated) < len(VOTERS):
        return f"in office: {offices}, with a seat: {sorted(seated)}"
    state = seated[offices[0]].keeper.state
    open_runs = state.open_runs()
    if open_runs:
        return f"{len(open_runs)} runs are open, as {open_runs[0].id}: {open_runs[0].state} {open_runs[0].parts}"
    active = [attempt.id for attempt in state.active_attempts()]
    if active:
        return f"attempts are active: {active[:3]}"
    position = seated[offices[0]].keeper.position
    for name, voter in seated.items():
        if voter.keeper.position != position:
            return f"{name} has applied {voter.keeper.position}, {offices[0]} {position}"
    for name, server in world.servers.items():
        assert server.node is not None
        if server.node.server.attempts.running() or server.node.server.attempts.holding():
            return f"{name} still holds {server.node.server.attempts.holding()}"
        head = await server.node.server.facts._journal.head()
        for voter_name, voter in seated.items():
            at = await voter.tables._database.read(
                lambda c, server=server, head=head: replica.cursor(c, server.id, head.incarnation)
            )
            if at.seq < head.seq:
                return f"{voter_name} has {at.seq} of {head.seq} facts of {name}"
    for name, voter in seated.items():
        details = [each.set for each in await voter.tables.pending_details() if not each.damaged]
        pending = [each for each in details if mode_of(state, world.hub.published[each].server).at_voters]
        if set(pending) - operators.vaults.lost.keys():
            return f"{name} fetches {len(pending)} catalog details"
    if "replace" in operators.chosen and (lacking := await keys.unrest(world)):
        return lacking
    if "catalog-mode" in operators.chosen:
        for view in (await world.ask("catalog.modes", c.CatalogModesRequest(), c.CatalogModes)).servers:
            if view.state != "settled":
                return f"the catalogs of {view.server} are {view.state}: {view.note}"
    return ""
