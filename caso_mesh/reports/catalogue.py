"""All reports that there are, by name."""

from __future__ import annotations

from collections.abc import Mapping

from caso_mesh.model.errors import NotFound
from caso_mesh.model.reports import Report, ReportInfo
from caso_mesh.reports import jobs, logs, missed, overnight, recovery, servers, storage, workload
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
        name="missed-backups",
        title="Missed backups",
        answers="Which backups did not happen, and how old are the newest good ones?",
        parts=missed.MISSED_PARTS,
        make=missed.missed_backups,
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
        name="device-summary",
        title="Device summary",
        answers="How are the devices, and when are they full?",
        parts=storage.DEVICE_PARTS,
        make=storage.device_summary,
        days=28.0,
    ),
    m.Definition(
        name="device-usage-by-policy",
        title="Device usage by policy",
        answers="Which policies take how much of which device?",
        parts=storage.USAGE_PARTS,
        make=storage.usage_by_policy,
        days=28.0,
    ),
    m.Definition(
        name="media-sets",
        title="Media sets",
        answers="How long is what kept, and what lies in each media set?",
        parts=storage.MEDIA_SET_PARTS,
        make=storage.media_sets,
        days=None,
    ),
    m.Definition(
        name="media-required-for-recovery",
        title="Media required for recovery",
        answers="What does it take to get everything back, and can it be reached?",
        parts=recovery.PARTS,
        make=recovery.media_required,
        days=None,
    ),
    m.Definition(
        name="backup-sets-by-media-set",
        title="Backup sets by media set",
        answers="Which backup sets are there, and when do they go?",
        parts=storage.USAGE_PARTS,
        make=storage.sets_by_media_set,
        days=28.0,
    ),
    m.Definition(
        name="backup-size-by-resource",
        title="Backup size by resource",
        answers="How large is what is backed up, and how does it grow?",
        parts=storage.USAGE_PARTS,
        make=storage.size_by_resource,
        days=28.0,
    ),
    m.Definition(
        name="machines-backed-up",
        title="Machines backed up",
        answers="Which machines were backed up, and which were not?",
        parts=servers.MACHINES_PARTS,
        make=servers.machines_backed_up,
        days=7.0,
    ),
    m.Definition(
        name="resource-protection",
        title="Resource protection",
        answers="What does no selection list name?",
        parts=missed.PROTECTION_PARTS,
        make=missed.resource_protection,
        days=None,
    ),
    m.Definition(
        name="managed-media-servers",
        title="Managed media servers",
        answers="How are the servers, and what did each do?",
        parts=servers.MANAGED_PARTS,
        make=servers.managed_media_servers,
        days=7.0,
    ),
    m.Definition(
        name="alert-history",
        title="Alert history",
        answers="Which alerts were there, and who answered them?",
        parts=logs.ALERT_PARTS,
        make=logs.alert_history,
        days=30.0,
    ),
    m.Definition(
        name="audit-log",
        title="Audit log",
        answers="Who did what?",
        parts=logs.AUDIT_PARTS,
        make=logs.audit_log,
        days=30.0,
        whole_mesh=True,
    ),
    m.Definition(
        name="deduplication-summary",
        title="Deduplication summary",
        answers="How much less is stored than was backed up?",
        parts=storage.USAGE_PARTS,
        make=storage.deduplication,
        days=28.0,
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
        name="scheduled-server-workload",
        title="Scheduled server workload",
        answers="What will servers and devices have to do?",
        parts=workload.PARTS,
        make=workload.scheduled_workload,
        ahead=True,
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
