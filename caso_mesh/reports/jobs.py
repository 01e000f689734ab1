"""Reports about runs: what ran, how it ended, how often it ended well, and what did not."""

from __future__ import annotations

from collections import Counter

from caso_mesh.model.reports import Cell, Column, Figure, Kind, Need, Tone
from caso_mesh.model.states import RunState
from caso_mesh.reports import making as m
from caso_mesh.reports.rows import Gathered, Part, RunRow

PARTS = frozenset({Part.RUNS})


def _ended(told: Gathered) -> list[RunRow]:
    return [row for row in told.runs if row.ended_ns is not None]


def _cut_note(told: Gathered) -> tuple[str, ...]:
    left = m.older(told, Part.RUNS)
    return (f"{m.plural(left, 'older run is', 'older runs are')} left out: ask for less time.",) if left else ()


def _rate_tone(tally: m.Tally) -> Tone:
    return tally.tone if tally.total else Tone.PLAIN


# --- jobs summary ---


def jobs_summary(told: Gathered) -> m.Answer:
    rows = _ended(told)
    tally, by_job = m.Tally(rows), m.grouped(rows, lambda row: row.job)
    kinds = m.grouped(rows, lambda row: row.kind)
    return m.Answer(
        verdict=f"{m.plural(tally.total, 'run')} of {m.plural(len(by_job), 'job')} ended, {tally.good} of them well."
        if rows
        else "Nothing ended in this time.",
        good=None if not rows else not tally.bad,
        figures=(
            Figure("runs", "Runs that ended", tally.total),
            Figure("good", "Ended well", tally.good, tone=Tone.GOOD if tally.good else Tone.PLAIN),
            Figure("bad", "Failed or missed", tally.bad, tone=Tone.BAD if tally.bad else Tone.GOOD),
            Figure("seconds", "Time of all together", m.summed(row.seconds for row in rows), Kind.SECONDS),
            Figure("read", "Read", round(m.summed(row.bytes_read for row in rows)), Kind.BYTES),
            Figure("stored", "Stored", round(m.summed(row.bytes_stored for row in rows)), Kind.BYTES),
        ),
        charts=m.outcomes_over_time(told, rows, "outcomes", "Runs that ended"),
        tables=(
            m.table(
                told,
                "kinds",
                "By kind",
                (m.text("kind", "Kind"), m.count("runs", "Runs"), *m.OUTCOME_COLUMNS, m.octets("bytes_stored", "Stored")),
                [
                    (kind, each.total, *m.outcome_cells(each), round(m.summed(row.bytes_stored for row in each.rows)))
                    for kind, each in kinds.items()
                ],
            ),
            m.table(
                told,
                "jobs",
                "By job",
                (
                    m.text("job", "Job"), m.text("kind", "Kind"), m.text("selection", "List"), m.count("runs", "Runs"),
                    *m.OUTCOME_COLUMNS, m.seconds("average_s", "Average"), m.seconds("longest_s", "Longest"),
                    m.octets("bytes_read", "Read"), m.octets("bytes_stored", "Stored"), m.instant("last", "Last ended"),
                ),
                [_job(name, each) for name, each in by_job.items()],
                "Nothing ended in this time.",
            ),
        ),
        notes=_cut_note(told),
    )  # fmt: skip


def _job(name: str, tally: m.Tally) -> tuple[Cell, ...]:
    rows = tally.rows
    lengths = [row.seconds for row in rows if row.seconds is not None]
    return (
        name, rows[0].kind, rows[0].selection or None, tally.total, *m.outcome_cells(tally),
        round(sum(lengths) / len(lengths), 1) if lengths else None, max(lengths, default=None),
        round(m.summed(row.bytes_read for row in rows)), round(m.summed(row.bytes_stored for row in rows)),
        m.at(max((row.ended_ns for row in rows if row.ended_ns is not None), default=None)),
    )  # fmt: skip


# --- success rate ---


