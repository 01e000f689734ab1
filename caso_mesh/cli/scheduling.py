"""When a job is due: the options of all commands whose work may recur, and how their values are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from caso_mesh.cli.grammar import Parameter, shared
from caso_mesh.cli.options import Waiting
from caso_mesh.model.errors import UsageError
from caso_mesh.model.inventories import ScheduleWords
from caso_mesh.model.units import parse_duration_s

#: How an option is taken back.
UNSET = "none"

#: Of what is there already: what is not given stays as it is.
Schedule = Annotated[
    str | None,
    Parameter(
        help='A cron line, or as in "daily 22:00", "weekdays 22:00", "mon,wed 22:00", "2nd fri 22:00", "last fri '
        '22:00", "day 15 22:00", "last day 22:00", "hourly :30", "once 2025-01-31T02:00"; or none.'
    ),
]
ExcludeDays = Annotated[
    tuple[str, ...],
    Parameter(
        name="--exclude-day",
        negative=(),
        help="A day without a run, as in 2025-12-24 or 2025-12-24..2026-01-01; may be repeated; or none.",
    ),
]
StartWindow = Annotated[
    str | None, Parameter(help="It has to start within this time of its due time, as in 2h, or is missed; or none.")
]
CancelAfter = Annotated[
    str | None, Parameter(help="It ends if it is not done so long after it began, as in 8h; or none.")
]
CatchUp = Annotated[bool | None, Parameter(help="What could not start in its window runs when it can.")]


@shared
@dataclass(frozen=True)
class Scheduling:
    """What commands take whose work may recur."""

    schedule: Annotated[
        str | None,
        Parameter(
            help='Make it a job that recurs: a cron line, as in "0 2 * * *", or as in "daily 02:00", "2nd fri 22:00".'
        ),
    ] = None
    zone: Annotated[str | None, Parameter(help="Time zone of the schedule, as in Europe/Berlin (default: UTC).")] = None
    exclude_day: Annotated[
        tuple[str, ...],
        Parameter(
            name="--exclude-day",
            negative=(),
            help="A day without a run, as in 2025-12-24 or 2025-12-24..2026-01-01; may be repeated.",
        ),
    ] = ()
    start_window: Annotated[
        str | None, Parameter(help="A run has to start within this time of its due time, as in 2h, or is missed.")
    ] = None
    cancel_after: Annotated[
        str | None, Parameter(help="A run ends if it is not done so long after it began, as in 8h.")
    ] = None
    catch_up: Annotated[bool, Parameter(negative=(), help="What could not start in its window runs when it can.")] = (
        False
    )
    name: Annotated[str | None, Parameter(help="Name of the job.")] = None

    def words(self, waiting: Waiting) -> ScheduleWords | None:
        """What was said of a schedule; ``None``: it is done now. Raises ``UsageError`` for what means nothing without one,
        and for waiting for what recurs."""
        belonging = {
            "--zone": self.zone,
            "--exclude-day": self.exclude_day,
            "--start-window": self.start_window,
            "--cancel-after": self.cancel_after,
            "--catch-up": self.catch_up,
        }
        lost = next((option for option, value in belonging.items() if value not in (None, (), False)), None)
        if self.schedule is None:
            if lost is not None:
                raise UsageError(detail=f"{lost} belongs to --schedule")
            return None
        if waiting.wait:
            raise UsageError(detail="A job with --schedule cannot be waited for; start it with: caso-mesh job run")
        return ScheduleWords(
            schedule=self.schedule,
            zone=self.zone,
            exclude_days=self.exclude_day,
            start_window_s=parse_duration_s(self.start_window) if self.start_window is not None else None,
            cancel_after_s=parse_duration_s(self.cancel_after) if self.cancel_after is not None else None,
            catch_up=self.catch_up,
        )


NOW = Scheduling()
