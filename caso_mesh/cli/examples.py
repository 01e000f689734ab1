"""Lines that the help of a command shows. Only help loads them."""

from __future__ import annotations

#: By the words of a command, without the name of the program.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "backup": (
        "backup alpha:/etc alpha:/home --to any --wait",
        "backup alpha:/srv --to devices:cellar --schedule 'daily 02:00'",
    ),
    "restore": (
        "restore alpha:/etc/fstab --as-of 2025-01-31T02:00 --wait",
        "restore 01jk2 /srv/photos --to beta:/tmp/photos --strip",
    ),
    "init": ("init --mesh meadow --server alpha --listen 0.0.0.0:7300",),
    "join": ("join LINK --server beta --listen 0.0.0.0:7300", "join LINK --replaces beta"),
    "pool create": ("pool create vaults --server beta --server gamma",),
    "selection create": ("selection create office alpha:/srv beta:/etc --exclude '*.tmp' --oldest-good 26h",),
    "associate": ("associate office nightly",),
    "history": ("history --server alpha --state failed", "history --since 2025-01-31T00:00 --limit 50"),
    "alert list": ("alert list --type error", "alert list --all --server alpha --since 2025-01-31T00:00"),
    "alert show": ("alert show 01jk2",),
    "alert watch": ("alert watch --type error --json-lines",),
    "alert answer": ('alert answer 01jk2 "the disk was replaced"',),
    "audit list": ("audit list --who anna --since 2025-01-31T00:00", "audit list --what set. --outcome done"),
    "audit export": ("audit export --since 2025-01-01T00:00",),
    "catalog ls": ("catalog ls alpha:/etc --as-of 2025-01-31T02:00", "catalog ls 01jk2 /srv"),
    "catalog find": ("catalog find '*.pdf' --server alpha --larger 10MB", "catalog find report.odt --ignore-case"),
    "catalog versions": ("catalog versions alpha:/etc/fstab",),
    "catalog du": ("catalog du alpha:/srv --depth 1",),
    "catalog rebuild": ("catalog rebuild disk1", "catalog rebuild --all --schedule '1st sun 06:00'"),
    "job edit": (
        "job edit nightly --schedule 'weekdays 23:00' --start-window 2h",
        "job edit nightly --path alpha:/srv --path beta:/srv --exclude none",
    ),
    "job copy": ("job copy nightly second",),
    "device add": (
        "device add disk1 --server alpha --path /mnt/disk1 --low-space 10GB",
        "device add nas --kind shared --on alpha=/mnt/nas --on beta=/mnt/nas",
    ),
    "device erase": ("device erase disk1 --wait",),
    "device inventory": ("device inventory disk1 --wait", "device inventory --all --schedule 'sun 06:00'"),
    "policy create": ("policy create office --zone Europe/Berlin",),
    "policy template add": ("policy template add office nightly --type incremental --to any --schedule 'daily 02:00'",),
    "notify smtp set": ("notify smtp set mail.example.org --from backup@example.org --logon mail",),
    "notify recipient create": (
        "notify recipient create anna --mail anna@example.org",
        "notify recipient create chat --url https://hooks.example.org/abc --logon hook",
    ),
    "notify rule create": (
        "notify rule create errors --to anna --alert error --alert attention-required",
        "notify rule create nightly --to anna --end failed --end missed --list home",
    ),
    "notify test": ("notify test anna",),
    "report show": ("report show jobs-summary --days 7", "report show device-summary --format html --output page.html"),
    "report schedule": ('report schedule jobs-summary --cron "weekdays 07:00" --to anna',),
}


def shown(command: str) -> str | None:
    """What stands below the help of a command, which is named by its words."""
    lines = EXAMPLES.get(command)
    if lines is None:
        return None
    return "\n".join(["Examples:" if len(lines) > 1 else "Example:", *(f"  caso-mesh {line}" for line in lines)])
