"""Mesh settings: each with its default, its unit (in the name), its bounds, and why it exists.

They hold for the whole mesh, for all servers of a pool, or for one server; the narrower wins. A preset moves the
defaults of those that depend on the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from caso_mesh.model.alerts import BY_NAME as CATEGORIES
from caso_mesh.model.alerts import may_be_off
from caso_mesh.model.bandwidth import NONE, parse_bandwidth
from caso_mesh.model.errors import InvalidValue, Misuse, UnknownSetting
from caso_mesh.model.hours import parse_window
from caso_mesh.model.states import AlertKind
from caso_mesh.model.units import format_number, parse_duration_s

#: Most settings are numbers, some are texts with a form of their own.
Value = float | str

#: How a text looks, for people.
BANDWIDTH = "[`zone NAME;`] then pieces [days] [hours] rate, as in `mon-fri 08:00-18:00 20MB; 50MB`"
IONICE = "`none`, `best-effort-0` to `best-effort-7`, `idle`"
FORWARDING = "`at-once`, `at-end`, `never`, or hours, as in `zone Europe/Berlin; mon-fri 20:00-06:00; sat,sun`"
HISTORY = "`at-end`, `never`"
CATALOG_MODES = "`centralized`, `distributed`, `replicated`"
TIME_OF_DAY = "`never`, or a time of day, as in `07:00` or `zone Europe/Berlin; 07:00`"
ANSWER_AFTER = "`never`, or types and categories of alerts with times, as in `information 7d; job-recovered 1d`"
ALERTS_OFF = "`none`, or categories of alerts, as in `catalog-lost clock-differs`"
#: When something leaves the server that has it: at once, at the end of its job, never.
AT_ONCE, AT_END, NEVER = "at-once", "at-end", "never"
_TIME = re.compile(r"(?:zone\s+([A-Za-z0-9+_/-]{1,64})\s*;\s*)?([01]?\d|2[0-3]):([0-5]\d)")
_CATEGORY = re.compile(r"[a-z][a-z-]{0,62}")
_IONICE = re.compile(r"none|idle|best-effort-[0-7]")


class Setting(Struct, frozen=True):
    """A number. ``presets`` overrides ``default`` for meshes made with that preset."""

    name: str
    default: float
    minimum: float
    maximum: float
    text: str
    presets: dict[str, float] = {}

    def default_for(self, preset: str) -> float:
        return self.presets.get(preset, self.default)

    def check(self, value: Value) -> float:
        """Raises ``InvalidValue``."""
        if isinstance(value, str) or not self.minimum <= value <= self.maximum:
            expected = f"It lies between {format_number(self.minimum)} and {format_number(self.maximum)}"
            shown = value if isinstance(value, str) else format_number(value)
            raise InvalidValue(value=shown, what=self.name, expected=expected)
        return value


class TextSetting(Struct, frozen=True):
    """A text, the same in all presets; ``form`` says how it looks."""

    name: str
    default: str
    form: str
    text: str

    def default_for(self, preset: str) -> str:
        return self.default

    def check(self, value: Value) -> str:
        """Raises ``InvalidValue``."""
        if self.form == BANDWIDTH and isinstance(value, str) and len(value) <= 500:
            parse_bandwidth(value)
            return value
        if self.form == FORWARDING and isinstance(value, str):
            if value not in {AT_ONCE, AT_END, NEVER}:
                parse_window(value)
            return value
        if self.form == HISTORY and value in {AT_END, NEVER}:
            return str(value)
        if self.form == CATALOG_MODES and value in {"centralized", "distributed", "replicated"}:
            return str(value)
        if self.form == TIME_OF_DAY and isinstance(value, str):
            if value != NEVER:
                parse_time_of_day(value)
            return value
        if self.form == ANSWER_AFTER and isinstance(value, str):
            parse_answer_after(value)
            return value
        if self.form == ALERTS_OFF and isinstance(value, str):
            parse_alerts_off(value)
            return value
        if self.form == IONICE and isinstance(value, str) and _IONICE.fullmatch(value):
            return value
        raise InvalidValue(value=value, what=self.name, expected=f"Use {self.form}".replace("`", ""))


def parse_time_of_day(text: str) -> tuple[str, int]:
    """The zone (``UTC`` without one) and the minute of the day of ``zone NAME; HH:MM``. Raises ``InvalidValue``."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise InvalidValue(value=text[:100], what="time of day", expected=f"Use {TIME_OF_DAY}".replace("`", ""))
    return found[1] or "UTC", int(found[2]) * 60 + int(found[3])


def parse_answer_after(text: str) -> dict[str, float]:
    """Type or category of alerts -> seconds. Raises ``InvalidValue``. A category of a newer version is no mistake."""
    if text == NEVER:
        return {}
    found: dict[str, float] = {}
    for piece in text.split(";"):
        words = piece.split()
        if len(words) != 2 or not _CATEGORY.fullmatch(words[0]) or words[0] in found:
            raise InvalidValue(
                value=text[:200], what="alert-answer-after", expected=f"Use {ANSWER_AFTER}".replace("`", "")
            )
        found[words[0]] = parse_duration_s(words[1])
    return found


