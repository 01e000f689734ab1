"""All reports that there are, by name."""

from __future__ import annotations

from collections.abc import Mapping

from caso_mesh.model.errors import NotFound
from caso_mesh.model.reports import Report, ReportInfo
from caso_mesh.reports import jobs, overnight
from caso_mesh.reports import making as m
from caso_mesh.reports.rows import Gathered

REPORTS: tuple[m.Definition, ...] = (
    m.Definition(
        name="overnight-summary",
        title="Overnight summary",
        answers="Is all well, and what needs somebody?",
        parts=overnight.PARTS,
        make=overnight.summary,
    ),
    m.Definition(
        name="jobs-summary",
        title="Jobs summary",
        answers="What ran, how did it end, and what did it come to?",
        parts=jobs.PARTS,
        make=jobs.jobs_summary,
        days=7.0,
    ),
    m.Definition(
        name="job-success-rate",
        title="Job success rate",
        answers="How often do jobs end well, and which do not?",
        parts=jobs.PARTS,
        make=jobs.success_rate,
        days=30.0,
    ),
    m.Definition(
        name="failed-jobs",
        title="Failed jobs",
        answers="What failed, why, and was it made up for?",
        parts=jobs.PARTS,
        make=jobs.failed_jobs,
        days=7.0,
    ),
    m.Definition(
        name="job-distribution-by-device",
        title="Job distribution by device",
        answers="Which devices did how much of the work?",
        parts=jobs.PARTS,
        make=jobs.by_device,
        days=7.0,
    ),
    m.Definition(
        name="restore-summary",
        title="Restore summary",
        answers="What was restored, drilled and verified, and did it work?",
        parts=jobs.PARTS,
        make=jobs.restores,
        days=30.0,
    ),
    m.Definition(
        name="test-run-results",
        title="Test run results",
        answers="Which backups would work, and what would they come to?",
        parts=jobs.PARTS,
        make=jobs.test_runs,
        days=30.0,
    ),
)
BY_NAME: Mapping[str, m.Definition] = {each.name: each for each in REPORTS}


def named(name: str) -> m.Definition:
    """Raises ``NotFound``."""
    found = BY_NAME.get(name)
    if found is None:
        raise NotFound(kind="report", name=name)
    return found


def info(each: m.Definition) -> ReportInfo:
    """What is told of it in a list."""
    return ReportInfo(each.name, each.title, each.answers, each.days, each.ahead, each.whole_mesh)


def made(name: str, told: Gathered) -> Report:
    """The report of that name. Raises ``NotFound``."""
    each = named(name)
    answer = each.make(told)
    return Report(
        name=each.name,
        title=each.title,
        answers=each.answers,
        mesh=told.mesh,
        made=m.at(told.now_ns) or "",
        begins=m.at(told.begins_ns) or "",
        until=m.at(told.until_ns) or "",
        zone=told.zone,
        verdict=answer.verdict,
        good=answer.good,
        needs=answer.needs,
        figures=answer.figures,
        charts=answer.charts,
        tables=answer.tables,
        notes=answer.notes,
        limits=told.limits,
    )
