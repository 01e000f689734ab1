"""A small site of three servers, and which runs a day of it must have. Hours count from its first night.

Servers are away when the story (``day_story.py``) has it so; that night and the next one, a morning and a noon lie between.
"""

from __future__ import annotations

import pathlib
from datetime import datetime, timedelta

from msgspec import Struct

#: All of them vote; the first is in office at the beginning.
SERVERS = ("alpha", "beta", "gamma")
#: Device -> its server. What nights write goes to those of ``beta`` and ``gamma``, and from there to that of ``alpha``.
DEVICES = {"disk-alpha": "alpha", "disk-beta": "beta", "first-beta": "beta", "disk-gamma": "gamma"}
COPIES = "disk-alpha"

LOG_HOURS = (1.5, 4.5, 7.5, 10.5, 13.5, 16.5, 19.5, 25.5)
MAIL_HOUR, NOON_HOUR = 9.0, 15.2
NIGHTS = (0, 24)
#: After the window of the last log.
STOPS_HOUR = 27.8
#: In hours: within them a run has to start.
NIGHT_WINDOW, SHOP_WINDOW, LOG_WINDOW = 4.0, 2.0, 2.0


class Listed(Struct, frozen=True):
    """A selection list: the same folder of each of its servers. ``megabytes``: else it is small."""

    name: str
    servers: tuple[str, ...]
    policy: str
    megabytes: int = 0


LISTS = (
    Listed("alpha-docs", ("alpha",), "office"),
    Listed("beta-docs", ("beta",), "nightly"),
    Listed("gamma-docs", ("gamma",), "nightly"),
    Listed("both", ("alpha", "gamma"), "nightly"),
    Listed("gamma-shop", ("gamma",), "shop"),
    Listed("alpha-log", ("alpha",), "logs"),
    Listed("beta-log", ("beta",), "logs"),
    Listed("gamma-log", ("gamma",), "logs"),
    Listed("alpha-mail", ("alpha",), "mail", 24),
    Listed("beta-mail", ("beta",), "mail"),
    Listed("gamma-noon", ("gamma",), "noon", 24),
)
BY_NAME = {row.name: row for row in LISTS}
#: Policies whose sets are copied off-site and then checked.
COPIED = ("office", "nightly")


class Due(Struct, frozen=True, order=True):
    """A due time of one template of one list."""

    hour: float
    list: str
    template: str

    @property
    def window(self) -> float:
        policy = BY_NAME[self.list].policy
        return {"logs": LOG_WINDOW, "shop": SHOP_WINDOW}.get(policy, NIGHT_WINDOW)

    @property
    def catches_up(self) -> bool:
        return BY_NAME[self.list].policy == "shop"


def due_runs() -> dict[Due, bool]:
    """Every run that has to be there, and whether it gives way to the weekly one."""
    found: dict[Due, bool] = {}
    for row in LISTS:
        if row.policy in COPIED:
            found[Due(0, row.name, "weekly")] = False
            found[Due(0, row.name, "daily")] = True
            found[Due(24, row.name, "daily")] = False
        elif row.policy == "shop":
            found |= dict.fromkeys((Due(hour, row.name, "daily") for hour in NIGHTS), False)
        elif row.policy == "logs":
            found |= dict.fromkeys((Due(hour, row.name, "often") for hour in LOG_HOURS), False)
        else:
            found[Due({"mail": MAIL_HOUR, "noon": NOON_HOUR}[row.policy], row.name, "full")] = False
    return found


def path_of(folder: pathlib.Path, name: str, server: str) -> pathlib.Path:
    return folder / "data" / server / name


def written(folder: pathlib.Path, night: datetime) -> str:
    """The file that makes lists and policies, where servers and devices are there. ``night``: the first one, in UTC."""

    def at(hour: float) -> str:
        return f"{night + timedelta(hours=hour):%H:%M}"

    day = f"{night:%a}".lower()
    logs = [night + timedelta(hours=hour) for hour in LOG_HOURS if hour < 24]
    often = f"{logs[0]:%M} {','.join(sorted(f'{each:%H}' for each in logs))} * * *"
    lines = [
        "[settings]",
        # of real time: a server that is silent for six seconds is given up
        "stalled-after-s = 3",
        "no-communication-after-s = 3",
        # for what rules start, which is due by the clock that all other things go by
        "start-window-s = 604800",
        "[pool.vaults]",
        'servers = ["beta", "gamma"]',
        "[device_pool.first]",
        'devices = ["first-beta:10", "disk-gamma:20"]',
        "[device_pool.offsite]",
        f'devices = ["{COPIES}:10"]',
    ]
    for device in DEVICES:
        lines += [f"[device.{device}]", "concurrency = 4"]
    for row in LISTS:
        places = [f"{server}:{path_of(folder, row.name, server)}" for server in row.servers]
        lines += [f"[selection.{row.name}]", f"paths = {places}"]
    for policy, to in (("office", "devices:first"), ("nightly", "pool:vaults")):
        rules = [f"when {each} succeeds start offsite" for each in ("weekly", "daily")]
        lines += [
            f"[policy.{policy}]",
            f"rules = {[*rules, 'when offsite succeeds start check']}",
            *_template(policy, "weekly", "full", to, f"{day} {at(0)}", NIGHT_WINDOW),
            *_template(policy, "daily", "incremental", to, f"daily {at(0)}", NIGHT_WINDOW),
            *_template(policy, "offsite", "duplicate", "devices:offsite"),
            *_template(policy, "check", "verify"),
        ]
    lines += ["[policy.shop]", *_template("shop", "daily", "incremental", "pool:vaults", f"daily {at(0)}", SHOP_WINDOW)]
    lines += ["catch_up = true"]
    lines += ["[policy.logs]", *_template("logs", "often", "incremental", "pool:vaults", often, LOG_WINDOW)]
    lines += [
        "[policy.mail]",
        *_template("mail", "full", "full", "devices:first", f"daily {at(MAIL_HOUR)}", NIGHT_WINDOW),
    ]
    lines += [
        "[policy.noon]",
        *_template("noon", "full", "full", "server:gamma", f"daily {at(NOON_HOUR)}", NIGHT_WINDOW),
    ]
    lines += ["[associations]", *(f'{row.name} = ["{row.policy}"]' for row in LISTS)]
    return "\n".join(lines) + "\n"


def _template(
    policy: str, name: str, kind: str, to: str | None = None, schedule: str | None = None, window: float | None = None
) -> list[str]:
    start_window = None if window is None else f"{round(window * 3600)}s"
    said = {"type": kind, "to": to, "schedule": schedule, "start_window": start_window}
    return [
        f"[policy.{policy}.templates.{name}]",
        *(f'{key} = "{value}"' for key, value in said.items() if value is not None),
    ]