def parse_alerts_off(text: str) -> frozenset[str]:
    """Categories of alerts. Raises ``InvalidValue``, also for those that need attention. A category of a newer version is no
    mistake."""
    words = [] if text == NONE else text.replace(",", " ").split()
    if (text != NONE and not words) or len(text) > 2000 or not all(map(_CATEGORY.fullmatch, words)):
        raise InvalidValue(value=text[:200], what="categories of alerts", expected=f"Use {ALERTS_OFF}".replace("`", ""))
    loud = sorted(word for word in words if word == AlertKind.ATTENTION or not may_be_off(word, ""))
    if loud:
        raise InvalidValue(
            value=loud[0], what="category of alerts", expected="What needs attention is told and shown everywhere"
        )
    return frozenset(words)


def categories_off(settings: Mapping[str, Value], name: str) -> frozenset[str]:
    """What a setting that turns categories of alerts off says; nothing, if another version understands it otherwise."""
    try:
        return parse_alerts_off(text(settings, name))
    except InvalidValue:
        return frozenset()


_DAY = 86400.0

SETTINGS: tuple[Setting | TextSetting, ...] = (
    Setting(
        "stalled-after-s",
        300.0,
        0.2,
        7 * _DAY,
        "A server that was silent for this long is stalled: nothing new is delegated to it. With many servers at least "
        "their number / 5 in seconds: four of the intervals at which so many may beat.",
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
        "How often a server tells the administrator that it is there, a tenth more or less by chance. Well below "
        "stalled-after-s, so that one lost message stalls nobody. With many servers each beats at most once in their "
        "number / 20 seconds: the administrator hears 20 in a second, however many there are.",
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
    TextSetting(
        "joblog-forwarding",
        AT_ONCE,
        FORWARDING,
        "When a server sends the job logs of what it runs to the administrator: at-once = line by line, at-end = at the end "
        "of each job, never = they stay on it, hours = in these only, then all that has gathered. What was not sent is asked "
        "of the server when somebody looks at the log. It is kept there for joblog-keep-s.",
    ),
    TextSetting(
        "history-forwarding",
        AT_END,
        HISTORY,
        "When a server sends the history of a job, which is its list of exceptions, to the administrator: at-end = at the "
        "end of the job, never = it stays on the server, and is asked of it when somebody looks. How a job ended, what it "
        "counted and what sets it made is always told: the administrator decides by it.",
    ),
    TextSetting(
        "catalog-mode",
        "centralized",
        CATALOG_MODES,
        "Where the catalogs of the sets are kept that a media server made, which name every file: centralized = at all "
        "voters, so that they can be browsed and searched while the server is away; distributed = on the server alone, which "
        "is asked, while the voters keep the records of the sets; replicated = both. Another mode is moved to in the "
        "background, see caso-mesh catalog modes; browsing goes on meanwhile.",
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
        "queue-on-hold",
        0.0,
        0.0,
        1.0,
        "1 = the queue of the server is on hold: it is delegated nothing, what it was given runs to its end. 0 = it is not, "
        "also where that of all servers or of its pool is. caso-mesh server hold-queue and release-queue set it.",
    ),
    Setting(
        "local-job-monitoring",
        1.0,
        0.0,
        1.0,
        "1 = jobs that a server runs by itself, copied to it or made there, are shown among those of the mesh. 0 = they are "
        "not: only their backup sets, media and alerts are.",
    ),
    Setting(
        "rejoin-s",
        900.0,
        1.0,
        _DAY,
        "How long the two ends of a job on two servers wait for each other after their connection was lost: within it the "
        "job goes on where it was, then it fails; where the server of the files is lost to the administrator too, it waits "
        "for that.",
    ),
    Setting(
        "worker-nice",
        0.0,
        0.0,
        19.0,
        "How much workers, and the commands they run, give way to other programs of their server for processor and, where "
        "the disk's scheduler heeds it, disk: 0 = not at all, 19 = to all (nice(1)). It holds for what begins afterwards.",
    ),
    TextSetting(
        "worker-ionice",
        NONE,
        IONICE,
        "How much workers, and the commands they run, give way to other programs of their server for the disk, where the "
        "disk's scheduler heeds it (ionice(1)): none = as worker-nice has it, best-effort-7 = after all that is not told "
        "otherwise, idle = only while nobody else uses the disk. It holds for what begins afterwards.",
    ),
    TextSetting(
        "bandwidth-limit",
        NONE,
        BANDWIDTH,
        "How much content a server sends to other servers in a second, all of its jobs together, by the time of day: the "
        "first piece that fits holds, rates are sizes per second, none = no limit, closed = no job begins for which it would "
        "send. Hours are those of the sending server's "
        "own time zone, or of the zone NAME. What is read from or written to its own disks is not limited. Running jobs "
        "follow it within seconds.",
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
    Setting(
        "audit-keep-s",
        730 * _DAY,
        30 * _DAY,
        36500 * _DAY,
        "How long the audit log is kept. It holds for the whole mesh.",
    ),
    Setting(
        "clock-steady-s",
        4 * 3600.0,
        60.0,
        30 * _DAY,
        "Nothing expires until the administrator's wall clock was not set for this long, or since it took office ten "
        "minutes at most: time for people to see the alert before sets go by a wrong clock.",
    ),
    Setting(
        "second-operator",
        0.0,
        0.0,
        1.0,
        "1 = set delete, device remove, mediaset edit, apply, operator create, audit trim and a change of this setting, of ransomware-brake, of "
        "audit-keep-s or of clock-steady-s wait until another operator gives the same command. 0 = one operator is enough. It holds for the "
        "whole mesh.",
    ),
    Setting(
        "ransomware-brake",
        1.0,
        0.0,
        1.0,
        "1 = a backup that looks as if somebody had encrypted its source locks the last good sets of its list, and nothing "
        "expires until its alert is answered. 0 = backups are not looked at so. It holds for the whole mesh.",
    ),
    Setting(
        "ransomware-lock-s",
        90 * _DAY,
        _DAY,
        3650 * _DAY,
        "How long the ransomware brake locks the last good sets. A lock cannot be shortened by anybody.",
    ),
    Setting(
        "journal-keep-s",
        _DAY,
        0.0,
        36500 * _DAY,
        "How long a server keeps facts in its own journal at least, also when a majority of the voters holds them durably. "
        "With a single voter facts are kept for joblog-keep-s: what counts for longer lies in the devices.",
    ),
    Setting(
        "journal-limit-mb",
        2000.0,
        1.0,
        1_000_000.0,
        "How many MB of facts may wait on a server while no administrator takes them. From a quarter of it on, job logs wait "
        "beside the journal. From half of it on their lines are left out, those of the oldest jobs first, debug before "
        "information before the rest, and each log says how many are missing. At the limit the server takes no new work, and "
        "an alert says so. How jobs ended, exceptions, sets, media and alerts are never left out there. The administrator takes "
        "twice as much of a server in a day: see the alert server-floods.",
    ),
    Setting(
        "replica-wait-s",
        _DAY,
        60.0,
        36500 * _DAY,
        "Voters keep the records that their tables are made of until each of them has taken them in. One that was not heard "
        "of for this long is not waited for: on its return it takes over all tables of another one.",
    ),
    TextSetting(
        "summary-at",
        "07:00",
        TIME_OF_DAY,
        "When recipients get the morning summary of the last day, but for those that were made with --no-summary. A time "
        "without a zone is in UTC. It holds for the whole mesh.",
    ),
    TextSetting(
        "alerts-off",
        NONE,
        ALERTS_OFF,
        "Alerts that a server which is not in office keeps to itself: alert list --local shows them, no administrator does. Not "
        "those that need attention. Those that it told before stay.",
    ),
    TextSetting(
        "alerts-hidden",
        NONE,
        ALERTS_OFF,
        "Alerts about a server that the administrator takes in, and neither lists nor counts nor tells anybody of. Not those "
        "that need attention. Set for the whole mesh it holds for alerts about no server, too.",
    ),
    TextSetting(
        "alert-answer-after",
        "information 7d; warning 30d",
        ANSWER_AFTER,
        "After what time an alert that nobody answered is answered by itself, with the answer that help alerts says, as who "
        "automatic; a category goes before its type. Not those that stand, which go with their condition, nor those that wait "
        "for a person.",
    ),
    Setting(
        "runs-kept",
        20_000.0,
        10.0,
        1_000_000.0,
        "Of how many closed runs job logs and history are kept at most, the newest, whatever joblog-keep-s says; a run "
        "counts once for each of its sources. The administrator has them in memory: some 3 MB for a thousand.",
    ),
)
BY_NAME: dict[str, Setting | TextSetting] = {setting.name: setting for setting in SETTINGS}


def parse_setting(name: str, text: str) -> Value:
    """The value of a setting as a person writes it; names in ``-s`` take durations. ``UnknownSetting``,
    ``InvalidValue``."""
    setting = BY_NAME.get(name)
    if setting is None:
        raise UnknownSetting(name=name)
    if isinstance(setting, TextSetting):
        words = setting.check(" ".join(text.split()))
        if setting.form == ALERTS_OFF:
            _check_categories(words)
        return words
    try:
        value = parse_duration_s(text) if name.endswith("-s") else float(text)
    except ValueError:
        raise InvalidValue(value=text, what=name, expected="Use a number") from None
    return setting.check(value)


def _check_categories(text: str) -> None:
    """A person means a category that there is; a voter may know fewer."""
    for word in sorted(parse_alerts_off(text) - CATEGORIES.keys()):
        raise InvalidValue(value=word, what="category of alerts", expected="Use some of: caso-mesh alert categories")


def check_setting(name: str, value: Value) -> Value:
    """``value`` itself, if it is one that the setting may have. ``UnknownSetting``, ``InvalidValue``."""
    setting = BY_NAME.get(name)
    if setting is None:
        raise UnknownSetting(name=name)
    return setting.check(value)


def effective(preset: str, layers: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    """Every setting's value: the preset's default, then each layer (mesh, pools, server) over it."""
    values: dict[str, Value] = {setting.name: setting.default_for(preset) for setting in SETTINGS}
    for layer in layers:
        values.update({name: value for name, value in layer.items() if name in values})
    return values


def number(settings: Mapping[str, Value], name: str, preset: str = "lan") -> float:
    """A setting that is a number; its default where ``settings``, of another version, do not know it."""
    setting = BY_NAME[name]
    value = settings.get(name, setting.default_for(preset))
    if isinstance(setting, TextSetting) or isinstance(value, str):
        raise Misuse(f"{name} is no number")
    return value


def text(settings: Mapping[str, Value], name: str) -> str:
    """As ``number``, for a setting that is a text."""
    value = settings.get(name, BY_NAME[name].default_for("lan"))
    if not isinstance(value, str):
        raise Misuse(f"{name} is no text")
    return value