def success_rate(told: Gathered) -> m.Answer:
    rows = [row for row in _ended(told) if row.state not in m.NEITHER]
    tally, buckets = m.Tally(rows), m.Buckets(told)
    days = [m.Tally() for _ in buckets.labels]
    for row in rows:
        place = buckets.place(row.ended_ns or 0)
        if place is not None:
            days[place].add(row)

    def by(name: str, title: str, heading: str, groups: dict[str, m.Tally]) -> m.Table:
        found = sorted(groups.items(), key=lambda each: (each[1].rate if each[1].rate is not None else 101.0, each[0]))
        return m.table(
            told,
            name,
            title,
            (m.text(name, heading), m.percent("rate", "Success rate"), m.count("runs", "Runs"), *m.OUTCOME_COLUMNS),
            [(key or "(none)", each.rate, each.total, *m.outcome_cells(each)) for key, each in found],
            "Nothing ended in this time.",
        )

    worst = min((each.rate for each in days if each.rate is not None), default=None)
    return m.Answer(
        verdict=f"{tally.rate:g} % of {m.plural(tally.total, 'run')} ended well." if rows else "Nothing ended in this time.",
        good=None if not rows else not tally.bad,
        figures=(
            Figure("rate", "Success rate", tally.rate, Kind.PERCENT, _rate_tone(tally)),
            Figure("runs", "Runs that count", tally.total),
            Figure("clean", "Without exceptions", m.share(tally.of(RunState.SUCCEEDED), tally.total), Kind.PERCENT),
            Figure("worst", f"Worst {buckets.word}", worst, Kind.PERCENT),
            Figure("retried", "Needed more than one attempt", sum(row.attempts > 1 for row in rows)),
        ),
        charts=m.outcomes_over_time(told, rows, "outcomes", "Runs that ended"),
        tables=(
            by("job", "By job, the worst first", "Job", m.grouped(rows, lambda row: row.job)),
            by("source", "By source, the worst first", "Source", m.grouped(rows, lambda row: row.source)),
            m.table(
                told,
                "time",
                f"By {buckets.word}",
                (m.text("when", buckets.word.capitalize()), m.percent("rate", "Success rate"), m.count("runs", "Runs"),
                 *m.OUTCOME_COLUMNS),
                [
                    (label, each.rate, each.total, *m.outcome_cells(each))
                    for label, each in zip(buckets.labels, days, strict=True)
                    if each.rows
                ],
                "Nothing ended in this time.",
            ),
        ),
        notes=("A run counts once for each of its sources; canceled and superseded ones do not count.", *_cut_note(told)),
    )  # fmt: skip


# --- failed jobs ---


def failed_jobs(told: Gathered) -> m.Answer:
    rows = [row for row in _ended(told) if row.state in {RunState.FAILED, RunState.TIMED_OUT}]
    standing = [row for row in rows if row.sound_since_ns is None]
    errors = Counter((row.error or row.state) for row in rows)
    jobs = {(row.job, row.source) for row in standing}
    return m.Answer(
        verdict="Nothing failed."
        if not rows
        else f"{m.plural(len(rows), 'run')} failed; all were made up for since."
        if not standing
        else f"{m.plural(len(rows), 'run')} failed; {m.plural(len(jobs), 'job has', 'jobs have')} not succeeded since.",
        good=not standing,
        needs=tuple(
            Need(f"{row.job} of {row.source}: {row.error_text or row.state}", f"caso-mesh job log {row.run}")
            for row in {(row.job, row.source): row for row in reversed(standing)}.values()
        )[:10],
        figures=(
            Figure("failed", "Failed", len(rows), tone=Tone.BAD if rows else Tone.GOOD),
            Figure("standing", "Not made up for", len(standing), tone=Tone.BAD if standing else Tone.GOOD),
            Figure("jobs", "Jobs that failed", len({row.job for row in rows})),
            Figure("sources", "Sources concerned", len({row.source for row in rows})),
        ),
        charts=m.bars(
            "errors", "What happened", Kind.COUNT,
            [(error, [number]) for error, number in errors.items()], [("Runs", Tone.BAD)],
        ),
        tables=(
            m.table(
                told,
                "failed",
                "Failed runs",
                (
                    m.text("job", "Job"), m.text("source", "Source"), m.state("state", "State"),
                    m.instant("ended", "Ended"), m.text("server", "Server"), m.text("device", "Device"),
                    m.count("attempts", "Attempts"), m.text("error", "Error"), m.text("text", "What happened"),
                    m.text("hint", "What to do"), m.instant("made_up", "Made up for"), m.text("run", "Run"),
                ),
                [
                    (row.job, row.source, row.state, m.at(row.ended_ns), row.server or None, row.device or None,
                     row.attempts, row.error or None, row.error_text or None, row.error_hint or None,
                     m.at(row.sound_since_ns), row.run)
                    for row in sorted(rows, key=lambda row: -(row.ended_ns or 0))
                ],
                "Nothing failed.",
            ),
        ),
        notes=_cut_note(told),
    )  # fmt: skip


# --- distribution by device ---


def by_device(told: Gathered) -> m.Answer:
    rows = [row for row in _ended(told) if row.device]
    groups = m.grouped(rows, lambda row: row.device)
    whole = sum(tally.total for tally in groups.values())
    busiest = max(groups.items(), key=lambda each: each[1].total, default=None)

    def cells(name: str, tally: m.Tally) -> tuple[Cell, ...]:
        busy = m.summed(row.seconds for row in tally.rows)
        stored = round(m.summed(row.bytes_stored for row in tally.rows))
        return (
            name, tally.total, m.share(tally.total, whole), *m.outcome_cells(tally), busy,
            round(m.summed(row.bytes_read for row in tally.rows)), stored,
        )  # fmt: skip

    kinds = sorted({row.kind for row in rows})
    return m.Answer(
        verdict=f"{m.plural(whole, 'run')} on {m.plural(len(groups), 'device')}; {busiest[0]} had the most."
        if busiest
        else "No device was used in this time.",
        figures=(Figure("runs", "Runs", whole), Figure("devices", "Devices used", len(groups))),
        charts=m.bars(
            "runs", "Runs by device", Kind.COUNT,
            [
                (name, [sum(row.kind == kind for row in tally.rows) for kind in kinds])
                for name, tally in groups.items()
            ],
            [(kind, Tone.PLAIN) for kind in kinds],
        ),
        tables=(
            m.table(
                told,
                "devices",
                "Devices",
                (
                    m.text("device", "Device"), m.count("runs", "Runs"), m.percent("share", "Share"),
                    *m.OUTCOME_COLUMNS, m.seconds("busy_s", "Time of all"), m.octets("bytes_read", "Read"),
                    m.octets("bytes_stored", "Stored"),
                ),
                [cells(name, tally) for name, tally in groups.items()],
                "No device was used in this time.",
            ),
        ),
        notes=_cut_note(told),
    )  # fmt: skip


