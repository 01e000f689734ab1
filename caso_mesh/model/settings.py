"""Mesh settings: each with its default, its unit (in the name), its bounds, and why it exists.

They hold for the whole mesh, for all servers of a pool, or for one server; the narrower wins. A preset moves the
defaults of those that depend on the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from caso_mesh.model.errors import InvalidValue, UnknownSetting
from caso_mesh.model.units import parse_duration_s


class Setting(Struct, frozen=True):
    """``presets`` overrides ``default`` for meshes made with that preset."""

    name: str
    default: float
    minimum: float
    maximum: float
    text: str
    presets: dict[str, float] = {}

    def default_for(self, preset: str) -> float:
        return self.presets.get(preset, self.default)


_DAY = 86400.0

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "stalled-after-s",
        300.0,
        0.2,
        7 * _DAY,
        "A server that was silent for this long is stalled: nothing new is delegated to it.",
    ),
    Setting(
        "no-communication-after-s",
        900.0,
        0.2,
        30 * _DAY,
        "A stalled server that stays silent for this much longer is in no-communication: what is active on it is "
        "recovered, what it had not started is taken back.",
    ),
    Setting(
        "heartbeat-interval-s",
        5.0,
        0.05,
        3600.0,
        "How often a server tells the administrator that it is there. Well below stalled-after-s, so that one lost "
        "message stalls nobody.",
        {"local": 0.5, "wan": 15.0},
    ),
    Setting(
        "status-interval-s",
        10.0,
        0.1,
        3600.0,
        "How often a running job reports its progress while nobody watches it. Watched jobs report twice a second.",
        {"local": 1.0, "wan": 30.0},
    ),
    Setting(
        "recovery-retry-s",
        300.0,
        0.0,
        _DAY,
        "After the second recovery of a run the next attempt waits this long; the first follows at once.",
    ),
    Setting(
        "interrupted-retries",
        5.0,
        0.0,
        100.0,
        "How often a run whose server was restarted in the middle is begun again before it counts as failed.",
    ),
    Setting(
        "server-concurrency",
        4.0,
        1.0,
        256.0,
        "How many jobs one media server runs at once, over all its devices.",
    ),
    Setting(
        "source-concurrency",
        2.0,
        1.0,
        256.0,
        "How many jobs read from (or write to) the file systems of one server at once.",
    ),
    Setting(
        "worker-nice",
        0.0,
        0.0,
        19.0,
        "How much workers, and the commands they run, give way to other programs of their server for processor and, where "
        "the disk's scheduler heeds it, disk: 0 = not at all, 19 = to all (nice(1)). It holds for what begins afterwards.",
    ),
    Setting(
        "clock-difference-s",
        30.0,
        1.0,
        3600.0,
        "A server whose clock differs from the administrator's by more than this raises an alert.",
    ),
    Setting(
        "start-window-s",
        4 * 3600.0,
        1.0,
        7 * _DAY,
        "A scheduled run that could not start within this time of its due time is missed.",
    ),
    Setting(
        "joblog-keep-s",
        180 * _DAY,
        _DAY,
        36500 * _DAY,
        "How long job logs and the history of runs are kept.",
    ),
)
BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


def parse_setting(name: str, text: str) -> float:
    """The value of a setting as a person writes it; names in ``-s`` take durations. ``UnknownSetting``,
    ``InvalidValue``."""
    setting = BY_NAME.get(name)
    if setting is None:
        raise UnknownSetting(name=name)
    try:
        value = parse_duration_s(text) if name.endswith("-s") else float(text)
    except ValueError:
        raise InvalidValue(value=text, what=name, expected="Use a number") from None
    return check_setting(name, value)


def check_setting(name: str, value: float) -> float:
    """``value`` itself, if it lies within the setting's bounds. ``UnknownSetting``, ``InvalidValue``."""
    setting = BY_NAME.get(name)
    if setting is None:
        raise UnknownSetting(name=name)
    if not setting.minimum <= value <= setting.maximum:
        raise InvalidValue(
            value=value, what=name, expected=f"It lies between {setting.minimum:g} and {setting.maximum:g}"
        )
    return value


def effective(preset: str, layers: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Every setting's value: the preset's default, then each layer (mesh, pools, server) over it."""
    values = {setting.name: setting.default_for(preset) for setting in SETTINGS}
    for layer in layers:
        values.update({name: value for name, value in layer.items() if name in values})
    return values
