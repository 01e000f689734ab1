"""The feature level: what all voters of a mesh understand of the replicated log.

A voter that meets a command it does not know stops applying, since a state without it would be another one. So a
command that came with a later level is not proposed before every voter runs software of that level.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

#: What this software understands.
FEATURE_LEVEL = 1
#: Commands that came after level 1, by their tag.
SINCE: Mapping[str, int] = {}


class SetFeatureLevel(Struct, frozen=True, tag="set-feature-level", tag_field="do"):
    """Every voter runs software of at least this level. It never falls."""

    level: int


def level_of(command: Struct) -> int:
    """The level that a command came with; of several in one step the highest."""
    inner = getattr(command, "commands", ())
    return max([SINCE.get(str(command.__struct_config__.tag), 1), *map(level_of, inner)])
