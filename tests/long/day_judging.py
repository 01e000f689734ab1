"""Whether that came of the day which had to, run by run: against ``day_plan.py``, by what the command line tells."""

from __future__ import annotations

import collections
import sqlite3
from contextlib import closing
from typing import Any

from long.day_plan import BY_NAME, COPIED, COPIES, LISTS, MAIL_HOUR, SERVERS, Due, due_runs
from long.day_story import Away, Day
from mesh.test_keeping import MEANING
from mesh.trees import assert_equal
from waiting import wait_for

Row = dict[str, Any]
_GOOD = "succeeded"
_SILENT = ("stalled", "no-communication")


def judge(day: Day) -> None:
    """Everything. Raises ``AssertionError``."""
    judged = Judge(day)
    judged.check_every_due_time_has_its_run()
    judged.check_rules_started_what_they_say()
    judged.check_ends()
    judged.check_each_part_was_done_once()
    judged.check_lost_work()
    judged.check_copies()
    judged.check_alerts()
    judged.check_voters_hold_the_same()
    judged.check_restores()


class Judge:
    """Looks once, at rest. Each ``check`` raises ``AssertionError``."""

    def __init__(self, day: Day) -> None:
        self.day, self.mesh = day, day.mesh
        self.due = due_runs()
        self.ran: dict[Due, Row] = {}
        self.fired: list[tuple[str, str, Row]] = []
        self.runs: dict[str, Row] = {}
        self.invented: list[str] = []
        hours = {f"{day.at(due.hour):%Y%m%dT%H%M00Z}": due.hour for due in self.due}
        for name in {row["name"] for row in self.mesh.jobs("beta", "--state", "ended", "--limit", "100000")}:
            list_, _, template = name.split(".")
            for run in self.mesh.ok("beta", "job", "show", name)["runs"]:
                self.runs[run["run"]] = run
                at = hours.get(run["run"].partition("@")[2])
                if (run["note"] or "").startswith("started by "):
                    self.fired.append((list_, template, run))
                elif at is None:
                    self.invented.append(run["run"])
                else:
                    self.ran[Due(at, list_, template)] = run
        self.sets = {row["id"]: row for row in self.mesh.sets("beta")}

    def check_every_due_time_has_its_run(self) -> None:
        forgotten, invented = self.due.keys() - self.ran.keys(), self.ran.keys() - self.due.keys()
        assert not forgotten, f"forgotten: {sorted(forgotten)}"
        assert not invented, f"never due: {sorted(invented)}"
        assert not self.invented, self.invented

    def check_rules_started_what_they_say(self) -> None:
        """A copy of each set that counts, and a look at each copy; nothing else."""
        started = collections.Counter((list_, template, run["note"]) for list_, template, run in self.fired)
        wanted = collections.Counter(
            (due.list, "offsite", f"started by {run['run']}")
            for due, run in self.ran.items()
            if BY_NAME[due.list].policy in COPIED and run["state"] == _GOOD
        )
        wanted.update(
            (list_, "check", f"started by {run['run']}")
            for list_, template, run in self.fired
            if template == "offsite" and run["state"] == _GOOD
        )
        assert started == wanted, (started - wanted, wanted - started)
        assert {run["state"] for _, _, run in self.fired} == {_GOOD}, self.fired

    def check_ends(self) -> None:
        wrong = []
        for due, gives_way in self.due.items():
            run = self.ran[due]
            want = "superseded" if gives_way else "missed" if self._is_missed(due) else _GOOD
            if run["state"] != want or run["closed"] is None:
                wrong.append(f"{due} is {run['state']}, not {want}: {run}")
            elif gives_way:
                other = self.ran[Due(due.hour, due.list, "weekly")]["run"]
                assert run["note"] == f"superseded by {other}", run
        assert not wrong, "\n".join(wrong)
        missed = {due for due in self.due if self.ran[due]["state"] == "missed"}
        assert {due.list for due in missed} == {"gamma-docs", "both", "gamma-log"}, missed

    def _is_missed(self, due: Due) -> bool:
        day = self.day
        if due.catches_up or self.ran[due]["run"] in {*day.at_work, day.unseen, day.of_alpha}:
            return False  # these had begun
        last = due.hour + due.window
        return any(
            self._covers(away, due.hour, last) for away in self.day.away if away.server in BY_NAME[due.list].servers
        )

    def _covers(self, away: Away, since: float, until: float) -> bool:
        if away.until <= since or until <= away.since:
            return False
        covers = away.since <= since and until <= away.until
        # what is there for less than that may be too slow
        there = max(since, away.since) - since + max(0.0, until - away.until)
        assert covers or there > 0.6, f"{away} leaves little of {since} to {until}"
        return covers

    def check_each_part_was_done_once(self) -> None:
        """Of what ran twice one counts; every set is accounted for, in the vaults, too."""
        made: dict[str, list[Row]] = collections.defaultdict(list)
        for row in self.sets.values():
            made[row["attempt"]].append(row)
        for run in self.runs.values():
            attempts = collections.defaultdict(list)
            for attempt in run["attempts"]:
                attempts[attempt["source"]].append(attempt)
            numbers = sorted(attempt["number"] for attempt in run["attempts"])
            assert numbers == list(range(1, len(numbers) + 1)), run
            if run["state"] == _GOOD:
                assert run["sets"], run
            for part in run["sets"]:
                counts = [each for each in attempts[part["source"]] if each["state"] == _GOOD]
                assert len(counts) == (part["state"] == _GOOD), run
                if part["state"] in {"missed", "superseded"}:
                    assert not attempts[part["source"]], f"{run['run']} is {part['state']} and was tried"
        for id_, rows in made.items():
            assert len(rows) == 1, f"{id_} made {rows}"
            attempt = next(each for each in self.runs[rows[0]["run"]]["attempts"] if each["attempt"] == id_)
            assert attempt["state"] == ("redundant" if rows[0]["redundant"] else _GOOD), (attempt, rows)
        for device, disk in self.day.disks.items():
            there = sum(1 for _ in disk.glob("sets/*/*"))
            assert there == sum(row["device"] == device for row in self.sets.values()), f"{device} holds {there} sets"

    def check_lost_work(self) -> None:
        """What was lost was begun again, what went on unseen counts once."""
        day = self.day
        for id_ in day.at_work | {day.of_alpha}:
            first, *again = self.runs[id_]["attempts"]
            assert first["state"] in {"recovered", "interrupted"}, self.runs[id_]
            assert again, self.runs[id_]
        mail = self.ran[Due(MAIL_HOUR, "alpha-mail", "full")]
        assert mail["attempts"][0]["server"] == "beta", mail
        assert {each["server"] for each in mail["attempts"][1:]} == {"gamma"}, "it was not recovered in its pool"
        # told late it counts all the same, and what was begun anew meanwhile ends, or is kept and marked
        first, *others = self.runs[day.unseen]["attempts"]
        assert first["state"] == _GOOD, first
        assert {each["state"] for each in others} <= {"canceled", "redundant"}, others
        assert len(set(day.offices)) > 1, "the office did not pass on"

    def check_copies(self) -> None:
        copies = collections.Counter(row["copy_of"] for row in self.sets.values() if row["copy_of"])
        assert {row["device"] for row in self.sets.values() if row["copy_of"]} == {COPIES}
        for due, run in self.ran.items():
            if BY_NAME[due.list].policy in COPIED and run["state"] == _GOOD:
                for part in run["sets"]:
                    assert copies[part["set"]] == 1, run

    def check_alerts(self) -> None:
        """Each run that was missed or is late, and each time that a server was away, is told once; so is each attempt that
        was given up with its server, which a late result may prove wrong."""
        alerts = self.mesh.ok("beta", "alert", "list", "--all", "--limit", "100000")["alerts"]
        told = collections.Counter((alert["category"], alert["object"]) for alert in alerts)
        away = collections.Counter(each.server for each in self.day.away)
        wanted = {(f"server-{what}", server): away[server] for what in _SILENT for server in SERVERS}
        wanted |= {("job-missed", run["run"]): 1 for run in self.ran.values() if run["state"] == "missed"}
        wanted["job-late", self.ran[Due(0, "gamma-shop", "daily")]["run"]] = 1
        lost = {run: told.pop((category, run)) for category, run in [*told] if category == "job-recovered"}
        for standing in ("no-recovery-kit", "nobody-notified"):
            assert told.pop((standing, "meadow")) == 1
        assert told == wanted, (told, wanted)
        assert self.day.at_work <= lost.keys()
        assert all(count <= len(self.runs[run]["attempts"]) for run, count in lost.items()), lost
        for alert in alerts:
            if alert["category"] == "job-missed":
                assert "unreachable" in alert["text"], alert
            if alert["category"].startswith("server-"):
                assert alert["cleared"] is not None, alert

    def check_voters_hold_the_same(self) -> None:
        def same() -> bool:
            held = [self._history(name) for name in SERVERS]
            return held[0] == held[1] == held[2]

        wait_for(same, 30.0, what="all voters hold the same", every_s=0.5)

    def _history(self, name: str) -> dict[str, list[str]]:
        with closing(sqlite3.connect(self.mesh.state(name) / "tables" / "tables.db")) as conn:
            return {table: sorted(map(repr, conn.execute(f"SELECT * FROM {table}"))) for table in MEANING}

    def check_restores(self) -> None:
        """The newest set of each list and server, of one the copy."""
        for row in LISTS:
            for server in row.servers:
                mine = [
                    each for each in self.sets.values() if each["source"] == server and self._list_of(each) == row.name
                ]
                want = row.name == "both"
                newest = max((each for each in mine if bool(each["copy_of"]) == want), key=lambda each: each["started"])
                back = self.mesh.folder / "back" / row.name / server
                words = ("restore", newest["id"], "--to", f"beta:{back}", "--strip", "--wait")
                assert self.mesh.ok("alpha", *words)["state"] == _GOOD
                assert_equal(self.day.trees[row.name, server], back)

    def _list_of(self, backup: Row) -> str:
        run = backup["run"]
        return next(
            due.list
            for due, each in [*self.ran.items(), *((Due(0, list_, "-"), run) for list_, _, run in self.fired)]
            if each["run"] == run
        )
