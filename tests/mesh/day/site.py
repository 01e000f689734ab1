"""The site: who there is, what is backed up, when and where to. The product is told by one file (``written``)."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

#: The first three vote. ``zeta``, ``eta`` and ``iota`` are those of which much is asked in the night.
BERLIN = ("alpha", "beta", "gamma", "delta", "epsilon")
LONDON = ("zeta", "eta", "theta", "iota")
VAULTS = ("kappa", "lambda", "mu")
SERVERS = (*BERLIN, *LONDON, *VAULTS)
VOTERS = SERVERS[:3]
POOLS = {"berlin": BERLIN, "london": LONDON, "vaults": VAULTS}
#: Device -> servers that reach it.
DEVICES = {
    "disk-beta": ("beta",),
    "disk-delta": ("delta",),
    "disk-zeta": ("zeta",),
    "disk-eta": ("eta",),
    "nas": ("eta", "theta"),
    "disk-kappa": ("kappa",),
    "disk-mu": ("mu",),
}
#: Zones, and on which time of day their nightly backups are due: daylight saving skips it in March, repeats it in October.
BERLIN_TIME, LONDON_TIME = "Europe/Berlin", "Europe/London"


class When(Struct, frozen=True):
    """A time of day of ``every`` day, Sunday, last Sunday of a month; or a minute of each half an hour."""

    every: str
    hour: int
    minute: int
    zone: str

    @property
    def text(self) -> str:
        """As the product is told."""
        time = f"{self.hour:02d}:{self.minute:02d}"
        return {
            "day": f"daily {time}",
            "sunday": f"sun {time}",
            "last-sunday": f"last sun {time}",
            "half-hour": f"{self.minute},{self.minute + 30} * * * *",
        }[self.every]


class Made(Struct, frozen=True):
    """A template. ``after``: the templates whose success starts it. ``window_s``: within it a run has to start, or is
    missed; with ``catch_up`` it runs whenever it can."""

    name: str
    type: str
    to: str | None = None
    when: When | None = None
    after: tuple[str, ...] = ()
    window_s: int = 4 * 3600
    catch_up: bool = False
    cancel_after_s: int | None = None
    priority: str | None = None


class Plan(Struct, frozen=True):
    """A policy. Of templates that are due at once the first one runs, and ``supersedes`` the others or goes before them."""

    name: str
    zone: str
    templates: tuple[Made, ...]
    supersedes: bool = True

    def template(self, name: str) -> Made:
        return next(each for each in self.templates if each.name == name)


class Pace(Struct, frozen=True):
    """How long things take. ``lost_after_s``: until a silent server is given up; ``run_s``: backups of a night, from and
    to, and those of the servers that are lost; ``copy_s``: their copies. ``log_minute``: of each half an hour; ``copies_at``,
    ``dump_at``: by the clocks of London and Berlin."""

    heartbeat_s: float
    stalled_s: float
    no_communication_s: float
    rejoin_s: float
    run_s: tuple[float, float]
    long_run_s: tuple[float, float]
    copy_s: tuple[float, float]
    shop_window_s: int
    copy_window_s: int
    log_window_s: int
    cancel_after_s: int
    log_minute: int
    copies_at: tuple[int, int]
    dump_at: tuple[int, int]

    @property
    def lost_after_s(self) -> float:
        return self.stalled_s + self.no_communication_s


#: As it is by the settings of the product, but for heartbeats, which are rarer.
REAL = Pace(
    heartbeat_s=30.0, stalled_s=300.0, no_communication_s=900.0, rejoin_s=900.0, run_s=(60, 400),
    long_run_s=(1000, 1500), copy_s=(20, 120), shop_window_s=3 * 3600, copy_window_s=2 * 3600, log_window_s=20 * 60,
    cancel_after_s=30 * 60, log_minute=15, copies_at=(5, 0), dump_at=(4, 0),
)  # fmt: skip
#: The same night in three quarters of an hour of one in March, in which the clocks of London go from 1 to 2, of Berlin to 3.
QUICK = Pace(
    heartbeat_s=10.0, stalled_s=30.0, no_communication_s=60.0, rejoin_s=60.0, run_s=(10, 50), long_run_s=(200, 260),
    copy_s=(5, 20), shop_window_s=20 * 60, copy_window_s=12 * 60, log_window_s=4 * 60, cancel_after_s=5 * 60,
    log_minute=3, copies_at=(2, 18), dump_at=(3, 20),
)  # fmt: skip


class Site(Struct, frozen=True):
    """What there is to do, and at which pace."""

    pace: Pace
    plans: dict[str, Plan]

    def made(self, list_: str, template: str) -> Made:
        return self.plan_of(list_).template(template)

    def plan_of(self, list_: str) -> Plan:
        return self.plans[BY_NAME[list_].plan]


_OFFICE_AT = (2, 30, BERLIN_TIME)
_SHOP_AT = (1, 30, LONDON_TIME)


def site(pace: Pace) -> Site:
    office = Plan(
        "office",
        BERLIN_TIME,
        (
            Made("monthly", "full", "pool:berlin", When("last-sunday", *_OFFICE_AT)),
            Made("weekly", "full", "pool:berlin", When("sunday", *_OFFICE_AT)),
            Made("daily", "incremental", "pool:berlin", When("day", *_OFFICE_AT)),
            Made("offsite", "duplicate", "devices:offsite", after=("monthly", "weekly", "daily")),
            Made("check", "verify", after=("offsite",)),
        ),
    )
    window_s, copies = pace.shop_window_s, When("day", *pace.copies_at, LONDON_TIME)
    shop = Plan(
        "shop",
        LONDON_TIME,
        (
            Made("full", "full", "pool:london", When("sunday", *_SHOP_AT), window_s=window_s, catch_up=True),
            Made("daily", "incremental", "pool:london", When("day", *_SHOP_AT), window_s=window_s, catch_up=True),
            Made("offsite", "duplicate", "devices:offsite", copies, window_s=pace.copy_window_s),
        ),
        supersedes=False,
    )
    often = When("half-hour", 0, pace.log_minute, "UTC")
    logs = Made("often", "incremental", "pool:vaults", often, window_s=pace.log_window_s, priority="high")
    at = When("day", *pace.dump_at, BERLIN_TIME)
    dump = Made("full", "full", "pool:berlin", at, cancel_after_s=pace.cancel_after_s)
    plans = (office, shop, Plan("logs", "UTC", (logs,)), Plan("dump", BERLIN_TIME, (dump,)))
    return Site(pace, {plan.name: plan for plan in plans})


class Listed(Struct, frozen=True):
    """A selection list: one folder of each of its servers."""

    name: str
    servers: tuple[str, ...]
    plan: str
    window: str = ""
    priority: str = "medium"


def _lists() -> tuple[Listed, ...]:
    night, shop = f"zone {BERLIN_TIME}; 22:00-06:00", f"zone {LONDON_TIME}; 20:00-08:00"
    # first of all the files of alpha, so that they are being read when it dies
    first = {"alpha": "high"}
    found = [
        Listed(f"{server}-{n}", (server,), "office", night, first.get(server, "medium"))
        for server in BERLIN
        for n in (1, 2, 3)
    ]
    found += [Listed("berlin-mail", ("alpha", "gamma"), "office", night)]
    found += [Listed("berlin-files", ("beta", "delta"), "office", night)]
    found += [Listed(f"{server}-{n}", (server,), "shop", shop) for server in LONDON for n in (1, 2, 3, 4)]
    found += [Listed("london-files", ("theta", "iota"), "shop", shop)]
    found += [Listed(f"{server}-log", (server,), "logs") for server in (*VAULTS, "zeta", "iota")]
    found += [Listed("epsilon-dump", ("epsilon",), "dump")]
    return tuple(found)


LISTS = _lists()
BY_NAME = {row.name: row for row in LISTS}
#: What its backups come to: they fail; they succeed with exceptions.
FAILING, EXCEPTING = "delta-3", "gamma-3"


def path_of(folder: Path, name: str) -> Path:
    """What a list backs up, on each of its servers."""
    return folder / "data" / name


def written(here: Site, folder: Path) -> str:
    """The file that makes all of it, where servers and devices are there."""
    pace = here.pace
    lines = [
        "[settings]",
        f"heartbeat-interval-s = {pace.heartbeat_s}",
        f"stalled-after-s = {pace.stalled_s}",
        f"no-communication-after-s = {pace.no_communication_s}",
        f"rejoin-s = {pace.rejoin_s}",
        "status-interval-s = 60",
        # so that theta, whose own device takes two, is read to those of zeta and of eta, too
        "[server.theta.settings]",
        "source-concurrency = 4",
        "[device.disk-zeta]",
        "concurrency = 4",
        "[device.disk-eta]",
        "concurrency = 4",
    ]
    for name, servers in POOLS.items():
        lines += [f"[pool.{name}]", f"servers = {list(servers)}"]
    lines += ["[device_pool.offsite]", 'devices = ["disk-kappa:10", "disk-mu:10"]']
    for row in LISTS:
        places = [f"{server}:{path_of(folder, row.name)}" for server in row.servers]
        lines += [
            f"[selection.{row.name}]",
            f"paths = {places}",
            f'window = "{row.window}"',
            f'priority = "{row.priority}"',
        ]
    for plan in here.plans.values():
        lines += [f"[policy.{plan.name}]", f'zone = "{plan.zone}"', f"rules = {_rules(plan)}"]
        for made in plan.templates:
            lines += [f"[policy.{plan.name}.templates.{made.name}]", *_template(made)]
    lines += ["[associations]", *(f'{row.name} = ["{row.plan}"]' for row in LISTS)]
    return "\n".join(lines) + "\n"


def _rules(plan: Plan) -> list[str]:
    rules = [f"when {a} succeeds start {made.name}" for made in plan.templates for a in made.after]
    if plan.supersedes and len(plan.templates) > 1:
        rules.append("on conflict monthly supersedes weekly")  # one full against another; the rest goes without saying
    if not plan.supersedes:
        rules.append("on conflict full then daily")
    return rules


def _template(made: Made) -> list[str]:
    said: dict[str, object] = {"type": made.type, "to": made.to, "priority": made.priority}
    if made.when is not None:
        said |= {"schedule": made.when.text, "zone": made.when.zone, "start_window": f"{made.window_s}s"}
    if made.cancel_after_s is not None:
        said["cancel_after"] = f"{made.cancel_after_s}s"
    lines = [f'{key} = "{value}"' for key, value in said.items() if value is not None]
    return [*lines, "catch_up = true"] if made.catch_up else lines
