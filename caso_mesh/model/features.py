"""The feature level: what all voters of a mesh understand of the replicated log.

A voter that meets a command it does not know stops applying, since a state without it would be another one. So a
command that came with a later level is not proposed before every voter runs software of that level. The same of work:
a server whose software cannot read an order is not given it. A new field of a command, or of what it is made of, counts as a
new command, unless to leave it away means the same as its empty value: a voter that does not know the field then misses
nothing while it is empty, and stops where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from caso_mesh.model.bandwidth import CLOSED
from caso_mesh.model.states import DataLocation

#: What this software understands.
FEATURE_LEVEL = 6
#: Commands that came after level 1, by their tag.
SINCE: Mapping[str, int] = {
    "put-logon": 2,
    "grant-logon": 2,
    "delete-logon": 2,
    "set-data-location": 2,
    "set-device-paths": 2,
    "retire-medium": 2,
    "copy-to": 2,
    "note-copy": 2,
    "set-mail-server": 3,
    "put-recipient": 3,
    "delete-recipient": 3,
    "put-recipient-group": 3,
    "delete-recipient-group": 3,
    "put-notice-rule": 3,
    "delete-notice-rule": 3,
    "put-report-schedule": 3,
    "delete-report-schedule": 3,
    "note-report": 3,
    "import-device": 4,
    "note-imported": 4,
    "begin-erase": 4,
    "revoke-token": 6,
    "remember-call": 6,
}
#: Work that names logon information.
_LOGONS = 2
#: Kinds of jobs and types of templates that came after level 1.
KINDS: Mapping[str, int] = {"synthetic": 2, "inventory": 4, "erase": 4, "catalog": 5}
#: The level of backups to two devices.
_SECOND = 2
#: The level of media that close at a size.
_SIZED = 2
#: The level of logons that all voters may use.
_VOTERS = 3
#: Settings that came after level 1, by name.
SETTINGS: Mapping[str, int] = {"catalog-mode": 3}
#: The level of restores of paths by the thousand.
_SELECTION = 3
#: The level of device and media data on a server.
_DATA_ON_SERVER = 3
#: The level of work with sets of another mesh, and of devices that came from one.
_IMPORTED = 4
#: The level of hours in which a server sends nothing.
_CLOSED_HOURS = 5
#: The level at which an anchor says which certificates are above it.
ANCHORS_ABOVE = 6
#: The level of restores that read a copy of the set that their job names.
READS_COPY = 5


class SetFeatureLevel(Struct, frozen=True, tag="set-feature-level", tag_field="do"):
    """Every voter runs software of at least this level. It never falls."""

    level: int


def level_of(command: Struct) -> int:
    """The level that a command came with; of several in one step the highest."""
    inner = getattr(command, "commands", ())
    job, policy = getattr(command, "job", None), getattr(command, "policy", None)
    spec = getattr(job, "spec", None) or getattr(command, "spec", None)
    levels = [SINCE.get(str(command.__struct_config__.tag), 1), 1 if spec is None else level_of_work(spec)]
    sized = getattr(getattr(command, "media_set", None), "medium_bytes", None)
    levels.append(1 if sized is None else _SIZED)
    levels.append(_VOTERS if getattr(getattr(command, "logon", None), "voters", False) else 1)
    if command.__struct_config__.tag == "set-setting":
        levels.append(SETTINGS.get(str(getattr(command, "name", "")), 1))
        levels.append(_CLOSED_HOURS if CLOSED in str(getattr(command, "value", "")).lower() else 1)
    if getattr(command, "location", None) is DataLocation.SERVER:
        levels.append(_DATA_ON_SERVER)
    if command.__struct_config__.tag == "set-device-paths" and getattr(command, "copies", None):
        levels.append(_IMPORTED)
    if getattr(getattr(command, "attempt", None), "set", ""):
        levels.append(READS_COPY)
    for template in getattr(policy, "templates", ()):
        levels += [KINDS.get(str(template.type), 1), _SECOND if template.second is not None else 1]
    return max([*levels, _SECOND if getattr(command, "second", None) is not None else 1, *map(level_of, inner)])


def level_of_work(spec: Struct) -> int:
    """The level that a job with this spec needs, at the servers that do it, too."""
    backup = getattr(spec, "backup", spec)
    sources = getattr(backup, "sources", ())
    logons = getattr(backup, "logon", None) or any(getattr(source, "logons", ()) for source in sources)
    second = _SECOND if getattr(backup, "second", None) is not None else 1
    selection = _SELECTION if getattr(backup, "selection", b"") else 1
    foreign = _IMPORTED if getattr(backup, "foreign", False) else 1
    return max(KINDS.get(str(spec.__struct_config__.tag), 1), _LOGONS if logons else 1, second, selection, foreign)
