"""When job logs and the history of jobs leave the server that has them; and which zones settings name."""

from __future__ import annotations

from caso_mesh.model.bandwidth import parse_bandwidth
from caso_mesh.model.errors import InvalidValue, UnknownZone
from caso_mesh.model.hours import parse_window
from caso_mesh.model.settings import (
    AT_END,
    AT_ONCE,
    BANDWIDTH,
    BY_NAME,
    FORWARDING,
    NEVER,
    TIME_OF_DAY,
    TextSetting,
    Value,
    parse_time_of_day,
)
from caso_mesh.planning.schedule import zone
from caso_mesh.planning.window import opens_ns


def check_zone(name: str, value: Value | None) -> None:
    """A new value of a setting, which is in proper form. ``UnknownZone`` if it names a zone that there is not."""
    setting = BY_NAME.get(name)
    if not isinstance(setting, TextSetting) or not isinstance(value, str):
        return
    if setting.form == BANDWIDTH and (named := parse_bandwidth(value).zone):
        zone(named)
    if setting.form == TIME_OF_DAY and value != NEVER:
        zone(parse_time_of_day(value)[0])
    if setting.form == FORWARDING and value not in {AT_ONCE, AT_END, NEVER}:
        zone(parse_window(value).zone)


def may_leave(forwarding: str, *, ended: bool, now_ns: int) -> bool:
    """Whether what an attempt left may be told now, by one of the settings of forwarding. ``ended``: the attempt has.

    What is no value that is known here, of a newer version or with a zone that this machine does not have, means at once:
    nothing is held back by mistake.
    """
    if forwarding in {AT_ONCE, AT_END, NEVER}:
        return forwarding == AT_ONCE or (ended and forwarding == AT_END)
    try:
        return opens_ns(forwarding, now_ns) is None
    except (InvalidValue, UnknownZone):
        return True