# --- restores ---

_RESTORES = frozenset({"restore", "drill", "verify"})


def restores(told: Gathered) -> m.Answer:
    rows = [row for row in told.runs if row.kind in _RESTORES]
    done = m.Tally(row for row in rows if row.kind == "restore" and row.ended_ns is not None)
    drills = m.Tally(row for row in rows if row.kind == "drill" and row.ended_ns is not None)
    verifies = m.Tally(row for row in rows if row.kind == "verify" and row.ended_ns is not None)
    every = [*done.rows, *drills.rows, *verifies.rows]
    bad = done.bad + drills.bad + verifies.bad
    return m.Answer(
        verdict=f"{m.plural(done.total, 'restore')}, {m.plural(drills.total, 'drill')} and "
        f"{m.plural(verifies.total, 'verification')} ended" + (f"; {bad} of them badly." if bad else ", all well.")
        if every
        else "Nothing was restored, drilled or verified in this time.",
        good=not bad if every else None,
        figures=(
            Figure("restores", "Restores", done.total, tone=done.tone if done.total else Tone.PLAIN),
            Figure("restored", "Restored", round(m.summed(row.bytes for row in done.rows)), Kind.BYTES),
            Figure("files", "Files restored", round(m.summed(row.files for row in done.rows))),
            Figure("drills", "Restore drills", drills.total, tone=drills.tone if drills.total else Tone.PLAIN),
            Figure("verifies", "Verifications", verifies.total, tone=verifies.tone if verifies.total else Tone.PLAIN),
        ),
        charts=m.outcomes_over_time(told, every, "outcomes", "Restores, drills and verifications"),
        tables=(
            m.table(
                told,
                "restores",
                "Restores, drills and verifications",
                (
                    m.text("kind", "Kind"), m.text("set", "Set"), m.text("target", "To"), m.text("by", "By"),
                    m.state("state", "State"), m.instant("started", "Began"), m.instant("ended", "Ended"),
                    m.count("files", "Files"), m.octets("bytes", "Size"), m.count("exceptions", "Exceptions"),
                    m.seconds("seconds", "Took"), m.text("text", "What happened"), m.text("run", "Run"),
                ),
                [
                    (row.kind, row.set or None, row.target or row.source, row.by, row.state, m.at(row.started_ns),
                     m.at(row.ended_ns), row.files, row.bytes, row.exceptions, row.seconds, row.error_text or None,
                     row.run)
                    for row in sorted(rows, key=lambda row: -(row.ended_ns or row.due_ns))
                ],
                "Nothing was restored.",
            ),
        ),
        notes=_cut_note(told),
    )  # fmt: skip


# --- test runs ---

_PREDICTED: tuple[Column, ...] = (
    m.count("files", "Files"), m.octets("bytes", "Size"), m.octets("new", "New"), m.seconds("seconds", "Would take"),
)  # fmt: skip


def test_runs(told: Gathered) -> m.Answer:
    rows = [row for row in told.runs if row.kind == "test-run"]
    ended = m.Tally(row for row in rows if row.ended_ns is not None)
    bad = [row for row in ended.rows if row.state not in m.GOOD]
    return m.Answer(
        verdict=(
            f"{ended.good} of {m.plural(ended.total, 'test run')} would have worked." if ended.total else "Nothing was tried."
        ),
        good=None if not ended.total else not bad,
        figures=(
            Figure("tested", "Test runs", ended.total),
            Figure("good", "Would have worked", ended.good, tone=Tone.GOOD if ended.good else Tone.PLAIN),
            Figure("bad", "Would not", len(bad), tone=Tone.BAD if bad else Tone.GOOD),
            Figure("new", "Would have read", round(m.summed(row.predicted_new for row in ended.rows)), Kind.BYTES),
        ),
        tables=(
            m.table(
                told,
                "test_runs",
                "Test runs",
                (m.text("job", "Job"), m.text("source", "Source"), m.state("state", "State"), m.instant("ended", "Ended"),
                 m.text("server", "Server"), m.text("device", "Device"), *_PREDICTED, m.text("text", "What was found"),
                 m.text("hint", "What to do")),
                [
                    (row.job, row.source, row.state, m.at(row.ended_ns), row.server or None, row.device or None,
                     row.predicted_files, row.predicted_bytes, row.predicted_new, row.predicted_s,
                     row.error_text or row.waits or None, row.error_hint or None)
                    for row in sorted(rows, key=lambda row: -(row.ended_ns or row.due_ns))
                ],
                "Nothing was tried.",
            ),
        ),
    )  # fmt: skip
