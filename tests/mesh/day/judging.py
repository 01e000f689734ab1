"""Whether that came of the day which had to: runs, sets, alerts and reasons against ``expected.py``."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from mesh.day.expected import Away, Due, due_runs, end_of, instant
from mesh.day.night import Story, now
from mesh.day.site import BY_NAME
from mesh.simulation import checks

from caso_mesh.admin.tables import Tables
from caso_mesh.control.state import ControlState
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.ids import run_id
from caso_mesh.model.jobs import Attempt, DuplicateSpec, Run
from caso_mesh.model.states import ATTEMPT_GOOD, AttemptState, RunState
from caso_mesh.model.storage import BackupSet

_SLACK = timedelta(seconds=90)


async def judge(story: Story) -> None:
    """Everything. Raises ``AssertionError``."""
    judged = Judge(story)
    judged.check_every_due_time_has_its_run()
    judged.check_rules_started_what_they_say()
    judged.check_ends()
    judged.check_one_attempt_counts_for_each_part()
    judged.check_times()
    judged.check_copies()
    judged.check_lost_work()
    await judged.check_reasons()
    await judged.check_alerts()
    judged.check_all_was_tried()


class Judge:
    """Looks once, at rest. Each ``check`` raises ``AssertionError``."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.site = story.site
        self.world = story.world
        self.state: ControlState = checks.office_state(story.world)
        times = story.times
        self.away = {"iota": times.iota, "zeta": times.zeta, "eta": times.eta, "alpha": times.alpha}
        self.ran: dict[Due, Run] = {}
        self.fired: dict[str, Run] = {}
        self.by_hand: dict[str, Run] = {}
        for run in self.state.runs.values():
            if run.terms.fired_by is not None:
                self.fired[run.id] = run
            elif run.id == run_id(run.job, run.due_at_ns):
                list_, template = self._names(run)
                self.ran[Due(instant(run.due_at_ns), list_, template)] = run
            else:
                self.by_hand[run.id] = run
        self.due = due_runs(story.site, story.made, now(story.world))

    def _names(self, run: Run) -> tuple[str, str]:
        list_, _, template = run.name.split(".")
        return list_, template

    def tables(self) -> Tables:
        return checks.voters(self.world)[self.story.offices[-1]].tables

    # --- runs ---

    def check_every_due_time_has_its_run(self) -> None:
        forgotten, invented = self.due.keys() - self.ran.keys(), self.ran.keys() - self.due.keys()
        assert not forgotten, f"forgotten: {sorted(forgotten)[:5]}"
        assert not invented, f"never due: {sorted(invented)[:5]}"
        assert self.by_hand.keys() == self.story.by_hand.keys()

    def check_rules_started_what_they_say(self) -> None:
        """One run of each template that a success starts, and nothing else."""
        started = Counter((run.terms.fired_by, self._names(run)) for run in self.fired.values())
        wanted: Counter[tuple[str | None, tuple[str, str]]] = Counter()
        for run in self.state.runs.values():
            list_, template = self._names(run)
            if run.state in {RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS}:
                plan = self.site.plan_of(list_)
                wanted.update((run.id, (list_, made.name)) for made in plan.templates if template in made.after)
        assert started == wanted, (started - wanted, wanted - started)

    def check_ends(self) -> None:
        sets_away = self._copies_without_their_set()
        wrong = []
        for due, by in self.due.items():
            run = self.ran[due]
            want = "superseded" if by is not None else end_of(self.site, due, self.away, sets_away)
            if run.state != want or run.closed_at_ns is None:
                wrong.append(f"{due.list}.{due.template} at {due.at} is {run.state}, not {want}: {run.parts}")
            elif by is not None:
                other = self.ran[Due(due.at, due.list, by)].id
                assert {part.failure and part.failure.fields["by"] for part in run.parts} == {other}, run
        wrong += [f"{run.id} is {run.state}" for run in self.fired.values() if run.state != "succeeded"]
        wrong += [f"{run.id} is {run.state}" for run in self.by_hand.values() if run.state != "succeeded"]
        assert not wrong, "\n".join(wrong)

    def _copies_without_their_set(self) -> dict[Due, Away]:
        """The copies of which a set lay where only a server reached it that was away."""
        found: dict[Due, Away] = {}
        for due, run in self.ran.items():
            if isinstance(run.spec, DuplicateSpec):
                for set_id in run.spec.sets:
                    device = self.state.devices[self.world.hub.published[set_id].device]
                    servers = [self.world.ids[place.server] for place in device.paths]
                    if len(servers) == 1 and servers[0] in self.away:
                        found[due] = self.away[servers[0]]
        return found

    def check_one_attempt_counts_for_each_part(self) -> None:
        """No run was doubled: of what ran twice the second one is marked, and every set is accounted for."""
        made: dict[str, list[BackupSet]] = {}
        for backup in self.world.hub.published.values():
            made.setdefault(backup.attempt, []).append(backup)
        for run in self.state.runs.values():
            attempts = self.state.attempts_of(run.id)
            for part in run.parts:
                mine = [attempt for attempt in attempts if attempt.source == part.source]
                good = [attempt for attempt in mine if attempt.state in ATTEMPT_GOOD]
                expected = part.state in {RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS}
                assert len(good) == expected, f"{run.id}: {[(each.id, each.state) for each in mine]}"
                if run.state in {RunState.SUPERSEDED, RunState.MISSED}:
                    assert not mine, f"{run.id} is {run.state} and was tried"
                if good and part.set is not None:
                    assert [each.id for each in made[good[0].id]] == [part.set]
        for attempt_id, sets in made.items():
            state = self.state.attempts[attempt_id].state
            assert len(sets) == 1, f"{attempt_id} made {len(sets)} sets"
            assert state in {*ATTEMPT_GOOD, AttemptState.REDUNDANT}, f"{attempt_id} made a set and is {state}"

    def check_times(self) -> None:
        """Nothing begins before it is due, what goes after another run begins after its end, and what needs a server that
        was away begins when it is there."""
        for due, run in self.ran.items():
            starts = [instant(each.delegated_at_ns) for each in self.state.attempts_of(run.id)]
            assert all(start >= due.at for start in starts), f"{run.id} began at {starts}"
            if BY_NAME[due.list].plan == "shop" and due.template == "daily":
                first = self.ran.get(Due(due.at, due.list, "full"))
                if first is not None:
                    assert first.closed_at_ns is not None
                    assert all(start >= instant(first.closed_at_ns) for start in starts), (
                        f"{run.id} overtook {first.id}"
                    )
            for attempt in self.state.attempts_of(run.id):
                self._check_was_there(run, attempt)

    def _check_was_there(self, run: Run, attempt: Attempt) -> None:
        ends = {self.world.ids[attempt.server], self.world.ids[attempt.other]}
        for name in ends & {"iota", "zeta"}:
            begun, away = instant(attempt.delegated_at_ns), self.away[name]
            # a server that fell silent is not known to be gone at once
            assert not away.since + timedelta(seconds=10) < begun < away.until, f"{attempt.id} was given to {name}"

    def check_copies(self) -> None:
        """Each backup that counts, of a policy that says so, has its copy on a device of the vaults."""
        copies: dict[str, set[str]] = {}
        for run in self.state.runs.values():
            for part in run.parts:
                backup = self.world.hub.published[part.set] if part.set is not None else None
                if backup is not None and backup.copy_of is not None:
                    assert backup.device_name in {"disk-kappa", "disk-mu"}
                    copies.setdefault(backup.copy_of, set()).add(backup.id)
        for due, run in self.ran.items():
            plan = self.site.plan_of(due.list)
            if plan.name == "office" and run.state in {RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS}:
                for part in run.parts:
                    assert part.set is not None
                    assert len(copies.get(part.set, ())) == 1, f"{run.id} has {copies.get(part.set)}"
            if isinstance(run.spec, DuplicateSpec) and run.state is RunState.SUCCEEDED:
                for source, set_id in zip(run.spec.sources, run.spec.sets, strict=True):
                    self._check_newest(due, source, set_id)

    def _check_newest(self, due: Due, source: str, set_id: str) -> None:
        """A copy is of the newest set that was known: one that is told of while the copy is due may be or not."""
        row = BY_NAME[due.list]
        sets = [
            backup
            for backup in self.world.hub.published.values()
            if backup.copy_of is None and backup.source == source and self._list_of(backup) == row.name
        ]
        chosen = self.world.hub.published[set_id]
        known = [each for each in sets if self._told_before(each, due.at - _SLACK)]
        assert chosen in sets
        assert chosen.ended_at_ns >= max(each.ended_at_ns for each in known), f"{due} copies {set_id}"

    def _list_of(self, backup: BackupSet) -> str:
        return self._names(self.state.runs[backup.run])[0]

    def _told_before(self, backup: BackupSet, at: datetime) -> bool:
        """Whether the administrator knew of a set by then: not of what was made while its server was away."""
        away = self.away.get(self.world.ids[backup.server])
        ended = instant(backup.ended_at_ns)
        return ended < at and not (away is not None and away.since <= ended <= away.until and at < away.until)

    def check_lost_work(self) -> None:
        """What was at work on a server that was lost was given up, and done by another one; or, where it went on unseen, it
        counts once, however late it was told."""
        for id_ in self.story.on_zeta:
            attempt = self.state.attempts[id_]
            run = self.state.runs[attempt.run]
            assert attempt.state in {AttemptState.RECOVERED, AttemptState.INTERRUPTED}, attempt
            again = [
                a for a in self.state.attempts_of(run.id) if a.source == attempt.source and a.number > attempt.number
            ]
            assert again, f"{id_} was not begun again"
            if self.world.ids[attempt.source] != "zeta":
                assert all(self.world.ids[each.server] != "zeta" for each in again), again
        for id_ in self.story.of_alpha:
            # no device of alpha: there is nothing to recover elsewhere, its files wait for it
            attempt = self.state.attempts[id_]
            assert attempt.state in {AttemptState.RECOVERED, AttemptState.INTERRUPTED}, attempt
            assert self.state.runs[attempt.run].state is RunState.SUCCEEDED, self.state.runs[attempt.run]
        finished = [id_ for id_ in self.story.on_eta if id_ in self._attempts_with_sets()]
        assert finished, "nothing of eta went on while it was cut off"
        for id_ in finished:
            assert self.state.attempts[id_].state in {*ATTEMPT_GOOD, AttemptState.REDUNDANT}

    def _attempts_with_sets(self) -> set[str]:
        return {backup.attempt for backup in self.world.hub.published.values()}

    # --- what is told ---

    async def check_reasons(self) -> None:
        """Why a run waited is known afterwards, whoever is in office."""
        waited: dict[str, set[str]] = {}
        for row in await self.tables().waits(list(self.state.runs)):
            waited.setdefault(row.run, set()).add(row.waiting.reason.value)
        for due, run in self.ran.items():
            servers = set(BY_NAME[due.list].servers)
            lacking = [away for name, away in self.away.items() if name in servers and away.since <= due.at]
            if isinstance(run.spec, DuplicateSpec) or not any(due.at + _SLACK < each.until for each in lacking):
                continue
            reasons = waited.get(run.id, set())
            assert "source-unreachable" in reasons or "blocked-by-run" in reasons, f"{run.id} waited for {reasons}"
        for due, away in self._copies_without_their_set().items():
            if away.since <= due.at and due.at + _SLACK < away.until:
                assert "waiting-for-server" in waited.get(self.ran[due].id, set()), self.ran[due]

    async def check_alerts(self) -> None:
        asked = q.AlertListRequest(all=True, limit=100_000)
        alerts = (await self.world.ask("alert.list", asked, v.AlertList)).alerts
        told = Counter((alert.category, alert.object) for alert in alerts)
        assert max(told.values()) == 1, told.most_common(5)
        wanted = {("no-recovery-kit", "meadow"), ("nobody-notified", "meadow")}
        runs = self.state.runs.values()
        of_state = {
            RunState.MISSED: "job-missed",
            RunState.FAILED: "job-failed",
            RunState.TIMED_OUT: "job-timed-out",
            RunState.SUCCEEDED_WITH_EXCEPTIONS: "job-completed-with-exceptions",
        }
        wanted |= {(of_state[run.state], run.id) for run in runs if run.state in of_state}
        wanted |= {("job-recovered", run) for run in self._given_up()}
        wanted |= {("job-late", run.id) for due, run in self.ran.items() if self._is_late(due, run)}
        for name, away in self.away.items():
            if (away.until - away.since).total_seconds() > self.site.pace.lost_after_s:
                wanted |= {("server-stalled", name), ("server-no-communication", name)}
        # what is backed up twice an hour is overdue while its server is away for hours
        hours = {name: (away.until - away.since).total_seconds() / 3600 for name, away in self.away.items()}
        wanted |= {
            ("backup-overdue", f"{server}:{row.name}")
            for row in BY_NAME.values()
            for server in row.servers
            if row.plan == "logs" and hours.get(server, 0.0) > 2
        }
        # with the power goes what its catalog had taken in last; it is taken in again
        told.pop(("catalog-lost", "alpha"), None)
        assert set(told) == wanted, (set(told) - wanted, wanted - set(told))
        standing = [alert for alert in alerts if alert.category.startswith("server-") and alert.cleared is None]
        assert not standing
        for alert in alerts:
            if alert.category == "job-missed":
                assert "unreachable" in alert.text or "holds the set" in alert.text, alert.text

    def check_all_was_tried(self) -> None:
        """Every way in which a run or an attempt may end by what went wrong was seen, so that nothing of this is empty."""
        ends = {run.state for run in self.state.runs.values()}
        wanted = {"succeeded", "succeeded-with-exceptions", "superseded", "missed", "failed", "timed-out"}
        assert ends == wanted, ends
        attempts = {attempt.state for attempt in self.state.attempts.values()}
        assert {AttemptState.RECOVERED, AttemptState.INTERRUPTED} <= attempts
        assert len(set(self.story.offices)) == len(self.story.offices)
        assert any(self._is_late(due, run) for due, run in self.ran.items())

    def _given_up(self) -> set[str]:
        """Runs of attempts that were lost with a server. Those of eta that went on unseen are told of all the same."""
        lost = [self.state.attempts[id_] for id_ in (*self.story.on_zeta, *self.story.on_eta)]
        return {each.run for each in lost if each.state is AttemptState.RECOVERED or each.source == each.server}

    def _is_late(self, due: Due, run: Run) -> bool:
        """A run that is caught up with after its window, which begins with the end of the run that it goes after."""
        made = self.site.made(due.list, due.template)
        if not made.catch_up or run.state is RunState.SUPERSEDED:
            return False
        first = self.ran.get(Due(due.at, due.list, "full")) if due.template == "daily" else None
        begins = due.at if first is None or first.closed_at_ns is None else max(due.at, instant(first.closed_at_ns))
        first_of: dict[str, datetime] = {}
        for attempt in self.state.attempts_of(run.id):
            first_of.setdefault(attempt.source, instant(attempt.delegated_at_ns))
        return max(first_of.values()) > begins + timedelta(seconds=made.window_s)
