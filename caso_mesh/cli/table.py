"""The commands of the program by name, in the order of its help."""

from __future__ import annotations

#: Group, command, where it is, and what it is for (shown by ``caso-mesh --help`` without loading any of them).
COMMANDS: tuple[tuple[str, str, str, str], ...] = (
    ("Daily", "status", "status:status", "The mesh on one screen."),
    ("Daily", "top", "top:top", "The mesh as it works, drawn anew every second."),
    ("Daily", "backup", "backup:backup", "Back up paths of servers, now or by a schedule."),
    ("Daily", "restore", "restore:restore", "Restore a backup set or parts of it."),
    ("Daily", "cat", "cat:cat", "Print one file as it was in a backup set."),
    ("Daily", "verify", "verify:verify", "Read back and check every byte of a backup set."),
    ("Daily", "duplicate", "duplicate:duplicate", "Copy a backup set to another device."),
    ("Daily", "synthetic", "synthetic:synthetic", "Make full sets out of newest ones, without reading the source."),
    ("Daily", "drill", "drill:drill", "Restore a random sample to scratch, compare it, remove it."),
    ("Daily", "report", "report:app", "Reports: is all well, what failed, what is not backed up ..."),
    ("Daily", "job", "job:app", "Jobs, their runs and logs: list, show, watch, cancel, hold ..."),
    ("Daily", "history", "history:history", "What was done: one line for each attempt."),
    ("Daily", "why", "why:why", "What became of a run, or of a night, and why."),
    ("Daily", "what-if", "what_if:what_if", "The night to come, also without some servers."),
    ("What shall be backed up", "selection", "selection:app", "Selection lists: what to back up."),
    ("What shall be backed up", "policy", "policy:app", "Policies: templates, and rules between them."),
    ("What shall be backed up", "associate", "associate:associate", "Make jobs of a selection list and a policy."),
    ("What shall be backed up", "schedule", "schedule:app", "What is due in the next days."),
    ("What shall be backed up", "calendar", "calendar:app", "Calendars: named days without runs."),
    ("What shall be backed up", "apply", "apply:apply", "Make the mesh as a file says."),
    ("What shall be backed up", "export", "apply:export", "Print the file that would make the mesh as it is."),
    ("What shall be backed up", "error-rule", "error_rule:app", "What becomes of jobs that failed."),
    ("What shall be backed up", "logon", "logon:app", "Users and secrets for the commands of servers."),
    ("What shall be backed up", "copy", "copy:app", "Copy jobs and policies to servers, which run them by themselves."),
    ("What was backed up", "set", "set:app", "Backup sets."),
    ("What was backed up", "catalog", "catalog:app", "Files in backup sets: browse, find, versions."),
    ("The mesh", "server", "server:app", "Servers: list, approve, pause, resume, remove ..."),
    ("The mesh", "voter", "voter:app", "Voters: the servers of which one is elected administrator."),
    ("The mesh", "admin", "admin:app", "The office of the administrator: hand it over, take it over."),
    ("The mesh", "pool", "pool:app", "Media server pools."),
    ("The mesh", "device", "device:app", "Storage devices."),
    ("The mesh", "mediaset", "mediaset:app", "Media sets: how long sets are kept."),
    ("The mesh", "medium", "medium:app", "Media on the devices."),
    ("The mesh", "settings", "settings:app", "Settings of the mesh, of pools and of servers."),
    ("The mesh", "alert", "alert:app", "Alerts: list and answer."),
    ("The mesh", "notify", "notify:app", "Mail and webhooks: who is told of what."),
    ("The mesh", "audit", "audit:app", "Who did what."),
    ("The mesh", "metrics", "metrics:metrics", "Figures of a server and of the mesh, for Prometheus."),
    ("The mesh", "kit", "kit:app", "Recovery kits: create, list."),
    ("The mesh", "token", "token:app", "Join links for new servers."),
    ("The mesh", "operator", "operator:app", "People, and what each may do where: create, list, revoke."),
    ("The mesh", "context", "context:app", "Contexts: an operator's key for use on any machine."),
    ("The mesh", "peer", "peer:app", "Static addresses of other servers."),
    ("This machine", "init", "init:init", "Make a new mesh with this server as its first."),
    ("This machine", "join", "join:join", "Make this server a member of a mesh, by a join link."),
    ("This machine", "run", "run:run", "The daemon, in the foreground."),
    ("Without a mesh", "recover", "recover:recover", "Rebuild the administrator out of a device and a recovery kit."),
    ("Without a mesh", "vault", "vault:app", "A device and its recovery kit: list and restore, with no mesh left."),
    ("This machine", "commands", "commands:app", "Entries of its own file that jobs may name: preset."),
    ("This machine", "service", "service:app", "The systemd service of the daemon."),
    ("This machine", "demo", "demo:demo", "A throw-away mesh of three servers: backs up, restores, compares."),
    ("This machine", "help", "help:help_", "The manual."),
)


def place_of(name: str) -> tuple[str, str] | None:
    """Module and attribute of a command, or of a group of them; ``None`` if there is none of that name."""
    for _, known, place, _ in COMMANDS:
        if known == name:
            module, _, attribute = place.partition(":")
            return f"{__package__}.{module}", attribute
    return None
