"""What was told and done: alerts, and the audit log."""

from __future__ import annotations

from collections import Counter

from caso_mesh.model.reports import Chart, ChartKind, Figure, Kind, Need, Series, Tone
from caso_mesh.model.states import AlertKind
from caso_mesh.reports import making as m
from caso_mesh.reports.rows import AlertRow, AuditRow, Gathered, Part

ALERT_PARTS = frozenset({Part.ALERTS})
AUDIT_PARTS = frozenset({Part.AUDIT})
_KINDS = (
    (AlertKind.ATTENTION.value, "Attention required", Tone.BAD), (AlertKind.ERROR.value, "Error", Tone.BAD),
    (AlertKind.WARNING.value, "Warning", Tone.WARNING), (AlertKind.INFORMATION.value, "Information", Tone.PLAIN),
)  # fmt: skip
_NAMED = 10


def alert_history(told: Gathered) -> m.Answer:
    rows = sorted(told.alerts, key=lambda row: -row.raised_ns)
    standing = [row for row in rows if row.cleared_ns is None and row.answered_ns is None]
    loud = [row for row in standing if row.alert in {AlertKind.ATTENTION.value, AlertKind.ERROR.value}]
    answers = [(row.answered_ns - row.raised_ns) / m.SECOND for row in rows if row.answered_ns is not None]
    buckets = m.Buckets(told)
    series = tuple(
        Series(title, sums, tone)
        for kind, title, tone in _KINDS
        if any(sums := buckets.sums((row.raised_ns, 1.0) for row in rows if row.alert == kind))
    )
    categories = Counter(row.category for row in rows)
    return m.Answer(
        verdict=f"{m.plural(len(rows), 'alert')} stood in this time; "
        + (f"{m.plural(len(standing), 'is', 'are')} not answered." if standing else "none is left to be answered.")
        if rows
        else "There were no alerts.",
        good=not loud,
        needs=tuple(Need(row.text, f"caso-mesh alert answer {row.id}") for row in loud[:_NAMED]),
        figures=(
            Figure("alerts", "Alerts", len(rows)),
            Figure("standing", "Not answered", len(standing), tone=Tone.BAD if loud else Tone.GOOD),
            Figure("cleared", "Over by themselves", sum(row.cleared_ns is not None for row in rows)),
            Figure("answered", "Answered", len(answers)),
            Figure("answer_s", "Answered after, on average", sum(answers) / len(answers) if answers else None, Kind.SECONDS),
        ),
        charts=(
            *(
                (Chart("raised", f"Raised by {buckets.word}", ChartKind.COLUMNS, Kind.COUNT, buckets.labels, series),)
                if series
                else ()
            ),
            *m.bars(
                "categories", "By category", Kind.COUNT, [(name, [number]) for name, number in categories.items()],
                [("Alerts", Tone.PLAIN)],
            ),
        ),
        tables=(
            m.table(
                told,
                "alerts",
                "Alerts",
                (
                    m.instant("raised", "Raised"), m.state("alert", "Alert"), m.text("category", "Category"),
                    m.text("server", "Told by"), m.text("text", "Text"), m.instant("answered", "Answered"),
                    m.text("by", "By"), m.text("response", "Answer"), m.instant("cleared", "Over"), m.text("id", "Id"),
                ),
                [_alert(row) for row in rows],
                "There were no alerts.",
            ),
        ),
    )  # fmt: skip


def _alert(row: AlertRow) -> tuple[str | None, ...]:
    return (
        m.at(row.raised_ns), row.alert, row.category, row.server, row.text, m.at(row.answered_ns), row.answered_by or None,
        row.response or None, m.at(row.cleared_ns), row.id,
    )  # fmt: skip


# --- audit log ---


def audit_log(told: Gathered) -> m.Answer:
    rows = sorted(told.audit, key=lambda row: -row.at_ns)
    refused = [row for row in rows if row.outcome != "done"]
    security = [row for row in rows if row.category == "security"]
    people = Counter(row.who for row in rows)
    buckets = m.Buckets(told)
    series = (
        Series("Done", buckets.sums((row.at_ns, 1.0) for row in rows if row.outcome == "done"), Tone.PLAIN),
        Series("Refused or failed", buckets.sums((row.at_ns, 1.0) for row in refused), Tone.BAD),
    )
    return m.Answer(
        verdict=f"{m.plural(len(rows), 'act')} of {m.plural(len(people), 'person or server', 'people and servers')}, "
        f"{len(refused)} of them refused or failed."
        if rows
        else "Nothing was done.",
        figures=(
            Figure("acts", "Acts", len(rows)),
            Figure("refused", "Refused or failed", len(refused), tone=Tone.WARNING if refused else Tone.GOOD),
            Figure("security", "About security", len(security)),
            Figure("people", "Who", len(people)),
        ),
        charts=(Chart("acts", f"Acts by {buckets.word}", ChartKind.COLUMNS, Kind.COUNT, buckets.labels, series),)
        if rows
        else (),
        tables=(
            m.table(
                told,
                "who",
                "By whom",
                (m.text("who", "Who"), m.count("acts", "Acts"), m.count("refused", "Refused or failed"),
                 m.instant("last", "Last")),
                [
                    (who, number, sum(row.who == who for row in refused), m.at(max(r.at_ns for r in rows if r.who == who)))
                    for who, number in people.most_common(100)
                ],
                "Nobody did anything.",
            ),
            m.table(
                told,
                "acts",
                "What was done",
                (
                    m.instant("at", "At"), m.text("who", "Who"), m.text("what", "What"), m.text("category", "Category"),
                    m.text("outcome", "Outcome"), m.text("server", "Server"), m.text("from", "From"),
                    m.text("fields", "With"),
                ),
                [_act(row) for row in rows],
                "Nothing was done.",
            ),
        ),
    )  # fmt: skip


def _act(row: AuditRow) -> tuple[str | None, ...]:
    return (
        m.at(row.at_ns), row.who, row.what, row.category, row.outcome, row.server, row.source or None, row.fields or None,
    )  # fmt: skip
